"""The durable record, in a real SQLite file."""

import contextlib
import itertools
import os
import pathlib
import tempfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent import journal_file
from refresh_agent.journal import Boundary, HookRecord, Journal, Leader, OpenRun, PhaseEnd, Run, sound
from refresh_agent.journal_file import Edge
from refresh_agent.marks import hook_ids
from refresh_agent.model import (
    Ending,
    Exit,
    Failure,
    History,
    HookResult,
    MigrationOutcome,
    MigrationResult,
    RunOutcome,
    StartedHook,
    Unfinished,
)
from tests.unit.journals import FAILURE, A, B, decision, reopened, rows, run_to

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


def test_text_that_is_not_utf_8_can_be_recorded(journal: Journal) -> None:
    """A path of the node is bytes: Python carries those that are not UTF-8 as half surrogates."""
    run = journal.begin(decision(), A)
    journal.fail(run, RunOutcome.HOOK_FAILED, Failure("configure", "", 1, os.fsdecode(b"/base/\xff: no")))
    assert journal.history().unfinished == Unfinished(A, 1, 1, False, "configure", "")


# --- whether the node is quiesced --------------------------------------------------------------------------

BETWEEN = ("quiesce", "begin", "prune")
WITHIN = ("go on", "activate", "commit", "succeed", "fail", "die", "forget")


