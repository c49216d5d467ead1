"""A journal that is damaged is set aside, and everything is run once more; nothing else is a damage."""

import contextlib
import errno
import itertools
import os
import pathlib
import sqlite3
from collections.abc import Callable

import pytest

from refresh_agent import journal_file
from refresh_agent.errors import DamagedError, StateError
from refresh_agent.journal import HookRecord, Journal, sound
from refresh_agent.model import History, RunOutcome, StartedHook
from tests.reliability.faults import Faults, Killed
from tests.unit.journals import FAILURE, A, B, corrupt, decision


@pytest.fixture
def state(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state"


def change(path: pathlib.Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def lose_the_last_byte(path: pathlib.Path) -> None:
    """It is of an index, which ends with the last row's number."""
    path.write_bytes(path.read_bytes()[:-1])


def forbid_writing(path: pathlib.Path) -> None:
    """By the version of the format, in its header."""
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\x7f")


DAMAGES: dict[str, Callable[[pathlib.Path], object]] = {
    "no database": lambda path: corrupt(path, "no database"),
    "pages overwritten": lambda path: corrupt(path, "pages overwritten"),
    "a table gone": lambda path: change(path, "DROP TABLE workers"),
    "a column gone": lambda path: change(path, "ALTER TABLE runs DROP COLUMN failures"),
    "documents that are no JSON": lambda path: change(path, "UPDATE runs SET documents = 'x'"),
    "documents of another shape": lambda path: change(path, "UPDATE runs SET documents = '[7]'"),
    "text that is not UTF-8": lambda path: change(
        path, "UPDATE committed SET document = CAST(x'ff' AS TEXT) WHERE position = 0"
    ),
    "a time that is no number": lambda path: change(
        path, "UPDATE runs SET quiesced_since = 'x', activated_at = NULL"
    ),
    "a version that nobody wrote": lambda path: change(path, "PRAGMA user_version = 99"),
    "a version below none": lambda path: change(path, "PRAGMA user_version = -5"),
    "an earlier version": lambda path: change(path, "PRAGMA user_version = 1"),
    "no version": lambda path: change(path, "PRAGMA user_version = 0"),
    "the last byte lost": lose_the_last_byte,
    "nothing in it": lambda path: os.truncate(path, 0),
}


def leave_failed(state: pathlib.Path) -> pathlib.Path:
    """A is committed, B has failed."""
    with contextlib.closing(Journal(str(state))) as journal:
        journal.commit(journal.begin(decision(), A), A)
        journal.fail(journal.begin(decision(), B), RunOutcome.HOOK_FAILED, FAILURE)
    return state / "journal.sqlite"


def aside(state: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in state.glob("*.damaged-*") if not path.name.endswith(("-wal", "-shm")))


def known(state: pathlib.Path) -> History:
    with sound(str(state)) as journal:
        return journal.history()


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_journal_is_set_aside_with_its_name_in_the_log_and_nothing_is_known(
    state: pathlib.Path, log: pytest.LogCaptureFixture, kind: str
) -> None:
    path = leave_failed(state)
    DAMAGES[kind](path)
    content = path.read_bytes()
    assert known(state) == History()
    assert [left.read_bytes() for left in aside(state)] == ([content] if content else [])
    for left in aside(state):
        assert f"it is set aside as {left}, and everything is run once more" in log.text
    with sound(str(state)) as journal:
        journal.commit(journal.begin(decision(), B), B)
    assert known(state) == History(B)
    assert len(aside(state)) == bool(content)


def test_a_file_that_says_that_it_must_not_be_written_to_is_damaged(state: pathlib.Path) -> None:
    """Whoever could not write to it could not have opened it."""
    forbid_writing(leave_failed(state))
    with pytest.raises(DamagedError), sound(str(state)) as journal:
        journal.begin(decision(), A)
    assert known(state) == History()
    assert len(aside(state)) == 1


@pytest.mark.parametrize("kind", ["directory", "loop", "link", "newer"])
def test_what_is_not_damaged_but_cannot_be_used_stays_where_it_is(state: pathlib.Path, kind: str) -> None:
    path = leave_failed(state)
    corrupt(path, kind)
    before = sorted(os.listdir(state))
    with pytest.raises(StateError) as caught, sound(str(state)):
        pass
    assert not isinstance(caught.value, DamagedError)
    assert str(path) in str(caught.value)
    assert sorted(os.listdir(state)) == before


def leave_killed(state: pathlib.Path) -> pathlib.Path:
    """A is committed, and an agent was killed in B: that is only in SQLite's companion file."""
    path = leave_failed(state)
    faults = Faults()
    journal = Journal(str(state), faults.edge("a dead agent", "a boot"))
    journal.begin(decision(), B, quiesces="pre-configure")
    with contextlib.suppress(Killed):
        faults.kill()
    with pytest.raises(Killed):
        journal.close()
    return path


def test_sqlites_own_files_are_set_aside_beside_it(state: pathlib.Path) -> None:
    path = leave_killed(state)
    kept = {suffix: path.with_name(path.name + suffix).read_bytes() for suffix in ("", "-wal")}
    assert all(kept.values())
    moved = journal_file.set_aside(str(state), 0.0)
    assert {suffix: pathlib.Path(moved + suffix).read_bytes() for suffix in kept} == kept
    assert not path.exists()


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_an_agent_that_is_killed_while_it_sets_it_aside_leaves_nothing_that_looks_whole(
    state: pathlib.Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    """Without what only the companion knows, B would seem never to have been tried."""
    leave_killed(state)
    rename, left = os.rename, itertools.count(renamed, -1)

    def dying(source: str, target: str) -> None:
        if next(left) <= 0:
            raise Killed
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", dying)
        with pytest.raises(Killed):
            journal_file.set_aside(str(state), 0.0)
    told = known(state)
    if renamed:
        assert told == History()
    else:
        assert told.quiesced is not None


def test_only_the_newest_of_those_that_were_set_aside_are_kept(state: pathlib.Path) -> None:
    for day in range(6):
        leave_killed(state)
        journal_file.set_aside(str(state), day * 86400.0)
    left = aside(state)
    assert [path.name.partition("damaged-")[2][:8] for path in left] == ["19700104", "19700105", "19700106"]
    assert len(list(state.glob("*.damaged-*-wal"))) == len(left) == journal_file.SETS_KEPT


def test_the_one_that_is_named_in_the_log_is_kept_also_if_the_clock_was_set_back(state: pathlib.Path) -> None:
    for day in (9, 8, 7, 1):
        leave_killed(state)
        last = journal_file.set_aside(str(state), day * 86400.0)
    assert pathlib.Path(last) in aside(state)
    assert len(aside(state)) == journal_file.SETS_KEPT


def test_one_that_cannot_be_set_aside_is_a_state_error_that_names_it(
    state: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = leave_failed(state)
    corrupt(path, "no database")

    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), source, None, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(StateError, match="cannot be set aside: Read-only file system") as caught:
        known(state)
    assert str(path) in str(caught.value)


def test_damage_that_is_found_in_the_middle_sets_it_aside_at_the_end(
    state: pathlib.Path, log: pytest.LogCaptureFixture
) -> None:
    leave_failed(state)
    with sound(str(state)) as journal:
        run = journal.begin(decision(), B)
        change(state / "journal.sqlite", "DROP TABLE hooks")
        started = StartedHook("configure", "10-a", "id", 1)
        with pytest.raises(DamagedError):
            journal.record_hooks(run, [HookRecord(1, 1.0, started)])
        assert journal.damaged
        assert aside(state) == []
    assert len(aside(state)) == 1
    assert str(aside(state)[0]) in log.text
    assert known(state) == History()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY])
def test_a_disk_that_fails_is_no_damage(state: pathlib.Path, code: int) -> None:
    leave_failed(state)
    error = sqlite3.OperationalError("the disk")
    error.sqlite_errorcode = code
    with (
        pytest.raises(StateError) as caught,
        sound(str(state)) as journal,
        journal._file.explained("written"),
    ):
        raise error
    assert not isinstance(caught.value, DamagedError)
    assert known(state).committed == A
    assert aside(state) == []
