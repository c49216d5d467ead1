"""The file of the durable record: its durability, and who else opens it."""

import contextlib
import os
import pathlib
import shutil
import sqlite3
import threading

import pytest

from refresh_agent import journal_file
from refresh_agent.errors import ExitCode, StateError
from refresh_agent.journal import Boundary, HookRecord, Journal, PhaseEnd
from refresh_agent.model import (
    Ending,
    Exit,
    History,
    HookResult,
    MigrationOutcome,
    MigrationResult,
    RunOutcome,
    StartedHook,
)
from tests.unit.journals import FAILURE, A, B, corrupt, decision, reopened, rows
from tests.unit.support import looping_link, open_descriptors

# --- durability --------------------------------------------------------------------------------------------


class Connection:
    """Notes the value of PRAGMA synchronous at every COMMIT and at every write outside a transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.commits: list[int] = []
        self.single_writes: list[int] = []

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def _level(self) -> int:
        return int(self._db.execute("PRAGMA synchronous").fetchone()[0])

    def execute(self, statement: str, parameters: tuple[object, ...] = ()) -> sqlite3.Cursor:
        if statement == "COMMIT":
            self.commits.append(self._level())
        elif statement.startswith(("INSERT", "UPDATE", "DELETE")) and not self._db.in_transaction:
            self.single_writes.append(self._level())
        return self._db.execute(statement, parameters)

    def executemany(self, statement: str, parameters: list[tuple[object, ...]]) -> sqlite3.Cursor:
        assert self._db.in_transaction
        return self._db.executemany(statement, parameters)

    def close(self) -> None:
        self._db.close()


NORMAL, FULL = 1, 2


def watch(journal: Journal) -> Connection:
    watched = Connection(journal._db)
    journal._db = journal._file.db = watched  # type: ignore[assignment]
    return watched


def test_what_must_survive_a_power_loss_is_written_with_synchronous_full(journal: Journal) -> None:
    watched = watch(journal)
    steps = [
        lambda: journal.record_boundary(run, Boundary(None, "configure")),
        lambda: journal.record_boundary(run, Boundary(PhaseEnd("configure", "done"), "post-configure")),
        lambda: journal.fail(run, RunOutcome.HOOK_FAILED, FAILURE),
        journal.close_interrupted,
    ]
    run = journal.begin(decision(), A)
    assert watched.commits == [FULL]
    watched.commits.clear()
    for number, step in enumerate(steps):
        step()
        assert watched.commits, f"step {number} wrote nothing durably"
        assert set(watched.commits) == {FULL}
        watched.commits.clear()
    assert watched.single_writes == []


def test_the_phase_that_quiesces_the_node_begins_with_the_run_in_one_transaction(journal: Journal) -> None:
    watched = watch(journal)
    run = journal.begin(decision(), A, quiesces="pre-configure")
    assert watched.commits == [FULL]
    assert run.phase == "pre-configure"
    assert rows(journal, "SELECT run, phase, outcome FROM phases") == [(run.row, "pre-configure", None)]
    assert journal.history().quiesced


def test_a_success_is_durable_as_it_is_in_the_file_itself(journal: Journal, tmp_path: pathlib.Path) -> None:
    journal.commit(journal.begin(decision(), A), A)
    assert in_the_file_itself(journal, tmp_path / "one") == History(A)
    journal.fail(journal.begin(decision(), (), quiesces="pre-configure"), RunOutcome.HOOK_FAILED, FAILURE)
    assert journal.history().quiesced
    journal.succeed(journal.begin(decision(), (), quiesces="pre-configure"))
    assert in_the_file_itself(journal, tmp_path / "two") == History(A)


def test_a_success_is_written_with_synchronous_full_while_somebody_reads(
    journal: Journal, tmp_path: pathlib.Path
) -> None:
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (0,)
        run = journal.begin(decision(), A)
        watched = watch(journal)
        journal.commit(run, A)
        assert watched.commits == [NORMAL, FULL]
    assert reopened(journal) == History(A)


def in_the_file_itself(journal: Journal, folder: pathlib.Path) -> History:
    """What is known without SQLite's companions of the file."""
    folder.mkdir()
    shutil.copy(journal.path, folder)
    with contextlib.closing(Journal(str(folder))) as copied:
        return copied.history()


