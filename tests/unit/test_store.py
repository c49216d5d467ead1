"""The index of a source: what was changed in it since it was written is noticed."""

import hashlib
import json
import pathlib

import pytest

from refresh_agent.errors import ExitCode, StateError
from refresh_agent.model import MetadataLimits
from refresh_agent.store import Kept, Store

DIGEST = "0" * 64
KEPT = Kept(deployment_keys=("deployments",), secrets=((DIGEST, ("open-sesame",)),))


def store(directory: pathlib.Path) -> Store:
    return Store(str(directory), "heat", MetadataLimits())


@pytest.fixture
def index(tmp_path: pathlib.Path) -> pathlib.Path:
    first = store(tmp_path)
    with first.changing():
        first.save(KEPT)
    return tmp_path / "heat.json"


def sealed(rest: bytes) -> bytes:
    return b'{"sha256": "%b",\n%b' % (hashlib.sha256(rest).hexdigest().encode(), rest)


def test_what_was_written_is_read_again_and_is_json(index: pathlib.Path) -> None:
    assert store(index.parent).kept == KEPT
    assert json.loads(index.read_bytes())["version"] == 1


def test_a_single_bit_that_is_turned_anywhere_is_noticed_or_makes_no_difference(
    index: pathlib.Path, log: pytest.LogCaptureFixture
) -> None:
    """In the digest's own line it may be taken for an index that an earlier agent wrote, without one."""
    raw = index.read_bytes()
    first_line = raw.index(b"\n")
    for place in range(len(raw)):
        index.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :])
        kept = store(index.parent).kept
        assert kept == Kept() or (kept == KEPT and place < first_line), place
    assert f"{index} is damaged; the source is collected as for the first time" in log.text


def test_that_of_an_earlier_agent_has_no_digest(index: pathlib.Path) -> None:
    told = json.loads(index.read_bytes())
    del told["sha256"]
    index.write_text(json.dumps(told, indent=1))
    assert store(index.parent).kept == KEPT


def test_that_of_a_newer_agent_is_left_alone_if_it_is_whole(index: pathlib.Path) -> None:
    rest = index.read_bytes().partition(b"\n")[2].replace(b'"version": 1', b'"version": 2')
    index.write_bytes(sealed(rest))
    with pytest.raises(StateError, match="is of version 2, made by a newer agent") as caught:
        store(index.parent)
    assert str(index) in str(caught.value)
    assert caught.value.exit_code is ExitCode.STATE
    index.write_bytes(b"{\n" + rest)
    assert store(index.parent).kept == Kept()
