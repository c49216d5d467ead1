"""What the daemon tells of itself, for ``status``: ``state_dir/daemon.json``, locked for as long as it lives.

Whether a daemon lives is told by the lock, which ends with its process however that ends, and not by the
content. The file is there to be reported: nothing depends on it, so it is not written durably.
"""

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from refresh_agent import files

LOG = logging.getLogger("refresh_agent")

LONGEST = 2000
"""Characters of what it does; an error may be of any length."""

LIMIT = 65536
"""Bytes; one line with at most that many characters as escapes is shorter."""

TRIES = 3
PAUSE = 0.02
"""Seconds between two tries: who looks whether the file is locked locks it for a moment, too."""


class Daemon(NamedTuple):
    """A daemon that lives. ``started`` and ``until``, its next attempt while it backs off: wall clock.

    Without a pid, nothing but that it lives is known.
    """

    pid: int | None = None
    started: float | None = None
    doing: str = ""
    until: float | None = None


class Presence:
    """The daemon's side. It never fails: what cannot be written is not told."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._started = wall()
        self._path = ""
        self._descriptor: int | None = None

    def begin(self, state_dir: str) -> None:
        """From now on in this directory. Says it if another daemon is there already."""
        path = path_in(state_dir)
        if path == self._path:
            return
        self.end()
        self._path = path
        if not self._take():
            self._warn()

    def move(self, state_dir: str) -> None:
        """The same daemon, in another directory; nothing if it has not begun."""
        if self._path:
            self.begin(state_dir)

    def tell(self, doing: str, seconds: float | None = None) -> None:
        """``seconds``: until the next attempt, while it backs off."""
        if not self._path or not (self._is_there() or self._take()) or self._descriptor is None:
            return
        until = None if seconds is None else self._wall() + seconds
        daemon = Daemon(os.getpid(), self._started, doing[:LONGEST], until)
        with _reported(self._path):
            # The line in one go, and only then what is left of a longer one: readers take the first line.
            line = json.dumps(daemon._asdict()).encode() + b"\n"
            os.pwrite(self._descriptor, line, 0)
            os.ftruncate(self._descriptor, len(line))

    def end(self) -> None:
        """It is told no more; the next one finds an empty file."""
        if self._descriptor is not None:
            with _reported(self._path):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
        self._path = ""

    def _take(self) -> bool:
        """Open and lock the file; False if that cannot be, which is no reason to fail."""
        self._let_go()
        with _reported(self._path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        return self._descriptor is not None

    def _warn(self) -> None:
        """Another daemon, if it is not just somebody's look at the file."""
        for _ in range(TRIES):
            time.sleep(PAUSE)
            if self._take():
                return
        other = read(os.path.dirname(self._path))
        if other is not None:
            who = f"pid {other.pid}" if other.pid else "its pid is not known"
            text = (
                "%s: another daemon (%s) works with this state directory, and status tells of that; end one"
            )
            LOG.warning(text, self._path, who)

    def _is_there(self) -> bool:
        """Whether the file is ours, and has not been removed: else nobody would find it."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path, follow_symlinks=False))
        except OSError:
            return False

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


@contextlib.contextmanager
def _reported(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        LOG.debug("%s: %s", path, files.reason(error))


def path_in(state_dir: str) -> str:
    return os.path.join(state_dir, "daemon.json")


def read(state_dir: str) -> Daemon | None:
    """The daemon that works with this directory, if one lives. What a dead one has left there is not read."""
    with contextlib.suppress(OSError), files.open_regular(path_in(state_dir), os.O_NOFOLLOW) as file:
        if not _is_locked(file.fileno()):
            return None
        for _ in range(TRIES):  # it may be writing just now
            if daemon := _parsed(os.pread(file.fileno(), LIMIT, 0)):
                return daemon
        return Daemon()
    return None


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _parsed(content: bytes) -> Daemon | None:
    try:
        told = json.loads(content.partition(b"\n")[0])
        until = None if told["until"] is None else float(told["until"])
        return Daemon(int(told["pid"]), float(told["started"]), str(told["doing"]), until)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
