"""PostgreSQL: advisory locks of sessions, which the server frees when a session ends.

Two keys. LOCK is held by the worker whose turn it is, on a connection of its own. WORK is shared by all other
connections of that worker: the server goes on with a dead worker's statement, so whoever gets LOCK waits
until WORK is free, too. The row in the table is only for people.
"""

from __future__ import annotations

import contextlib
import json
import uuid
import weakref
from collections.abc import Callable
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from .database import Database
from .faults import TargetError, one_line
from .lock_base import (
    LOST,
    NOBODY,
    ROW,
    TABLE,
    Holder,
    Lock,
    Obstacle,
    ask,
    columns_of,
    end,
    has_table,
    holder_of,
    make_table,
    not_allowed,
)

LOCK = int.from_bytes(b"refresh\x01", "big")
WORK = int.from_bytes(b"refresh\x02", "big")

_KEEPALIVES = (
    "('tcp_keepalives_idle', '20'), ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3')"
)
"""A peer that has vanished without a word is noticed within a minute; else its locks stay for two hours."""

_NO_LIMITS = (
    "('idle_session_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), ('statement_timeout', '0'),"
    " ('lock_timeout', '30s'), ('tcp_user_timeout', '60s')"
)
"""Nothing else ends the lock's own connection. ``lock_timeout`` is for the table."""

_HOLDERS = text(
    "SELECT lock.pid, activity.client_addr, activity.client_hostname FROM pg_locks AS lock"
    " LEFT JOIN pg_stat_activity AS activity ON activity.pid = lock.pid"
    " WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1"
    " AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND CAST(lock.classid AS bigint) = :high AND CAST(lock.objid AS bigint) = :low ORDER BY lock.pid"
)


