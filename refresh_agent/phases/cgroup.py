"""A control group for each hook, below our own: whatever a hook starts stays in it.

Only in a unit whose part of the hierarchy (version 2) systemd has left to us, Delegate=yes; anywhere else the
groups are somebody else's to arrange. No controllers are enabled for the hooks' groups, so the agent may stay
in the unit's own: only with controllers must processes live in the leaves.
"""

import contextlib
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator

LOG = logging.getLogger("refresh_agent")

PREFIX = "hook-"
"""With REFRESH_AGENT_HOOK_ID behind it, the name of a hook's group."""

_SAFE = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,199}")
"""What may stand in such a name: no path, and no file of the kernel's own."""

_MARKS_OF_DELEGATION = ("trusted.delegate", "user.delegate")
"""Extended attributes that systemd gives to the group of a unit with Delegate=yes (user: since 251)."""

_ESCAPE = re.compile(r"\\([0-7]{3})")


class Group:
    """A control group by its directory."""

    def __init__(self, path: str) -> None:
        self.path = path

    def pids(self) -> set[int]:
        """Of the processes in it and below, since a hook may make groups, too; without our own."""
        return {pid for pid in self._everybody() if not _is_ours(pid)}

    def _everybody(self) -> set[int]:
        return {pid for path, _, _ in os.walk(self.path) for pid in _pids(path)}

    @property
    def populated(self) -> bool:
        """Whether a process lives in it or below, also one that forks faster than one can read."""
        return "populated 1" in _read(f"{self.path}/cgroup.events")

    def enter(self) -> None:
        """From now on we are in it, and what we start. Raises OSError."""
        _write(f"{self.path}/cgroup.procs", 0)

    def kill(self) -> None:
        """All that is in it and below at once, also what is only just being forked.

        From Linux 5.14 on; before that, nothing happens. Nor while one of us is in it.
        """
        if not any(map(_is_ours, self._everybody())):
            with contextlib.suppress(OSError):
                _write(f"{self.path}/cgroup.kill", 1)

    def remove(self) -> None:
        """With those below; not while something lives in it, which may need them."""
        with contextlib.suppress(OSError):
            os.rmdir(self.path)
            return
        if not self.populated:
            for path, _, _ in os.walk(self.path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(path)

    @contextlib.contextmanager
    def for_hook(self, hook_id: str) -> Iterator["Group | None"]:
        """A group below this one, our own, with us in it for as long as a hook takes to be started.

        So the hook is in it from its first instruction on. posix_spawn knows no groups, and to move a process
        that runs already may take the kernel 20 ms, time enough to leave others behind. None if there can be
        no group: the hook runs all the same.
        """
        group = self._entered(hook_id)
        try:
            yield group
        finally:
            if group:
                self._return()

    def _entered(self, hook_id: str) -> "Group | None":
        if not _SAFE.fullmatch(hook_id):
            return None
        group = Group(f"{self.path}/{PREFIX}{hook_id}")
        try:
            # It is there if an earlier command of the same mark has left something running.
            with contextlib.suppress(FileExistsError):
                os.mkdir(group.path)
            group.enter()
        except OSError as error:
            LOG.debug("%s: the hook cannot have this control group: %s", group.path, error.strerror)
            group.remove()
            return None
        return group

    def _return(self) -> None:
        try:
            self.enter()
        except OSError as error:  # the next hook's start tries it again
            LOG.warning("%s: the agent cannot return to its control group: %s", self.path, error.strerror)

    def hooks(self) -> Iterator[tuple[str, "Group"]]:
        """The groups below that were made for hooks, by earlier agents too, and whose."""
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                hook_id = entry.name.removeprefix(PREFIX)
                if hook_id != entry.name and _SAFE.fullmatch(hook_id) and entry.is_dir(follow_symlinks=False):
                    yield hook_id, Group(entry.path)


@functools.cache
def own() -> Group | None:
    """That of the unit that we are, if it was delegated to us."""
    try:
        path = directory(_text("/proc/self/cgroup"), _text("/proc/self/mountinfo"))
        # Whatever the files say: only a directory that lists us is ours.
        found = path and _is_delegated(path) and os.getpid() in _pids(path)
    except OSError as error:
        path, found = f"{error.filename}: {error.strerror}", False
    if not found:
        LOG.debug("hooks get no control groups: none is delegated to the agent (%s)", path or "no cgroup2")
        return None
    return Group(path)


def sweep() -> None:
    """Remove the groups of hooks in which nothing lives any more. Only while no hook runs."""
    group = own()
    for _, of_hook in group.hooks() if group else ():
        of_hook.remove()


def populated(is_meant: Callable[[str], bool]) -> list[Group]:
    """The groups of these hooks, by their marks, in which something lives."""
    group = own()
    hooks = group.hooks() if group else ()
    return [of_hook for hook_id, of_hook in hooks if is_meant(hook_id) and of_hook.populated]


def hook_ids_of(pid: int) -> Iterator[str]:
    """Those in whose groups the process is, whatever unit they are in."""
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        if line.startswith("0::"):
            names = line.split("/")
            yield from (name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))


def directory(cgroups: str, mounts: str) -> str:
    """Where the group of a process is mounted; "" if that cannot be seen, or it is in none.

    ``cgroups``, ``mounts``: its /proc/PID/cgroup and /proc/PID/mountinfo, both as its namespace has them.
    """
    path = next((line[3:] for line in cgroups.splitlines() if line.startswith("0::/")), "")
    if not path or ".." in path.split("/"):
        return ""
    # A later mount may cover an earlier one.
    for line in reversed(mounts.splitlines()):
        mount, _, kind = line.partition(" - ")
        fields = [_ESCAPE.sub(lambda match: chr(int(match[1], 8)), field) for field in mount.split(" ")]
        if kind.startswith("cgroup2 ") and (path + "/").startswith(fields[3].rstrip("/") + "/"):
            return (fields[4] + path.removeprefix(fields[3].rstrip("/"))).rstrip("/")
    return ""


def _is_delegated(path: str) -> bool:
    for name in _MARKS_OF_DELEGATION:
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


def _pids(path: str) -> set[int]:
    """0 stands for a process that our namespace does not have."""
    return {int(pid) for pid in _read(f"{path}/cgroup.procs").split()} - {0}


def _is_ours(pid: int) -> bool:
    """Whether it is this process, or one that another thread has started. A hook has its own session, and
    nothing can change over from that to ours.
    """
    try:
        return os.getsid(pid) == os.getsid(0)
    except ProcessLookupError:
        return False


def _read(path: str) -> str:
    """What is in the file; nothing if it cannot be read."""
    with contextlib.suppress(OSError):
        return _text(path)
    return ""


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _write(path: str, number: int) -> None:
    """Never to a file that the kernel does not have."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"%d" % number)
    finally:
        os.close(descriptor)
