"""What the agent's code meets in the model: its journal's connection, its hooks, its files, its workers."""

import contextlib
import errno
import functools
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import pytest

from refresh_agent import databases, files
from refresh_agent.cycle import Edges
from refresh_agent.db.worker import protocol
from refresh_agent.journal_file import Edge
from refresh_agent.marks import HOOK_ID
from refresh_agent.model import (
    ByteSink,
    Command,
    Ending,
    Exit,
    MigrationOutcome,
    MigrationResult,
    StopSignal,
    Target,
)
from refresh_agent.phases import execute, family, order
from refresh_agent.phases.process import Grace, ProcessRunner
from tests.reliability.faults import Killed, full, io_error
from tests.reliability.world import DEFERRED, WHILE, WORKER_SECONDS, Actor, Process, World

T = TypeVar("T")

_WRITES = ("BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT", "CREATE", "PRAGMA user_version =")


def edges(world: World, actor: Actor) -> Edges:
    """What this process of the agent is given."""
    connect = functools.partial(_connect, world, actor)
    edge = Edge(connect, world.wall, world.now, world.facts.boot_id, actor.name)
    return Edges(edge, lambda stop, grace: cast(ProcessRunner, Runner(world, actor, stop, grace)))


def _connect(world: World, actor: Actor, path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, factory=Connection)
    connection.world, connection.actor = world, actor
    return connection


