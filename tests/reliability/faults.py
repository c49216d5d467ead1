"""What goes wrong on purpose: a journal whose n-th statement fails, a runner of hooks that are only noted."""

import contextlib
import json
import os
import pathlib
import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

from refresh_agent.db.bridge import WORKER
from refresh_agent.journal_file import COMPANIONS, Edge
from refresh_agent.model import ByteSink, Command, Ending, Exit, MigrationOutcome, StopSignal, Stream
from refresh_agent.phases.process import Grace, ProcessRunner

T = TypeVar("T")

NOBODY = 2**22 + 1
"""A pid that the kernel never gives: what is recorded of a hook that was only noted points at no process."""


MEMORY = "/dev/shm"
"""Where nothing is about a loss of power, the files may lie where writing is cheap."""


@contextlib.contextmanager
def in_memory() -> Iterator[pathlib.Path]:
    """A folder, in memory if that can be had."""
    folder = tempfile.mkdtemp(prefix="refresh-agent-", dir=MEMORY if os.path.isdir(MEMORY) else None)
    try:
        yield pathlib.Path(folder)
    finally:
        shutil.rmtree(folder)


class Kind(StrEnum):
    """What becomes of the chosen statement."""

    FULL = "the disk is full"
    FULL_FROM_THERE = "the disk is full from there on"
    IO_ERROR = "an I/O error, and SQLite takes the transaction back"
    TOLD_WRONGLY = "an I/O error is told of what was done"
    KILLED_BEFORE = "the agent is killed before it"
    KILLED_AFTER = "the agent is killed after it"


class Killed(BaseException):
    """The agent ends here. Whatever its code does on the way out has no effect on the journal."""


def full() -> sqlite3.OperationalError:
    return _error("database or disk is full", sqlite3.SQLITE_FULL)


def io_error() -> sqlite3.OperationalError:
    return _error("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC)


def _error(text: str, code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


class Faults:
    """The file edge of one refresh's journal: counts its statements, the close too, and fails the ``at``-th.

    ``hit``: that statement, once it has come. ``watch`` is called before every statement.
    """

    def __init__(
        self, kind: Kind | None = None, at: int = 0, watch: Callable[[str], None] = lambda _sql: None
    ) -> None:
        self.kind = kind
        self.hit = ""
        self.dead = False
        self._at = at
        self._watch = watch
        self._count = 0

    def edge(self, agent: str, boot: str) -> Edge:
        return Edge(connect=self.connect, agent=agent, boot_id=lambda: boot)

    def connect(self, path: str) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, factory=_Connection)
        connection.faults = self
        connection.path = path
        return connection

    def around(self, connection: "_Connection", sql: str, work: Callable[[], T]) -> T:
        """Do ``work``, or what is to come of it."""
        if self.dead:
            raise Killed
        self._watch(sql)
        self._count += 1
        if self.kind is None or not self._is_due(sql):
            return work()
        if self.kind is Kind.IO_ERROR:
            connection.take_back()
        elif self.kind in {Kind.TOLD_WRONGLY, Kind.KILLED_AFTER} or sql == "ROLLBACK":
            work()  # SQLite ends a transaction whatever it then says
        if self.kind in {Kind.FULL, Kind.FULL_FROM_THERE}:
            raise full()
        if self.kind in {Kind.IO_ERROR, Kind.TOLD_WRONGLY}:
            raise io_error()
        return self.kill()

    def kill(self) -> NoReturn:
        """The agent ends here, in the middle of something else than a statement."""
        self.dead = True
        raise Killed

    def _is_due(self, sql: str) -> bool:
        due = self._count == self._at
        if due:
            self.hit = sql
        elif self.kind is Kind.FULL_FROM_THERE:
            due = bool(self.hit)
        # To close a connection reports nothing: what hinders it hinders the next one that opens the file.
        return due and (sql != CLOSE or self.kind in {Kind.KILLED_BEFORE, Kind.KILLED_AFTER})


CLOSE = "(close)"


class _Connection(sqlite3.Connection):
    faults: Faults
    path: str

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        return self.faults.around(self, sql, lambda: super(_Connection, self).execute(sql, parameters))

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        return self.faults.around(self, sql, lambda: super(_Connection, self).executemany(sql, parameters))

    def take_back(self) -> None:
        if self.in_transaction:
            super().execute("ROLLBACK")

    def close(self) -> None:
        try:
            self.faults.around(self, CLOSE, super().close)
        except Killed:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """The files stay as a killed process leaves them: SQLite's own close would tidy them up."""
        left = {file: file.read_bytes() for file in journal_files(self.path)}
        super().close()
        for file, content in left.items():
            file.write_bytes(content)


# --- hooks that are only noted -----------------------------------------------------------------------------


class Noted(NamedTuple):
    """A hook or worker that ran: in which run, as "phase/name", and ``a`` of the metadata that it was given.

    ``run`` is empty for a worker.
    """

    run: str
    place: str
    content: object


@dataclass
class Hooks:
    """What has run, in its order, and which of it fails. ``began`` hears of each as it begins."""

    noted: list[Noted] = field(default_factory=list)
    failing: frozenset[str] = frozenset()
    began: Callable[[Noted], None] = lambda _noted: None

    def runner(self, _stop: StopSignal, _grace: Grace) -> ProcessRunner:
        """As ``cycle.Edges.runner`` wants it."""
        return cast(ProcessRunner, _StandIn(self))

    def places(self, run: str) -> list[str]:
        return [noted.place for noted in self.noted if noted.run == run]

    def note(self, noted: Noted) -> bool:
        """Whether it succeeds."""
        self.noted.append(noted)
        self.began(noted)
        return noted.place not in self.failing


@dataclass(eq=False)
class _Ended:
    """In the place of a process."""

    exit: Exit
    pid: int = NOBODY


class _StandIn:
    """Starts nothing; what it was asked to start has ended at once."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._ended: deque[_Ended] = deque()

    def start(self, command: Command, sink: ByteSink) -> _Ended:
        if WORKER in command.argv:
            outcome = MigrationOutcome.DONE if self._hooks.note(Noted("", "worker", None)) else "failed"
            answer = {"target": "shop", "event": "result", "result": outcome, "before": "a", "after": "b"}
            sink(Stream.STDOUT, json.dumps(answer).encode() + b"\n")
            return _Ended(Exit(0, Ending.EXITED, 0.0))
        run, phase = command.env["REFRESH_AGENT_RUN_ID"], command.env["REFRESH_AGENT_PHASE"]
        noted = Noted(run, f"{phase}/{os.path.basename(command.path)}", _content(command))
        sink(Stream.STDOUT, noted.place.encode() + b" says something\n")
        ended = _Ended(Exit(0 if self._hooks.note(noted) else 1, Ending.EXITED, 0.0))
        self._ended.append(ended)
        return ended

    def next_ended(self, _seconds: float | None = None) -> tuple[_Ended, Exit]:
        ended = self._ended.popleft()
        return ended, ended.exit

    def wait(self, ended: _Ended) -> Exit:
        return ended.exit

    def cancel(self, _reason: str) -> None:
        """Nothing runs."""

    def abandon(self) -> None:
        """Nothing runs."""


def _content(command: Command) -> object:
    first = command.env.get("OS_CONFIG_FILES", "").split(":")[0]
    return json.loads(pathlib.Path(first).read_bytes())["a"] if first else None


def journal_files(path: str) -> list[pathlib.Path]:
    """Those that there are of a journal and SQLite's own beside it."""
    return [file for file in (pathlib.Path(path + suffix) for suffix in ("", *COMPANIONS)) if file.exists()]
