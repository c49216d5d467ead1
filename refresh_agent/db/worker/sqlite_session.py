"""SQLite with real transactions, whatever env.py does: nothing of a failed revision remains.

Python's driver begins a transaction before INSERT, UPDATE and DELETE only, so that DDL would be permanent at
once. Here it never begins one; ``prepare`` does, before the first statement of SQLAlchemy's transaction.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress
from typing import Any

from sqlalchemy.engine import Connection

from .faults import TargetError
from .statements import Kind, kind_of

_PUT_OFF = "refresh_agent_foreign_keys_put_off"
_WROTE = "refresh_agent_wrote"

_BEGIN = re.compile(r"\s*BEGIN\b", re.IGNORECASE)
_FOREIGN_KEYS = re.compile(
    r"\s*PRAGMA\s+(?:\w+\s*\.\s*)?foreign_keys\s*(?:=|\()\s*['\"]?(\w+)", re.IGNORECASE
)
_ON = frozenset({"on", "yes", "true", "1"})

NOTHING = "SELECT 1 WHERE 0"


def begin_by_hand(dbapi_connection: Any, lock_timeout: float) -> None:
    """Let the driver not begin transactions by itself; ``lock_timeout`` in seconds, 0 leaves the driver's."""
    dbapi_connection.isolation_level = None
    if lock_timeout > 0:
        milliseconds = min(round(lock_timeout * 1000), 2**31 - 1)
        _run(dbapi_connection, f"PRAGMA busy_timeout = {milliseconds}")


def interrupt(dbapi_connection: Any) -> None:
    """End what runs on it; from any thread. A closed one has nothing that runs."""
    with suppress(sqlite3.ProgrammingError):
        _real(dbapi_connection).interrupt()


def prepare(connection: Connection, statement: str) -> str:
    """Begin a transaction if it is time to; the statement that is to run, which may be another one."""
    dbapi_connection = connection.connection.dbapi_connection
    autocommit = is_autocommit(connection)
    if not autocommit and dbapi_connection.isolation_level is not None:  # type: ignore[union-attr]
        dbapi_connection.isolation_level = None  # type: ignore[union-attr] # SQLAlchemy resets it
    inside = in_transaction(dbapi_connection)
    if not inside:
        connection.info.pop(_WROTE, None)
        if connection.info.pop(_PUT_OFF, False):
            _run(dbapi_connection, "PRAGMA foreign_keys = ON")
    if found := _FOREIGN_KEYS.match(statement):
        wanted = found[1].lower() in _ON
        return _switched(connection, wanted, statement) if inside else statement
    if _BEGIN.match(statement):
        # env.py has a listener of its own that begins; what it begins is as good.
        return NOTHING if inside else statement
    if not inside and not autocommit and connection.in_transaction():
        _run(dbapi_connection, "BEGIN")
    if kind_of(statement) is not Kind.READ or statement.lstrip()[:9].upper() == "SAVEPOINT":
        connection.info[_WROTE] = True
    return statement


def _switched(connection: Connection, wanted: bool, statement: str) -> str:
    """``PRAGMA foreign_keys`` inside a transaction, where SQLite would ignore it.

    Batch mode drops tables; with foreign keys on, their rows would take their children along.
    """
    dbapi_connection = connection.connection.dbapi_connection
    is_on = _real(dbapi_connection).execute("PRAGMA foreign_keys").fetchone()[0] == 1
    if wanted == is_on:
        connection.info.pop(_PUT_OFF, None)
    elif not connection.info.get(_WROTE):
        # Nothing has been changed yet, so the transaction can as well begin behind it.
        for text in ("COMMIT", statement, "BEGIN"):
            _run(dbapi_connection, text)
    elif wanted:
        connection.info[_PUT_OFF] = True
    else:
        raise TargetError(
            "PRAGMA foreign_keys=OFF comes after a change in the same transaction, where SQLite ignores it;"
            " dropping a table would delete the rows that refer to it; make it the first statement of the"
            " revision, or give what comes before a revision of its own"
        )
    return NOTHING


def is_autocommit(connection: Connection) -> bool:
    """Whether SQLAlchemy was told to have no transactions on this connection; any backend."""
    level = connection.get_execution_options().get("isolation_level")
    if level is None:
        dialect = connection.dialect
        # The first is SQLAlchemy 2's, the second 1.4's.
        level = getattr(dialect, "_on_connect_isolation_level", None) or getattr(
            dialect, "isolation_level", None
        )
    return str(level).upper() == "AUTOCOMMIT"


def in_transaction(dbapi_connection: Any) -> bool:
    """Whether SQLite has begun one."""
    return bool(_real(dbapi_connection).in_transaction)


def _real(dbapi_connection: Any) -> Any:
    """The sqlite3.Connection, of aiosqlite's too."""
    if isinstance(dbapi_connection, sqlite3.Connection):
        return dbapi_connection
    driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    return getattr(driver, "_conn", driver)


def _run(dbapi_connection: Any, statement: str) -> None:
    with closing(dbapi_connection.cursor()) as cursor:
        cursor.execute(statement)