class PostgresqlLock(Lock):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._connection = database.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._admitted: list[weakref.ref[Any]] = []
        self._backend = 0
        self._held = False
        self._described = False

    def attempt(self, mine: Holder, tell: Callable[[str], None]) -> Obstacle | None:  # noqa: ARG002
        """The server frees the lock when its holder's connection ends, so there is nothing to take over."""
        if not self._backend:
            self._prepare()
        if not self._held and not self._try(LOCK):
            holder = self.holder()
            return Obstacle(holder, f"its database is being migrated by {holder or NOBODY}")
        self._held = True
        if not self._try(WORK):
            return self._left_over()
        self._ask("SELECT pg_advisory_unlock(:key)", key=WORK)
        self._describe(mine)
        return None

    def verify(self) -> None:
        try:
            pids = [row[0] for row in self._holders(LOCK)]
            held = self._ask("SELECT pg_backend_pid()")[0][0] == self._backend and pids == [self._backend]
        except SQLAlchemyError as error:
            raise TargetError(LOST.format(one_line(getattr(error, "orig", None) or error))) from error
        if not held:
            raise TargetError(LOST.format("its connection is not the one that took it"))

    def admit(self, dbapi_connection: Any) -> None:
        ask(dbapi_connection, _settings(_KEEPALIVES))
        # Only who has LOCK takes WORK for itself. From here on nobody else gets in, so now LOCK must be ours.
        if not ask(dbapi_connection, f"SELECT pg_try_advisory_lock_shared({WORK})")[0][0]:
            raise TargetError(LOST.format("somebody else has it"))
        self.verify()
        with contextlib.suppress(TypeError):  # not every driver's connection can be referred to weakly
            self._admitted.append(weakref.ref(dbapi_connection))

    def close(self) -> None:
        self._dismiss()
        if self._described:
            with contextlib.suppress(SQLAlchemyError):
                self._forget(self._backend)
        if self._held:
            # The end of the connection would free it, too, but a moment later.
            with contextlib.suppress(SQLAlchemyError):
                self._ask("SELECT pg_advisory_unlock(:key)", key=LOCK)
        end(self._connection)

    def holder(self) -> Holder | None:
        holders = self._holders(LOCK)
        if not holders:
            return None
        pid, address, name = holders[0]
        row = self._row()
        if row is not None and json.loads(row.connections) == [pid]:
            return holder_of(row)
        # It has only just taken the lock, or waits for what its predecessor has left running.
        return Holder(name or str(address or ""), 0, "", "", "")

    def unlock(self) -> str:
        backends = [row[0] for row in (*self._holders(LOCK), *self._holders(WORK))]
        row = self._row()
        if backends:
            ending = ", ".join(f"pg_terminate_backend({backend})" for backend in backends)
            holder = self.holder() or (holder_of(row) if row else NOBODY)
            raise TargetError(
                f"its database is being migrated by {holder}, whose connections are alive; end that process,"
                f" or, if it is gone, its connections with: SELECT {ending}"
            )
        if row is None:
            return "its database is not locked"
        self._forget(*json.loads(row.connections))
        return f"its database is not locked any more; removed what {holder_of(row)} had left in {TABLE.name}"

    def _prepare(self) -> None:
        """Make sure that this is one session for as long as it lasts, and that it lasts."""
        backend = int(self._ask("SELECT pg_backend_pid()")[0][0])
        info = getattr(self._connection.connection.dbapi_connection, "info", None)
        if getattr(info, "backend_pid", backend) != backend:
            raise TargetError(
                "connection leads through a connection pooler, where a lock may not outlast a transaction;"
                " give the address of PostgreSQL itself"
            )
        self._ask(_settings(f"{_KEEPALIVES}, {_NO_LIMITS}"))
        self._backend = backend

    def _left_over(self) -> Obstacle:
        row = self._row()
        holder = holder_of(row) if row else NOBODY
        ending = ", ".join(f"pg_terminate_backend({left[0]})" for left in self._holders(WORK))
        return Obstacle(
            holder,
            f"its last migration, by {holder}, is dead, but the server still works for it; wait for the end,"
            f" or end that with: SELECT {ending}",
        )

    def _describe(self, mine: Holder) -> None:
        make_table(self._connection)
        row = {
            **columns_of(mine),
            "id": ROW,
            "token": uuid.uuid4().hex,
            "account": "",
            "server": "",
            "connections": json.dumps([self._backend]),
        }
        try:
            self._connection.execute(TABLE.delete())
            self._connection.execute(TABLE.insert().values(**row))
        except DBAPIError as error:
            raise not_allowed("written", error) from error
        self._described = True

    def _forget(self, *backends: int) -> None:
        self._connection.execute(TABLE.delete().where(TABLE.c.connections == json.dumps(list(backends))))

    def _dismiss(self) -> None:
        """Let go of WORK on connections that outlive the lock, in some pool; their transactions are dead."""
        for reference in self._admitted:
            connection = reference()
            if connection is None:
                continue
            with contextlib.suppress(Exception):  # a driver's own errors have no base; closed ones raise, too
                connection.rollback()
                ask(connection, f"SELECT pg_advisory_unlock_shared({WORK})")
        self._admitted.clear()

    def _row(self) -> Any:
        """The row that says who has the lock, or had it; None if nobody does."""
        if not has_table(self._connection):
            return None
        return self._connection.execute(select(TABLE)).first()

    def _holders(self, key: int) -> list[Any]:
        halves = {"high": key >> 32, "low": key & 0xFFFFFFFF}
        return list(self._connection.execute(_HOLDERS, halves))

    def _try(self, key: int) -> bool:
        taken, backend = self._ask("SELECT pg_try_advisory_lock(:key), pg_backend_pid()", key=key)[0]
        if backend != self._backend:
            raise TargetError(
                LOST.format("the connection changes its session; is there a connection pooler?")
            )
        return bool(taken)

    def _ask(self, statement: str, **parameters: object) -> list[Any]:
        return list(self._connection.execute(text(statement), parameters))


def _settings(settings: str) -> str:
    """Those of them that the server knows."""
    return (
        "SELECT set_config(name, wanted.setting, false)"  # noqa: S608 - constants
        f" FROM (VALUES {settings}) AS wanted (name, setting) JOIN pg_settings USING (name)"
    )
