"""At every statement of the journal it fails, the agent is killed, or somebody looks: nothing is lost."""

import contextlib
import itertools
import pathlib
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from refresh_agent import metadata
from refresh_agent.cycle import Cycle, Edges, Result
from refresh_agent.errors import ExitCode, StateError
from refresh_agent.journal_file import path_in
from refresh_agent.model import Fingerprints, Settings, Target, Trigger
from refresh_agent.plan import Request
from refresh_agent.wakeup import Stop
from tests.reliability.faults import Faults, Hooks, Killed, Kind, Noted, in_memory
from tests.unit.support import Tree, write_json

PHASES = ("pre-configure", "configure", "post-configure", "migration")
WHOLE = [*(f"{phase}/10-a" for phase in PHASES), "worker"]
QUIESCES, ACTIVATES = WHOLE[0], WHOLE[2]
EARLIER, THIS, LATER = "the boot before", "this boot", "the next boot"


class Facts(NamedTuple):
    """What the journal says to whoever looks."""

    committed: Fingerprints = ()
    open_runs: tuple[str, ...] = ()
    quiesced: bool = False


class Place(Tree):
    """A tree of hooks that are only noted, with a database, in a folder."""

    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self.hooks = Hooks()
        self.stop = Stop()
        self.newest = 0
        self.failing: frozenset[str] = frozenset()
        self.template = root / "template"
        for phase in (*PHASES, "error"):
            self.hook(f"{phase}/10-a")
        self._python = root / "python"
        self._python.write_text("#!/bin/sh\n")
        self._python.chmod(0o755)

    def node(self) -> Settings:
        python = str(self._python)
        shop = Target("shop", f"sqlite:///{self.root}/shop.db", python, "", alembic_config="/alembic.ini")
        return self.settings(targets=(shop,))

    def change(self, number: int) -> None:
        self.newest = number
        write_json(self.metadata, {"a": number})

    def cycle(self, faults: Faults, *, agent: str = "the first agent", boot: str = THIS) -> Cycle:
        return Cycle(self.node(), self.stop, Edges(faults.edge(agent, boot), self.hooks.runner))

    def refresh(self, trigger: Trigger = Trigger.CHANGE) -> Result:
        """With a journal that is well."""
        return self.cycle(Faults()).refresh(Request(trigger))

    def keep(self) -> None:
        """This is how it is to be again after ``restore``."""
        for name in ("state", "cache"):
            if (self.root / name).exists():
                shutil.copytree(self.root / name, self.template / name)

    def restore(self) -> None:
        for name in ("state", "cache"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            if (self.template / name).exists():
                shutil.copytree(self.template / name, self.root / name)
        self.hooks = Hooks(failing=self.failing)

    def fingerprints(self) -> Fingerprints:
        return (("heat_local", metadata.fingerprint({"a": self.newest})),)

    def facts(self) -> Facts:
        path = path_in(str(self.state))
        with contextlib.ExitStack() as stack:
            try:
                db = stack.enter_context(
                    contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True))
                )
                db.execute("BEGIN")
                committed = db.execute("SELECT document, fingerprint FROM committed ORDER BY position")
                open_runs = db.execute("SELECT run_id FROM runs WHERE outcome IS NULL")
                activated = db.execute(
                    "SELECT activated_at FROM runs"
                    " WHERE quiesced_since IS NOT NULL OR activated_at IS NOT NULL ORDER BY id DESC LIMIT 1"
                ).fetchone()
            except sqlite3.OperationalError:
                return Facts()  # it is being made
            return Facts(
                tuple(committed),
                tuple(run for (run,) in open_runs),
                activated is not None and not activated[0],
            )


@pytest.fixture
def place() -> Iterator[Place]:
    with in_memory() as folder:
        place = Place(folder)
        yield place
        place.stop.close()


# --- the lives in which something goes wrong ---------------------------------------------------------------


def by_itself(cycle: Cycle) -> Result:
    return cycle.refresh(Request(Trigger.CHANGE))


def by_hand(cycle: Cycle) -> Result:
    return cycle.run_phases(None, joined=True)


class Scenario(NamedTuple):
    """How the node came to where it is, and the refresh in which something goes wrong."""

    prepare: Callable[[Place], None]
    act: Callable[[Cycle], Result] = by_itself
    exit_code: ExitCode = ExitCode.OK
    runs: tuple[str, ...] = tuple(WHOLE)


