"""Databases on real servers, for tests and benchmarks: SQLite, PostgreSQL, MariaDB.

``postgresql()`` and ``mariadb()`` start a private server in a temporary folder, with nothing but a unix
socket. When OS_TEST_DBAPI_ADMIN_CONNECTION is set, the server that this SQLAlchemy URL of an administrator
names takes the place of the private one of its kind; what is made there has random names and is dropped in
the end.

Every database has a user of its own, who owns nothing else, with a password that has to be quoted in URLs.
"""

import abc
import contextlib
import os
import pathlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import psycopg2
import pymysql
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tests.integration.database_servers import (
    DatabasesError,
    Folder,
    Process,
    mariadb_process,
    postgresql_process,
)

ADMIN_CONNECTION = "OS_TEST_DBAPI_ADMIN_CONNECTION"

Rows = list[tuple[Any, ...]]


class Database(abc.ABC):
    """A database of a test's own; ``kind`` is "sqlite", "postgresql" or "mysql"."""

    kind: str
    name: str

    @abc.abstractmethod
    def url(self, driver: str = "") -> str:
        """A SQLAlchemy URL with the password in it, like ``mysql+DRIVER://…``; without a driver ``mysql://…``."""

    @abc.abstractmethod
    def execute(self, sql: str, *params: object) -> Rows:
        """Run one statement on a connection of its own, as its user, at once committed; %s is a parameter."""

    @abc.abstractmethod
    def drop(self) -> None:
        """Remove it, whoever is connected; once more does nothing."""


class SQLiteDatabase(Database):
    kind = "sqlite"

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.name = str(path)
        path.touch()

    def url(self, driver: str = "") -> str:
        return URL.create(_drivername(self.kind, driver), database=self.name).render_as_string()

    def execute(self, sql: str, *params: object) -> Rows:
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(sql.replace("%s", "?") if params else sql, params).fetchall()

    def drop(self) -> None:
        for suffix in ("", "-journal", "-wal", "-shm"):
            pathlib.Path(f"{self.path}{suffix}").unlink(missing_ok=True)


class ServerDatabase(Database):
    """One of a Server, which makes it. ``user`` and ``password`` are those of its owner."""

    def __init__(self, server: "Server", url: URL) -> None:
        self.server = server
        self.kind = server.kind
        self.name = str(url.database)
        self.user = str(url.username)
        self.password = str(url.password)
        self._url = url

    def url(self, driver: str = "") -> str:
        url = self._url.set(drivername=_drivername(self.kind, driver))
        return url.render_as_string(hide_password=False)

    def execute(self, sql: str, *params: object) -> Rows:
        return self.server.run(self._url, sql, *params)

    def drop(self) -> None:
        self.server.drop(self)


def _drivername(kind: str, driver: str) -> str:
    """``driver`` may bring its own dialect: mariadb+pymysql."""
    return driver if "+" in driver else f"{kind}+{driver}" if driver else kind


class Server(abc.ABC):
    """A running server and its administrator; a private one can be stopped, started and killed."""

    kind: ClassVar[str]
    unreachable: ClassVar[type[Exception]]

    def __init__(self, admin: URL, process: Process | None = None) -> None:
        self._admin = admin
        self._process = process
        self._databases: list[ServerDatabase] = []

    @property
    def admin_url(self) -> str:
        """A SQLAlchemy URL of an administrator, with the password in it."""
        return self._admin.render_as_string(hide_password=False)

    @property
    def private(self) -> bool:
        """Whether it was started here, and so may be stopped."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of a private server that runs."""
        return self._own_process().pid

    def create(self, name: str = "", charset: str = "utf8mb4") -> ServerDatabase:
        """A new, empty database. ``name`` is what its name begins with; ``charset`` is for MariaDB only."""
        token = secrets.token_hex(6)
        url = self._admin.set(
            database=f"{name or 'refresh'}_{token}", username=f"u_{token}", password=f"p@ss/w%rd#{token}"
        )
        database = ServerDatabase(self, url)
        self._databases.append(database)
        self._make(database, charset)
        return database

    def execute(self, sql: str, *params: object) -> Rows:
        """Run one statement as the administrator."""
        return self.run(self._admin, sql, *params)

    def run(self, url: URL, sql: str, *params: object) -> Rows:
        with contextlib.closing(self._connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, params or None)
            return [] if cursor.description is None else [tuple(row) for row in cursor.fetchall()]

    def start(self) -> None:
        """Come back when it answers."""
        self._own_process().start(self._answers)

    def stop(self) -> None:
        """As for a shutdown of the machine: it ends its connections, then itself. Not running: nothing."""
        self._own_process().stop()

    def kill(self) -> None:
        """It is gone at once, and finds out at its next start what was not finished."""
        self._own_process().kill()

    def drop(self, database: ServerDatabase) -> None:
        self._remove(database.name, database.user)
        if database in self._databases:
            self._databases.remove(database)

    def close(self) -> None:
        """Of a given server all databases are dropped; a private one is ended, with its data still there."""
        if self._process is None:
            for database in list(self._databases):
                database.drop()
        else:
            self._process.abandon()

    @abc.abstractmethod
    def connections(self, database: Database) -> list[int]:
        """The server's ids of the connections to it. One that was closed may stay for a moment."""

    @abc.abstractmethod
    def disconnect(self, connection: int) -> None:
        """End that connection from the server's side."""

    @abc.abstractmethod
    def _remove(self, name: str, user: str) -> None:
        """Drop both, if they are there."""

    @abc.abstractmethod
    def _connect(self, url: URL) -> Any: ...

    @abc.abstractmethod
    def _make(self, database: ServerDatabase, charset: str) -> None: ...

    def _own_process(self) -> Process:
        if self._process is None:
            raise DatabasesError(f"the server of {ADMIN_CONNECTION} was not started here: it is left running")
        return self._process

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except self.unreachable:
            return False
        return True


