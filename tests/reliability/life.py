"""The life of the agent on the model's node, step by step, in any order; and that it always ends well."""

import contextlib
import os
import pathlib
import random
import signal
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

from refresh_agent import pause
from refresh_agent.cycle import Cycle, Result
from refresh_agent.errors import LockedError, StateError
from refresh_agent.model import Fingerprints, RetrySettings, RunAtBoot, Settings, Target, Trigger
from refresh_agent.phases import order
from refresh_agent.plan import Request
from refresh_agent.service import Agent, Means
from refresh_agent.wakeup import Stop
from tests.reliability.facts import Violation
from tests.reliability.faults import Killed
from tests.reliability.stand_ins import edges, installed
from tests.reliability.steps import DURING_HOOKS, MEANWHILE, Step
from tests.reliability.world import (
    AFTER,
    BEFORE,
    DEFERRED,
    WHILE,
    Actor,
    DiskFault,
    Happening,
    Mood,
    World,
)

MOST_TURNS = 150
"""Of the agent, after which everything has to be in order once nothing goes wrong any more."""

LOOKS = 3
"""Rescans by which it would have shown that something runs again without need."""

FOR_EVER = 10**9

BAD = (b'{"a": ', b"[1, 2]", b"", b'{"a": "\xff"}', b"\0" * 64)

TARGET = Target("shop", "sqlite:///shop.db", "/usr/bin/python3", "")


class Node(NamedTuple):
    """How the node of one life is set up."""

    keep_runs: int
    databases: bool
    max_attempts: int
    run_at_boot: RunAtBoot = RunAtBoot.ALWAYS