class Connection(sqlite3.Connection):
    """The journal's, of a process that may be killed and on a disk that may fail at every statement."""

    world: World
    actor: Actor

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        return self._do(sql, lambda: super(Connection, self).execute(sql, parameters))

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        return self._do(sql, lambda: super(Connection, self).executemany(sql, parameters))

    def _do(self, sql: str, work: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        if sql.lstrip().startswith(_WRITES):
            done = self.world.write(
                self.actor, work, lambda is_full: self._failed(sql, work, is_full=is_full)
            )
            if sql == "COMMIT":
                self.world.facts.written = self.world.facts.made = True
            return done
        if not self.actor.alive:
            raise Killed
        # SQLite ends a transaction whatever the disk does.
        if sql != "ROLLBACK" and self.world.unreadable:
            self.actor.disturbed = True
            raise io_error()
        return work()

    def _failed(self, sql: str, work: Callable[[], sqlite3.Cursor], *, is_full: bool) -> Exception:
        """SQLite may have taken the transaction back; or, of a failed sync, have put it into the log."""
        if sql == "COMMIT" and not is_full and self.world.chance() < 0.3:
            work()
            self.world.facts.written = self.world.facts.made = True
        elif self.in_transaction and self.world.chance() < 0.5:
            super().execute("ROLLBACK")
        return full() if is_full else io_error()


class Runner:
    """In place of ProcessRunner, which would start processes: a million steps are to take minutes.

    What becomes of a hook is the model's choice. Hooks run one at a time, as by default.
    """

    def __init__(self, world: World, actor: Actor, stop: StopSignal, _grace: Grace) -> None:
        self._world = world
        self._actor = actor
        self._stop = stop
        self._running: list[tuple[Process, str, ByteSink]] = []
        self._ended: deque[tuple[Process, Exit]] = deque()

    def start(self, command: Command, sink: ByteSink) -> Process:
        world, env = self._world, command.env
        if self._stop.requested:
            process = Process(0, 0, "", "never started")
            self._ended.append((process, Exit(143, Ending.STOPPED, 0.0, "the agent is stopping")))
            return process
        # What runs by itself without documents makes up for a run by hand, and is as one.
        by_hand = self._actor.by_hand or not env.get("OS_CONFIG_FILES")
        world.facts.hook_begins(env, by_hand=by_hand, others=world.ours())
        phase = env["REFRESH_AGENT_PHASE"]
        process = world.spawn(env[HOOK_ID], f"a hook of {phase}")
        process.slow = world.chance() < 0.3
        self._running.append((process, phase, sink))
        return process

    def next_ended(self, seconds: float | None = None) -> tuple[Process, Exit] | None:
        if self._ended:
            return self._ended.popleft()
        process, phase, sink = self._running[-1]
        if process.slow and seconds is not None:
            process.slow = False
            return None
        if self._world.happenings:
            self._fire(process, phase)
        self._world.says(sink)
        self._running.pop()
        self._world.end(process)
        if self._stop.requested and self._world.chance() < 0.5:
            self._world.facts.hook_ended(phase, ok=False)
            return process, Exit(143, Ending.STOPPED, 0.0, "the agent is stopping, and it was ended")
        ok = self._world.hook_ends(phase)
        self._world.facts.hook_ended(phase, ok=ok)
        return process, Exit(int(not ok), Ending.EXITED, 0.0)

    def _fire(self, process: Process, phase: str) -> None:
        certain = not self._actor.disturbed
        try:
            self._world.fire(WHILE)
        except Killed:
            if certain:
                self._world.facts.killed(phase)
            # It may have changed its environment. Then only what is recorded of it tells who it is.
            if self._world.chance() < 0.3 and self._world.recorded("hooks", process.mark):
                process.mark = ""
            raise

    def cancel(self, _reason: str) -> None:
        """There is never more than one."""

    def abandon(self) -> None:
        """A process that was killed ends nothing."""


def ask(
    world: World, asked: protocol.Order, targets: Sequence[Target], means: databases.Means
) -> tuple[MigrationResult, ...]:
    """In place of databases.ask, which would start an interpreter: one worker for the only target.

    A worker that could not be recorded ends with its agent: only the database's own lock stands between it
    and another, and that is not a matter of the journal.
    """
    actor = cast(Actor, world.actor)
    (target,) = targets
    if actor.stop.requested:
        return (MigrationResult(target.name, MigrationOutcome.STOPPED),)
    world.facts.databases_begin(asked.run, world.ours())
    mark = os.urandom(16).hex()
    process = world.spawn(mark, "a migration")
    process.due, process.until = world.clock + WORKER_SECONDS, world.clock + 2 * WORKER_SECONDS
    certain = not actor.disturbed
    try:
        means.began(mark, process.pid, WORKER_SECONDS)
        world.fire(WHILE)
    except Killed:
        if certain:
            world.facts.killed(order.MIGRATION)
        if not world.recorded("workers", mark):
            world.end(process)
        raise
    world.end(process)
    outcome = _migrated(world)
    deferred = outcome is MigrationOutcome.DEFERRED
    world.facts.databases_ended(ok=outcome is MigrationOutcome.DONE, deferred=deferred)
    means.ended(mark, Exit(0, Ending.EXITED, 0.0))
    return (MigrationResult(target.name, outcome),)


def _migrated(world: World) -> MigrationOutcome:
    if not world.hook_ends(order.MIGRATION):
        return MigrationOutcome.FAILED
    return MigrationOutcome.DONE if world.hook_ends(DEFERRED) else MigrationOutcome.DEFERRED


@contextlib.contextmanager
def installed(world: World) -> Iterator[None]:
    """In this ``with``, the agent's code lives in this world."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family, "process_table", world.process_table)
        patch.setattr(family, "_mark", world.mark_of)
        patch.setattr(family, "_signal", world.signal)
        patch.setattr(family, "LOOK_AGAIN", 0)
        for module in (family, execute):
            patch.setattr(module, "birth", world.birth)
        # When a hook is told of must not depend on how fast this machine is.
        patch.setattr(execute, "UNTOLD", float("inf"))
        patch.setattr(databases, "ask", functools.partial(ask, world))
        for name in ("write_durably", "copy", "link", "sync_directory"):
            patch.setattr(files, name, functools.partial(_written, world, getattr(files, name)))
        yield


def _written(world: World, write: Callable[..., T], *arguments: Any) -> T:
    """One of the functions that write files, on the world's disk."""

    def failed(is_full: bool) -> Exception:
        number = errno.ENOSPC if is_full else errno.EIO
        return OSError(number, os.strerror(number), arguments[0])

    return world.write(world.actor, lambda: write(*arguments), failed)
