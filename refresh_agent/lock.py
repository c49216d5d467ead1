"""The run lock: one refresh at a time on this node, ours or os-refresh-config's."""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator

from refresh_agent import files
from refresh_agent.errors import LockedError, StateError

_HOLDER = re.compile(rb"Locked by pid==(\d{1,10}) .*\(refresh-agent(?: ([\w-]{1,64}))?\)")

LOCKS = "/proc/locks"
"""All locks that this pid namespace sees, a line each; not there in every container."""


@contextlib.contextmanager
def held(path: str, agent: str = "") -> Iterator[None]:
    """Hold the lock: flock, exclusive, without waiting, on the file that os-refresh-config uses.

    The file tells pid and start time while it is held, and ``agent``, the word by which the journal knows
    this process. The descriptor is closed on exec, so a daemon that a hook starts cannot keep it. Raises
    LockedError when somebody else holds it, StateError when the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        message = f"{path}: the lock file cannot be opened: {files.reason(error)}; see [DEFAULT] lock_file"
        raise StateError(message) from error
    try:
        _take(descriptor, path)
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        who = f"refresh-agent {agent}" if agent else "refresh-agent"
        _describe(descriptor, f"Locked by pid=={os.getpid()} at {started} ({who})\n")
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
    """Whether anybody refreshes now, as far as can be seen without touching the lock.

    To take it, if only for a moment, would turn away who wants it just then.
    """
    if agent(path) is not None:
        return True
    try:
        status = os.stat(path, follow_symlinks=False)
        with open(LOCKS, encoding="ascii", errors="replace") as table:
            return any(_is_of(line, status) for line in table)
    except OSError:
        return False


def _is_of(line: str, status: os.stat_result) -> bool:
    """Whether it is of an exclusive flock on this file: "1: FLOCK  ADVISORY  WRITE 731 00:1b:4711 0 EOF"."""
    words = line.split()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return words[1:2] == ["FLOCK"] and words[3:4] == ["WRITE"] and words[5:6] == [place]


def agent(path: str) -> str | None:
    """The agent that refreshes now, as it has told ``held``; None if none does.

    It is the process that the file names, if that lives and has the file open: the lock is left alone.
    """
    try:
        with files.open_regular(path, os.O_NOFOLLOW) as file:
            told, status = _HOLDER.match(file.read(200)), os.fstat(file.fileno())
    except OSError:
        return None
    return (told[2] or b"").decode() if told is not None and _has_open(int(told[1]), status) else None


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
