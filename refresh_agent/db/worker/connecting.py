"""How connections are opened, whoever opens them: a server that never answers is given up soon, and named.

env.py makes engines of its own, so the listeners are on SQLAlchemy's Engine class.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Engine

from .faults import SERVER

SECONDS = 10
"""Until a server has let us in, for each of its addresses. A time-out in the URL's query counts instead."""

_OPTIONS = {
    "aiomysql": "connect_timeout",
    "asyncmy": "connect_timeout",
    "asyncpg": "timeout",
    "mysqlconnector": "connection_timeout",
    "mysqldb": "connect_timeout",
    "psycopg": "connect_timeout",
    "psycopg2": "connect_timeout",
    "psycopg_async": "connect_timeout",
    "pymysql": "connect_timeout",
}
"""What the drivers call it, by SQLAlchemy's names for them."""

_PYMYSQL = "pymysql"

_UNTIL_CONNECTED = float(SECONDS)
"""This very object: what PyMySQL is to forget once it is connected, and not somebody's own ten seconds."""

_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


@contextmanager
def limited() -> Iterator[None]:
    """In the block, SQLAlchemy waits no longer for any server, and its errors tell which one it was."""
    listeners = (
        ("do_connect", _limit),
        ("connect", _forget),
        ("handle_error", _name_the_server),
    )
    for name, function in listeners:
        event.listen(Engine, name, function)
    try:
        yield
    finally:
        for name, function in listeners:
            event.remove(Engine, name, function)


def _limit(dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
    if option := _OPTIONS.get(dialect.driver):
        parameters.setdefault(option, SECONDS)
    if dialect.driver == _PYMYSQL:
        # Its connect_timeout ends when TCP is connected: a silent server is waited for without end.
        parameters.setdefault("read_timeout", _UNTIL_CONNECTED)


def _forget(connection: Any, _record: Any) -> None:
    """From now on a statement may take its time."""
    if getattr(connection, "_read_timeout", None) is _UNTIL_CONNECTED:
        connection._read_timeout = None  # noqa: SLF001 - there is no other way


def _name_the_server(context: Any) -> None:
    """The drivers' own words leave out the port, or all of it."""
    error = context.sqlalchemy_exception
    if context.connection is None and error is not None and context.engine is not None:
        place = server(context.engine.url)
        if place:
            setattr(error, SERVER, place)


def server(url: URL) -> tuple[str, ...]:
    """Where a URL leads to, for people: ("host db", "port 5432"), or ("socket /run/x",); () for a file."""
    port = _PORTS.get(url.get_backend_name())
    if port is None:
        return ()
    host = str(url.host or url.query.get("host") or "localhost")
    if path := url.query.get("unix_socket") or (host if host.startswith("/") else ""):
        return (f"socket {path}",)
    return f"host {host}", f"port {url.port or url.query.get('port') or port}"
