"""Find the processes that belong to a hook, however they tried to get away; end what a dead agent left.

The agent is the subreaper of what it starts, so whatever a hook leaves behind becomes the agent's child and
can be found: what has the hook's session, what descends from it, and orphans whose environment carries its
REFRESH_AGENT_HOOK_ID. Where hooks have control groups, also what is in the hook's, which nothing leaves by
itself.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from refresh_agent.marks import HOOK_ID
from refresh_agent.phases import cgroup
from refresh_agent.redact import printable
from refresh_agent.systemd import MARGIN, PULSE, extend

LOOK_AGAIN = 0.05
"""Seconds between two looks at whether processes that were asked to end are gone."""

UNKILLABLE = 10.0
"""Seconds after KILL until what still lives is left to itself."""

SURE = 2
"""Looks in a row that have to find nothing: a process that starts another and ends while /proc is being read
shows neither, one that is just becoming another program shows no environment."""

_PR_SET_CHILD_SUBREAPER = 36


class Family:
    """A process of ours and everything that it started, however it tried to get away.

    Who was seen once is remembered: TERM may make orphans of them, and a process may overwrite its
    environment.
    """

    def __init__(self, leader: int, hook_id: str, group: cgroup.Group | None = None) -> None:
        self._leader = leader
        self._hook_id = hook_id
        self._group = group
        self._memory = _Memory()

    def members(self) -> set[int]:
        """The pids that live now, zombies left out."""
        table = process_table()
        members = {pid for pid, entry in table.items() if entry.session == self._leader}
        if self._group:
            members |= self._group.pids() & table.keys()
        members |= {
            pid
            for pid, entry in table.items()
            if entry.parent == os.getpid() and self._hook_id and _mark(pid) == self._hook_id
        }
        if self._leader in table:
            members.add(self._leader)
        return self._memory.with_those_seen(members, table)

    def lives(self) -> bool:
        """Whether there are any; also those that no look finds, since each time they are others."""
        return bool(self.members()) or (self._group is not None and self._group.populated)

    def signal(self, number: signal.Signals) -> None:
        self.members()
        if self._group and number == signal.SIGKILL:
            self._group.kill()
        _signal(self._memory.seen, number)

    def survivors(self) -> tuple[str, ...]:
        """What an ended process has left running, as "name (pid)": it may be a daemon that it started."""
        names = []
        for pid in sorted(self.members()):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", "rb") as file:
                names.append(f"{printable(file.read().strip())} ({pid})")
        return tuple(names)


class _Memory:
    """Processes by pid and the moment of their start, since pids are given again."""

    def __init__(self) -> None:
        self.seen: Mapping[int, int] = {}

    def with_those_seen(self, members: set[int], table: Mapping[int, "Entry"]) -> set[int]:
        """``members``, those of them seen before that still live, and what descends from all of these."""
        again = {pid for pid, began in self.seen.items() if pid in table and table[pid].began == began}
        found = _with_descendants(members | again, table)
        self.seen = {pid: table[pid].began for pid in found}
        return found


def become_subreaper() -> None:
    """Adopt what our processes leave behind, so that it can be found and its zombies are buried."""
    import ctypes  # noqa: PLC0415 - 2 ms that only a run needs

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans() -> bool:
    """Bury adopted children that have ended; whether others live on.

    Only where no hook is still waited for. What another thread of ours has started, such as mount, is in our
    own session, and how it ended is for that thread to learn.
    """
    try:
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if _is_our_own(ended.si_pid):
                _reap_behind_our_own()
                break
            os.waitpid(ended.si_pid, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _is_our_own(pid: int) -> bool:
    """Whether another thread waits for this child, or just has."""
    try:
        return os.getsid(pid) == os.getsid(0)
    except ProcessLookupError:
        return True


def _reap_behind_our_own() -> None:
    """The kernel names only the first child that has ended, and that one is not to be buried here."""
    own = os.getsid(0)
    for pid, entry in _entries():
        if entry.ended and entry.parent == os.getpid() and entry.session != own:
            os.waitpid(pid, os.WNOHANG)


class Leftovers(NamedTuple):
    """What to look for of hooks whose agent is gone: never a stranger's.

    ``is_left`` is asked of the mark in a process's environment and of that of its control group. ``leaders``:
    pids of hooks and when they began, since pids are given again; a process may overwrite its environment,
    but not that.
    """

    is_left: Callable[[str], bool]
    leaders: frozenset[tuple[int, int]] = frozenset()

    def find(self, memory: "_Memory | None" = None) -> set[int]:
        """The pids: with what shares a session with one, and what descends from them."""
        table = process_table()
        found = {pid for pid in table if any(map(self.is_left, _marks(pid)))}
        births = {pid: birth(pid) for pid, _ in self.leaders}
        sessions = {table[pid].session for pid in found}
        sessions |= {pid for pid, began in self.leaders if births[pid] == began}
        family = {pid for pid, entry in table.items() if entry.session in sessions}
        # A leader may have ended, of a closed pipe for instance, and what it started run on. But its number
        # may since have been given to another that has ended, too: then its session is known by nothing, so
        # only what has wiped its environment is taken for ours.
        gone = {pid for pid, began in births.items() if not began}
        family |= {pid for pid, entry in table.items() if entry.session in gone and _has_wiped_it(pid)}
        family = (memory or _Memory()).with_those_seen(family, table)
        # The hook itself may be what calls the agent anew.
        return family - {os.getpid()}


def end_leftovers(leftovers: Leftovers, grace: float) -> tuple[int, ...]:
    """End what still runs of hooks whose agent is gone; the pids that were found."""
    memory = _Memory()
    found: set[int] = set()
    kill = time.monotonic() + grace
    nothing = 0
    while time.monotonic() < kill + UNKILLABLE:
        PULSE.beat()
        # For a stop that comes meanwhile; at any other time it means nothing.
        extend(kill + UNKILLABLE - time.monotonic() + MARGIN)
        left, groups = leftovers.find(memory), cgroup.populated(leftovers.is_left)
        nothing = 0 if left or groups else nothing + 1
        if nothing == SURE:
            break
        _signal({pid: memory.seen[pid] for pid in left - found}, signal.SIGTERM)
        if time.monotonic() >= kill:
            for group in groups:
                group.kill()
            _signal({pid: memory.seen[pid] for pid in left}, signal.SIGKILL)
        found |= left
        time.sleep(LOOK_AGAIN)
    return tuple(sorted(found))


class Entry(NamedTuple):
    """``began``: in ticks of the kernel's clock since it booted. ``ended``: it only waits to be buried."""

    parent: int
    session: int
    began: int
    ended: bool = False


