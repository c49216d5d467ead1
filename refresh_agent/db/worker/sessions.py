"""Every connection to the target's database, whoever opens it: env.py, a script, or the worker itself.

env.py makes engines of its own, so the listeners are on SQLAlchemy's Engine class, for as long as a target is
worked on. A connection made past SQLAlchemy is not seen.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine

from . import sqlite_session
from .database import MYSQL, OWN, POSTGRESQL, SQLITE, Database

_KNOWN = "refresh_agent_known"

_LONGEST_LOCK_WAIT = 31_536_000
"""Seconds: the greatest that MariaDB takes."""

_NOTICE_THE_CLIENTS_END = (
    "SELECT set_config('client_connection_check_interval', '1000', false)"
    " WHERE current_setting('client_connection_check_interval', true) IS NOT NULL"
)
"""The statement of a worker that was killed goes on for hours otherwise, and its successor has to wait. It
came with PostgreSQL 14."""

_LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1"})


class Stopping(Protocol):
    def check(self) -> None:
        """Raise if a stop has been asked for."""


@dataclass(frozen=True)
class Rules:
    """What every connection is given. Times are seconds, 0 for no limit.

    ``admit`` is called with each new DBAPI connection before anything else runs on it.
    """

    lock_timeout: float = 0.0
    statement_timeout: float = 0.0
    admit: Callable[[Any], None] | None = None
    stopping: Stopping | None = None


class Sessions:
    """The connections that have been seen."""

    def __init__(self, database: Database, rules: Rules) -> None:
        self._database = database
        self._rules = rules
        self._place = place(database.url)
        self._places: dict[URL, bool] = {}
        self._mutex = threading.Lock()
        self._backends: list[tuple[int, str]] = []
        self._files: list[Any] = []

    def cancel(self) -> None:
        """End the statements that run now; from any thread. On MariaDB nothing: they are finished there.

        Raises what the driver raises if the server cannot be reached.
        """
        with self._mutex:
            backends, files = list(self._backends), list(self._files)
        for connection in files:
            sqlite_session.interrupt(connection)
        if not backends:
            return
        with self._database.engine.execution_options(**OWN).connect() as connection:
            for pid, begun in backends:
                # A backend that has ended may have left its number to another one.
                connection.exec_driver_sql(
                    f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = {pid}"  # noqa: S608 - numbers
                    f" AND extract(epoch FROM backend_start)::text = '{begun}'"
                )

    def concerns(self, connection: Connection) -> bool:
        """Whether it is one to the target's database, and not the worker's own."""
        if connection.get_execution_options().get("refresh_agent_own"):
            return False
        url = connection.engine.url
        if url not in self._places:
            self._places[url] = place(url) == self._place
        return self._places[url]

    def engine_connect(self, connection: Connection, *_branch: bool) -> None:
        if self.concerns(connection):
            self._know(connection)

    def before_cursor_execute(
        self,
        connection: Connection,
        _cursor: Any,
        statement: str,
        parameters: Any,
        _context: Any,
        _many: bool,
    ) -> tuple[str, Any]:
        if not self.concerns(connection):
            return statement, parameters
        # SQLAlchemy opens a new DBAPI connection in the place of a broken one without telling.
        self._know(connection)
        if self._rules.stopping is not None and self._database.backend != MYSQL:
            self._rules.stopping.check()
        if self._database.backend == SQLITE:
            return sqlite_session.prepare(connection, statement), parameters
        return statement, parameters

    def _know(self, connection: Connection) -> None:
        """What a new DBAPI connection gets; committed, so that a rollback keeps it."""
        if _KNOWN in connection.info:
            return
        dbapi_connection = connection.connection.dbapi_connection
        if self._database.backend == SQLITE:
            sqlite_session.begin_by_hand(dbapi_connection, self._rules.lock_timeout)
            with self._mutex:
                self._files.append(dbapi_connection)
        elif self._database.backend == POSTGRESQL:
            self._know_backend(dbapi_connection)
        if self._rules.admit is not None:
            self._rules.admit(dbapi_connection)
        with closing(dbapi_connection.cursor()) as cursor:  # type: ignore[union-attr]
            for statement in limits(
                self._database.backend,
                self._rules.lock_timeout,
                self._rules.statement_timeout,
                is_mariadb=bool(getattr(connection.dialect, "is_mariadb", False)),
            ):
                cursor.execute(statement)
        dbapi_connection.commit()  # type: ignore[union-attr]
        connection.info[_KNOWN] = True

    def _know_backend(self, dbapi_connection: Any) -> None:
        with closing(dbapi_connection.cursor()) as cursor:
            cursor.execute(
                "SELECT pid, extract(epoch FROM backend_start)::text FROM pg_stat_activity"
                " WHERE pid = pg_backend_pid()"
            )
            row = cursor.fetchone()
        if row is not None:
            with self._mutex:
                self._backends.append((int(row[0]), str(row[1])))


@contextmanager
def watched(database: Database, rules: Rules) -> Iterator[Sessions]:
    """See to every connection that SQLAlchemy opens to this database in the block."""
    sessions = Sessions(database, rules)
    listeners = (
        (Engine, "engine_connect", sessions.engine_connect, False),
        (Engine, "before_cursor_execute", sessions.before_cursor_execute, True),
    )
    for target, name, function, returns in listeners:
        event.listen(target, name, function, retval=returns)
    try:
        yield sessions
    finally:
        for target, name, function, _ in listeners:
            event.remove(target, name, function)


def limits(
    backend: str, lock_timeout: float, statement_timeout: float, *, is_mariadb: bool = True
) -> Iterator[str]:
    """The statements that set a session's limits, where the server has them; 0 leaves what is set."""
    if backend == POSTGRESQL:
        yield _NOTICE_THE_CLIENTS_END
        if lock_timeout > 0:
            yield f"SET lock_timeout = {_milliseconds(lock_timeout)}"
        if statement_timeout > 0:
            yield f"SET statement_timeout = {_milliseconds(statement_timeout)}"
    elif backend == MYSQL:
        if lock_timeout > 0:
            seconds = min(max(1, round(lock_timeout)), _LONGEST_LOCK_WAIT)
            yield f"SET SESSION lock_wait_timeout = {seconds}, innodb_lock_wait_timeout = {seconds}"
        if statement_timeout > 0 and is_mariadb:
            yield f"SET SESSION max_statement_time = {statement_timeout:.3f}"
        elif statement_timeout > 0:
            # MySQL has one for SELECT only.
            yield f"SET SESSION max_execution_time = {_milliseconds(statement_timeout)}"


def _milliseconds(seconds: float) -> int:
    """At least 1: for the servers, 0 is no limit. At most what fits into PostgreSQL's settings."""
    return min(max(1, round(seconds * 1000)), 2**31 - 1)


def place(url: URL) -> tuple[str, str, str, str]:
    """Where a URL leads to, however it is written: backend, host or socket, port, database."""
    backend = url.get_backend_name()
    if backend == SQLITE:
        file = (url.database or "").partition("?")[0]
        return SQLITE, "", "", os.path.realpath(file.removeprefix("file:"))
    hosts = [url.host, url.query.get("host"), url.query.get("unix_socket")]
    host = next((str(found) for found in hosts if found), "")
    backend, port = {"mariadb": (MYSQL, 3306), MYSQL: (MYSQL, 3306)}.get(backend, (backend, 5432))
    return (
        backend,
        "" if host in _LOCAL else host,
        str(url.port or url.query.get("port") or port),
        url.database or "",
    )
