"""Is a target's configuration sound? Judged without touching a file or a database; ``opts`` reads it."""

import math
import os
import re
import shlex
from collections.abc import Iterator, Sequence

from refresh_agent.model import Target

_URL = re.compile(r"^[A-Za-z][\w.]*(?:\+\w+)?://")
_SQLITE = re.compile(r"^sqlite(?:\+\w+)?://", re.ASCII)
_MYSQL = re.compile(r"^(?:mysql|mariadb)(?:\+\w+)?://", re.ASCII)
_POSTGRES = re.compile(r"^postgres(?:\+\w+)?://", re.ASCII)
_REVISION = re.compile(r"^[\w.]+$", re.ASCII)
_MOVING = {"head", "heads", "current"}
"""alembic's names for "wherever it ends": a legacy version cannot equal that for long. "base" stays where it
is: the alembic tree goes on where the repository ends."""

BUILT_IN = "builtin"
"""The backup that needs no command, of SQLite alone; ``builtin:/dir`` says where it goes."""


def parse_legacy_versions(text_items: Sequence[str]) -> tuple[tuple[int, str], ...]:
    """Parse ``86:c6214ca60943`` items into (version, revision) pairs; ValueError names a bad item."""
    return tuple(_parse_pair(item) for item in text_items)


def _parse_pair(item: str) -> tuple[int, str]:
    version, colon, revision = (part.strip() for part in item.partition(":"))
    if not colon or not re.fullmatch(r"[0-9]+", version) or not _REVISION.match(revision):
        raise ValueError(
            f"legacy_versions: {item.strip()!r} is not VERSION:REVISION, a sqlalchemy-migrate version and the"
            " alembic revision that it equals, as in 86:c6214ca60943"
        )
    return int(version), revision


def problems(target: Target) -> list[str]:
    """Return every fault of the target's options, each beginning with the option's name; none is good."""
    return [
        *_connection_problems(target),
        *_tree_problems(target),
        *_legacy_problems(target),
        *_path_problems(target),
        *_run_problems(target),
        *_backup_problems(target),
    ]


def problems_of_connection(target: Target) -> list[str]:
    """As ``problems``, of what can be judged only once the connection is known; for ``connection_from``."""
    return [*_url_problems(target.connection), *_backup_problems(target)]


def is_mysql(connection: str) -> bool:
    """MariaDB too: a statement that runs there cannot be taken back."""
    return bool(_MYSQL.match(connection))


def _connection_problems(target: Target) -> Iterator[str]:
    if target.connection and target.connection_from:
        yield "connection_from: connection is set too; remove one of them"
    elif target.connection_from:
        if not os.path.isabs(target.connection_from):
            yield f"connection_from: {target.connection_from} is not an absolute path"
    elif not target.connection:
        yield (
            "connection: not set; it is the database's URL, dialect://user:password@host/database; or name in"
            " connection_from the service's own configuration file"
        )
    else:
        yield from _url_problems(target.connection)


def _url_problems(connection: str) -> Iterator[str]:
    """Never repeats the connection: it holds a password."""
    if not _URL.match(connection):
        yield "connection: not a database URL; it begins with a dialect, as in postgresql+psycopg2://"
    elif _POSTGRES.match(connection):
        yield "connection: there is no dialect postgres; write postgresql:// in place of postgres://"
    elif _SQLITE.match(connection):
        path = _SQLITE.sub("", connection).partition("?")[0].removeprefix("/").removeprefix("file:")
        if not path.startswith("/"):
            yield "connection: an SQLite database needs an absolute path, as in sqlite:////var/lib/shop.db"


def _tree_problems(target: Target) -> Iterator[str]:
    if target.alembic_config and target.alembic_location:
        yield "alembic_location: alembic_config is set too, and names its own; remove one of them"
    elif not target.alembic_config and not target.alembic_location:
        yield "alembic_config: not set, and neither is alembic_location; one of them names the alembic tree"


def _legacy_problems(target: Target) -> Iterator[str]:
    if target.legacy_versions and not target.migrate_repository:
        yield "legacy_versions: migrate_repository is not set, so no legacy version can be recognised"
    if target.migrate_repository and not target.legacy_versions:
        yield "legacy_versions: not set; it says which alembic revision a version of the repository equals"
    versions = [version for version, _ in target.legacy_versions]
    for version in sorted({version for version in versions if versions.count(version) > 1}):
        yield f"legacy_versions: {version} occurs more than once"
    for version, revision in target.legacy_versions:
        if version < 1:
            yield f"legacy_versions: {version} is not a version; the first is 1"
        if revision in _MOVING or not _REVISION.match(revision):
            yield f"legacy_versions: {version}:{revision} does not name an alembic revision by its identifier"


def _path_problems(target: Target) -> Iterator[str]:
    """A daemon's working directory is nobody's business, so a relative path would name nothing."""
    paths = [
        ("alembic_config", target.alembic_config),
        ("migrate_repository", target.migrate_repository),
        ("python", target.python),
        ("legacy_python", target.legacy_python),
        *(("python_path", entry) for entry in target.python_path),
    ]
    for option, path in paths:
        if path and not os.path.isabs(path):
            yield f"{option}: {path} is not an absolute path"
    location = target.alembic_location
    if location and not os.path.isabs(location) and ":" not in location:
        yield f"alembic_location: {location} is neither an absolute path nor PACKAGE:PATH"


def _run_problems(target: Target) -> Iterator[str]:
    if not target.python:
        yield "python: not set; it is the interpreter that has the service's packages"
    if not target.revision or target.revision != "".join(target.revision.split()):
        yield f"revision: {target.revision!r} is not an alembic revision; the newest is head"
    times = (
        ("timeout", target.timeout),
        ("lock_timeout", target.lock_timeout),
        ("statement_timeout", target.statement_timeout),
    )
    for option, seconds in times:
        if not math.isfinite(seconds) or seconds < 0:
            yield f"{option}: {seconds} is not a number of seconds; 0 is none"
    if target.user != target.user.strip() or "\0" in target.user:
        yield f"user: {target.user!r} is not a user's name"


def backup_program(backup: str) -> str:
    """The program that makes the backup; "" if there is none. Raises ValueError for a quote without end."""
    if not backup or backup.partition(":")[0] == BUILT_IN:
        return ""
    return next(iter(shlex.split(backup)), "")


def _backup_problems(target: Target) -> Iterator[str]:
    backup = target.backup
    if not backup:
        return
    name, colon, directory = backup.partition(":")
    if name == BUILT_IN:
        if target.connection and not _SQLITE.match(target.connection):
            yield "backup: builtin is for SQLite alone; name a command, as in /usr/local/sbin/dump-shop"
        if colon and not os.path.isabs(directory):
            yield f"backup: builtin:DIRECTORY needs an absolute path, which {directory!r} is not"
        return
    try:
        program = backup_program(backup)
    except ValueError as error:
        yield f"backup: {str(error).lower()}; it is read like a line of a shell"
        return
    if not os.path.isabs(program):
        yield f"backup: {program!r} is not the absolute path of a program, nor builtin"
