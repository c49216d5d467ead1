"""Whether a daemon lives, and what it tells of itself."""

import fcntl
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent import presence
from refresh_agent.presence import Daemon, Presence
from tests.unit.support import NUMBERS, json_values, looping_link, open_descriptors


@pytest.fixture
def state(tmp_path: pathlib.Path) -> str:
    return str(tmp_path)


def daemon(started: float = 1000.0) -> Presence:
    return Presence(lambda: started)


def test_a_daemon_that_lives_is_seen_with_what_it_tells(state: str) -> None:
    here = daemon()
    here.begin(state)
    assert presence.read(state) == Daemon()
    here.tell("waiting for a change")
    assert presence.read(state) == Daemon(os.getpid(), 1000.0, "waiting for a change")
    here.tell("failed", 30.0)
    assert presence.read(state) == Daemon(os.getpid(), 1000.0, "failed", 1030.0)
    assert os.stat(presence.path_in(state)).st_mode & 0o777 == 0o600
    here.end()
    assert presence.read(state) is None


def test_before_it_begins_and_after_its_end_nothing_is_told(state: str) -> None:
    here = daemon()
    here.tell("x")
    here.move(state)
    here.end()
    assert os.listdir(state) == []


def test_what_a_dead_daemon_has_left_is_not_believed(state: str) -> None:
    code = (
        "import os\nfrom refresh_agent.presence import Presence\n"
        f"here = Presence()\nhere.begin({state!r})\nhere.tell('alive')\nos._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 9
    assert json.loads(pathlib.Path(presence.path_in(state)).read_text())["doing"] == "alive"
    assert presence.read(state) is None
    daemon().begin(state)


def test_the_second_daemon_is_told_of_the_first_and_goes_on(
    state: str, log: pytest.LogCaptureFixture
) -> None:
    first, second = daemon(1.0), daemon(2.0)
    first.begin(state)
    first.tell("first")
    second.begin(state)
    second.tell("second")
    assert f"another daemon (pid {os.getpid()})" in log.text
    found = presence.read(state)
    assert found is not None
    assert found.doing == "first"
    first.end()
    second.tell("second")  # now it is the only one
    assert presence.read(state) == Daemon(os.getpid(), 2.0, "second")
    second.end()


def test_a_look_at_the_wrong_moment_is_not_another_daemon(
    state: str, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pathlib.Path(presence.path_in(state))
    path.touch()
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr("time.sleep", lambda _seconds: fcntl.flock(looking, fcntl.LOCK_UN))
        here = daemon()
        here.begin(state)
        here.tell("x")
    assert not log.records[1:]
    assert presence.read(state) is not None
    here.end()


def test_it_moves_with_the_state_directory(tmp_path: pathlib.Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    here = daemon()
    here.begin(str(old))
    here.move(str(old))
    here.move(str(new))
    here.tell("x")
    assert presence.read(str(old)) is None
    assert presence.read(str(new)) is not None
    here.end()


def test_a_file_that_was_removed_is_made_anew(state: str) -> None:
    here = daemon()
    here.begin(state)
    os.unlink(presence.path_in(state))
    here.tell("x")
    assert presence.read(state) == Daemon(os.getpid(), 1000.0, "x")
    here.end()


def test_a_disk_that_cannot_be_written_to_fails_nothing(
    tmp_path: pathlib.Path, log: pytest.LogCaptureFixture
) -> None:
    looping_link(tmp_path / "daemon.json")
    before = open_descriptors()
    here = daemon()
    here.begin(str(tmp_path))
    here.tell("x")
    here.end()
    assert presence.read(str(tmp_path)) is None
    assert {record.levelname for record in log.records} == {"DEBUG"}
    assert open_descriptors() == before


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}', json.dumps(dict.fromkeys(Daemon._fields, 10**400))],
)
def test_a_daemon_whose_words_are_damaged_lives_all_the_same(state: str, content: str) -> None:
    here = daemon()
    here.begin(state)
    pathlib.Path(presence.path_in(state)).write_text(content)
    assert presence.read(state) == Daemon()
    here.end()


def test_a_shorter_text_leaves_nothing_of_a_longer_one(state: str) -> None:
    here = daemon()
    here.begin(state)
    for text in ("x" * 10_000, "\ud800 not a character", "short"):
        here.tell(text)
        found = presence.read(state)
        assert found is not None
        assert found.doing == text[: presence.LONGEST]
    here.end()


@given(st.fixed_dictionaries(dict.fromkeys(Daemon._fields, json_values() | NUMBERS)) | json_values())
def test_whatever_the_file_says_the_daemon_lives(content: Any) -> None:
    with tempfile.TemporaryDirectory() as state:
        here = daemon()
        here.begin(state)
        pathlib.Path(presence.path_in(state)).write_text(json.dumps(content))
        assert isinstance(presence.read(state), Daemon)
        here.end()


def test_looks_all_the_time_do_not_keep_a_daemon_from_being_seen(state: str) -> None:
    """Each look takes the lock for a moment; the daemon takes it when it next has something to tell."""
    path = pathlib.Path(presence.path_in(state))
    path.touch()
    here = daemon()
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        here.begin(state)
        here.tell("not heard")
    assert presence.read(state) is None
    here.tell("heard")
    assert presence.read(state) == Daemon(os.getpid(), 1000.0, "heard")
    here.end()
