"""The run lock, shared with os-refresh-config."""

import fcntl
import os
import pathlib
import re
import subprocess
import sys

import pytest

from refresh_agent import lock
from refresh_agent.errors import ExitCode, LockedError, StateError
from tests.unit.support import open_descriptors


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "run.lock"


def test_while_it_is_held_the_file_tells_pid_and_start_time(path: pathlib.Path) -> None:
    """os-refresh-config writes them too, but never flushes: its file is empty while it is held."""
    with lock.held(str(path)):
        text = path.read_text()
        assert f"pid=={os.getpid()} " in text
        assert re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", text)
    assert path.read_text() == ""


def test_a_second_one_is_told_who_holds_it(path: pathlib.Path) -> None:
    with lock.held(str(path)), pytest.raises(LockedError, match=f"pid=={os.getpid()}") as caught:
        lock.held(str(path)).__enter__()
    assert str(path) in str(caught.value)
    assert caught.value.exit_code is ExitCode.LOCKED == 11


def test_os_refresh_configs_lock_counts(path: pathlib.Path) -> None:
    with path.open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(LockedError, match=r"is held by another refresh$"):
            lock.held(str(path)).__enter__()
    with lock.held(str(path)):
        pass


def test_os_refresh_config_is_kept_out_by_ours(path: pathlib.Path) -> None:
    with lock.held(str(path)), path.open("w") as theirs, pytest.raises(BlockingIOError):
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_it_is_released_and_says_so_after_an_error(path: pathlib.Path) -> None:
    before = open_descriptors()
    with pytest.raises(ZeroDivisionError), lock.held(str(path)):
        raise ZeroDivisionError
    assert path.read_text() == ""
    with lock.held(str(path)):
        pass
    assert open_descriptors() == before


def test_a_child_that_outlives_us_cannot_keep_it(path: pathlib.Path) -> None:
    with lock.held(str(path)):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with lock.held(str(path)):
            pass
    finally:
        child.kill()
        child.wait()


def test_an_attempt_that_fails_leaves_no_descriptor_open(path: pathlib.Path) -> None:
    with lock.held(str(path)):
        before = open_descriptors()
        for _ in range(5):
            with pytest.raises(LockedError):
                lock.held(str(path)).__enter__()
        assert open_descriptors() == before


@pytest.mark.parametrize("kind", ["missing directory", "directory", "link"])
def test_a_lock_file_that_cannot_be_opened_is_named_with_its_option(path: pathlib.Path, kind: str) -> None:
    if kind == "missing directory":
        path /= "deeper"
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")  # in a directory that others may write to, it could lead anywhere
    with pytest.raises(StateError, match=r"see \[DEFAULT\] lock_file") as caught:
        lock.held(str(path)).__enter__()
    assert str(path) in str(caught.value)


def test_others_may_read_who_holds_it(path: pathlib.Path) -> None:
    with lock.held(str(path)):
        assert path.stat().st_mode & 0o777 == 0o644


def test_bytes_of_another_holder_that_are_no_text_do_not_matter(path: pathlib.Path) -> None:
    with path.open("wb") as theirs:
        theirs.write(b"\xff\xfe pid 7")
        theirs.flush()
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="pid 7"):
            lock.held(str(path)).__enter__()


# --- looking ---------------------------------------------------------------------------------------------


def test_whether_anybody_holds_it_is_seen_without_changing_the_file(path: pathlib.Path) -> None:
    assert not lock.is_held(str(path))
    assert not path.exists()
    path.write_text("Locked by pid==1 at some time\n")
    assert not lock.is_held(str(path))
    with path.open() as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        assert lock.is_held(str(path))
    assert path.read_text() == "Locked by pid==1 at some time\n"


def test_a_look_never_turns_away_who_wants_it_just_then(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    monkeypatch.setattr("fcntl.flock", lambda *_: pytest.fail("the lock was touched"))
    assert not lock.is_held(str(path))


LINES = [
    "1: FLOCK  ADVISORY  {} 4711 {} 0 EOF",
    "1: -> FLOCK  ADVISORY  {} 4711 {} 0 EOF",
    "1: POSIX  ADVISORY  {} 4711 {} 0 EOF",
    "1: FLOCK",
    "",
]


@pytest.mark.parametrize(("kind", "line", "held"), [("WRITE", LINES[0], True), ("READ", LINES[0], False)])
def test_of_the_kernels_list_only_an_exclusive_flock_on_this_file_counts(
    path: pathlib.Path, kind: str, line: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    status = path.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    table = path.with_name("locks")
    monkeypatch.setattr(lock, "LOCKS", str(table))
    others = [line.format("WRITE", place) for line in LINES[1:]]
    table.write_text("\n".join([LINES[0].format("WRITE", f"{place}0"), *others, line.format(kind, place)]))
    assert lock.is_held(str(path)) is held


def test_where_the_kernel_lists_none_an_agents_lock_is_seen_all_the_same(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, say: os-refresh-config's is not."""
    monkeypatch.setattr(lock, "LOCKS", str(path.with_name("missing")))
    assert not lock.is_held(str(path))
    with lock.held(str(path)):
        assert lock.is_held(str(path))
    assert not lock.is_held(str(path))


@pytest.mark.parametrize("told", ["", "0123abcd"])
def test_an_agents_lock_tells_which_one_and_is_told_from_os_refresh_configs(
    path: pathlib.Path, told: str
) -> None:
    assert lock.agent(str(path)) is None
    with lock.held(str(path), told):
        assert lock.agent(str(path)) == told
        assert lock.is_held(str(path))
        assert path.read_text().endswith(f"(refresh-agent {told})\n" if told else "(refresh-agent)\n")
    assert lock.agent(str(path)) is None
    with path.open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        assert lock.is_held(str(path))
        assert lock.agent(str(path)) is None


def test_what_a_killed_agent_has_left_in_the_file_is_not_believed(path: pathlib.Path) -> None:
    code = f"import os\nfrom refresh_agent import lock\nwith lock.held({str(path)!r}):\n    os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 9
    assert "(refresh-agent)" in path.read_text()
    assert lock.agent(str(path)) is None
    # Its pid is another process's now.
    path.write_text(f"Locked by pid=={os.getpid()} at some time (refresh-agent)\n")
    assert lock.agent(str(path)) is None
