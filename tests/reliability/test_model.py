"""The short form of the model test, and that the model would find what it looks for."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from refresh_agent import cycle, journal_history, lock, pause, run, service
from refresh_agent.errors import StateError
from refresh_agent.journal import Journal
from refresh_agent.model import Failure, History, RunAtBoot, RunOutcome, Settings, Trigger
from refresh_agent.phases import execute, family, order
from refresh_agent.plan import Decision, Request, decide
from refresh_agent.triggers import scan
from tests.reliability import model, stand_ins
from tests.reliability.life import FOR_EVER, Life, Node
from tests.reliability.steps import Step
from tests.reliability.world import WHILE, DiskFault, Happening, Mood

STEPS = 20_000
SEEDS = (1, 2, 3, 4)

LIVES = 20
"""Of 250 steps: by then, an agent that is broken in some way has been found out."""


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_in_whatever_order_no_change_is_lost(seed: int) -> None:
    totals, wrong = model.lives(seed, STEPS // len(SEEDS))
    assert not wrong, wrong
    assert totals.steps >= STEPS // len(SEEDS)
    assert totals.runs > totals.steps / 20


def test_a_life_can_be_lived_again() -> None:
    """Else a failure could not be looked into."""
    node, steps = model.node_of(1, 1), model.steps_of(1, 1)
    told = []
    for _ in range(2):
        with model.in_memory() as root, Life(root, node) as life, model.log_to(None):
            for step in steps:
                life.do(step)
            told.append(life.world.told)
    assert told[0] == told[1]
    assert model.steps_of(1, 1) == steps != model.steps_of(1, 2)


def test_what_goes_wrong_is_told_in_few_steps_with_the_command_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pause, "read", lambda _state_dir: None)
    number = first_wrong_life()
    told = model.explained(1, number, seconds=5)
    assert "a run begins although there is a pause" in told
    assert f"-m tests.reliability.model --seed 1 --life {number}" in told
    assert len(told.splitlines()) < 100


# --- an agent that is broken in one way or another is found out --------------------------------------------

Break = Callable[[pytest.MonkeyPatch], None]


def the_journal_loses_commits(patch: pytest.MonkeyPatch) -> None:
    execute_ = stand_ins.Connection.execute

    def forgetful(self: stand_ins.Connection, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        lost = sql == "COMMIT" and self.world.chance() < 0.03
        return execute_(self, "ROLLBACK" if lost else sql, parameters)

    patch.setattr(stand_ins.Connection, "execute", forgetful)


def nobody_remembers_that_the_node_is_quiesced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal_history, "quiesced", lambda _db: None)


def interrupted_runs_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal_history, "_unfinished", lambda _newest: None)


def a_failed_run_counts_as_a_success(patch: pytest.MonkeyPatch) -> None:
    fail = Journal.fail

    def forgive(self: Journal, row: Any, _outcome: RunOutcome, failure: Failure, **names: Any) -> None:
        fail(self, row, RunOutcome.SUCCESS, failure, **names)

    patch.setattr(Journal, "fail", forgive)


def there_is_no_lock(patch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def held(_path: str, _agent: str) -> Iterator[None]:
        yield

    patch.setattr(lock, "held", held)


def what_a_dead_agent_left_running_runs_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(family, "end_leftovers", lambda _leftovers, _grace: ())


def a_migration_of_a_dead_agent_is_ended(patch: pytest.MonkeyPatch) -> None:
    def end(_self: cycle.Cycle, hook_id: str, _left: float) -> None:
        family.end_leftovers(family.Leftovers(hook_id.__eq__), 0)

    patch.setattr(cycle.Cycle, "_wait_for_worker", end)


def a_pause_is_not_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pause, "read", lambda _state_dir: None)


def nothing_is_ever_held(patch: pytest.MonkeyPatch) -> None:
    def decide_(request: Request, documents: Any, history: History) -> Decision:
        return decide(request._replace(max_attempts=0), documents, history)

    patch.setattr(cycle, "decide", decide_)


def what_is_there_at_the_end_is_committed(patch: pytest.MonkeyPatch) -> None:
    succeeded = run._Refresh.succeeded

    def late(self: run._Refresh, row: Any) -> Any:
        self._work.sources.collect()
        self.__init__(self._work)  # type: ignore[misc]
        return succeeded(self, row)

    patch.setattr(run._Refresh, "succeeded", late)


def a_change_during_a_run_is_taken_for_seen(patch: pytest.MonkeyPatch) -> None:
    refresh = service.Agent._refresh

    def deaf(self: service.Agent, trigger: Any) -> None:
        refresh(self, trigger)
        self.wakeup.wait(0)
        self._seen, self._scanned = self._cycle.sources.look(), scan(self._watched())

    patch.setattr(service.Agent, "_refresh", deaf)


def the_rescan_does_not_look(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(service, "scan", lambda _paths: ())


def what_a_run_by_hand_has_left_is_not_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(service.Agent, "_was_disturbed", lambda _self: False)


def migration_comes_before_post_configure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(order, "PHASES", (*order.PHASES[:2], *reversed(order.PHASES[2:])))


def a_failure_does_not_end_the_run(patch: pytest.MonkeyPatch) -> None:
    run_phase = execute.run_phase
    patch.setattr(execute, "run_phase", lambda *arguments: run_phase(*arguments) and None)


def a_boot_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        cycle,
        "decide",
        lambda request, documents, history: decide(request, documents, history._replace(booted=False)),
    )


def every_start_is_taken_for_a_boot(patch: pytest.MonkeyPatch) -> None:
    def decide_(request: Request, documents: Any, history: History) -> Decision:
        booted = history.booted or request.trigger is Trigger.START
        return decide(request, documents, history._replace(booted=booted))

    patch.setattr(cycle, "decide", decide_)


def a_boot_counts_although_only_changes_are_to(patch: pytest.MonkeyPatch) -> None:
    make = cycle.Cycle.__init__

    def make_(self: cycle.Cycle, settings: Settings, *others: Any) -> None:
        make(self, settings._replace(run_at_boot=RunAtBoot.ALWAYS), *others)

    patch.setattr(cycle.Cycle, "__init__", make_)


def a_run_by_hand_counts_as_the_boots(patch: pytest.MonkeyPatch) -> None:
    read = journal_history.read

    def read_(db: sqlite3.Connection, boot_id: str) -> History:
        newest = db.execute("SELECT boot_id FROM runs ORDER BY id DESC LIMIT 1").fetchone()
        return read(db, boot_id)._replace(booted=newest is not None and newest[0] != boot_id)

    patch.setattr(journal_history, "read", read_)


def what_is_held_is_not_tried_after_a_boot(patch: pytest.MonkeyPatch) -> None:
    def decide_(request: Request, documents: Any, history: History) -> Decision:
        as_before = decide(request, documents, history._replace(booted=False))
        return decide(request, documents, history) if as_before.runs or not history.unfinished else as_before

    patch.setattr(cycle, "decide", decide_)


@pytest.mark.parametrize(
    "broken",
    [
        the_journal_loses_commits,
        nobody_remembers_that_the_node_is_quiesced,
        interrupted_runs_are_forgotten,
        a_failed_run_counts_as_a_success,
        there_is_no_lock,
        what_a_dead_agent_left_running_runs_on,
        a_migration_of_a_dead_agent_is_ended,
        a_pause_is_not_seen,
        nothing_is_ever_held,
        what_is_there_at_the_end_is_committed,
        a_change_during_a_run_is_taken_for_seen,
        the_rescan_does_not_look,
        what_a_run_by_hand_has_left_is_not_seen,
        migration_comes_before_post_configure,
        a_failure_does_not_end_the_run,
        a_boot_is_not_noticed,
        every_start_is_taken_for_a_boot,
        a_boot_counts_although_only_changes_are_to,
        a_run_by_hand_counts_as_the_boots,
        what_is_held_is_not_tried_after_a_boot,
    ],
)
def test_the_model_finds_out_that(broken: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    assert first_wrong_life() < LIVES


def first_wrong_life() -> int:
    for number in range(LIVES):
        _, failure = model.live(model.node_of(1, number), model.steps_of(1, number))
        if failure is not None:
            told = failure.text.splitlines()[-1]
            print(f"life {number}: {told}")
            assert "Violation: " in told  # and not that what was to be broken is not there any more
            return number
    return LIVES


# --- what it has found --------------------------------------------------------------------------------------


def test_a_failure_that_could_not_be_recorded_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal knows nothing of it: nobody would ever have tried it again."""
    fail = Journal.fail

    def fail_to(self: Journal, *_arguments: Any, **_names: Any) -> None:
        monkeypatch.setattr(Journal, "fail", fail)
        if life.world.actor is not None:
            life.world.actor.disturbed = True
        raise StateError("the disk is full")

    with model.in_memory() as root, Life(root, Node(500, databases=False, max_attempts=1)) as life:
        monkeypatch.setattr(Journal, "fail", fail_to)
        life.world.mood = Mood(frozenset({order.CONFIGURE}), 1)
        for name in ("change", "start", "settle"):
            life.do(Step(name, 1))
        assert life.facts.runs == 2