class Quiescence:
    """What the journal has to say, told by a plain model. ``clock`` counts the runs and is their time."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.since: float | None = None
        self.before: float | None = None

    def begins(self, *, quiesces: bool) -> None:
        self.before = self.since
        if quiesces and self.since is None:
            self.since = self.clock


@given(st.lists(st.sampled_from([*BETWEEN, *BETWEEN, *WITHIN])))
def test_a_node_is_quiesced_from_pre_configure_on_until_a_run_gets_through_post_configure(
    steps: list[str],
) -> None:
    model = Quiescence()
    edge = Edge(wall=lambda: model.clock)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Journal(folder, edge)) as journal:
        run: Run | None = None
        for step in steps:
            model.clock += 1
            if run is not None and step in WITHIN:
                run = take(journal, run, step, model)
            elif run is None and step == "prune":
                journal.prune(1, 0)
            elif run is None and step in BETWEEN:
                model.begins(quiesces=step == "quiesce")
                run = journal.begin(decision(), A, quiesces="pre-configure" if step == "quiesce" else "")
            quiesced = journal.history().quiesced
            assert (quiesced and quiesced.since) == model.since
            assert quiesced is None or run is None or quiesced.run_id == run.run_id


def take(journal: Journal, run: Run, step: str, model: Quiescence) -> Run | None:
    """One step of a run that is under way; None if that ended it."""
    if step in {"go on", "activate"}:
        journal.record_boundary(run, Boundary(None, f"phase {model.clock}", activated=step == "activate"))
        model.since = None if step == "activate" else model.since
        return run
    if step == "commit":
        journal.commit(run, A)
    elif step == "succeed":
        journal.succeed(run)
    elif step == "fail":
        journal.fail(run, RunOutcome.HOOK_FAILED, FAILURE)
    elif step == "die":
        journal.close_interrupted()
    else:
        journal.forget(run)
        model.since = model.before
    model.since = None if step in {"commit", "succeed"} else model.since
    return None


def test_since_when_it_is_quiesced_is_told_by_the_first_of_the_runs_that_left_it_so(
    state: pathlib.Path,
) -> None:
    times = iter((1.0, 2.0, 3.0, 4.0))
    with contextlib.closing(Journal(str(state), Edge(wall=lambda: next(times)))) as journal:
        for attempt in (1, 2):
            run = journal.begin(decision(attempt), A, quiesces="pre-configure")
            journal.fail(run, RunOutcome.HOOK_FAILED, FAILURE)
        quiesced = journal.history().quiesced
    assert quiesced is not None
    assert (quiesced.since, quiesced.attempt, quiesced.run_id) == (1.0, 2, run.run_id)
    assert str(quiesced) == f"run {run.run_id[:8]} failed in configure/20-b"


# --- what is kept ------------------------------------------------------------------------------------------


def ids(journal: Journal) -> list[object]:
    return [row for (row,) in rows(journal, "SELECT id FROM runs ORDER BY id")]


def test_old_runs_are_let_go_by_number_with_all_that_belongs_to_them(journal: Journal) -> None:
    for _ in range(6):
        run = run_to(journal, "configure", "configure/10-a.")
        journal.migrated(run, MigrationResult("shop", MigrationOutcome.DONE))
        journal.worker_began(run, f"mark-{run.row}", 1, 0)
        journal.commit(run, A)
    journal.prune(2, 90)
    assert ids(journal) == [5, 6]
    for table in ("phases", "hooks", "outputs", "migrations", "workers"):
        assert {run for (run,) in rows(journal, f"SELECT run FROM {table}")} == {5, 6}


def test_and_by_age(state: pathlib.Path) -> None:
    days = 0.0
    with contextlib.closing(Journal(str(state), Edge(wall=lambda: days * 86400))) as journal:
        for began in (1, 2, 30, 31):
            days = began
            journal.commit(journal.begin(decision(), A), A)
        for now, left in ((32, [3, 4]), (400, [4])):
            days = now
            journal.prune(500, 10)
            assert ids(journal) == left


@pytest.mark.parametrize("keep_runs", [1, 2, 3])
def test_what_tells_what_is_due_is_never_let_go(journal: Journal, keep_runs: int) -> None:
    """What is committed, the newest run for documents, the one that left the node quiesced, the newest."""
    journal.commit(journal.begin(decision(), A), A)
    journal.fail(journal.begin(decision(), B), RunOutcome.HOOK_FAILED, FAILURE)
    journal.fail(journal.begin(decision(), (), quiesces="pre-configure"), RunOutcome.HOOK_FAILED, FAILURE)
    for _ in range(3):
        journal.fail(journal.begin(decision(), B), RunOutcome.DEFERRED, FAILURE)
    before = journal.history()
    journal.prune(keep_runs, 0)
    assert journal.history() == before == reopened(journal)
    assert before.committed == A
    assert before.unfinished is not None
    assert before.quiesced is not None
    assert len(ids(journal)) <= 2 + keep_runs


def test_a_run_under_way_is_not_let_go(journal: Journal) -> None:
    journal.begin(decision(), A)
    journal.begin(decision(), A)
    journal.prune(1, 0)
    assert ids(journal) == [1, 2]


def test_attempts_and_failures_count_on_although_only_the_newest_run_is_kept(journal: Journal) -> None:
    """[journal] keep_runs = 1, and [retry] max_attempts = 5: the fifth failure is told as that."""
    for number in range(1, 6):
        unfinished = journal.history().unfinished
        before = (unfinished.attempts, unfinished.failures) if unfinished else (0, 0)
        assert before == (number - 1, number - 1)
        journal.prune(1, 90)
        run = journal.begin(decision(number), A)
        journal.fail(run, RunOutcome.HOOK_FAILED, FAILURE, held=number == 5)
        assert len(ids(journal)) <= 2
    assert rows(journal, "SELECT failures, held FROM runs ORDER BY id DESC LIMIT 1") == [(5, 1)]


def with_output(journal: Journal, size: int) -> None:
    run = journal.begin(decision(), A)
    started = StartedHook("configure", "10-a", "id", 1)
    result = HookResult(started, Exit(0, Ending.EXITED, 0.1), b"x" * size)
    journal.record_hooks(run, [HookRecord(1, 1.0, started, result)])
    journal.commit(run, A)


def outputs(journal: Journal) -> list[object]:
    return [run for (run,) in rows(journal, "SELECT run FROM outputs ORDER BY run")]


def test_output_is_kept_of_fewer_runs(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refresh_agent.journal.KEEP_OUTPUTS", 3)
    for _ in range(6):
        with_output(journal, 10)
    journal.prune(500, 90)
    assert outputs(journal) == [4, 5, 6]
    assert len(rows(journal, "SELECT 1 FROM hooks")) == 6


def test_and_not_more_than_so_many_bytes_but_always_the_newest(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refresh_agent.journal.KEEP_OUTPUT_BYTES", 1000)
    for size in (400, 400, 400, 500):
        with_output(journal, size)
    journal.prune(500, 90)
    assert outputs(journal) == [3, 4]
    with_output(journal, 5000)
    journal.prune(500, 90)
    assert outputs(journal) == [5]


def test_to_open_check_and_prune_one_with_500_runs_takes_next_to_no_time(state: pathlib.Path) -> None:
    """The best of five: a slow machine is no failure. The promise is 10 ms more than for an empty one."""
    with contextlib.closing(Journal(str(state))) as journal:
        journal._db.execute("PRAGMA synchronous = OFF")
        with journal._file.together("written"):
            fill(journal, runs=500, hooks=10)
        journal.commit(journal.begin(decision(), A), A)

    def once() -> float:
        began = time.perf_counter()
        with sound(str(state)) as journal:
            journal.history()
            journal.prune(500, 1e6)
        return time.perf_counter() - began

    assert min(once() for _ in range(5)) < 0.05


def fill(journal: Journal, *, runs: int, hooks: int) -> None:
    db = journal._db
    for number in range(runs):
        db.execute(
            "INSERT INTO runs (run_id, trigger, attempt, reason, changed, documents, boot_id, agent,"
            " started_at, outcome, activated_at)"
            " VALUES (?, 'change', 1, 'why', '[]', '[[\"a\", \"1\"]]', 'boot', 'agent', 1.0, 'success', 1.0)",
            (f"run-{number}",),
        )
        for position in range(hooks):
            db.execute(
                "INSERT INTO hooks VALUES"
                " (?, ?, 'configure', '10-a', 'mark', 1, 1, 1.0, 0.1, 0, 'exited', NULL)",
                (number + 1, position),
            )