class _Watcher:
    """In place of triggers.Watcher: the model wakes the agent, or does not."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.paths: frozenset[str] = frozenset()

    def watch(self, paths: Iterable[str]) -> None:
        self.paths = frozenset(paths)

    def close(self) -> None:
        """Nothing is watched."""


class Life:
    """One node, and the agents that live on it one after the other. Use it in a ``with``."""

    def __init__(self, root: pathlib.Path, node: Node) -> None:
        self.world = World(root)
        self.world.happen = lambda what: getattr(self, what)()
        self.facts = self.world.facts
        self._node = node
        self._rules = self.world.rules
        self._rules.databases = node.databases
        self._rules.max_attempts = node.max_attempts
        self._rules.run_at_boot = node.run_at_boot
        self._conf = root / "conf"
        self._version = 0
        self._configuration = 0
        self._content: bytes | None = None
        self._started = 0
        self._watcher = _Watcher(lambda: None)
        self._agent: Agent | None = None
        self._actor: Actor | None = None
        self._open = contextlib.ExitStack()
        self.world.tree.metadata.parent.mkdir()

    def __enter__(self) -> Self:
        self._open.enter_context(installed(self.world))
        self._open.callback(self.world.close)
        self._open.callback(self._bury)
        self._write_configuration()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def do(self, step: Step) -> None:
        """Raises Violation."""
        self.world.random = random.Random(step.seed)
        self.world.tell(step.name)
        getattr(self, step.name)()
        self.facts.check()

    # --- the agent -----------------------------------------------------------------------------------------

    def watch(self) -> tuple[str, ...]:
        return (str(self._conf),)

    def digest(self) -> str:
        return str(self._configuration)

    def load(self) -> Settings:
        """As service.Configuration has it."""
        return self.world.tree.settings(
            retry=RetrySettings(1, 8, self._rules.max_attempts),
            keep_runs=self._node.keep_runs,
            run_at_boot=self._rules.run_at_boot,
            targets=(TARGET,) if self._node.databases else (),
            quiet=1.0,
            max_wait=10.0,
        )

    def start(self) -> None:
        """The daemon, and its first refresh."""
        if self._agent is not None:
            return
        self._started += 1
        actor = Actor(f"daemon {self._started}", Stop())
        self._actor = actor
        means = Means(self.world.now, self.world.chance, self._watch, edges(self.world, actor))

        def begin() -> None:
            self._agent = Agent(self, actor.stop, means)
            self._agent._poll()
            self._agent._refresh(Trigger.START)

        if self._work(actor, begin) and self._agent is not None and not self._agent._waiting:
            self.facts.refreshed()
        if not actor.alive or actor.stop.requested or self._agent is None:
            self._bury()

    def _watch(self, wake: Callable[[], None]) -> Any:
        self._watcher = _Watcher(wake)
        return self._watcher

    def turn(self) -> None:
        """The daemon sees to what has woken it, as in Agent._live."""
        agent, actor = self._agent, self._actor
        if agent is None or actor is None:
            return
        if agent.wakeup._reasons or agent._timers.next_due() <= self.world.clock:
            self._work(actor, lambda: agent._turn(agent.wakeup.wait(0)))
            if not actor.alive or actor.stop.requested:
                self._bury()

    def _work(self, actor: Actor, work: Callable[[], object]) -> bool:
        """Let a process of the agent do something, with one run at most; whether it has come to its end."""
        failed = ended = False
        with self.world.at_work(actor):
            try:
                work()
                ended = not actor.disturbed
            except Killed:
                self.world.tell("  killed")
            except LockedError:
                pass
            except StateError as error:
                failed = True
                if not actor.disturbed:
                    raise Violation(f"{actor.name} ends without reason: {error}") from error
        self.facts.work_over(certain=not actor.disturbed)
        if failed:
            actor.alive = False
        return ended

    def _bury(self) -> None:
        """What the kernel does for a process that has ended."""
        agent, actor = self._agent, self._actor
        self._agent = self._actor = None
        self._watcher = _Watcher(lambda: None)
        if agent is not None:
            agent.wakeup.close()
        if actor is not None:
            actor.stop.close()

    def kill(self) -> None:
        """While it waits."""
        self._bury()

    def reboot(self) -> None:
        self._bury()
        self.world.reboot()

    def term(self) -> None:
        """While it waits: it ends."""
        self._bury()

    def stop_it(self) -> None:
        """TERM in the middle of its work; also to a process that was started by hand."""
        actor = self.world.actor
        assert actor is not None
        actor.disturbed = True
        actor.stop.request(signal.SIGTERM)

    def kill_it(self) -> None:
        self.world.kill()

    def lose_power(self) -> None:
        """In the middle of its work, or of that of a process that was started by hand."""
        if self.world.actor is not self._actor:
            self._bury()
        self.world.reboot()
        self.world.kill()

    def hup(self) -> None:
        if self._agent is not None:
            self._agent.wakeup.because(Trigger.SIGNAL)

    # --- other processes of the agent ----------------------------------------------------------------------

    def once(self) -> None:
        self._other(lambda cycle: cycle.refresh(Request(Trigger.ONCE)))

    def once_force(self) -> None:
        self._other(lambda cycle: cycle.refresh(Request(Trigger.ONCE, force=True)))

    def run_by_hand(self) -> None:
        self._other(lambda cycle: cycle.run_phases(None, joined=True), by_hand=True)

    def a_run_by_hand_fails(self) -> None:
        """And nothing but that is left to be found by the daemon."""
        self.settle()
        self.world.mood = Mood(frozenset({self.world.random.choice(order.PHASES)}), 1)
        self.run_by_hand()
        self.settle()

    def a_run_by_hand_is_the_first_of_a_boot(self) -> None:
        self.reboot()
        self.run_by_hand()
        self.start()

    def _other(self, work: Callable[[Cycle], Result], *, by_hand: bool = False) -> None:
        """If a refresh is under way, all it finds is the lock."""
        self._started += 1
        actor = Actor(f"other {self._started}", Stop(), by_hand=by_hand)
        cycle = Cycle(self.load(), actor.stop, edges(self.world, actor))
        if self.world.actor is None:
            if self._work(actor, lambda: work(cycle)) and not by_hand:
                self.facts.refreshed()
            if self.facts.written:
                self.world.touch_journal()
        else:
            runs = self.facts.runs
            with contextlib.suppress(LockedError), self.world.at_work(actor):
                work(cycle)
                self.facts.violated("two refreshes at once")
            if self.facts.runs != runs:
                self.facts.violated("two runs at once")
        actor.stop.close()

    # --- metadata ------------------------------------------------------------------------------------------

    def change(self) -> None:
        self._version += 1
        self._put(b'{"version": %d}' % self._version)

    def change_and_wait(self) -> None:
        """So long that a run for it can be expected."""
        self.change()
        for _ in range(2):
            self.the_next_timer_is_due()

    def go_back(self) -> None:
        """To what there was once, and perhaps is."""
        version = self.world.random.randint(max(1, self._version - 3), max(1, self._version))
        self._put(b'{"version": %d}' % version)

    def spoil(self) -> None:
        self._put(self.world.random.choice((None, *BAD)))

    def _put(self, content: bytes | None) -> None:
        """By rename, as the writers of metadata do it; None: it is gone."""
        self.world.tell(f"  metadata: {content!r}")
        self._content = content
        path = self.world.tree.metadata
        if content is None:
            path.unlink(missing_ok=True)
        else:
            _replace(path, content)
        self._notify(path)

    def _notify(self, path: pathlib.Path) -> None:
        """What the kernel tells of a file gets lost now and then."""
        if str(path) in self._watcher.paths and self.world.chance() < 0.6:
            self._watcher.wake()

    # --- time ----------------------------------------------------------------------------------------------

    def a_moment_passes(self) -> None:
        self.world.pass_time(self.world.random.choice((0.1, 0.5, 1.0, 3.0)))

    def hours_pass(self) -> None:
        self.world.pass_time(self.world.random.uniform(0, 20_000))

    def the_next_timer_is_due(self) -> None:
        if self._agent is None:
            self.world.pass_time(5.0)
        for _ in range(self.world.random.randint(1, 3)):
            if self._agent is not None:
                self.world.pass_time(max(0.0, self._agent._timers.next_due() - self.world.clock))
                self.turn()

    def the_wall_clock_jumps(self) -> None:
        self.world.wall_ahead += self.world.random.choice((-1e7, -3600.0, -1.0, 1.0, 3600.0, 1e7))

    # --- what goes wrong -----------------------------------------------------------------------------------

    def hooks_will_fail(self) -> None:
        phases = frozenset(self.world.random.sample((*order.PHASES, order.ERROR, DEFERRED), 2))
        self.world.mood = Mood(phases, self.world.random.choice((1, 2, FOR_EVER, FOR_EVER)))

    def hooks_will_succeed(self) -> None:
        self.world.mood = Mood()

    def something_will_happen(self) -> None:
        """In the middle of what is done next."""
        chance = self.world.random
        if chance.random() < 0.5:
            happening = Happening(WHILE, chance.randint(0, 5), chance.choice(DURING_HOOKS))
        else:
            where = chance.choice((BEFORE, AFTER))
            happening = Happening(where, int(60 * chance.random() ** 2), chance.choice(MEANWHILE))
        self.world.tell(f"  {happening}")
        self.world.happenings = [*self.world.happenings[-2:], happening]

    def it_is_killed_while_it_migrates(self) -> None:
        """Or in the last hook, where there are no databases. What it leaves behind goes on for a while."""
        self.world.mood, self.world.fault = Mood(), None
        self.world.happenings = [Happening(WHILE, len(order.PHASES) - (not self._node.databases), "kill_it")]
        self.change_and_wait()

    def the_disk_will_fail(self) -> None:
        chance = self.world.random
        lasts = chance.choice((1, 1, 2, 10, FOR_EVER))
        self.world.fault = DiskFault(int(60 * chance.random() ** 2), lasts, chance.random() < 0.5)
        self.world.tell(f"  {self.world.fault}")

    def the_disk_is_well(self) -> None:
        self.world.fault = None

    def another_takes_the_lock(self) -> None:
        self.world.lock()

    def the_lock_is_free(self) -> None:
        self.world.unlock()

    # --- what an operator does -----------------------------------------------------------------------------

    def pause(self) -> None:
        with self.world.untouched():
            pause.begin(str(self.world.tree.state), "maintenance", self.world.wall())
        self._rules.paused = True
        self._notify_of_pause()

    def resume(self) -> None:
        with self.world.untouched():
            pause.end(str(self.world.tree.state))
        self._rules.paused = False
        self._notify_of_pause()

    def _notify_of_pause(self) -> None:
        self._notify(pathlib.Path(pause.path_in(str(self.world.tree.state))))

    def set_max_attempts(self) -> None:
        self._rules.max_attempts = self.world.random.choice((0, 0, 1, 2, 3))
        self._write_configuration()

    def set_run_at_boot(self) -> None:
        self._rules.run_at_boot = self.world.random.choice(list(RunAtBoot))
        self._write_configuration()

    def _write_configuration(self) -> None:
        self._configuration += 1
        _replace(self._conf, b"%d" % self._configuration)
        self._notify(self._conf)

    # --- in the end, all is well ---------------------------------------------------------------------------

    def settle(self) -> None:
        """Nothing goes wrong any more: then the newest good metadata is brought onto the node, once."""
        world = self.world
        world.happenings.clear()
        world.fault, world.mood = None, Mood()
        world.unlock()
        if self._rules.paused:
            self.resume()
        ends_well = self._eventually(lambda: self._is_well() or self._is_held())
        if ends_well and not self._is_well():
            self.hup()  # what is held waits for the operator
            ends_well = self._eventually(self._is_well)
        if not ends_well:
            self.facts.violated(f"after {MOST_TURNS} turns: {self._how_it_stands()}")
        runs, expected = self.facts.runs, self._expected()
        for _ in range(LOOKS):
            self.the_next_timer_is_due()
        if self.facts.runs != runs or self.facts.history().committed != expected:
            self.facts.violated("when all is well, something runs again")

    def _eventually(self, condition: Callable[[], bool]) -> bool:
        for _ in range(MOST_TURNS):
            if self._agent is None:
                self.start()
            else:
                self.the_next_timer_is_due()
            self.facts.check()
            if self._agent is not None and not self._is_asked(self._agent) and condition():
                return True
        return False

    @staticmethod
    def _is_asked(agent: Agent) -> bool:
        """Whether it still has something to do: also a HUP that it could not yet act on."""
        return bool(agent.wakeup._reasons) or agent._asked_for

    def _is_well(self) -> bool:
        history = self.facts.history()
        return (
            history.committed == self._expected()
            and history.unfinished is None
            and history.quiesced is None
            and not self.facts.quiesced
            and not self.facts.owes_a_run
        )

    def _is_held(self) -> bool:
        unfinished = self.facts.history().unfinished
        limit = self._rules.max_attempts
        return unfinished is not None and bool(limit) and unfinished.failures >= limit

    def _expected(self) -> Fingerprints | None:
        """What the metadata holds if that is good; else what the agent has last seen of it, if anything."""
        if self._content is not None and self._content not in BAD:
            return (("heat_local", self.facts.fingerprint(self._content)),)
        return self.facts.newest_good()

    def _how_it_stands(self) -> str:
        quiesced = "quiesced" if self.facts.quiesced else "not quiesced"
        owing = ", and has booted" if self.facts.owes_a_run else ""
        return f"expected {self._expected()}; the node is {quiesced}{owing}; {self.facts.history()}"


def _replace(path: pathlib.Path, content: bytes) -> None:
    new = f"{path}.new"
    with open(new, "wb") as file:
        file.write(content)
    os.rename(new, path)
