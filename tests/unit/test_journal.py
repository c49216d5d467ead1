"""The durable record, in a real SQLite file."""

import contextlib
import itertools
import os
import pathlib
import sqlite3
import threading
import time
from collections.abc import Iterator

import pytest

from refresh_agent import journal_file, journal_schema
from refresh_agent.errors import ExitCode, StateError
from refresh_agent.journal import Boundary, HookRecord, Journal, Leader, OpenRun, PhaseEnd, Run
from refresh_agent.journal_file import Edge
from refresh_agent.marks import hook_ids
from refresh_agent.model import (
    Ending,
    Exit,
    Failure,
    Fingerprints,
    History,
    HookResult,
    MigrationOutcome,
    MigrationResult,
    RunOutcome,
    StartedHook,
    Trigger,
    Unfinished,
)
from refresh_agent.plan import Action, Decision
from tests.unit.support import looping_link, open_descriptors

A: Fingerprints = (("heat", "1"), ("local", "2"))
B: Fingerprints = (("heat", "9"),)
FAILURE = Failure("configure", "20-b", 42, "failed with status 42")


@pytest.fixture
def state(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state"


@pytest.fixture
def journal(state: pathlib.Path) -> Iterator[Journal]:
    journal = Journal(str(state))
    yield journal
    journal.close()


def decision(attempt: int = 1) -> Decision:
    """Of the attempts before, all have failed."""
    return Decision(Action.RUN, "changed: heat", Trigger.CHANGE, attempt, ("heat",), attempt - 1)


def reopened(journal: Journal) -> History:
    """What another process sees, and what survives."""
    other = Journal(os.path.dirname(journal.path))
    try:
        return other.history()
    finally:
        other.close()


def rows(journal: Journal, query: str) -> list[tuple[object, ...]]:
    return journal._db.execute(query).fetchall()


# --- what is remembered ------------------------------------------------------------------------------------


def test_a_new_journal_knows_nothing(journal: Journal) -> None:
    assert journal.history() == History()
    assert journal.close_interrupted() == ()
    assert journal.open_runs() == ()


def test_a_commit_is_remembered_in_its_order(journal: Journal) -> None:
    journal.commit(journal.begin(decision(), A), A)
    assert journal.history() == reopened(journal) == History(A)
    swapped = (A[1], A[0])
    journal.commit(journal.begin(decision(), swapped), swapped)
    assert reopened(journal) == History(swapped)
    journal.commit(journal.begin(decision(), B), B)
    assert reopened(journal) == History(B)


def test_a_failure_keeps_the_old_commit_and_is_unfinished(journal: Journal) -> None:
    journal.commit(journal.begin(decision(), A), A)
    journal.fail(journal.begin(decision(), B), RunOutcome.HOOK_FAILED, FAILURE)
    unfinished = Unfinished(B, 1, 1, interrupted=False, phase="configure", hook="20-b")
    assert reopened(journal) == History(A, unfinished)
    assert unfinished.where == "in configure/20-b"


def test_attempts_are_those_of_the_newest_run(journal: Journal) -> None:
    for attempt in (1, 2, 3):
        journal.fail(journal.begin(decision(attempt), A), RunOutcome.HOOK_FAILED, FAILURE)
    unfinished = journal.history().unfinished
    assert unfinished is not None
    assert (unfinished.attempts, unfinished.failures) == (3, 3)
    journal.fail(journal.begin(decision(1), B), RunOutcome.MIGRATION_FAILED, FAILURE)
    assert journal.history().unfinished == Unfinished(B, 1, 1, False, "configure", "20-b")
    journal.commit(journal.begin(decision(2), B), B)
    assert journal.history() == History(B)


@pytest.mark.parametrize(
    ("outcome", "interrupted"),
    [
        (RunOutcome.HOOK_FAILED, False),
        (RunOutcome.MIGRATION_FAILED, False),
        (RunOutcome.INTERRUPTED, True),
    ],
)
def test_a_run_that_did_not_fail_by_itself_was_interrupted(
    journal: Journal, outcome: RunOutcome, interrupted: bool
) -> None:
    journal.fail(journal.begin(decision(), A), outcome, FAILURE)
    unfinished = journal.history().unfinished
    assert unfinished is not None
    assert unfinished.interrupted is interrupted


def test_what_was_deferred_is_no_attempt_and_no_failure(journal: Journal) -> None:
    for attempt in (1, 2):
        journal.fail(journal.begin(decision(attempt), A), RunOutcome.HOOK_FAILED, FAILURE)
    for _ in range(3):
        journal.fail(journal.begin(decision(3), A), RunOutcome.DEFERRED, FAILURE)
        unfinished = journal.history().unfinished
        assert unfinished is not None
        assert (unfinished.attempts, unfinished.failures, unfinished.deferred) == (2, 2, True)
        assert not unfinished.interrupted


def test_all_phases_of_a_deferred_run_are_over(journal: Journal) -> None:
    run = journal.begin(decision(), A)
    journal.record_boundary(run, Boundary(None, "migration"))
    journal.fail(run, RunOutcome.DEFERRED, FAILURE)
    assert rows(journal, "SELECT phase, outcome FROM phases") == [("migration", "done")]
    assert rows(journal, "SELECT outcome FROM runs") == [("deferred",)]


def test_only_failures_of_the_same_documents_in_a_row_count(journal: Journal) -> None:
    """Metadata that failed before something else was tried is a new change when it comes back."""
    failed, stopped = RunOutcome.HOOK_FAILED, RunOutcome.INTERRUPTED
    for documents, outcome in ((A, failed), (A, failed), (B, failed), (A, stopped), (A, failed)):
        journal.fail(journal.begin(decision(), documents), outcome, FAILURE)
    unfinished = journal.history().unfinished
    assert unfinished is not None
    assert unfinished.failures == 1
    journal.commit(journal.begin(decision(), A), A)
    journal.fail(journal.begin(decision(), A), failed, FAILURE)
    unfinished = journal.history().unfinished
    assert unfinished is not None
    assert unfinished.failures == 1


def test_a_run_under_way_is_unfinished(journal: Journal) -> None:
    journal.begin(decision(), A)
    assert reopened(journal) == History(None, Unfinished(A, 1, 0, interrupted=True))


def run_to(journal: Journal, *steps: str) -> Run:
    """Begin a run and take it through "phase", "phase/hook" and "phase." for the end of a phase."""
    run = journal.begin(decision(), A)
    for number, step in enumerate(steps):
        phase, _, hook = step.rstrip(".").partition("/")
        if hook:
            started = StartedHook(phase, hook, f"id-{hook}", 77, 4711)
            began = HookRecord(number, 1.0, started)
            journal.record_hooks(run, [began])
            if step.endswith("."):
                result = HookResult(started, Exit(0, Ending.EXITED, 0.1), b"tail\n")
                journal.record_hooks(run, [began._replace(result=result)])
        elif step.endswith("."):
            journal.record_boundary(run, Boundary(PhaseEnd(phase, "done"), ""))
        else:
            journal.record_boundary(run, Boundary(None, phase))
    return run


@pytest.mark.parametrize(
    ("steps", "phase", "hook"),
    [
        ([], "", ""),
        (["configure"], "configure", ""),
        (["configure", "configure/10-a"], "configure", "10-a"),
        (["configure", "configure/10-a.", "configure/20-b"], "configure", "20-b"),
        (["configure", "configure/10-a.", "configure.", "migration"], "migration", ""),
    ],
)
def test_a_run_that_never_ended_is_closed_where_it_stood(
    journal: Journal, steps: list[str], phase: str, hook: str
) -> None:
    run = run_to(journal, *steps)
    assert journal.close_interrupted() == (run.run_id,)
    assert journal.close_interrupted() == ()
    assert reopened(journal).unfinished == Unfinished(A, 1, 0, True, phase, hook)
    assert rows(journal, "SELECT outcome FROM runs") == [("interrupted",)]
    for table in ("phases", "hooks"):
        assert rows(journal, f"SELECT 1 FROM {table} WHERE outcome IS NULL") == []


def test_where_it_stood_does_not_depend_on_the_wall_clock(
    state: pathlib.Path,
) -> None:
    """The clock of a node that boots may be set back in the middle of a run."""
    moments = iter(range(1000, 0, -1))
    journal = Journal(str(state), Edge(wall=lambda: float(next(moments))))
    run_to(journal, "pre-configure", "pre-configure/10-a.", "pre-configure.", "configure", "configure/20-b")
    journal.close_interrupted()
    assert journal.history().unfinished == Unfinished(A, 1, 0, True, "configure", "20-b")
    journal.close()


def test_error_hooks_of_a_killed_agent_are_leftovers_too(journal: Journal, state: pathlib.Path) -> None:
    """They run when the run has its outcome already."""
    run = run_to(journal, "configure", "configure/10-a.")
    journal.fail(run, RunOutcome.HOOK_FAILED, FAILURE)
    with contextlib.closing(Journal(str(state), Edge(agent="the next agent"))) as after:
        assert after.open_runs() == ()
        journal.record_boundary(run, Boundary(None, "error"))
        assert [left.run_id for left in after.open_runs()] == [run.run_id]
        assert after.close_interrupted() == ()
        assert after.open_runs() == ()


def test_of_several_at_once_the_one_that_had_not_ended_was_interrupted(journal: Journal) -> None:
    run_to(journal, "configure", "configure/10-a", "configure/10-b.")
    journal.close_interrupted()
    unfinished = journal.history().unfinished
    assert unfinished is not None
    assert unfinished.where == "in configure/10-a"


PHASES = "SELECT phase, outcome, ended_at IS NULL FROM phases ORDER BY started_at"


def test_the_last_phase_ends_with_the_run(journal: Journal) -> None:
    journal.commit(run_to(journal, "configure"), A)
    assert rows(journal, PHASES) == [("configure", "done", 0)]


@pytest.mark.parametrize(("stopped", "outcome"), [(True, "stopped"), (False, "failed")])
def test_a_phase_in_which_a_run_fails_has_failed_or_was_stopped(
    journal: Journal, stopped: bool, outcome: str
) -> None:
    run = run_to(journal, "configure")
    journal.fail(run, RunOutcome.HOOK_FAILED, FAILURE._replace(stopped=stopped))
    assert rows(journal, PHASES) == [("configure", outcome, 0)]


def test_a_boundary_is_the_end_of_one_phase_and_the_beginning_of_another(journal: Journal) -> None:
    run = run_to(journal, "configure")
    journal.record_boundary(run, Boundary(PhaseEnd("configure", "done"), "post-configure"))
    assert rows(journal, PHASES) == [("configure", "done", 0), ("post-configure", None, 1)]


def test_the_hooks_that_a_killed_agent_left_are_known(journal: Journal, state: pathlib.Path) -> None:
    run = run_to(journal, "configure", "configure/10-a.", "configure/20-b")
    assert journal.open_runs() == ()  # our own: it has ended, or runs; its end was merely not recorded
    with contextlib.closing(Journal(str(state), Edge(agent="the next agent"))) as after:
        left = OpenRun(run.run_id, frozenset({"id-10-a"}), (Leader(77, 4711),))
        assert after.open_runs() == (left,)
    rebooted = Edge(agent="the next agent", boot_id=lambda: "another boot")
    with contextlib.closing(Journal(str(state), rebooted)) as after:
        assert after.open_runs() == ()  # whatever has that mark now cannot be what we started


def test_what_a_hook_left_that_had_ended_is_no_leftover_and_what_was_not_yet_recorded_is() -> None:
    ids = list(itertools.islice(hook_ids("run"), 3))
    left = OpenRun("run", frozenset(ids[:1]))
    assert [left.may_have_left(hook_id) for hook_id in ids] == [False, True, True]
    assert not left.may_have_left(next(hook_ids("another-run")))
    assert not left.may_have_left("")


def test_everything_about_a_run_is_written_down(journal: Journal) -> None:
    run = run_to(journal, "configure", "configure/10-a.", "configure.")
    journal.migrated(run, MigrationResult("shop", MigrationOutcome.DONE, "migrate 2", "alembic b7", "", 1.5))
    journal.commit(run, A)
    assert rows(journal, "SELECT trigger, attempt, reason, changed, outcome, boot_id FROM runs") == [
        ("change", 1, "changed: heat", '["heat"]', "success", journal_file.boot_id())
    ]
    assert rows(journal, "SELECT phase, hook, pid, began, status, outcome FROM hooks") == [
        ("configure", "10-a", 77, 4711, 0, "exited")
    ]
    assert rows(journal, "SELECT position, tail FROM outputs") == [(1, b"tail\n")]
    assert rows(journal, "SELECT phase, outcome FROM phases") == [("configure", "done")]
    assert rows(journal, "SELECT target, outcome, before, after FROM migrations") == [
        ("shop", "done", "migrate 2", "alembic b7")
    ]
    (started, ended) = rows(journal, "SELECT started_at, ended_at FROM runs")[0]
    assert time.time() - 60 < float(str(started)) <= float(str(ended)) <= time.time()


def test_run_ids_are_unique(journal: Journal) -> None:
    assert len({journal.begin(decision(), A).run_id for _ in range(20)}) == 20


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
        lambda: journal.commit(run, A),
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


def corrupt(path: pathlib.Path, kind: str) -> None:
    match kind:
        case "no database":
            path.write_bytes(b"This is no database, but long enough to look like one. " * 100)
        case "directory":
            path.unlink()
            path.mkdir()
        case "loop":
            path.unlink()
            looping_link(path)
        case "link":
            path.rename(path.with_name("elsewhere"))
            path.symlink_to("elsewhere")
        case "tables gone":
            with sqlite3.connect(path) as db:
                db.execute("PRAGMA foreign_keys = OFF")
                db.execute("DROP TABLE runs")
            db.close()
        case "pages overwritten":
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xa5" * (size - 4096))
        case "newer":
            with sqlite3.connect(path) as db:
                db.execute("PRAGMA user_version = 99")
            db.close()


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


def test_a_newer_agents_journal_is_left_alone_and_said_so(state: pathlib.Path) -> None:
    Journal(str(state)).close()
    corrupt(state / "journal.sqlite", "newer")
    with pytest.raises(
        StateError,
        match=f"is of version 99, this agent knows {journal_schema.VERSION}; it was written by a newer one",
    ):
        Journal(str(state))


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


def test_text_that_is_not_utf_8_can_be_recorded(journal: Journal) -> None:
    """A path of the node is bytes: Python carries those that are not UTF-8 as half surrogates."""
    run = journal.begin(decision(), A)
    journal.fail(run, RunOutcome.HOOK_FAILED, Failure("configure", "", 1, os.fsdecode(b"/base/\xff: no")))
    assert journal.history().unfinished == Unfinished(A, 1, 1, False, "configure", "")