def birth(pid: int) -> int:
    """When a process began, in ticks of the kernel's clock since it booted; 0 if there is none."""
    entry = _entry(str(pid))
    return entry.began if entry else 0


def process_table() -> Mapping[int, Entry]:
    """Every process that is not a zombie, from /proc."""
    return {pid: entry for pid, entry in _entries() if not entry.ended}


def _entries() -> Iterator[tuple[int, Entry]]:
    for name in os.listdir("/proc"):
        if name.isdecimal() and (entry := _entry(name)):
            yield int(name), entry


def _entry(pid: str) -> Entry | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name is in parentheses and may hold anything, also parentheses.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    # A main thread that has ended is a zombie while others of the process run on.
    ended = fields[0] in {b"Z", b"X"} and int(fields[17]) <= 1
    return Entry(int(fields[1]), int(fields[3]), int(fields[19]), ended)


def _with_descendants(members: set[int], table: Mapping[int, Entry]) -> set[int]:
    while more := {pid for pid, entry in table.items() if entry.parent in members} - members:
        members = members | more
    return members


def _marks(pid: int) -> Iterator[str]:
    """In its environment, and of the groups that it is in."""
    if mark := _mark(pid):
        yield mark
    yield from cgroup.hook_ids_of(pid)


def _mark(pid: int) -> str:
    """Its REFRESH_AGENT_HOOK_ID, "" without one."""
    prefix = f"{HOOK_ID}=".encode()
    pairs = (pair for pair in _environment(pid).split(b"\0") if pair.startswith(prefix))
    return next((os.fsdecode(pair[len(prefix) :]) for pair in pairs), "")


def _environment(pid: int) -> bytes:
    """As it was started with. A main thread that has ended shows none, but the others of the process do."""
    if environment := _read(f"/proc/{pid}/environ"):
        return environment
    with contextlib.suppress(OSError):
        threads = os.listdir(f"/proc/{pid}/task")
        others = (_read(f"/proc/{pid}/task/{thread}/environ") for thread in threads if thread != str(pid))
        return next(filter(None, others), b"")
    return b""


def _has_wiped_it(pid: int) -> bool:
    """Whether it has no environment; not if that cannot be seen."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            seen = file.read()
    except OSError:
        return False
    return not seen and not _environment(pid)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _signal(pids: Mapping[int, int], number: signal.Signals) -> None:
    """``pids``, and when each began: its pid may be another's by now."""
    # Parents first: one that waits for its child learns of the signal before its end.
    for pid, began in sorted(pids.items()):
        # A process that has become another user's can only be named, if we are not root.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            pidfd = os.pidfd_open(pid)
            try:
                if birth(pid) == began:  # from here on it is this one that the descriptor stands for
                    signal.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)
