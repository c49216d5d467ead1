"""Every source over HTTP against a server that misbehaves: told clearly, soon over, and then forgotten.

Heat is reached through a Keystone of the tests: a real one cannot be made to misbehave.
"""

import os
import pathlib
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from refresh_agent import metadata
from refresh_agent.collectors import Polled, cfn, config_drive, ec2, heat, request
from refresh_agent.model import MetadataLimits, Snapshot
from tests.integration import bad_server as bad
from tests.unit.support import open_descriptors

LIMITS = MetadataLimits(bytes=2**20, depth=64)
TIMEOUT = 5.0
SHORT = 0.5
"""Seconds, where it has to run out."""
SECRETS = ("the password", "the secret key", "AKID", "the-signature", "Signature", "token-", "user:")


class Kind(NamedTuple):
    """A source: how to build it on a server, what a good answer is, which group and options messages name."""

    name: str
    build: Callable[[str, dict[str, object]], Polled]
    good: bytes
    credentials: str


def _common(more: dict[str, object]) -> dict[str, object]:
    return {
        "timeout": TIMEOUT,
        "deployment_key": ("deployments",),
        "ca_file": None,
        "insecure": False,
        **more,
    }


def _request(url: str, more: dict[str, object]) -> Polled:
    options = {"metadata_url": f"{url}/container/object?temp_url_sig=the-signature"}
    return request.build(_common(options | more), LIMITS)


def _ec2(url: str, more: dict[str, object]) -> Polled:
    return ec2.build(_common({"metadata_url": f"{url}/latest/meta-data"} | more), LIMITS)


def _cfn(url: str, more: dict[str, object]) -> Polled:
    options = {
        "metadata_url": f"{url}/v1/",
        "stack_name": "stack-1",
        "path": ["server.Metadata"],
        "access_key_id": "AKID",
        "secret_access_key": "the secret key",
    }
    return cfn.build(_common(options | more), LIMITS)


def _heat(url: str, more: dict[str, object]) -> Polled:
    options = {
        "auth_url": url,
        "user_id": "user-1",
        "password": "the password",
        "project_id": "project-1",
        "stack_id": "stack-1/uuid-1",
        "resource_name": "server",
    }
    return heat.build(_common(options | more), LIMITS)


KINDS = [
    Kind("request", _request, b'{"a": 1}', "metadata_url (its signature may have expired) in [request]"),
    Kind("ec2", _ec2, b"", "metadata_url in [ec2]"),
    Kind("cfn", _cfn, bad.cfn_answer('{"a": 1}'), "access_key_id and secret_access_key in [cfn]"),
    Kind("heat", _heat, b'{"metadata": {"a": 1}}', "user_id, password and project_id in [heat]"),
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])


