"""MariaDB and MySQL: one row, taken by compare and set.

That works on every node of a Galera cluster, where GET_LOCK and row locks are known to one node alone. But a
row stays when its holder dies. So it names the holder's connections and the server that has them: when this
very server does not know any of them any more, the next one takes over. No other server can know.
"""

from __future__ import annotations

import contextlib
import functools
import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
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

_SESSION = (
    # Nothing ends the lock's connection but its server or its worker.
    "SET SESSION wait_timeout = 2000000, SESSION innodb_lock_wait_timeout = 5, SESSION lock_wait_timeout = 5"
)
_NAMES = ("hostname", "port", "datadir", "server_id", "server_uuid", "wsrep_node_name", "wsrep_node_address")
"""Global variables; together they tell one server from another, also the nodes of a cluster."""

_TOLERANCE = 5
"""Seconds by which two calculations of the moment at which a server was started can differ."""

_NOT_NOW = {1205, 1213}
"""Lock wait timeout; deadlock, which is also Galera's word for "another node was sooner"."""

_FREE = {**columns_of(NOBODY), "token": "", "account": "", "server": "", "connections": "[]"}


@dataclass(frozen=True)
class Server:
    """``names`` as in _NAMES; ``started``: seconds since the epoch, by the server's clock."""

    names: dict[str, str]
    started: int

    def is_the_one(self, text: str) -> bool:
        """Whether the text is of this server, or of what it was before it was started anew."""
        if not text:
            return False
        other = json.loads(text)
        return other["names"] == self.names and self.started >= int(other["started"]) - _TOLERANCE

    def was_started_since(self, text: str) -> bool:
        return self.started > int(json.loads(text)["started"]) + _TOLERANCE

    def as_text(self) -> str:
        return json.dumps({"names": self.names, "started": self.started}, sort_keys=True)


class MysqlLock(Lock):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._connection = database.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._raw = self._connection.connection.dbapi_connection
        ask(self._raw, _SESSION)
        self._id, self._account = ask(self._raw, "SELECT CONNECTION_ID(), CURRENT_USER()")[0]
        self._token = ""
        self._connections: list[int] = [self._id]

    @functools.cached_property
    def _server(self) -> Server | None:
        """The server that knows all connections of this worker; None if there is none."""
        return server_of(self._raw)

    def attempt(self, mine: Holder, tell: Callable[[str], None]) -> Obstacle | None:
        row = self._row()
        if row is None:
            self._make_row()
            row = self._row()
        if row is None:
            return Obstacle(None, f"{TABLE.name} has no row yet")
        stuck = ""
        if row.token:
            stuck = self._unsure(row)
            if stuck or self._alive(row):
                holder = holder_of(row)
                return Obstacle(holder, f"its database is being migrated by {holder}", stuck)
        token = uuid.uuid4().hex
        if not self._replace(row.token, self._mine(mine, token)):
            return Obstacle(None, "its database is being migrated by another one that was sooner")
        self._token = token
        if row.token:
            tell(f"the lock of {holder_of(row)} is taken over: that worker's connections have ended")
        return None

    def verify(self) -> None:
        with _or_lost():
            row = self._row()
            same = ask(self._raw, "SELECT CONNECTION_ID()")[0][0] == self._id
        if not same or row is None or row.token != self._token:
            raise TargetError(LOST.format("somebody has freed it by hand, or taken it"))

    def admit(self, dbapi_connection: Any) -> None:
        new = ask(dbapi_connection, "SELECT CONNECTION_ID()")[0][0]
        names = names_of(dbapi_connection)
        with _or_lost():
            self._connections = _alive_of(self._raw, [*self._connections, new])
            if self._server is None or names != self._server.names or new not in self._connections:
                # Another node of a cluster, behind one address: no server sees all that this worker has.
                self._server = None
            ours = self._replace(self._token, self._whereabouts())
        if not ours:
            raise TargetError(LOST.format("somebody has freed it by hand, or taken it"))

    def close(self) -> None:
        if self._token:
            with contextlib.suppress(SQLAlchemyError, TargetError):
                self._replace(self._token, _FREE)
        end(self._connection)

    def holder(self) -> Holder | None:
        row = self._row()
        if row is None or not row.token:
            return None
        return holder_of(row) if self._unsure(row) or self._alive(row) else None

    def unlock(self) -> str:
        row = self._row()
        if row is None or not row.token:
            return "its database is not locked"
        holder = holder_of(row)
        if alive := self._alive(row):
            kills = "; ".join(f"KILL {number}" for number in alive)
            raise TargetError(
                f"its database is being migrated by {holder}, whose connections are alive; end that process,"
                f" or, if it is gone, its connections with: {kills}"
            )
        if not self._replace(row.token, _FREE):
            raise TargetError("the lock has changed hands just now; look again with refresh-agent db status")
        return f"the lock of {holder} was removed"

    def _unsure(self, row: Any) -> str:
        """Why this session cannot see whether the holder's connections are there; "" if it can."""
        if self._server is None or not self._server.is_the_one(row.server):
            where = "it works through another database server"
        elif row.account != self._account:
            where = f"it works as another database user, {row.account}"
        else:
            return ""
        return f"{where}, so only you can find out whether it has ended; if it has, free the lock with"

    def _alive(self, row: Any) -> list[int]:
        """Those of the holder's connections that this server knows; of another server, none."""
        if self._server is None or not self._server.is_the_one(row.server):
            return []
        if self._server.was_started_since(row.server):
            return []
        return _alive_of(self._raw, json.loads(row.connections))

    def _mine(self, mine: Holder, token: str) -> dict[str, Any]:
        return {**columns_of(mine), **self._whereabouts(), "token": token, "account": self._account}

    def _whereabouts(self) -> dict[str, Any]:
        server = self._server.as_text() if self._server else ""
        return {"server": server, "connections": json.dumps(self._connections)}

    def _row(self) -> Any:
        if not has_table(self._connection):
            return None
        return self._connection.execute(select(TABLE).where(TABLE.c.id == ROW)).first()

    def _make_row(self) -> None:
        make_table(self._connection)
        insert = TABLE.insert().prefix_with("IGNORE").values(id=ROW, **_FREE)
        self._write(insert)

    def _replace(self, token: str, values: dict[str, Any]) -> bool:
        """Change the row if it still has this token; both dialects count what was found, not what differs."""
        update = TABLE.update().where(TABLE.c.id == ROW, TABLE.c.token == token).values(**values)
        return self._write(update) == 1

    def _write(self, statement: Any) -> int:
        """The number of rows; 0 if somebody else was sooner."""
        try:
            return int(self._connection.execute(statement).rowcount)
        except DBAPIError as error:
            if _code(error) in _NOT_NOW:
                return 0
            if error.connection_invalidated:
                raise
            raise not_allowed("written", error) from error


