"""A backup of the database before its first change: SQLite's own, or a command of the operator's."""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import dataclass, field

from . import backup_command, backup_sqlite
from .backup_access import Words
from .database import Database
from .faults import TargetError
from .stopping import Stopping

BUILTIN = "builtin"

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_LABEL_LIMIT = 80
_WORD = re.compile(r"\{\{|\}\}|\{(\w+)\}")


def _now() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


@dataclass(frozen=True)
class Occasion:
    """Of what target the backup is, at what version ("alembic 5a1e", "empty"), and when (UTC)."""

    target: str
    version: str
    time: str = field(default_factory=_now)

    @property
    def label(self) -> str:
        """The version as a part of a file's name: "alembic-5a1e"."""
        return _UNSAFE.sub("-", self.version)[:_LABEL_LIMIT].strip("-.") or "unknown"


def take(database: Database, option: str, occasion: Occasion, stopping: Stopping) -> str:
    """Make the backup that the option ``backup`` of the target asks for; return what was done, for people.

    Raises TargetError if there is none afterwards, Stopped if a stop was asked for.
    """
    stopping.check()
    if option == BUILTIN or option.startswith(f"{BUILTIN}:"):
        if not database.file:
            raise TargetError(
                f"backup = {option} of the target {occasion.target} is for SQLite only; name a command, such"
                " as pg_dump or mariadb-dump"
            )
        suffix = f"backup-{occasion.label}-{occasion.time}"
        path = backup_sqlite.take(database.file, option[len(BUILTIN) + 1 :], suffix, stopping)
        return f"backup in {path}"
    with Words(database) as words:
        own = {"target": occasion.target, "version": occasion.label, "time": occasion.time}
        command = _command(option, {**words.plain, **own})
        backup_command.run(command, words.environment, words.mask, stopping)
    return f"backup by {command[0]}"


def _command(option: str, words: dict[str, str]) -> list[str]:
    """Split it as a shell would, then fill in the words: no value is ever split or looked at by a shell."""
    try:
        command = shlex.split(option)
    except ValueError as error:
        raise TargetError(f"backup cannot be split into words ({error}): {option}") from error
    if not command:
        raise TargetError("backup names no command")

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return match[0][0]  # a doubled brace
        if name not in words:
            raise TargetError(
                f"backup: {match[0]} cannot be had for this database; there is"
                f" {', '.join(f'{{{word}}}' for word in sorted(words))} (a brace itself is doubled)"
            )
        return words[name]

    return [_WORD.sub(fill, word) for word in command]
