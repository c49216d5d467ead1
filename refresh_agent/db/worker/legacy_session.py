"""A version of a sqlalchemy-migrate repository in one transaction; SQLAlchemy 1.4 only.

A legacy script gets an engine, and everything that it does with it commits by itself. Here the engine has one
connection, and its commits are put off to the end. On MariaDB, where DDL commits anyway, they are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from . import sqlite_session
from .database import MYSQL, POSTGRESQL, SQLITE, Database
from .faults import TargetError
from .statements import Kind, kind_of

_STATEMENT = "refresh_agent_statement"
_OWN_SAVEPOINTS = ("SAVEPOINT", "RELEASE", "ROLLBACK")


@dataclass(frozen=True)
class LegacySession:
    """``engine`` is for the script, and for ``Ledger.following``; ``connection`` for ``Ledger.applied``."""

    engine: Engine
    connection: Connection


@contextmanager
def one_transaction(database: Database) -> Iterator[LegacySession]:
    """Let all that happens through the engine happen at the end of the block, or not at all if it raises.

    Raises TargetError if the script has taken back more than its own.
    """
    if database.backend == MYSQL:
        engine = create_engine(database.url, poolclass=NullPool)
        with engine.connect() as connection:
            yield LegacySession(engine, connection)
            connection.connection.commit()
        return
    engine = create_engine(database.url, poolclass=StaticPool, pool_reset_on_return=None)
    try:
        with engine.connect() as connection:
            yield from _put_off(engine, connection, database.backend)
    finally:
        engine.dispose()


def _put_off(engine: Engine, connection: Connection, backend: str) -> Iterator[LegacySession]:
    dbapi_connection: Any = connection.connection.dbapi_connection
    # SQLAlchemy's own first looks are over.
    dbapi_connection.rollback()
    if backend == SQLITE:
        sqlite_session.begin_by_hand(dbapi_connection, 0)
        _execute(dbapi_connection, "BEGIN IMMEDIATE")
    transaction = _Transaction(dbapi_connection, each_statement=backend == POSTGRESQL)
    dialect: Any = engine.dialect
    dialect.do_commit = dialect.do_rollback = _not_now
    transaction.listen(engine)
    try:
        yield LegacySession(engine, connection)
        transaction.check()
    except BaseException:
        # A lost connection has nothing to take back.
        with suppress(dialect.dbapi.Error):
            dbapi_connection.rollback()
        transaction.check()
        raise
    dbapi_connection.commit()


def _not_now(_dbapi_connection: Any) -> None:
    """In the place of the dialect's commit and rollback."""


@dataclass
class _Block:
    """A transaction of the script: a savepoint. ``mixed``: others have changed something since it began."""

    connection: Connection
    savepoint: str
    mixed: bool = False


class _Transaction:
    """The one connection. ``each_statement``: an error would end the transaction, so each has a savepoint.

    Scripts swallow the errors of single statements and go on, which is all right without a transaction.
    """

    def __init__(self, dbapi_connection: Any, *, each_statement: bool) -> None:
        self._dbapi_connection = dbapi_connection
        self._each_statement = each_statement
        self._blocks: list[_Block] = []
        self._count = 0
        self._fault: TargetError | None = None

    def listen(self, engine: Engine) -> None:
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "commit", self._commit)
        event.listen(engine, "rollback", self._rollback)
        event.listen(engine, "before_cursor_execute", self._before, retval=True)
        event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "handle_error", self._failed)

    def check(self) -> None:
        """Raise what the script may have swallowed."""
        if self._fault is not None:
            raise self._fault

    def _refuse(self, text: str) -> None:
        self._fault = TargetError(text)
        raise self._fault

    def _connected(self, _dbapi_connection: Any, _record: Any) -> None:
        self._refuse("the connection was lost in the middle of the version; nothing of it remains")

    def _begin(self, connection: Connection) -> None:
        self._count += 1
        block = _Block(connection, f"refresh_agent_{self._count}")
        self._execute(f"SAVEPOINT {block.savepoint}")
        self._blocks.append(block)

    def _commit(self, connection: Connection) -> None:
        block = self._block_of(connection)
        if block is not None and block is self._blocks[-1]:
            self._execute(f"RELEASE SAVEPOINT {block.savepoint}")
        if block is not None:
            self._blocks.remove(block)

    def _rollback(self, connection: Connection) -> None:
        """Also called, without a block, after an error outside of one; then nothing is to be taken back."""
        block = self._block_of(connection)
        if block is None:
            return
        if block.mixed or block is not self._blocks[-1]:
            self._refuse(
                "the script rolls back a transaction, but has changed something outside of it meanwhile, and"
                " that cannot be kept: the whole version is one transaction; let the script make such changes"
                " inside of it, or after it"
            )
        self._execute(f"ROLLBACK TO SAVEPOINT {block.savepoint}")
        self._execute(f"RELEASE SAVEPOINT {block.savepoint}")
        self._blocks.remove(block)

    def _before(
        self,
        connection: Connection,
        _cursor: Any,
        statement: str,
        parameters: Any,
        _context: Any,
        _many: bool,
    ) -> tuple[str, Any]:
        kind = kind_of(statement)
        word = statement.split(None, 1)[0].upper().rstrip(";") if statement.strip() else ""
        if word in {"BEGIN", "COMMIT", "END"} or (word == "START" and kind is Kind.COMMIT):
            # As migrate itself does with those of its SQL scripts.
            return sqlite_session.NOTHING, parameters
        if kind is Kind.ROLLBACK:
            self._refuse(
                "the script executes ROLLBACK, which would take back the whole version; remove it there"
            )
        if kind is not Kind.READ:
            for block in self._blocks:
                block.mixed |= block.connection is not connection
        if self._each_statement and word not in _OWN_SAVEPOINTS:
            self._execute(f"SAVEPOINT {_STATEMENT}")
            connection.info[_STATEMENT] = True
        return statement, parameters

    def _after(
        self,
        connection: Connection,
        _cursor: Any,
        _statement: str,
        _parameters: Any,
        _context: Any,
        _many: bool,
    ) -> None:
        if connection.info.pop(_STATEMENT, False):
            self._execute(f"RELEASE SAVEPOINT {_STATEMENT}")

    def _failed(self, context: Any) -> None:
        connection = context.connection
        if connection is None or context.is_disconnect or not connection.info.pop(_STATEMENT, False):
            return
        with suppress(DBAPIError, connection.dialect.dbapi.Error):
            self._execute(f"ROLLBACK TO SAVEPOINT {_STATEMENT}")
            self._execute(f"RELEASE SAVEPOINT {_STATEMENT}")

    def _block_of(self, connection: Connection) -> _Block | None:
        return next((block for block in self._blocks if block.connection is connection), None)

    def _execute(self, statement: str) -> None:
        _execute(self._dbapi_connection, statement)


def _execute(dbapi_connection: Any, statement: str) -> None:
    with closing(dbapi_connection.cursor()) as cursor:
        cursor.execute(statement)
