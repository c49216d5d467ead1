"""The run lock: one refresh at a time on this node, ours or os-refresh-config's."""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator

from refresh_agent import files
from refresh_agent.errors import LockedError, StateError

_HOLDER = re.compile(rb"Locked by pid==(\d{1,10}) .*\(refresh-agent\)")


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


def is_held(path: str) -> bool:
    """Whether anybody refreshes now. It takes the lock for a moment to find out; the file stays as it is."""
    try:
        with files.open_regular(path, os.O_NOFOLLOW) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def is_ours(path: str) -> bool:
    """Whether an agent refreshes now: the process that the file names lives, and has it open.

    Unlike ``is_held``, it leaves the lock alone, so that it can be asked again and again.
    """
    try:
        with files.open_regular(path, os.O_NOFOLLOW) as file:
            told, status = _HOLDER.match(file.read(200)), os.fstat(file.fileno())
    except OSError:
        return False
    return told is not None and _has_open(int(told[1]), status)


def _has_open(pid: int, status: os.stat_result) -> bool:
    directory = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(directory)
    except PermissionError:
        return True  # another user's; what it has open is not for us to see
    except OSError:
        return False
    return any(_leads_to(f"{directory}/{descriptor}", status) for descriptor in descriptors)


def _leads_to(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), status)
    except OSError:
        return False
