"""What the journal tells a reader who disturbs nobody; journals are made by the one who writes them."""

import os
import pathlib
from collections.abc import Callable, Iterator

import pytest

from refresh_agent import journal_file, standing
from refresh_agent.journal import Boundary, Journal, PhaseEnd, Run
from refresh_agent.model import (
    MigrationOutcome,
    MigrationResult,
    RunOutcome,
    Trigger,
)
from refresh_agent.plan import Action, Decision
from refresh_agent.standing import Standing, last_lines
from tests.unit.known_node import AGENT, FAILURE, A, Node


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Iterator[Node]:
    node = Node(str(tmp_path / "state"))
    yield node
    node.journal.close()


def test_where_nothing_ever_happened_nothing_is_told_or_made(tmp_path: pathlib.Path) -> None:
    assert standing.read(str(tmp_path / "state"), lambda: None) == Standing()
    assert standing.read(str(tmp_path), lambda: None) == Standing()
    assert os.listdir(tmp_path) == []


def test_successes_and_failures_are_told_with_where_and_why(node: Node) -> None:
    succeeded = node.succeed()
    failed = node.fail()
    known = node.read()
    assert known.success is not None
    assert (known.success.run_id, known.success.started, known.success.ended) == (
        succeeded.run_id,
        1010,
        1010,
    )
    assert known.failure is not None
    assert known.failure == known.newest == known.last
    assert known.failure.run_id == failed.run_id
    assert (known.failure.where, known.failure.status) == ("configure/20-b", 42)
    assert (known.failure.reason, known.failure.failures) == ("failed with status 42", 1)
    assert known.quiesced is not None
    assert (known.quiesced.since, known.quiesced.run_id) == (1020, failed.run_id)
    assert node.read() == known


def test_a_success_makes_up_for_a_failure_and_both_are_told(node: Node) -> None:
    node.fail()
    node.succeed()
    known = node.read()
    assert known.quiesced is None
    assert known.newest == known.last == known.success
    assert known.failure is not None


def test_the_failed_hooks_last_lines_are_told(node: Node) -> None:
    run = node.begin()
    node.hook(run, "20-b", b"".join(b"line %d\r\n\n" % number for number in range(30)) + b"\xff\x1b[2Jend")
    node.journal.fail(run, RunOutcome.HOOK_FAILED, FAILURE)
    known = node.read()
    assert known.failure is not None
    assert known.failure.output == (*(f"line {number}" for number in range(21, 30)), "\\xff\\x1b[2Jend")
    assert known.last == known.failure


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        (b"", ()),
        (b"\n \n", ()),
        (b"one\ntwo", ("one", "two")),
        (b"\0" * 1000, ("\\x00" * 100 + "...",)),
        (b"x" * 1000, ("x" * 400 + "...",)),
    ],
)
def test_lines_are_short_and_fit_to_be_shown(output: bytes, lines: tuple[str, ...]) -> None:
    assert last_lines(output) == lines


def test_the_beginning_that_is_cut_off_is_no_line() -> None:
    assert last_lines(b"f of a secret\nwhole", whole=False) == ("whole",)
    assert last_lines(b"xxx\n", whole=False) == ("xxx",)


def test_a_long_output_is_not_read_as_a_whole(node: Node) -> None:
    run = node.begin()
    node.hook(run, "20-b", b"x" * 100_000 + b"\nlast")
    node.journal.fail(run, RunOutcome.HOOK_FAILED, FAILURE)
    known = node.read()
    assert known.failure is not None
    assert known.failure.output == ("last",)


# --- a run that has no end ---------------------------------------------------------------------------------


def test_a_run_that_is_worked_on_is_told_and_what_was_before_it_counts(node: Node) -> None:
    before = node.succeed()
    run = node.begin()
    node.journal.record_boundary(run, Boundary(PhaseEnd("pre-configure", "done"), "configure"))
    node.works = True
    known = node.read()
    assert known.running is not None
    assert (known.running.run_id, known.running.where) == (run.run_id, "configure")
    assert known.newest == known.last == known.success
    assert known.last is not None
    assert known.last.run_id == before.run_id
    assert known.quiesced is None
    node.hook(run, "10-a")
    known = node.read()
    assert known.running is not None
    assert known.running.where == "configure/10-a"