def _first(place: Place) -> None:
    place.change(1)


def _after_a_success(place: Place) -> None:
    place.change(1)
    assert place.refresh().exit_code is ExitCode.OK


def _changed(place: Place) -> None:
    _after_a_success(place)
    place.change(2)


def _failing(place: Place) -> None:
    _changed(place)
    place.failing = frozenset({"configure/10-a"})


def _failing_migration(place: Place) -> None:
    _changed(place)
    place.failing = frozenset({"worker"})


def _interrupted(place: Place) -> None:
    _changed(place)

    faults = Faults()

    def die(noted: Noted) -> None:
        if noted.place == "configure/10-a":
            faults.kill()

    place.hooks.began = die
    with pytest.raises(Killed):
        place.cycle(faults, agent="an agent before", boot=EARLIER).refresh(Request(Trigger.CHANGE))
    place.change(3)


SCENARIOS = {
    "the first run": Scenario(_first),
    "a changed run": Scenario(_changed),
    "a run that fails": Scenario(
        _failing, by_itself, ExitCode.HOOK_FAILED, ("pre-configure/10-a", "configure/10-a", "error/10-a")
    ),
    "a migration that fails": Scenario(
        _failing_migration, by_itself, ExitCode.MIGRATION_FAILED, (*WHOLE, "error/10-a")
    ),
    "a run by hand": Scenario(_after_a_success, by_hand),
    "after an interrupted run": Scenario(_interrupted),
}


def each_statement(place: Place, scenario: Scenario, kind: Kind) -> Iterator[Faults]:
    """The faults of a node as the scenario has it, for one statement after the other."""
    scenario.prepare(place)
    place.keep()
    for number in itertools.count(1):
        place.restore()
        faults = Faults(kind, number)
        yield faults
        if not faults.hit:
            assert number > 40  # there are that many
            return


# --- what holds always -------------------------------------------------------------------------------------


def check_facts(place: Place, before: Facts) -> None:
    """Whenever somebody looks, in the middle of anything."""
    facts = place.facts()
    places = [noted.place for noted in place.hooks.noted]
    assert len(facts.open_runs) <= 1
    assert facts.committed in {before.committed, place.fingerprints()}
    if facts.committed != before.committed:
        assert places[: len(WHOLE)] == WHOLE
    if QUIESCES in places and ACTIVATES not in places:
        assert facts.quiesced


def check_recovery(place: Place, *, killed: bool, boot: str) -> None:
    """The next refresh brings everything to its end, as the first of a boot in any case with a run, and after
    that nothing is to do.
    """
    before = place.facts()
    place.hooks = Hooks()
    cycle = place.cycle(Faults(), agent="the next agent" if killed else "the first agent", boot=boot)
    result = cycle.refresh(Request(Trigger.START if killed else Trigger.RETRY))
    assert result.exit_code is ExitCode.OK, result
    if boot == LATER or before.committed != place.fingerprints() or before.quiesced:
        assert [noted.place for noted in place.hooks.noted] == WHOLE
        assert {noted.content for noted in place.hooks.noted[:4]} == {place.newest}
    assert place.facts() == Facts(place.fingerprints())
    ran = len(place.hooks.noted)
    assert cycle.refresh(Request(Trigger.CHANGE)).run_id == ""
    assert len(place.hooks.noted) == ran
    assert not list(place.state.glob("*.damaged*"))


def refreshed(place: Place, scenario: Scenario, faults: Faults) -> Result | None:
    """None if it could not begin."""
    try:
        return scenario.act(place.cycle(faults))
    except StateError:
        return None


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", [Kind.FULL, Kind.FULL_FROM_THERE, Kind.IO_ERROR, Kind.TOLD_WRONGLY])
def test_where_a_statement_fails_nothing_runs_or_everything_and_the_next_makes_up_for_it(
    place: Place, name: str, kind: Kind
) -> None:
    scenario = SCENARIOS[name]
    for faults in each_statement(place, scenario, kind):
        before = place.facts()
        result = refreshed(place, scenario, faults)
        ran = tuple(noted.place for noted in place.hooks.noted)
        assert ran == (scenario.runs if result is not None else ()), faults.hit
        after = place.facts()
        if result is not None:
            assert result.exit_code in {scenario.exit_code, ExitCode.STATE}, faults.hit
            if result.exit_code is ExitCode.STATE:
                assert "the success is not recorded" in result.summary
            if result.exit_code is ExitCode.OK:
                assert after == Facts(place.fingerprints()), faults.hit
        check_facts(place, before)
        check_recovery(place, killed=False, boot=THIS)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", [Kind.KILLED_BEFORE, Kind.KILLED_AFTER])