@pytest.fixture(autouse=True)
def _no_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may have one."""
    monkeypatch.setattr(config_drive, "LABEL", "a label that no disk has")


@pytest.fixture
def server() -> Iterator[bad.Listener]:
    with bad.listening() as listener:
        bad.FakeKeystone(listener)
        yield listener


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bad.Certificate]:
    return {
        "self-signed": bad.self_signed(tmp_path_factory.mktemp("self-signed")),
        "expired": bad.expired(tmp_path_factory.mktemp("expired")),
    }


def well(kind: Kind) -> bad.Behaviour:
    """What the server does when nothing is wrong."""
    if kind.name != "ec2":
        return bad.good(kind.good)
    return lambda handler: handler.give(b"a" if handler.path.endswith("/") else b"1")


def collected(collector: Polled, timeout: float = TIMEOUT) -> Snapshot:
    """With all that holds whatever the server does."""
    began = time.monotonic()
    snapshot = collector.collect()
    assert time.monotonic() - began < 6 * timeout + 1, snapshot.error
    problem = problem_of(snapshot)
    for secret in SECRETS:
        assert secret not in problem
    return snapshot


def problem_of(snapshot: Snapshot) -> str:
    return " ".join([snapshot.error, *(document.error for document in snapshot.documents)]).strip()


def content_of(snapshot: Snapshot) -> dict[str, object]:
    assert problem_of(snapshot) == ""
    (document,) = snapshot.documents
    assert document.raw is not None
    return metadata.parse(document.raw, LIMITS)


FAULTS = [
    ("silence", bad.silence, f"timed out: no answer for {SHORT:g} s"),
    ("slow headers", bad.slow_headers, f"timed out: not complete after {6 * SHORT:g} s"),
    ("slow body", bad.slow_body, f"timed out: not complete after {6 * SHORT:g} s"),
    ("reset in the middle", bad.reset, "the server reset the connection"),
    ("closed without a word", bad.closed, "the server closed the connection without an answer"),
    ("wrong Content-Length", bad.too_short, "the answer ends after 8 of 1000 bytes"),
    ("not HTTP", bad.not_http, "the answer is not HTTP"),
    ("100 MB", bad.huge(100 * 2**20), "larger than [limits] metadata_bytes (1048576 bytes) allows"),
    ("no end", bad.endless(), "larger than [limits] metadata_bytes (1048576 bytes) allows"),
    ("gzip bomb", bad.gzip_bomb(100 * 2**20), "larger than [limits] metadata_bytes (1048576 bytes) allows"),
    ("redirect loop", bad.redirect_loop, "redirects without end"),
    ("500", bad.status(500), "answers 500 (internal server error): the server failed; see its log"),
    ("404", bad.status(404), "answers 404 (not found): there is no"),
    ("204", bad.status(204), "answers 204 (no content): not expected"),
    ("304", bad.status(304), "answers 304 (not modified): not expected"),
]


@every_kind
@pytest.mark.parametrize(("behaviour", "words"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_is_told_and_does_not_stay(
    server: bad.Listener, kind: Kind, behaviour: bad.Behaviour, words: str
) -> None:
    timeout = SHORT if "timed out" in words else TIMEOUT
    collector = kind.build(server.url, {"timeout": timeout})
    server.behave = well(kind)
    assert content_of(collected(collector))
    server.behave = behaviour
    snapshot = collected(collector, timeout)
    problem = problem_of(snapshot)
    assert problem.startswith(f"GET {server.url}/"), problem
    assert words in problem
    assert not snapshot.absent
    server.behave = well(kind)
    assert content_of(collected(collector))
    connection = server.seen[-1].connection
    assert content_of(collected(collector))
    assert server.seen[-1].connection == connection
    collector.close()


@every_kind
@pytest.mark.parametrize("code", [401, 403])
def test_a_refusal_names_the_options_to_check(server: bad.Listener, kind: Kind, code: int) -> None:
    collector = kind.build(server.url, {})
    server.behave = bad.status(code)
    assert f"answers {code} " in (problem := problem_of(collected(collector)))
    assert f"check {kind.credentials}" in problem
    collector.close()


@every_kind
@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [("120", 120, 120), ("999999", 3600, 3600), ("soon", 0, 0), ("-5", 0, 0), ("in date form", 590, 601)],
)
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(
    server: bad.Listener, kind: Kind, code: int, asked: str, least: float, most: float
) -> None:
    collector = kind.build(server.url, {})
    server.behave = bad.status(code, bad.http_date(600) if asked == "in date form" else asked)
    snapshot = collected(collector)
    assert f"answers {code} " in snapshot.error
    assert least <= snapshot.retry_after <= most
    collector.close()


@every_kind
def test_a_page_for_people_is_not_taken_for_metadata(server: bad.Listener, kind: Kind) -> None:
    collector = kind.build(server.url, {})
    server.behave = bad.html
    problem = problem_of(collected(collector))
    assert problem.startswith(f"GET {server.url}/")
    assert "HTML or XML, not JSON" in problem or "DOCTYPE" in problem
    collector.close()


def test_xml_cannot_define_entities(server: bad.Listener) -> None:
    collector = _cfn(server.url, {})
    server.behave = bad.good(bad.XML_WITH_ENTITIES)
    snapshot = collected(collector)
    assert snapshot.error == (
        f"GET {server.url}/v1/: server.Metadata: the answer has a DOCTYPE, which could define entities; "
        "refused"
    )
    collector.close()


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name != "ec2"], ids=["request", "cfn", "heat"]
)
def test_a_body_longer_than_its_content_length_is_never_good(server: bad.Listener, kind: Kind) -> None:
    """Of ec2's texts nobody can tell."""

    def behave(handler: bad.Handler) -> None:
        handler.begin(Content_Length=str(len(kind.good) - 1))
        handler.wfile.write(kind.good)

    collector = kind.build(server.url, {})
    server.behave = behave
    snapshot = collected(collector)
    if not problem_of(snapshot):
        (document,) = snapshot.documents
        with pytest.raises(metadata.MetadataError, match="is not JSON"):
            metadata.parse(document.raw or b"", LIMITS)
    server.behave = well(kind)
    assert content_of(collected(collector))
    collector.close()


