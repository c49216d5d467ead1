"""Migrations whose worker is killed at random moments, and what the next one then makes of the database."""

import contextlib
import os
import pathlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from refresh_agent.db import bridge
from refresh_agent.db.worker import protocol
from refresh_agent.lines import Listener
from refresh_agent.model import Command, Exit, MigrationOutcome, MigrationResult, Stream, Target
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.wakeup import Stop
from tests.integration import counted_tree
from tests.integration.databases import Database

LOCK_TIMEOUT = 30.0
"""Seconds. The lock of a dead worker that is not free by then is stuck."""

START, BEGIN, STEP = "start", "begin", "step"
"""Marks in a worker's life: it is started, it has the first target, the first step begins."""

SHARES = {START: 0.1, BEGIN: 0.3, STEP: 0.6}
"""How the kills are spread over the time from each mark on: most of the whole is spent on imports."""

MORE = 0.3
"""The share of killed workers whose successor is to be killed too."""

MOST_RUNS = 15
"""For one database: by then it has to be at the head."""

MakeDatabase = Callable[[], Database]


class WrongError(AssertionError):
    """Something that must never be; the message says what, and how it came to be."""


class Moment(NamedTuple):
    """Seconds after a mark."""

    mark: str
    delay: float


class Killer:
    """Runs workers, and kills them at ``moment`` if there is one and they still run then.

    Of the last one: ``killed``, whether it was hit; ``spans``, the seconds from each mark to its end.
    """

    def __init__(self, runner: ProcessRunner) -> None:
        self.moment: Moment | None = None
        self.killed = False
        self.spans: dict[str, float] = {}
        self._runner = runner

    def run(self, command: Command, listener: Listener) -> Exit:
        passed = {mark: threading.Event() for mark in SHARES}
        times = {START: time.monotonic()}

        def feed(stream: Stream, data: bytes) -> None:
            for mark in (BEGIN, STEP) if stream is Stream.STDOUT else ():
                if mark not in times and f'"event": "{mark}"'.encode() in data:
                    times[mark] = time.monotonic()
                    passed[mark].set()
            listener.feed(stream, data)

        process = self._runner.start(command, feed)
        passed[START].set()
        with _killing(process.pid, self.moment, passed):
            how = self._runner.wait(process)
        listener.flush()
        self.spans = {mark: time.monotonic() - moment for mark, moment in times.items()}
        self.killed = how.status == 128 + signal.SIGKILL
        return how


@contextlib.contextmanager
def _killing(pid: int, moment: Moment | None, passed: Mapping[str, threading.Event]) -> Iterator[None]:
    """Kill that child at the moment, unless the ``with`` ends before."""
    if moment is None:
        yield
        return
    ended = threading.Event()
    pidfd = os.pidfd_open(pid)  # by its number another process could be hit

    def kill() -> None:
        passed[moment.mark].wait()
        if not ended.wait(moment.delay):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        passed[moment.mark].set()
        thread.join()
        os.close(pidfd)


@dataclass
class Tally:
    """What came of the kills of one backend. ``found``: by how much was done when the next one looked."""

    kind: str
    kills: int = 0
    databases: int = 0
    dirty: int = 0
    slowest: float = 0.0
    found: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        found = ", ".join(f"{count} x {what}" for what, count in sorted(self.found.items()))
        return (
            f"{self.kind}: {self.kills} workers killed on {self.databases} databases, {len(self.wrong)} went"
            f" wrong; {self.dirty} times dirty and resumed; slowest way to the head {self.slowest:.1f} s;"
            f" found afterwards: {found}"
        )