def test_what_happens_in_between_costs_no_fsync(journal: Journal) -> None:
    run = journal.begin(decision(), A)
    watched = watch(journal)
    started = StartedHook("configure", "10-a", "id", 1)
    result = HookResult(started, Exit(0, Ending.EXITED, 0.1))
    journal.record_hooks(run, [HookRecord(1, 1.0, started, result)])
    journal.migrated(run, MigrationResult("shop", MigrationOutcome.DONE))
    assert watched.single_writes == [NORMAL]
    assert watched.commits == [NORMAL]
    assert journal._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_commit_is_all_or_nothing(journal: Journal) -> None:
    journal.commit(journal.begin(decision(), A), A)
    run = journal.begin(decision(), B)
    with pytest.raises(StateError):
        journal.commit(run, (("same", "1"), ("same", "2")))
    assert not journal._db.in_transaction
    assert journal.history() == reopened(journal)
    assert journal.history().committed == A
    assert journal._db.execute("PRAGMA synchronous").fetchone()[0] == NORMAL
    journal.commit(run, B)
    assert reopened(journal) == History(B)


# --- the file ----------------------------------------------------------------------------------------------


def test_only_the_agents_user_can_read_it_whatever_the_umask(state: pathlib.Path) -> None:
    os.umask(0)
    journal = Journal(str(state))
    journal.commit(journal.begin(decision(), A), A)
    assert state.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in state.iterdir()} == {0o600}
    assert {path.name for path in state.iterdir()} >= {"journal.sqlite", "journal.sqlite-wal"}
    journal.close()


@pytest.mark.parametrize(
    "kind", ["no database", "directory", "loop", "link", "tables gone", "pages overwritten", "newer"]
)
def test_a_file_that_cannot_be_used_is_a_state_error_that_names_it(state: pathlib.Path, kind: str) -> None:
    journal = Journal(str(state))
    journal.commit(journal.begin(decision(), A), A)
    journal.close()
    path = state / "journal.sqlite"
    corrupt(path, kind)
    before = open_descriptors()

    def use() -> None:
        journal = Journal(str(state))
        try:
            journal.history()
        finally:
            journal.close()

    with pytest.raises(StateError) as caught:
        use()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code is ExitCode.STATE
    assert open_descriptors() == before


def test_an_empty_file_becomes_a_journal(state: pathlib.Path) -> None:
    """What a crash between making the file and filling it leaves."""
    state.mkdir(mode=0o700)
    (state / "journal.sqlite").touch(0o600)
    journal = Journal(str(state))
    assert journal.history() == History()
    journal.close()


@pytest.mark.parametrize("kind", ["file", "loop"])
def test_a_state_directory_that_cannot_be_made_is_named(state: pathlib.Path, kind: str) -> None:
    if kind == "file":
        state.write_text("")
    else:
        looping_link(state)
    with pytest.raises(StateError, match="cannot be opened") as caught:
        Journal(str(state))
    assert str(state) in str(caught.value)


def test_two_that_make_it_at_once_make_it_once(state: pathlib.Path) -> None:
    problems: list[Exception] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        try:
            Journal(str(state)).close()
        except Exception as error:  # noqa: BLE001
            problems.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    journal = Journal(str(state))
    assert journal.history() == History()
    journal.close()


def test_a_reader_does_not_disturb_the_writer(journal: Journal) -> None:
    reader = sqlite3.connect(f"file:{journal.path}?mode=ro", uri=True, timeout=0, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    journal.commit(journal.begin(decision(), A), A)
    assert reader.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    reader.close()


def test_a_file_that_another_holds_too_long_is_a_state_error(
    state: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "BUSY_SECONDS", 0.05)
    journal = Journal(str(state))
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateError, match="locked"):
        journal.begin(decision(), A)
    other.execute("ROLLBACK")
    other.close()
    assert journal.begin(decision(), A).row
    journal.close()


def test_the_boot_id_is_the_kernels() -> None:
    assert journal_file.boot_id() == pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