class PostgreSQL(Server):
    kind = "postgresql"
    unreachable = psycopg2.OperationalError

    def connections(self, database: Database) -> list[int]:
        sql = "SELECT pid FROM pg_stat_activity WHERE datname = %s ORDER BY pid"
        return [int(row[0]) for row in self.execute(sql, database.name)]

    def disconnect(self, connection: int) -> None:
        self.execute("SELECT pg_terminate_backend(%s)", connection)

    def _remove(self, name: str, user: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self.execute(f'DROP ROLE IF EXISTS "{user}"')

    def _connect(self, url: URL) -> Any:
        words = url.translate_connect_args(username="user", database="dbname")
        connection = psycopg2.connect(**{**words, **url.query})
        connection.autocommit = True
        return connection

    def _make(self, database: ServerDatabase, charset: str) -> None:
        name, user = f'"{database.name}"', f'"{database.user}"'
        self.execute(f"CREATE ROLE {user} LOGIN PASSWORD %s", database.password)
        # An administrator who is no superuser has to be a member of those to whom they give databases.
        self.execute(f"GRANT {user} TO CURRENT_USER")
        self.execute(f"CREATE DATABASE {name} OWNER {user} ENCODING 'UTF8' TEMPLATE template0")
        # Otherwise everybody may connect to it.
        self.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")


class MariaDB(Server):
    """MySQL too, when it is given."""

    kind = "mysql"
    unreachable = pymysql.OperationalError

    def connections(self, database: Database) -> list[int]:
        sql = "SELECT id FROM information_schema.processlist WHERE db = %s ORDER BY id"
        return [int(row[0]) for row in self.execute(sql, database.name)]

    def disconnect(self, connection: int) -> None:
        self.execute("KILL %s", connection)

    def _remove(self, name: str, user: str) -> None:
        sql = "SELECT id FROM information_schema.processlist WHERE db = %s OR user = %s"
        for (connection,) in self.execute(sql, name, user):
            with contextlib.suppress(pymysql.OperationalError):  # it has ended by itself
                self.disconnect(connection)
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")
        self.execute(f"DROP USER IF EXISTS `{user}`@`%`")

    def _connect(self, url: URL) -> Any:
        words = url.translate_connect_args(username="user")
        return pymysql.connect(autocommit=True, **{**words, **url.query})

    def _make(self, database: ServerDatabase, charset: str) -> None:
        self.execute(f"CREATE DATABASE `{database.name}` CHARACTER SET {charset}")
        self.execute(f"CREATE USER `{database.user}`@`%%` IDENTIFIED BY %s", database.password)
        # In a grant the name is a pattern.
        pattern = database.name.replace("_", "\\_")
        self.execute(f"GRANT ALL ON `{pattern}`.* TO `{database.user}`@`%`")


# --- getting one -------------------------------------------------------------------------------------------


def postgresql(*, private: bool = False) -> contextlib.AbstractContextManager[Server]:
    """With ``private`` a new one in any case: for those who stop it."""
    return _server(PostgreSQL, postgresql_process, private=private)


def mariadb(*, private: bool = False) -> contextlib.AbstractContextManager[Server]:
    """With ``private`` a new one in any case: for those who stop it."""
    return _server(MariaDB, mariadb_process, private=private)


@contextlib.contextmanager
def _server(
    server_class: type[Server], make_process: Callable[[Folder], tuple[Process, URL]], *, private: bool
) -> Iterator[Server]:
    given = {} if private else given_admin(os.environ.get(ADMIN_CONNECTION, ""))
    with contextlib.ExitStack() as stack:
        if server_class.kind in given:
            server = server_class(given[server_class.kind])
            stack.callback(server.close)
            _check(server)
        else:
            process, admin = make_process(stack.enter_context(Folder()))
            server = server_class(admin, process)
            stack.callback(server.close)
            server.start()
        yield server


def given_admin(text: str) -> dict[str, URL]:
    """What the variable says, by kind of server. SQLite, oslo.db's default, is no server."""
    try:
        url = make_url(text) if text else None
    except ArgumentError:  # its message has the password
        raise DatabasesError(f"{ADMIN_CONNECTION}: not a URL of SQLAlchemy's") from None
    if url is None or url.get_backend_name() == "sqlite":
        return {}
    kind = {"mariadb": "mysql"}.get(url.get_backend_name(), url.get_backend_name())
    if kind not in {PostgreSQL.kind, MariaDB.kind}:
        raise DatabasesError(f"{ADMIN_CONNECTION}: {kind} is neither postgresql nor mysql")
    return {kind: url.set(drivername=kind)}


def _check(server: Server) -> None:
    try:
        server.execute("SELECT 1")
    except server.unreachable as error:
        raise DatabasesError(f"{ADMIN_CONNECTION}: this server does not let us in: {error}") from None
