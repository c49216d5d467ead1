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
    except FileNotFoundError as error:
        if not os.path.islink(path):
            return None
        return Pause(f"unknown, {path} cannot be read ({files.reason(error)})", None)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        why = files.reason(error) if isinstance(error, OSError) else "it is damaged"
        return Pause(f"unknown, {path} cannot be read ({why})", None)


def begin(state_dir: str, reason: str, now: float) -> None:
    """Durable. ``now``: wall clock. Raises StateError."""
    with _as_state_error(path_in(state_dir), "cannot be written: {}"):
        files.make_directory(state_dir, 0o700)
        content = json.dumps({"reason": reason, "since": now})
        files.write_durably(path_in(state_dir), content.encode())


def end(state_dir: str) -> None:
    """Durable. Raises StateError."""
    path = path_in(state_dir)
    failed = "cannot be removed: {}; the pause goes on until you remove it by hand"
    with _as_state_error(path, failed), contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with _as_state_error(path, "its removal is not durable: {}"), contextlib.suppress(FileNotFoundError):
        files.sync_directory(state_dir)  # not there: nothing ever happened
    _sweep(state_dir)


def _sweep(state_dir: str) -> None:
    """Remove what a ``pause`` that was killed has half written; nobody reads it, so that nothing fails."""
    prefix = f".{os.path.basename(path_in(state_dir))}."
    with contextlib.suppress(OSError):
        for name in os.listdir(state_dir):
            if name.startswith(prefix) and files.TEMPORARY.fullmatch(name):
                os.unlink(os.path.join(state_dir, name))


@contextlib.contextmanager
def _as_state_error(path: str, text: str) -> Iterator[None]:
    """``text``: what it says of ``path``; {} stands for the system's reason."""
    try:
        yield
    except OSError as error:
        raise StateError(f"{path}: {text.format(files.reason(error))}") from error