def test_a_hook_of_error_d_is_ended_after_its_agent_also_if_the_disk_was_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run was over by then, and nothing told of the hook."""
    fail = Journal.fail

    def fail_and_fill_the_disk(self: Journal, *arguments: Any, **names: Any) -> None:
        fail(self, *arguments, **names)
        life.world.fault = DiskFault(0, FOR_EVER, full=True)

    with model.in_memory() as root, Life(root, Node(500, databases=False, max_attempts=0)) as life:
        monkeypatch.setattr(Journal, "fail", fail_and_fill_the_disk)
        life.world.mood = Mood(frozenset({order.CONFIGURE}), 1)
        life.world.happenings = [Happening(WHILE, 2, "kill_it")]
        for name in ("change", "start", "the_disk_is_well", "start"):
            life.do(Step(name, 1))
        assert life.facts.runs == 2


@pytest.mark.parametrize("seed", range(4))
def test_that_a_migration_was_interrupted_is_told_whatever_the_clock_does(seed: int) -> None:
    with model.in_memory() as root, Life(root, Node(500, databases=True, max_attempts=0)) as life:
        life.world.happenings = [
            *(Happening(WHILE, at, "the_wall_clock_jumps") for at in range(4)),
            Happening(WHILE, 4, "kill_it"),
        ]
        for name in ("change", "start", "hours_pass", "hours_pass", "start"):
            life.do(Step(name, seed))
        assert life.facts.runs == 2
