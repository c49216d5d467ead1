"""The database itself, read without a write: its tables and what the legacy version table says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import Table, column, create_engine, inspect, select, table
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from .faults import BadConnectionError, NoConnectionError, foreign, missing_driver


@dataclass(frozen=True)
class Contents:
    """The names of all tables, and the rows (repository_id, version) of the legacy version table."""

    tables: frozenset[str]
    legacy: tuple[tuple[str, int], ...]


SQLITE = "sqlite"
POSTGRESQL = "postgresql"
MYSQL = "mysql"
"""MariaDB and Galera too."""

_BACKENDS = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "mysql": MYSQL, "mariadb": MYSQL}

OWN_TABLES = frozenset({"refresh_agent_lock", "refresh_agent_ledger"})
"""What we keep in a target's database; not part of its schema."""

OWN: dict[str, Any] = {"refresh_agent_own": True}
"""Execution options of the worker's own connections, which ``sessions`` spares."""


class Database:
    """``backend`` is SQLITE, POSTGRESQL or MYSQL; ``file`` the path of an SQLite database, else ""."""

    def __init__(self, connection: str) -> None:
        try:
            self.url = _with_driver(make_url(connection))
        except (ArgumentError, ValueError):
            # SQLAlchemy's text repeats what it could not parse, so nobody knows where its password is.
            raise BadConnectionError(
                "not a database URL; write dialect://user:password@host/database"
            ) from None
        self.backend = _backend(self.url)
        self.file = _file(self.url)
        self.engine = foreign(lambda: _engine(self.url))
        self._check_file()

    @property
    def connection(self) -> str:
        """The URL with its password, for env.py and for the drivers."""
        return self.url.render_as_string(hide_password=False)

    def connect(self) -> Connection:
        """A connection of the worker's own."""
        self._check_file()
        return self.engine.execution_options(**OWN).connect()

    def _check_file(self) -> None:
        """SQLite would create the file, and a typing error would pass for a new database."""
        if self.file and not os.path.exists(self.file):
            raise NoConnectionError(
                f"the database file {self.file} does not exist; correct connection, or create an empty file"
                " if a new database is wanted"
            )

    def contents(self, version_table: str) -> Contents:
        return foreign(lambda: self._contents(version_table), self.file)

    def _contents(self, version_table: str) -> Contents:
        with self.connect() as connection:
            tables = frozenset(inspect(connection).get_table_names())
            if version_table not in tables:
                return Contents(tables, ())
            source = table(version_table, column("repository_id"), column("version"))
            rows = connection.execute(select(source.c.repository_id, source.c.version))
            return Contents(tables, tuple((str(name), int(version)) for name, version in rows))


def make_transactional(own: Table, connection: Connection) -> None:
    """Before a table of ours is made: on MariaDB and MySQL it needs InnoDB, and Galera replicates no other.

    Not where the table is described: SQLAlchemy imports a dialect as soon as one of its options is named, and
    that is a tenth of the time of a worker that has nothing to do.
    """
    dialect = connection.dialect.name
    if _BACKENDS.get(dialect) == MYSQL:
        own.dialect_kwargs.update({f"{dialect}_engine": "InnoDB", f"{dialect}_charset": "utf8mb4"})


def _with_driver(url: URL) -> URL:
    """``mysql://`` and ``mariadb://`` mean PyMySQL, which every system can install."""
    if url.drivername in {"mysql", "mariadb"}:
        return url.set(drivername=f"{url.drivername}+pymysql")
    return url


def _backend(url: URL) -> str:
    name = url.get_backend_name()
    if name not in _BACKENDS:
        hint = "; write postgresql:// in place of postgres://" if name == "postgres" else ""
        raise BadConnectionError(
            f"{name} is not supported; it can be SQLite, PostgreSQL, or MariaDB or MySQL{hint}"
        )
    return _BACKENDS[name]


def _engine(url: URL) -> Engine:
    try:
        return create_engine(url, poolclass=NullPool)
    except ModuleNotFoundError as error:
        raise missing_driver(error) from error


def _file(url: URL) -> str:
    """The path of an SQLite database; "" for any other."""
    if url.get_backend_name() != "sqlite":
        return ""
    file = url.database or ""
    if file.startswith("file:"):
        file = unquote(urlsplit(file).path)
    if file in {"", ":memory:"}:
        raise BadConnectionError("names no database file: sqlite:////absolute/path")
    return file