class Soak:
    """Kills workers on one backend after the other database; ``pythons`` take turns as their interpreter."""

    def __init__(self, make: MakeDatabase, folder: pathlib.Path, pythons: Sequence[str], seed: int) -> None:
        self._make = make
        self._folder = folder
        self._pythons = pythons
        self._seed = seed
        self._random = random.Random(seed)
        self._log: list[str] = []
        self._spans: dict[str, Mapping[str, float]] = {}

    def run(self, kind: str, kills: int) -> Tally:
        """Go on until so many were hit. What goes wrong is in the tally; it ends nothing."""
        tally = Tally(kind)
        stop = Stop()
        killer = Killer(ProcessRunner(stop, Grace(kill=1, stop=0)))
        while tally.kills < kills and not tally.wrong[4:]:
            database = self._make()
            target = self._target(database, tally.databases)
            tally.databases += 1
            self._log.clear()
            try:
                self._one_database(killer, target, tally)
            except AssertionError as error:
                told = "\n    ".join(self._log)
                tally.wrong.append(
                    f"{kind}, seed {self._seed}, database {tally.databases}: {error}\n    {told}"
                )
            database.drop()
        stop.close()
        return tally

    def _target(self, database: Database, number: int) -> Target:
        url = counted_tree.url(database)
        tree = self._folder / f"tree{number}"
        return Target(
            name="counted",
            connection=url,
            python=self._pythons[number % len(self._pythons)],
            legacy_python="",
            alembic_config=str(counted_tree.write(tree, url)),
            lock_timeout=LOCK_TIMEOUT,
        )

    def _one_database(self, killer: Killer, target: Target, tally: Tally) -> None:
        if target.python not in self._spans:
            # How long it takes when nobody disturbs it: what the moments are chosen from.
            result = self._ask(killer, target)
            self._spans[target.python] = killer.spans
        else:
            began = time.monotonic()
            result = self._disturbed(killer, target, tally)
            tally.slowest = max(tally.slowest, time.monotonic() - began)
        _check_head(result, target)

    def _disturbed(self, killer: Killer, target: Target, tally: Tally) -> MigrationResult:
        """Kill the first worker, and perhaps its successor; the result of the first one that had its way."""
        left = 1 + (self._random.random() < MORE)
        resume = False
        for _ in range(MOST_RUNS):
            moment = self._moment(self._spans[target.python]) if left else None
            result = self._ask(killer, target, moment, resume=resume)
            if killer.killed:
                left -= 1
                tally.kills += 1
                resume = False
            elif resume or not _is_dirty(result):
                tally.found["dirty, resumed" if resume else result.before] += 1
                return result
            else:
                tally.dirty += 1
                _check_dirty(result, target)
                resume = True
        raise WrongError(f"still not at the head after {MOST_RUNS} runs")

    def _moment(self, spans: Mapping[str, float]) -> Moment:
        (mark,) = self._random.choices(list(SHARES), list(SHARES.values()))
        return Moment(mark, self._random.uniform(0, spans[mark]))

    def _ask(
        self, killer: Killer, target: Target, moment: Moment | None = None, *, resume: bool = False
    ) -> MigrationResult:
        order = protocol.Order(protocol.UPGRADE, run="soak", resume=resume)
        surroundings = bridge.Surroundings(
            run=killer.run,
            log=self._log.append,
            env=os.environ,
            objection=lambda _path, _owners: "",
            learn=lambda _secrets: None,
        )
        killer.moment = moment
        (result,) = bridge.ask(order, (target,), surroundings)
        self._log.append(f"-- {moment}, hit: {killer.killed}, resume: {resume}: {result}")
        return result


def _is_dirty(result: MigrationResult) -> bool:
    return not result.ok and bool(result.report.get("dirty"))


def _check_dirty(result: MigrationResult, target: Target) -> None:
    if not target.connection.startswith("mysql"):
        raise WrongError(f"it is dirty, where a failed revision leaves nothing: {result.message}")
    if "--resume" not in result.message:
        raise WrongError(f"it is dirty, and nobody says what to do: {result.message}")


def _check_head(result: MigrationResult, target: Target) -> None:
    if result.outcome not in {MigrationOutcome.DONE, MigrationOutcome.UNCHANGED}:
        raise WrongError(f"it did not get to the head: {result.outcome}: {result.message}")
    counts = counted_tree.count(target.connection)
    if counts != counted_tree.WHOLE:
        raise WrongError(f"something is lost or doubled: {counts}")
