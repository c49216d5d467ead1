"""How a backup command reaches the database: words for its command line, its environment, a private file.

The password is in that file alone.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from types import TracebackType

from sqlalchemy.engine import URL

from .database import MYSQL, POSTGRESQL, Database
from .faults import TargetError
from .masking import masker

DEFAULTS_FILE = "defaults_file"

_LIBPQ = {
    "application_name": "PGAPPNAME",
    "channel_binding": "PGCHANNELBINDING",
    "client_encoding": "PGCLIENTENCODING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "gssencmode": "PGGSSENCMODE",
    "hostaddr": "PGHOSTADDR",
    "krbsrvname": "PGKRBSRVNAME",
    "options": "PGOPTIONS",
    "service": "PGSERVICE",
    "sslcert": "PGSSLCERT",
    "sslcrl": "PGSSLCRL",
    "sslkey": "PGSSLKEY",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
"""libpq's parameters, as psycopg takes them in a URL's query, and the variables that say the same."""

_SSL_FILES = ("ssl_ca", "ssl_capath", "ssl_cert", "ssl_cipher", "ssl_key")

_FOREIGN = re.compile(r"PG[A-Z]+(?:_[A-Z]+)*|MYSQL_PWD|MYSQL_HOST|MYSQL_TCP_PORT|MYSQL_UNIX_PORT")
"""Variables that would lead a client elsewhere than ``connection`` does."""

_OPTION_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b"}


class Words:
    """A ``with`` block in which the files exist.

    ``plain``: what the words in braces stand for; ``environment``: that of the command; ``mask`` takes the
    password out of what the command prints.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.environment = {name: value for name, value in os.environ.items() if not _FOREIGN.fullmatch(name)}
        self.mask: Callable[[str], str] = masker([database.connection])

    def __enter__(self) -> Words:  # noqa: PYI034 - typing.Self needs Python 3.11
        # Private: only its owner can so much as see what is in it.
        self._folder = tempfile.mkdtemp(prefix="refresh-agent-backup-")
        try:
            self._fill()
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder)

    def _fill(self) -> None:
        url = self._database.url
        query = _query(url)
        if self._database.backend == POSTGRESQL:
            self._fill_postgresql(url, query)
        elif self._database.backend == MYSQL:
            self._fill_mysql(url, query)
        else:
            self.plain = {"file": self._database.file, "database": self._database.file}

    def _fill_postgresql(self, url: URL, query: Mapping[str, str]) -> None:
        hosts, ports = _hosts(url, query)
        user = url.username or query.get("user", "")
        database = url.database or query.get("dbname", "")
        self.plain = {"host": hosts, "port": ports, "user": user, "database": database}
        named = {"PGHOST": hosts, "PGPORT": ports, "PGUSER": user, "PGDATABASE": database}
        named.update({_LIBPQ[key]: value for key, value in query.items() if key in _LIBPQ})
        password = _password(url, query)
        if password:
            named["PGPASSFILE"] = self._write("pgpass", passfile(user, password))
        self.environment.update({name: value for name, value in named.items() if value})

    def _fill_mysql(self, url: URL, query: Mapping[str, str]) -> None:
        socket = query.get("unix_socket", "")
        # What the drivers do without a host; their "localhost" is TCP, to the clients it is the socket.
        host = url.host or query.get("host", "localhost")
        port = str(url.port or query.get("port", 3306))
        user = url.username or query.get("user", "")
        options = {"user": user, "password": _password(url, query)}
        if socket:
            options.update(socket=socket, protocol="socket")
        elif url.get_driver_name() == "mysqldb" and host == "localhost":
            options.update(host=host)
        else:
            options.update(host=host, port=port, protocol="tcp")
        options.update({key.replace("_", "-"): query[key] for key in _SSL_FILES if key in query})
        self.plain = {
            "host": host,
            "port": port,
            "user": user,
            "database": url.database or "",
            DEFAULTS_FILE: self._write("client.cnf", option_file(options)),
        }

    def _write(self, name: str, text: str) -> str:
        path = os.path.join(self._folder, name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        return path


def passfile(user: str, password: str) -> str:
    """Return a line of libpq's password file, good for every host: libpq names a socket in several ways."""
    if "\n" in password or "\r" in password:
        raise TargetError("backup: libpq's password file cannot hold a password with a line break in it")
    return ":".join(("*", "*", "*", _libpq_field(user) or "*", _libpq_field(password))) + "\n"


def _libpq_field(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def option_file(options: Mapping[str, str]) -> str:
    """Return an option file of MariaDB's and MySQL's clients with the options that have a value."""
    lines = [f'{name}="{_option_value(value)}"\n' for name, value in options.items() if value]
    return "[client]\n" + "".join(lines)


def _option_value(text: str) -> str:
    return "".join(_OPTION_ESCAPES.get(character, character) for character in text)


def _query(url: URL) -> dict[str, str]:
    """Of a key that is there several times all values, as libpq takes several hosts."""
    return {key: value if isinstance(value, str) else ",".join(value) for key, value in url.query.items()}


def _password(url: URL, query: Mapping[str, str]) -> str:
    return str(url.password or query.get("password") or query.get("passwd") or "")


def _hosts(url: URL, query: Mapping[str, str]) -> tuple[str, str]:
    """Return PGHOST and PGPORT; SQLAlchemy takes several hosts as ?host=one:5432&host=two:5432."""
    if url.host or "host" not in query:
        return url.host or "", str(url.port or query.get("port", ""))
    hosts, ports = [], []
    for entry in query["host"].split(","):
        host, colon, port = entry.rpartition(":")
        with_port = bool(colon) and port.isdecimal() and not entry.startswith("/")
        hosts.append(host if with_port else entry)
        ports.append(port if with_port else "")
    given = str(url.port or query.get("port", ""))
    return ",".join(hosts), ",".join(ports) if any(ports) else given