@contextmanager
def _or_lost() -> Iterator[None]:
    """What fails on the lock's own connection is the end of the lock."""
    try:
        yield
    except TargetError:
        raise
    except Exception as error:  # the driver's own errors have no base that all drivers share
        raise TargetError(LOST.format(one_line(error))) from error


def server_of(dbapi_connection: Any) -> Server | None:
    """The server behind a connection; None if it cannot be told, since a proxy hides it."""
    own = ask(dbapi_connection, "SELECT CONNECTION_ID()")[0][0]
    told = getattr(dbapi_connection, "thread_id", lambda: own)()
    if own != told or not _alive_of(dbapi_connection, [own]):
        return None
    before = uptime = after = 0
    # Only if the clock was not about to turn, and the machine not busy elsewhere, these belong together.
    for _ in range(10):
        before = int(ask(dbapi_connection, "SELECT UNIX_TIMESTAMP()")[0][0])
        uptime = int(ask(dbapi_connection, "SHOW GLOBAL STATUS LIKE 'Uptime'")[0][1])
        after = int(ask(dbapi_connection, "SELECT UNIX_TIMESTAMP()")[0][0])
        if 0 <= after - before <= 1:
            return Server(names_of(dbapi_connection), before - uptime)
    return None


def names_of(dbapi_connection: Any) -> dict[str, str]:
    """Those of _NAMES that the server has."""
    names = ", ".join(f"'{name}'" for name in _NAMES)
    found = ask(dbapi_connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
    return {str(name): str(value) for name, value in found}


def _alive_of(dbapi_connection: Any, numbers: Iterable[int]) -> list[int]:
    """Those connections that the server still knows, also one that was killed and rolls back."""
    found = {int(row[0]) for row in ask(dbapi_connection, "SELECT ID FROM information_schema.PROCESSLIST")}
    return sorted(found.intersection(numbers))


def _code(error: DBAPIError) -> object:
    return next(iter(getattr(error.orig, "args", ())), None)
