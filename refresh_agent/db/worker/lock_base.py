"""What the locks of all kinds of databases have in common; ``locks`` is what others use."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, Text, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from .database import Database, make_transactional
from .faults import TargetError, one_line


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as far as it is known: "" and 0 are unknown. ``since``: 2026-11-21T16:50:00Z."""

    host: str
    pid: int
    run: str
    target: str
    since: str

    def __str__(self) -> str:
        parts = {"host": self.host, "pid": self.pid, "run": self.run, "since": self.since}
        return ", ".join(f"{name} {value}" for name, value in parts.items() if value) or "an unknown process"


NOBODY = Holder("", 0, "", "", "")


@dataclass(frozen=True)
class Wait:
    """How to wait for a lock: ``seconds`` at most (0 tries once, inf is no limit), ``tell`` hears for whom.

    ``stopped`` says whether to give up at once.
    """

    seconds: float
    tell: Callable[[str], None]
    stopped: Callable[[], bool]


class Busy(TargetError):  # noqa: N818 - not an error, an answer
    """Somebody else holds the lock."""

    def __init__(self, text: str, holder: Holder | None) -> None:
        super().__init__(text)
        self.holder = holder


@dataclass(frozen=True)
class Obstacle:
    """Why the lock is not to be had. ``stuck``: why it may never be had without the operator, or ""."""

    holder: Holder | None
    text: str
    stuck: str = ""


class Lock(abc.ABC):
    """The lock of one database, held or not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @abc.abstractmethod
    def attempt(self, mine: Holder, tell: Callable[[str], None]) -> Obstacle | None:
        """Try to take it, without waiting; None if it is held now. ``tell`` hears of a takeover."""

    @abc.abstractmethod
    def verify(self) -> None:
        """Raise TargetError if it is not held any more."""

    @abc.abstractmethod
    def admit(self, dbapi_connection: Any) -> None:
        """Make a new connection of this worker's known to the server as one that works under the lock.

        Nobody gets the lock while such a connection of a dead worker is still at work. Raises TargetError if
        the lock was lost.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give it back, if it is held, and everything that it needed. Whatever fails then ends by itself."""

    @abc.abstractmethod
    def holder(self) -> Holder | None:
        """Who holds it now; writes nothing."""

    @abc.abstractmethod
    def unlock(self) -> str:
        """Free it of a holder that is gone, and say so. Raises TargetError if the holder is still there."""


LOST = "the lock on its database was lost ({}); nothing more is begun, it will be tried again"

TABLE = Table(
    "refresh_agent_lock",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    # A new one each time that the lock is taken, "" when it is free.
    Column("token", String(64), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("run", String(64), nullable=False),
    Column("target", String(255), nullable=False),
    Column("since", String(32), nullable=False),
    Column("account", String(255), nullable=False),
    # What the server is known by, as JSON; "" if it cannot be told.
    Column("server", Text, nullable=False),
    # The server's numbers of the holder's connections, as JSON.
    Column("connections", Text, nullable=False),
)
ROW = 1
"""The id of the only row."""


def has_table(connection: Connection) -> bool:
    return bool(inspect(connection).has_table(TABLE.name))


def make_table(connection: Connection) -> None:
    """Make the table if it is not there; several may do so at once."""
    if not has_table(connection):
        make_transactional(TABLE, connection)
        try:
            connection.execute(CreateTable(TABLE, if_not_exists=True))
        except DBAPIError as error:
            raise not_allowed("made", error) from error


def not_allowed(what: str, error: DBAPIError) -> TargetError:
    """The table cannot be ``what`` ("made", "written"), most often for want of a right."""
    return TargetError(
        f"the table {TABLE.name} cannot be {what}: {one_line(error.orig or error)}; the database user of"
        " connection must be allowed to create tables in its database, to read and to write them"
    )


def end(connection: Connection) -> None:
    """Close the connection itself, whatever pool it is from; the server then frees what it held."""
    with contextlib.suppress(SQLAlchemyError):
        connection.invalidate()
    with contextlib.suppress(SQLAlchemyError):
        connection.close()


def holder_of(row: Any) -> Holder:
    return Holder(row.host, int(row.pid), row.run, row.target, row.since)


def columns_of(holder: Holder) -> dict[str, Any]:
    """The columns that show the holder, cut to what they can hold."""
    fields = asdict(holder)
    return {
        name: value[: getattr(TABLE.c[name].type, "length", None)] if isinstance(value, str) else value
        for name, value in fields.items()
    }


def ask(dbapi_connection: Any, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement of ours on a connection of somebody else's, and leave no transaction behind."""
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute(statement)
        rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else []
    finally:
        cursor.close()
    dbapi_connection.commit()
    return rows