def test_where_the_agent_is_killed_at_a_statement_the_next_one_makes_up_for_it(
    place: Place, name: str, kind: Kind
) -> None:
    """In the same boot it looks for processes that were left, which takes time; so that is one of many."""
    scenario = SCENARIOS[name]
    for number, faults in enumerate(each_statement(place, scenario, kind)):
        before = place.facts()
        with contextlib.suppress(Killed):
            scenario.act(place.cycle(faults))
        check_facts(place, before)
        check_recovery(place, killed=True, boot=LATER if number % 8 else THIS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_whoever_looks_between_two_statements_sees_a_consistent_state(place: Place, name: str) -> None:
    scenario = SCENARIOS[name]
    scenario.prepare(place)
    place.keep()
    place.restore()
    before = place.facts()
    looks = []

    def look(_sql: str) -> None:
        looks.append(1)
        check_facts(place, before)

    def begins(noted: Noted) -> None:
        look("")
        if noted.run and not noted.place.startswith("error/"):
            assert place.facts().open_runs == (noted.run,)

    place.hooks.began = begins
    assert scenario.act(place.cycle(Faults(watch=look))).exit_code is scenario.exit_code
    assert len(looks) > 40


def test_a_reader_that_takes_its_time_keeps_nobody(place: Place) -> None:
    _after_a_success(place)
    reader = sqlite3.connect(f"file:{path_in(str(place.state))}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    seen = reader.execute("SELECT * FROM committed").fetchall()
    for number in range(2, 6):
        place.change(number)
        assert place.refresh().exit_code is ExitCode.OK
    assert reader.execute("SELECT * FROM committed").fetchall() == seen
    reader.close()
    assert place.facts() == Facts(place.fingerprints())


def test_damage_that_is_found_in_a_run_ends_nothing_and_the_run_is_made_once_more(place: Place) -> None:
    _changed(place)

    def break_it(noted: Noted) -> None:
        if noted.place == "configure/10-a":
            with contextlib.closing(sqlite3.connect(path_in(str(place.state)))) as db:
                db.execute("DROP TABLE committed")

    place.hooks = Hooks(began=break_it)
    result = place.refresh()
    assert result.exit_code is ExitCode.STATE
    assert "the success is not recorded" in result.summary
    assert [noted.place for noted in place.hooks.noted] == WHOLE
    assert len(list(place.state.glob("*.damaged-*"))) == 1
    place.hooks = Hooks()
    assert place.refresh(Trigger.RETRY).exit_code is ExitCode.OK
    assert [noted.place for noted in place.hooks.noted] == WHOLE
    assert place.refresh().run_id == ""
    assert place.facts() == Facts(place.fingerprints())
    assert len(list(place.state.glob("*.damaged-*"))) == 1


def test_damage_that_only_shows_when_something_is_written_does_not_keep_a_run(place: Place) -> None:
    """Nothing has run yet: the same refresh begins once more, with a new journal."""
    _changed(place)
    with contextlib.closing(sqlite3.connect(path_in(str(place.state)))) as db:
        db.execute("DROP TABLE outputs")
    assert place.refresh().exit_code is ExitCode.OK
    assert len(list(place.state.glob("*.damaged-*"))) == 1
    assert [noted.place for noted in place.hooks.noted[-5:]] == WHOLE
    assert place.refresh().run_id == ""


def test_a_run_that_was_stopped_and_cannot_be_recorded_is_made_again(place: Place) -> None:
    _changed(place)
    place.hooks.began = lambda noted: place.stop.request(signal.SIGTERM) if noted.place == QUIESCES else None
    faults = Faults(Kind.FULL_FROM_THERE, 60)
    result = place.cycle(faults).refresh(Request(Trigger.CHANGE))
    assert (result.exit_code, result.quiesced) == (ExitCode.HOOK_FAILED, True)
    place.stop.close()
    place.stop = Stop()
    assert place.facts().quiesced
    check_recovery(place, killed=True, boot=THIS)
