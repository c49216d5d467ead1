"""A pause: no run starts until it is over. A file, so that it outlives everything, and ends by its removal.

That the file is there is what counts: one that cannot be read, since the disk or somebody damaged it, still
is a pause.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from refresh_agent import files
from refresh_agent.errors import StateError

LIMIT = 65536
"""Bytes; what is longer is no reason."""


class Pause(NamedTuple):
    """``since``: wall clock; None if that is not known."""

    reason: str
    since: float | None

    def __str__(self) -> str:
        return f"{self.told}; it ends with refresh-agent resume"

    @property
    def told(self) -> str:
        if self.since is None:
            return f"paused: {self.reason}"
        return f"paused since {moment(self.since)}: {self.reason}"


def moment(wall: float) -> str:
    """As the log tells it."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(wall))
    except (ValueError, OverflowError, OSError):
        return "an unknown time"


def path_in(state_dir: str) -> str:
    return os.path.join(state_dir, "paused.json")


def read(state_dir: str) -> Pause | None:
    """The pause that is in force, if one is."""
    path = path_in(state_dir)
    try:
        told = json.loads(files.read_regular(path, LIMIT))
        return Pause(str(told["reason"]), float(told["since"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = files.reason(error) if isinstance(error, OSError) else "it is damaged"
        return Pause(f"unknown, {path} cannot be read ({why})", None)


def begin(state_dir: str, reason: str, now: float) -> None:
    """Durable. ``now``: wall clock. Raises StateError."""
    with _told(path_in(state_dir)):
        files.make_directory(state_dir, 0o700)
        content = json.dumps({"reason": reason, "since": now})
        files.write_durably(path_in(state_dir), content.encode())


def end(state_dir: str) -> None:
    """Durable. Raises StateError."""
    with _told(path_in(state_dir)), contextlib.suppress(FileNotFoundError):
        _sweep(state_dir)
        os.unlink(path_in(state_dir))
        files.sync_directory(state_dir)


def _sweep(state_dir: str) -> None:
    """Remove what a ``pause`` that was killed has half written."""
    prefix = f".{os.path.basename(path_in(state_dir))}."
    for name in os.listdir(state_dir):
        if name.startswith(prefix) and files.TEMPORARY.fullmatch(name):
            os.unlink(os.path.join(state_dir, name))


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(f"{path}: cannot be written: {files.reason(error)}") from error