@every_kind
@pytest.mark.parametrize(
    "behaviour",
    [bad.huge(100 * 2**20), bad.endless(), bad.gzip_bomb(100 * 2**20)],
    ids=["huge", "endless", "bomb"],
)
def test_what_is_too_large_is_not_held(server: bad.Listener, kind: Kind, behaviour: bad.Behaviour) -> None:
    collector = kind.build(server.url, {})
    server.behave = well(kind)
    collector.collect()
    server.behave = behaviour
    tracemalloc.start()
    try:
        snapshot = collector.collect()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "larger than" in snapshot.error
    assert peak < 6 * 2**20  # of this, some is the server's
    collector.close()


@pytest.mark.parametrize("kind", KINDS[2:], ids=["cfn", "heat"])
def test_a_large_document_is_held_once(
    server: bad.Listener, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it comes in an envelope; and nothing of it is left when it is no longer wanted."""
    size = 16 * 2**20
    monkeypatch.setattr("tests.integration.test_http_faults.LIMITS", MetadataLimits(2 * size, 64))
    before, inner_end, after = kind.good.partition(b'"a": 1')
    collector = kind.build(server.url, {})
    server.behave = well(kind)
    collector.collect()

    def behave(handler: bad.Handler) -> None:
        handler.begin(Content_Length=str(len(kind.good) + size))
        handler.wfile.write(before + b" " * (2**20 - len(before)))
        for _ in range(size // 2**20 - 1):
            handler.wfile.write(b" " * 2**20)
        handler.wfile.write(b" " * len(before) + inner_end + after)

    server.behave = behave
    for _ in range(2):
        tracemalloc.start()
        try:
            (document,) = collector.collect().documents
            _, peak = tracemalloc.get_traced_memory()
            assert document.raw is not None
            assert len(document.raw) == size + len(b'{"a": 1}')
            del document
            left, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1.3 * size
        assert left < 2**20
    collector.close()


@every_kind
def test_nothing_listens(kind: Kind) -> None:
    with bad.listening() as listener:
        url = listener.url
    collector = kind.build(url, {})
    snapshot = collected(collector)
    assert f"GET {url}" in snapshot.error
    assert snapshot.error.endswith("the connection is refused: nothing listens there")
    assert snapshot.absent is False
    collector.close()


@every_kind
def test_a_name_that_is_not_known(kind: Kind) -> None:
    collector = kind.build("http://user:secret@no-such-host.invalid", {})
    error = collector.collect().error
    assert "GET http://no-such-host.invalid/" in error or "GET http://no-such-host.invalid:" in error
    assert "the name of the server is not known (" in error
    collector.close()


@every_kind
@pytest.mark.parametrize(
    ("which", "trusted", "words"),
    [
        ("self-signed", False, "name the certificate of its authority in [{group}] ca_file"),
        ("expired", True, "certificate has expired): it has to be renewed on the server"),
    ],
)
def test_a_certificate_that_is_not_good(
    certificates: dict[str, bad.Certificate], kind: Kind, which: str, trusted: bool, words: str
) -> None:
    certificate = certificates[which]
    with bad.listening(certificate) as listener:
        bad.FakeKeystone(listener)
        listener.behave = well(kind)
        collector = kind.build(listener.url, {"ca_file": str(certificate.path) if trusted else None})
        error = collected(collector).error
        assert "the server's certificate is refused (" in error
        assert words.format(group=kind.name) in error
        assert listener.seen == []
        collector.close()


@every_kind
@pytest.mark.parametrize("option", ["ca_file", "insecure"])
def test_a_private_authority_is_trusted_if_told_so(
    certificates: dict[str, bad.Certificate],
    kind: Kind,
    option: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate = certificates["self-signed"]
    value: object = str(certificate.path) if option == "ca_file" else True
    # It would win in requests; what is configured has to.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates["expired"].path))
    with bad.listening(certificate) as listener:
        bad.FakeKeystone(listener)
        listener.behave = well(kind)
        collector = kind.build(listener.url, {option: value})
        assert content_of(collected(collector))
        collector.close()


@every_kind
def test_the_authority_of_the_environment_is_used(
    certificates: dict[str, bad.Certificate], kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = certificates["self-signed"]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
    with bad.listening(certificate) as listener:
        bad.FakeKeystone(listener)
        listener.behave = well(kind)
        collector = kind.build(listener.url, {})
        assert content_of(collected(collector))
        collector.close()


@every_kind
def test_an_authority_file_that_is_not_there_or_holds_none(
    certificates: dict[str, bad.Certificate], kind: Kind, tmp_path: pathlib.Path
) -> None:
    missing = tmp_path / "ca.pem"
    with bad.listening(certificates["self-signed"]) as listener:
        collector = kind.build(listener.url, {"ca_file": str(missing)})
        assert f"[{kind.name}] ca_file: {missing}: does not exist" in collector.collect().error
        missing.write_text("no certificate\n")
        assert f"[{kind.name}] ca_file: {missing}: holds no certificate" in collector.collect().error
        collector.close()


@every_kind
def test_nothing_leaves_a_protected_connection(
    server: bad.Listener, certificates: dict[str, bad.Certificate], kind: Kind
) -> None:
    certificate = certificates["self-signed"]
    server.behave = well(kind)
    with bad.listening(certificate) as listener:
        bad.FakeKeystone(listener)
        listener.behave = bad.redirect(f"{server.url}/elsewhere")
        collector = kind.build(listener.url, {"ca_file": str(certificate.path)})
        error = collected(collector).error
        assert f"redirects from https to {server.url}/elsewhere, which is not protected; refused" in error
        assert server.seen == []
        collector.close()


@every_kind
def test_a_hundred_faults_leave_nothing_open(server: bad.Listener, kind: Kind) -> None:
    collector = kind.build(server.url, {})
    server.behave = bad.in_turn(bad.status(500), bad.reset, bad.closed, bad.too_short, bad.redirect_loop)
    collector.collect()
    before = len(os.listdir("/proc/self/task"))
    for behaviour in [bad.status(500), bad.reset, bad.closed, bad.too_short, bad.redirect_loop] * 20:
        server.behave = behaviour
        assert collector.collect().error
    collector.close()
    assert len(os.listdir("/proc/self/task")) <= before + 2  # the server's


KEYSTONE_FAULTS = [
    ("slow", bad.slow_body, "timed out: not complete after"),
    ("503", bad.status(503, "17"), "answers 503 (service unavailable)"),
    ("404", bad.status(404), "there is no Keystone at this auth_url"),
    ("HTML", bad.html, "does not answer as Keystone does; check [heat] auth_url"),
    ("another JSON", bad.good(b'{"a": []}', 201, X_Subject_Token="x"), "does not answer as Keystone does"),
    ("a list", bad.good(b"[1]", 201, X_Subject_Token="x"), "does not answer as Keystone does"),
    ("no token", bad.good(b"{}", 201), "does not answer as Keystone does"),
    ("too large", bad.huge(100 * 2**20), "larger than"),
]


@pytest.mark.parametrize("path", ["/", "/v3/auth/tokens"])
@pytest.mark.parametrize(
    ("behaviour", "words"), [f[1:] for f in KEYSTONE_FAULTS], ids=[f[0] for f in KEYSTONE_FAULTS]
)
def test_a_keystone_that_misbehaves(
    server: bad.Listener, path: str, behaviour: bad.Behaviour, words: str
) -> None:
    kind = KINDS[-1]
    keystone = server.behaviours[path]
    timeout = SHORT if "timed out" in words else TIMEOUT
    collector = kind.build(server.url, {"timeout": timeout})
    server.behave = well(kind)
    server.behaviours[path] = behaviour
    snapshot = collected(collector, timeout)
    assert words in snapshot.error
    assert server.url in snapshot.error
    assert snapshot.retry_after == (17 if "503" in snapshot.error else 0)
    server.behaviours[path] = keystone
    assert content_of(collected(collector)) == {"a": 1}
    collector.close()


def test_wrong_credentials_are_told_without_showing_them(server: bad.Listener) -> None:
    collector = _heat(server.url, {"password": "another password"})
    error = collected(collector).error
    assert error == (
        f"POST {server.url}/v3/auth/tokens: answers 401 (unauthorized): check user_id, password and "
        "project_id in [heat]"
    )
    collector.close()


def test_descriptors_do_not_grow(server: bad.Listener) -> None:
    before = open_descriptors()
    for kind in KINDS:
        collector = kind.build(server.url, {})
        for behaviour in [well(kind), bad.too_short, bad.status(500)] * 5:
            server.behave = behaviour
            collector.collect()
        collector.close()
    server.stopping.set()
    assert open_descriptors() <= before + 4  # what the server has not noticed yet
