"""The node on which the model's agents live: its clocks, its disk, its processes.

The agents are the real thing, down to their files and their journal. What stands in for the world: hooks and
workers are entries of a table instead of processes, so that a million steps take minutes; clocks are numbers;
and the disk fails, or a process is killed, where the model wants it.
"""

import contextlib
import fcntl
import os
import pathlib
import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

from refresh_agent.journal_file import COMPANIONS, path_in
from refresh_agent.model import ByteSink
from refresh_agent.phases import family, order
from refresh_agent.wakeup import Stop
from tests.reliability.facts import Facts, Rules
from tests.reliability.faults import NOBODY, Killed
from tests.unit.support import Tree

T = TypeVar("T")

WORKER_SECONDS = 20.0
"""What a migration may take. One whose agent was killed may go on for twice as long, if nobody ends it."""

BEFORE, AFTER, WHILE = "before", "after", "while"
"""Where something can happen: before or after a write to the disk, or while a hook or worker runs."""

DEFERRED = "the databases, which somebody else migrates"
"""Beside the phases, what may not succeed."""


@dataclass(eq=False)
class Process:
    """In the node's table. ``mark``: its REFRESH_AGENT_HOOK_ID; ``until``: when it ends at the latest; before
    ``due`` nobody may end it. ``orphan``: its agent is dead.

    ``slow``: it still runs when the agent looks for the first time, and so is told of before its end.
    """

    pid: int
    began: int
    mark: str
    what: str
    until: float = float("inf")
    due: float = 0.0
    slow: bool = False
    orphan: bool = False

    def __repr__(self) -> str:
        return self.what


STRANGER = "a stranger's process"


@dataclass(eq=False)
class Actor:
    """A process of the agent. ``disturbed``: something other than a hook has gone wrong for it, or hit it."""

    name: str
    stop: Stop
    by_hand: bool = False
    alive: bool = True
    disturbed: bool = False


@dataclass
class Happening:
    """``what`` happens after so many more of these places."""

    where: str
    left: int
    what: str


@dataclass
class DiskFault:
    """After ``left`` more writes, ``lasts`` of them fail. ``full``: else it is an I/O error, of reads too."""

    left: int
    lasts: int
    full: bool


class Mood(NamedTuple):
    """The next ``left`` hooks of these phases fail."""

    phases: frozenset[str] = frozenset()
    left: int = 0


