"""The EC2 metadata service: listings within listings."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from refresh_agent.collectors import config_drive, ec2
from refresh_agent.model import Document, MetadataLimits, Snapshot
from tests.integration import bad_server as bad
from tests.unit.support import LIMITS


@pytest.fixture
def server() -> Iterator[bad.Listener]:
    with bad.listening() as listener:
        listener.behave = bad.status(404)
        yield listener


@pytest.fixture(autouse=True)
def drive(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is on the config drive; none if empty. The drive itself has its own tests."""
    found: list[bytes] = []

    def read(name: str, _limits: MetadataLimits) -> Document:
        if not found:
            raise config_drive.DriveError("there is none", absent=True)
        return Document(name, found[0], origin="/dev/x")

    monkeypatch.setattr(config_drive, "read", read)
    return found


def collector(url: str, limits: MetadataLimits = LIMITS, timeout: float = 1.0) -> ec2.Ec2:
    options = {"metadata_url": f"{url}/latest/meta-data", "timeout": timeout, "deployment_key": ["d"]}
    return ec2.build(options, limits)


def tree(server: bad.Listener, texts: dict[str, str]) -> None:
    server.behaviours = {f"/latest/meta-data/{path}": bad.good(text.encode()) for path, text in texts.items()}


def content_of(snapshot: Snapshot) -> Any:
    assert snapshot.error == ""
    return json.loads(snapshot.documents[0].raw or b"")


TREE = {
    "": "ami-id\nblock-device-mapping/\npublic-keys/\nempty/\nhostname",
    "ami-id": "ami-1",
    "hostname": "server-1.novalocal",
    "block-device-mapping/": "ami\nroot\n",
    "block-device-mapping/ami": "vda",
    "block-device-mapping/root": "/dev/vda",
    "public-keys/": "0=my=key",
    "public-keys/0/": "openssh-key",
    "public-keys/0/openssh-key": "ssh-rsa AAAA é\n",
    "empty/": "",
}


def test_the_whole_tree_is_read(server: bad.Listener) -> None:
    tree(server, TREE)
    source = collector(server.url)
    snapshot = source.collect()
    assert content_of(snapshot) == {
        "ami-id": "ami-1",
        "block-device-mapping": {"ami": "vda", "root": "/dev/vda"},
        "public-keys": {"0": {"openssh-key": "ssh-rsa AAAA é\n"}},
        "empty": {},
        "hostname": "server-1.novalocal",
    }
    assert (snapshot.documents[0].name, snapshot.deployment_keys) == ("ec2", ("d",))
    assert len(server.seen) == len(TREE)
    assert {seen.connection for seen in server.seen} == {1}
    source.close()


def test_it_is_looked_at_again_every_hour_and_not_kept_for_ever(server: bad.Listener) -> None:
    source = collector(server.url)
    assert source.every == ec2.Ec2.every == 3600
    for name in ("one", "two"):
        tree(server, {"": "hostname", "hostname": name})
        assert content_of(source.collect()) == {"hostname": name}


def test_the_config_drive_comes_first(server: bad.Listener, drive: list[bytes]) -> None:
    drive.append(b'{"instance-id": "i-1"}')
    tree(server, TREE)
    assert collector(server.url).collect() == Snapshot(
        "ec2", (Document("ec2", drive[0], origin="/dev/x"),), deployment_keys=("d",)
    )
    assert server.seen == []


def test_disks_are_not_woken_at_every_poll_for_a_drive_that_is_not_there(
    server: bad.Listener, drive: list[bytes]
) -> None:
    tree(server, {"": "a", "a": "b"})
    source = collector(server.url)
    assert content_of(source.collect()) == {"a": "b"}
    drive.append(b'{"instance-id": "i-1"}')
    assert content_of(source.collect()) == {"a": "b"}


@pytest.mark.parametrize("content", [b"rubbish", b"{}", b"[]"])
def test_a_drive_without_metadata_is_passed_over(
    server: bad.Listener, drive: list[bytes], content: bytes
) -> None:
    drive.append(content)
    tree(server, {"": "a", "a": "b"})
    assert content_of(collector(server.url).collect()) == {"a": "b"}


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        ("", "the listing is empty"),
        ("\n \n", "the listing is empty"),
        ("../", "the listing has an entry that is no name"),
        ("a\n..", "the listing has an entry that is no name"),
        ("/etc/passwd", "the listing has an entry that is no name"),
        ("a/b", "the listing has an entry that is no name"),
        ("/", "the listing has an entry that is no name"),
        ("=x", "the listing has an entry that is no name"),
    ],
)
def test_a_listing_that_is_none_is_told(server: bad.Listener, listing: str, words: str) -> None:
    """os-collect-config defect 5: an empty listing ends it with an IndexError."""
    tree(server, {"": listing, "a": "b"})
    assert collector(server.url).collect().error == f"GET {server.url}/latest/meta-data/: {words}"


def test_a_tree_without_end_is_not_followed(server: bad.Listener) -> None:
    server.behave = bad.good(b"again/")
    assert "nests deeper than [limits] metadata_depth (64)" in collector(server.url).collect().error
    assert len(server.seen) == 64


def test_a_tree_of_endless_width_is_not_followed(
    server: bad.Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ec2, "MOST_REQUESTS", 20)
    server.behave = bad.good("\n".join(f"{n}/" for n in range(5)).encode())
    assert "has more than 20 entries" in collector(server.url).collect().error
    assert len(server.seen) == 20


def test_the_texts_together_are_limited(server: bad.Listener) -> None:
    tree(server, {"": "a\nb", "a": "x" * 600, "b": "x" * 600})
    error = collector(server.url, MetadataLimits(1000, 64)).collect().error
    assert "is larger than [limits] metadata_bytes" in error


def test_a_slow_tree_ends(server: bad.Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ec2, "MOST_TIME", 0.5)

    def behave(handler: bad.Handler) -> None:
        handler.server.stopping.wait(0.1)
        handler.give(b"again/")

    server.behave = behave
    assert "is not complete after 0.5 s; given up" in collector(server.url).collect().error
    assert len(server.seen) <= 7


def test_names_go_into_the_url_as_they_are(server: bad.Listener) -> None:
    tree(server, {"": "a b\nc?d\ne#f", "a%20b": "1", "c%3Fd": "2", "e%23f": "3"})
    assert content_of(collector(server.url).collect()) == {"a b": "1", "c?d": "2", "e#f": "3"}


def test_a_node_outside_of_a_cloud_has_no_such_source(
    server: bad.Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ec2, "METADATA_URL", f"{server.url}/latest/meta-data")
    source = ec2.build({"metadata_url": None, "timeout": 1.0}, LIMITS)
    assert source.collect().absent
    assert source.every == 0  # its network may not have been up yet
    tree(server, {"": "a", "a": "b"})
    assert content_of(source.collect()) == {"a": "b"}
    assert source.every == 3600
