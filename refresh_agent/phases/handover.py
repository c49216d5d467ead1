"""Notice that a hook has systemd stop or restart the agent that runs it, as an upgrade of the agent does.

systemctl waits until the agent has ended, and by rights the agent until the hook has (os-collect-config, LP
1603144). So the agent has to know that it is this hook's doing: then it ends at once and leaves the hook to
its successor. It looks for a systemctl among the hook's processes, when it is stopped itself, and whenever
anybody starts one: with --no-block it has ended by the time that the stop arrives.
"""

import contextlib
import ctypes
import fnmatch
import functools
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from refresh_agent.redact import printable

VERBS = frozenset(
    {
        "stop",
        "restart",
        "try-restart",
        "condrestart",
        "reload-or-restart",
        "force-reload",
        "try-reload-or-restart",
        "reload-or-try-restart",
    }
)
"""systemctl's, all that may stop a unit."""

VERBS_WITH_NOW = frozenset({"disable", "mask", "reenable"})
"""Those that do so with --now."""

ELSEWHERE = ("--user", "--global", "-H", "--host", "-M", "--machine", "--root", "--image")
"""How options begin with which it does not speak to the manager that has started us."""

MARKED = "--marked"
"""For the units that were marked before: RPM's way to restart what it has upgraded. They are not named."""

RECENT = 15.0
"""Seconds. A stop that comes later is not taken for what the hook has asked for."""

LOOKS = 10
PAUSE = 0.003
"""Looks for a systemctl that was just started, and seconds between two: it shows its arguments only when the
kernel has put it in the place of who called it. It lives for 10 ms or more.
"""

_IN_OPEN = 0x20
_MANAGERS = frozenset({"", "name=systemd"})


class Call(NamedTuple):
    """A command line by which somebody asks systemd to end the agent, when it was seen (monotonic), and
    whether it waits for that end.
    """

    text: str
    at: float
    waits: bool


def unit_in(cgroups: str) -> str:
    """The service that a process with this /proc/PID/cgroup belongs to; "" for none."""
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        names = [name for name in path.split("/") if name.endswith(".service")]
        if controllers in _MANAGERS and names:
            return names[-1]
    return ""


def ends(unit: str, argv: Sequence[str]) -> bool:
    """Whether this command line is systemctl's, and asks for the end of that unit."""
    if not argv or os.path.basename(argv[0]) != "systemctl":
        return False
    if any(word.startswith(ELSEWHERE) for word in argv):
        return False
    words = [word for word in argv[1:] if not word.startswith("-")]
    verbs = VERBS | VERBS_WITH_NOW if "--now" in argv else VERBS
    verb = next((place for place, word in enumerate(words) if word in verbs), len(words))
    named = any(fnmatch.fnmatchcase(unit, _with_suffix(name)) for name in words[verb + 1 :])
    return named or (MARKED in argv and verb < len(words))


def _with_suffix(name: str) -> str:
    """Systemctl's rule for a name that says no type."""
    return name if "." in name else f"{name}.service"


class Watch:
    """Over one program, systemctl, for the sake of one unit: ours. Without a unit it sees nothing."""

    def __init__(self, unit: str, program: str) -> None:
        self._unit = unit
        self._program = program
        self._descriptor = _inotify() if unit and program else -1
        self.forget()

    def fileno(self) -> int:
        """Readable when somebody has started the program; -1 where that cannot be seen."""
        return self._descriptor

    def forget(self) -> None:
        """What has happened until now. From here on it is the program that is there now: an upgrade of
        systemd puts another in its place.
        """
        if self._descriptor < 0:
            return
        ctypes.CDLL(None).inotify_add_watch(self._descriptor, os.fsencode(self._program), _IN_OPEN)
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 65536)

    def look(self, pids: Iterable[int]) -> Call | None:
        """The call that is being made by one of these processes, if one is."""
        if not self._unit:
            return None
        for pid in pids:
            argv = _argv(pid)
            if ends(self._unit, argv):
                return Call(" ".join(argv), time.monotonic(), "--no-block" not in argv)
        return None


@functools.cache
def watch() -> Watch:
    """Ours; it lives as long as the process."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            unit = unit_in(file.read())
    except OSError:
        unit = ""
    return Watch(unit, shutil.which("systemctl") or "")


def _argv(pid: int) -> tuple[str, ...]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return tuple(printable(word) for word in file.read().split(b"\0")[:-1])
    except OSError:
        return ()


def _inotify() -> int:
    """-1 if there can be none."""
    return int(ctypes.CDLL(None).inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
