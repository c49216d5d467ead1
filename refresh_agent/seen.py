"""When a source was last asked, and what came of it: ``state_dir/sources/NAME.seen``, for ``status``.

It is there to be reported. Nothing depends on it, so it is not written durably, and what cannot be written or
read is passed over.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from refresh_agent import files

SUFFIX = ".seen"
NEW_SUFFIX = ".seen~"
"""Of the file while it is written; before it stands what no other process has. One that a killed process
leaves goes at the next commit, with what is stored of sources that are gone.
"""

LIMIT = 2**20
"""Bytes; what is longer was not written here."""

AT_MOST_EVERY = 5.0
"""Seconds between two writes while nothing but the times changes: a poll is to cost next to nothing."""


class SeenProblem(NamedTuple):
    """What was wrong. ``expected``: not there, and never was; nothing to worry about."""

    text: str
    expected: bool = False


class Seen(NamedTuple):
    """``asked`` and ``answered``, the last time that what it gave was good: wall clock; None for never.

    ``every``: of a source that has to be asked, the least seconds between two times; None for one that is
    watched.
    """

    asked: float
    answered: float | None = None
    every: float | None = None
    problems: tuple[SeenProblem, ...] = ()


class SeenFile:
    """That of the source ``name``. A process knows what it wrote last; another's is read when it begins."""

    def __init__(self, directory: str, name: str) -> None:
        self._directory = directory
        self._name = name
        self._written: Seen | None = None

    def note(self, seen: Seen) -> None:
        """``seen.answered`` None: not this time. When it did before stays known."""
        last = self._written or read(self._directory, self._name)
        if seen.answered is None and last is not None:
            seen = seen._replace(answered=last.answered)
        if self._written is None or not _is_old_news(seen, self._written):
            self._write(seen)

    def _write(self, seen: Seen) -> None:
        path = os.path.join(self._directory, self._name)
        temporary = f"{path}.{os.urandom(4).hex()}{NEW_SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        # Whether or not that worked: a full disk need not be asked at every poll either.
        self._written = seen
        with contextlib.suppress(OSError):
            descriptor = os.open(temporary, flags, 0o600)
            try:
                with open(descriptor, "w", encoding="ascii") as file:
                    json.dump(seen._asdict(), file)
                os.rename(temporary, path + SUFFIX)
            except BaseException:
                os.unlink(temporary)
                raise


def _is_old_news(seen: Seen, written: Seen) -> bool:
    same = (seen.every, seen.problems, seen.answered is None) == (
        written.every,
        written.problems,
        written.answered is None,
    )
    return same and 0 <= seen.asked - written.asked < AT_MOST_EVERY


def read(directory: str, name: str) -> Seen | None:
    """None if it was never asked, or that is not known."""
    try:
        told = json.loads(files.read_regular(os.path.join(directory, name + SUFFIX), LIMIT))
        return Seen(
            float(told["asked"]),
            _number(told["answered"]),
            _number(told["every"]),
            _problems(told["problems"]),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _problems(values: Sequence[Any]) -> tuple[SeenProblem, ...]:
    return tuple(SeenProblem(str(text), bool(expected)) for text, expected in values)
