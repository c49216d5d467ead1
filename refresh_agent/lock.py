"""The run lock: one refresh at a time on this node, ours or os-refresh-config's."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from refresh_agent import files
from refresh_agent.errors import LockedError, StateError


@contextlib.contextmanager
def held(path: str) -> Iterator[None]:
    """Hold the lock: flock, exclusive, without waiting, on the file that os-refresh-config uses.

    The file tells pid and start time while it is held. The descriptor is closed on exec, so a daemon that a
    hook starts cannot keep it. Raises LockedError when somebody else holds it, StateError when the file
    cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        message = f"{path}: the lock file cannot be opened: {files.reason(error)}; see [DEFAULT] lock_file"
        raise StateError(message) from error
    try:
        _take(descriptor, path)
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        _describe(descriptor, f"Locked by pid=={os.getpid()} at {started} (refresh-agent)\n")
        try:
            yield
        finally:
            _describe(descriptor, "")
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        message = f"{path} is held by another refresh" + (f": {holder}" if holder else "")
        raise LockedError(message) from None
    except OSError as error:
        raise StateError(f"{path}: cannot be locked: {files.reason(error)}") from error


def _describe(descriptor: int, text: str) -> None:
    """For people; a full disk must not keep the lock from being taken."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