class World:
    """Everything outside of the agent's own code. ``happen``: makes something happen, by its name."""

    def __init__(self, root: pathlib.Path) -> None:
        self.tree = Tree(root)
        self.rules = Rules()
        self.facts = Facts(self.tree.state, self.rules)
        self.random = random.Random(0)
        self.told: list[str] = []
        self.clock, self.wall_ahead = 1000.0, 1.7e9
        self.actor: Actor | None = None
        self.happenings: list[Happening] = []
        self.fault: DiskFault | None = None
        self.mood = Mood()
        self.happen: Callable[[str], None] = self.tell
        self.says: Callable[[ByteSink], None] = lambda _sink: None
        self._table: dict[int, Process] = {}
        self._pids = NOBODY
        self._lock: int | None = None
        for phase in (*order.PHASES, order.ERROR):
            self.tree.hook(f"{phase}/10-a")

    def tell(self, text: str) -> None:
        self.told.append(text)

    # --- clocks --------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.clock

    def wall(self) -> float:
        return self.clock + self.wall_ahead

    def chance(self) -> float:
        return self.random.random()

    def pass_time(self, seconds: float) -> None:
        self.clock += seconds
        for process in self.processes():
            if process.until <= self.clock or (process.orphan and self.chance() < 0.2):
                self._end_by_itself(process)

    def reboot(self) -> None:
        """Pids are given again, and so are times since the boot."""
        self.facts.booted()
        self.clock = 10.0 + self.chance()
        self.unlock()
        for process in self.processes():
            self._end_by_itself(process)

    # --- processes -----------------------------------------------------------------------------------------

    def processes(self) -> list[Process]:
        return list(self._table.values())

    def ours(self) -> list[Process]:
        """Hooks and workers that run."""
        return [process for process in self._table.values() if process.what != STRANGER]

    def spawn(self, mark: str, what: str) -> Process:
        self._pids += 1
        process = Process(self._pids, int(self.clock * 100) + 1, mark, what)
        self._table[process.pid] = process
        return process

    def end(self, process: Process) -> None:
        if self._table.get(process.pid) is process:
            del self._table[process.pid]

    def _end_by_itself(self, process: Process) -> None:
        """Its pid is given to another."""
        self.end(process)
        if process.what != STRANGER and self.chance() < 0.3:
            self._table[process.pid] = Process(process.pid, process.began + 7, "", STRANGER, self.clock + 50)

    def process_table(self) -> dict[int, family.Entry]:
        return {pid: family.Entry(1, pid, process.began) for pid, process in self._table.items()}

    def mark_of(self, pid: int) -> str:
        return self._table[pid].mark

    def birth(self, pid: int) -> int:
        return self._table[pid].began if pid in self._table else 0

    def signal(self, pids: Mapping[int, int], _number: int) -> None:
        """Everything ends of TERM here. ``pids``, and when each began."""
        for pid, began in pids.items():
            process = self._table.get(pid)
            if process is None or process.began != began:
                continue
            if process.what == STRANGER:
                self.facts.violated("a stranger's process is signalled")
            if self.clock < process.due:
                self.facts.violated("a migration is torn before its time is up")
            self.end(process)

    # --- the lock ------------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Taken by another program, such as os-refresh-config."""
        if self._lock is None:
            self._lock = os.open(self.tree.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.rules.locked = True

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            self.rules.locked = False

    # --- what goes wrong -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def at_work(self, actor: Actor) -> Iterator[None]:
        """What the files are written by, and what is killed or hit."""
        before, self.actor = self.actor, actor
        actor.disturbed = False
        try:
            yield
        finally:
            self.actor = before

    @contextlib.contextmanager
    def untouched(self) -> Iterator[None]:
        """What is written here is an operator's command, and succeeds."""
        before, self.actor = self.actor, None
        try:
            yield
        finally:
            self.actor = before

    def fire(self, where: str) -> None:
        """What is to happen here does. Raises Killed."""
        for happening in [each for each in self.happenings if each.where == where]:
            happening.left -= 1
            if happening.left < 0:
                self.happenings.remove(happening)
                self.tell(f"  {where} {happening.what}")
                self.happen(happening.what)

    def kill(self) -> None:
        """Whoever is at work."""
        actor = cast(Actor, self.actor)
        actor.alive, actor.disturbed = False, True
        for process in self.ours():
            process.orphan = True
        raise Killed

    def write(self, actor: Actor | None, work: Callable[[], T], fail: Callable[[bool], Exception]) -> T:
        """Do ``work``, which is to stay on the disk, unless that fails or its process is killed."""
        if actor is None:
            return work()
        if not actor.alive:
            raise Killed
        if self.happenings:
            self.fire(BEFORE)
        if self.fault is not None and self._fails(self.fault):
            actor.disturbed = True
            raise fail(self.fault.full)
        done = work()
        if self.happenings:
            self.fire(AFTER)
        return done

    def _fails(self, fault: DiskFault) -> bool:
        fault.left -= 1
        return -fault.lasts <= fault.left < 0

    @property
    def unreadable(self) -> bool:
        """As long as an I/O error lasts, now and then."""
        fault = self.fault
        broken = fault is not None and not fault.full and -fault.lasts <= fault.left < 0
        return broken and self.chance() < 0.2

    def touch_journal(self) -> None:
        """Its files look different: here so little time passes that the file system's clock does not tell."""
        path = path_in(str(self.tree.state))
        for name in (path, path + COMPANIONS[0]):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name)
                os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns + 1))

    # --- hooks ---------------------------------------------------------------------------------------------

    def hook_ends(self, phase: str) -> bool:
        """Whether it has succeeded."""
        if self.mood.left <= 0 or phase not in self.mood.phases:
            return True
        self.mood = self.mood._replace(left=self.mood.left - 1)
        self.tell(f"  {phase} fails")
        return False

    def recorded(self, table: str, mark: str) -> bool:
        path = path_in(str(self.tree.state))
        with contextlib.closing(sqlite3.connect(path)) as db:
            found = db.execute(f"SELECT 1 FROM {table} WHERE hook_id = ? AND pid <> 0", (mark,)).fetchone()
        return found is not None

    def close(self) -> None:
        self.unlock()
        self.facts.close()