def test_one_that_nobody_works_on_was_interrupted_and_has_left_the_node_quiesced(node: Node) -> None:
    run = node.begin()
    node.journal.record_boundary(run, Boundary(PhaseEnd("pre-configure", "done"), "configure"))
    node.hook(run, "10-a")
    known = node.read()
    assert known.running is None
    assert known.newest == known.last
    assert known.last is not None
    assert (known.last.outcome, known.last.where, known.last.ended) == ("interrupted", "configure/10-a", None)
    assert known.quiesced is not None
    assert known.quiesced.interrupted
    assert (known.quiesced.phase, known.quiesced.hook) == ("configure", "10-a")


def test_a_retry_does_not_hide_that_the_node_is_quiesced_until_it_has_activated_it(node: Node) -> None:
    failed = node.fail()
    run = node.begin(1)
    node.works = True
    known = node.read()
    assert known.quiesced is not None
    assert (known.quiesced.since, known.quiesced.run_id) == (1020 - 10, failed.run_id)
    node.journal.record_boundary(
        run, Boundary(PhaseEnd("pre-configure", "done"), "migration", activated=True)
    )
    known = node.read()
    assert known.running is not None
    assert known.running.where == "migration"
    assert known.quiesced is None
    node.journal.record_boundary(run, Boundary(PhaseEnd("migration", "done"), ""))
    known = node.read()
    assert known.running is not None
    assert known.running.where == "migration"  # the databases


def test_while_error_d_runs_the_run_has_failed_already(node: Node) -> None:
    run = node.fail()
    node.journal.record_boundary(run, Boundary(None, "error"))
    node.works = True
    known = node.read()
    assert known.running is not None
    assert known.running.where == "error"
    assert known.newest == known.failure
    assert known.quiesced is not None
    node.works = False
    assert node.read().running is None


def test_a_run_that_ends_between_two_questions_is_not_taken_for_abandoned(node: Node) -> None:
    """First it is asked whether anybody works, then what the journal says."""
    run = node.begin()
    asked = []

    def works() -> None:
        asked.append(1)
        if len(asked) == 2:
            node.journal.commit(run, A)

    known = standing.read(node.state, works)
    assert len(asked) == 2
    assert known.quiesced is None
    assert known.last == known.success


def test_a_run_that_begins_between_two_questions_is_under_way(node: Node) -> None:
    node.begin()
    answers = iter([None, AGENT])
    known = standing.read(node.state, lambda: next(answers))
    assert known.running is not None
    assert known.quiesced is None


@pytest.mark.parametrize("agent", ["another", None])
def test_while_a_new_agent_cleans_up_nobody_works_on_what_the_dead_one_has_left(
    node: Node, agent: str | None
) -> None:
    """It holds the lock for as long as leftovers take to end."""
    node.succeed()
    cut_off = node.begin()
    known = standing.read(node.state, lambda: agent)
    assert known.running is None
    assert known.quiesced is not None
    assert known.quiesced.run_id == cut_off.run_id
    assert known.newest is not None
    assert known.newest.outcome == "interrupted"


def test_an_agent_that_does_not_tell_who_it_is_works_on_what_is_open(node: Node) -> None:
    """One of an earlier version, which still runs."""
    node.begin()
    assert standing.read(node.state, lambda: "").running is not None


def go_on(node: Node, run: Run, *boundaries: Boundary) -> None:
    for boundary in boundaries:
        node.journal.record_boundary(run, boundary)


DONE = Boundary(PhaseEnd("pre-configure", "done"), "configure")
ALL_DONE = Boundary(PhaseEnd("configure", "done"), "", activated=True)


