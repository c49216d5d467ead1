"""The database itself, read without a write: its tables and what the legacy version table says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from sqlalchemy import column, create_engine, inspect, select, table
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from .faults import TargetError, foreign, missing_driver


@dataclass(frozen=True)
class Contents:
    """The names of all tables, and the rows (repository_id, version) of the legacy version table."""

    tables: frozenset[str]
    legacy: tuple[tuple[str, int], ...]


class Database:
    """``file`` is the path of an SQLite database, else ""."""

    def __init__(self, connection: str) -> None:
        try:
            url = make_url(connection)
        except (ArgumentError, ValueError):
            # SQLAlchemy's text repeats what it could not parse, so nobody knows where its password is.
            raise TargetError(
                "connection is not a database URL: dialect://user:password@host/database"
            ) from None
        self.file = _file(url)
        self.engine = foreign(lambda: _engine(url))
        self._check_file()

    def connect(self) -> Connection:
        self._check_file()
        return self.engine.connect()

    def _check_file(self) -> None:
        """SQLite would create the file, and a typing error would pass for a new database."""
        if self.file and not os.path.exists(self.file):
            raise TargetError(
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
        raise TargetError("connection names no database file: sqlite:////absolute/path")
    return file