@pytest.mark.parametrize(
    ("cut_off", "place"),
    [
        (lambda node, run: None, "pre-configure"),
        (lambda node, run: go_on(node, run, DONE), "configure"),
        (lambda node, run: (go_on(node, run, DONE), node.hook(run, "20-b")), "configure/20-b"),
        (lambda node, run: (go_on(node, run, DONE), node.hook(run, "20-b", b"")), "configure/20-b"),
        (lambda node, run: (node.hook(run, "20-b", b""), go_on(node, run, DONE, ALL_DONE)), "migration"),
        (
            lambda node, run: go_on(node, run, Boundary(PhaseEnd("pre-configure", ""), "", activated=True)),
            "migration",
        ),
    ],
    ids=["begun", "between", "in a hook", "after a hook", "in the databases", "of one phase"],
)
def test_where_it_was_cut_off_is_told_alike_by_status_and_to_the_next_runs_hooks(
    node: Node, cut_off: Callable[[Node, Run], object], place: str
) -> None:
    run = node.begin()
    cut_off(node, run)
    seen = node.read().last
    assert seen is not None
    node.journal.close_interrupted()
    unfinished = node.journal.history().unfinished
    assert unfinished is not None
    assert (unfinished.phase, unfinished.hook) == (seen.phase, seen.hook)
    assert seen.where == place
    again = node.read().last
    assert again is not None
    assert again.where == place


def test_a_run_without_phases_was_cut_off_in_the_databases(node: Node) -> None:
    run = node.journal.begin(Decision(Action.RUN, "new", Trigger.CHANGE), A)
    node.journal.record_boundary(run, Boundary(None, "", activated=True))
    seen = node.read().last
    assert seen is not None
    assert seen.where == "migration"


# --- what counts -------------------------------------------------------------------------------------------


def test_runs_by_hand_are_told_but_the_node_is_judged_by_those_for_metadata(node: Node) -> None:
    node.fail(failures=2, held=True)
    by_hand = node.begin(documents=())
    node.journal.succeed(by_hand)
    known = node.read()
    assert known.newest is not None
    assert (known.newest.failures, known.newest.held, known.newest.by_hand) == (3, True, False)
    assert known.success is not None
    assert known.success.by_hand
    assert known.quiesced is None


def test_targets_are_told_as_the_newest_run_with_each_left_them(node: Node) -> None:
    first, second = node.begin(), node.begin()
    done = MigrationResult("nova", MigrationOutcome.DONE, "empty", "alembic 3fa1", "", 1.0)
    node.journal.migrated(first, done)
    node.journal.migrated(first, done._replace(target="glance"))
    node.journal.migrated(second, done._replace(outcome=MigrationOutcome.FAILED, after="", message="no disk"))
    targets = {target.target: target for target in node.read().targets}
    assert targets.keys() == {"nova", "glance"}
    assert (targets["nova"].outcome, targets["nova"].message, targets["nova"].at) == (
        "failed",
        "no disk",
        1020,
    )
    assert (targets["glance"].after, targets["glance"].run_id) == ("alembic 3fa1", first.run_id)


@pytest.mark.parametrize("anew", [False, True], ids=["no journal", "an empty one"])
def test_after_a_damaged_journal_it_is_not_known_whether_the_node_is_quiesced(node: Node, anew: bool) -> None:
    node.fail()
    node.journal.close()
    for _ in range(2):
        journal_file.set_aside(node.state, 0.0)
    if anew:
        Journal(node.state).close()
    known = node.read()
    assert known.quiesced is None
    assert known.doubt == f"the journal was damaged ({node.path}.damaged-*), and no run has ended since"


def test_it_is_known_again_once_a_run_of_the_new_journal_has_ended(node: Node) -> None:
    pathlib.Path(f"{node.path}.damaged-20260101T000000-0000").touch()
    run = node.begin()
    node.works = True
    assert node.read().doubt
    node.journal.commit(run, A)
    assert not node.read().doubt
