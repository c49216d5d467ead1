"""Start, stream, time out and end one process and everything that it started.

A hook gets its own session and process group. The agent is the subreaper of what it starts, so whatever a
hook leaves behind becomes the agent's child and can be found: what has the hook's session, what descends
from it, and orphans whose environment carries its REFRESH_AGENT_HOOK_ID.
"""

import contextlib
import errno
import fcntl
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from refresh_agent.model import Command, Ending, Exit, LineSink, StopSignal, Stream
from refresh_agent.redact import printable, shown

HOOK_ID = "REFRESH_AGENT_HOOK_ID"

LINE_LIMIT = 8192
"""Bytes after which a line that does not end is passed on in pieces."""

CHUNK = 65536
LONGEST_POLL = 86400.0
"""Seconds; a poll refuses more than 24 days."""

LOOK_AGAIN = 0.05
"""Seconds between two looks at whether processes that were asked to end are gone."""

UNKILLABLE = 10.0
"""Seconds after KILL until what still lives is left to itself."""

_PR_SET_CHILD_SUBREAPER = 36
_RESET = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
"""All dispositions are reset: Python ignores SIGPIPE, a predecessor handed on an ignored SIGHUP."""


@dataclass(frozen=True, slots=True)
class Grace:
    """Seconds: between TERM and KILL, and for a running process once a stop was requested."""

    kill: float = 10.0
    stop: float = 60.0


def ignore_start(_pid: int) -> None:
    """For callers that need not know the pid."""


class ProcessRunner:
    """Runs one process after the other; ``run`` is a ``model.Runner``."""

    def __init__(self, stop: StopSignal, grace: Grace) -> None:
        self._stop = stop
        self._grace = grace
        become_subreaper()
        withhold_descriptors()

    def run(self, command: Command, sink: LineSink, started: Callable[[int], None] = ignore_start) -> Exit:
        """From start to end. Output goes to ``sink`` line by line; ``started`` is told the pid."""
        began = time.monotonic()
        if self._stop.requested:
            return Exit(143, Ending.STOPPED, 0.0, "the agent is stopping")
        try:
            process = _start(command, sink)
        except OSError as error:
            status = 126 if error.errno == errno.EACCES else 127
            return Exit(status, Ending.NOT_STARTED, 0.0, _why_not_started(command.path, error))
        try:
            started(process.pid)
            ending = self._wait(process, command, began)
        finally:
            process.close()
        seconds = time.monotonic() - began
        survivors = survivors_of(process.pid, command.env.get(HOOK_ID, "")) if reap_orphans() else ()
        detail = self._told(ending, command) or process.detail
        return Exit(process.status, ending, seconds, detail, survivors)

    def _wait(self, process: "_Process", command: Command, began: float) -> Ending:
        """Until the process has ended, by itself or because it had to."""
        deadline = began + command.timeout if command.timeout else None
        ending, stopping = Ending.TIMEOUT, False
        stop = self._stop
        process.watch(stop.fileno())
        while not process.step(None if deadline is None else deadline - time.monotonic()):
            if stop.requested and not stopping:
                stopping = True
                process.unwatch(stop.fileno())
                by_stop = time.monotonic() + self._grace.stop
                if deadline is None or by_stop < deadline:
                    deadline, ending = by_stop, Ending.STOPPED
            if deadline is not None and time.monotonic() >= deadline:
                end(process, command.env.get(HOOK_ID, ""), self._grace.kill)
                return ending
        return Ending.EXITED

    def _told(self, ending: Ending, command: Command) -> str:
        if ending is Ending.TIMEOUT:
            return f"ran longer than {command.timeout:.3g} s and was ended"
        if ending is Ending.STOPPED:
            return f"the agent is stopping and {self._grace.stop:g} s were not enough; it was ended"
        return ""


def become_subreaper() -> None:
    """Adopt what our processes leave behind, so that it can be found and its zombies are buried."""
    import ctypes  # noqa: PLC0415 - 2 ms that only a run needs

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def withhold_descriptors() -> None:
    """What the agent was started with is not for hooks, beyond the standard three (os-refresh-config:
    close_fds). All that it opens itself is closed on exec anyway.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.set_inheritable(int(name), False)


def reap_orphans() -> bool:
    """Bury adopted children that have ended; whether others live on.

    Only where no child of our own is still waited for.
    """
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def survivors_of(leader: int, hook_id: str) -> tuple[str, ...]:
    """What an ended process has left running, as "name (pid)". It may well be a daemon that it started."""
    names = []
    for pid in sorted(Family(leader, hook_id).members()):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", "rb") as file:
            names.append(f"{printable(file.read().strip())} ({pid})")
    return tuple(names)


class _Output:
    """Bytes of one pipe, cut into lines."""

    def __init__(self, descriptor: int, stream: Stream, sink: LineSink) -> None:
        self.descriptor = descriptor
        self._stream = stream
        self._sink = sink
        self._partial = b""
        self._ended = False

    def read(self) -> bool:
        """Pass on what is there; False at the end of the stream."""
        try:
            data = os.read(self.descriptor, CHUNK)
        except BlockingIOError:
            return True
        self._ended = not data
        self._feed(data)
        return not self._ended

    def drain(self) -> None:
        """What is there now, and no waiting for a background process that keeps the pipe open.

        At most what a pipe holds: such a process may also write faster than we read.
        """
        left = fcntl.fcntl(self.descriptor, fcntl.F_GETPIPE_SZ)
        with contextlib.suppress(BlockingIOError):
            while left > 0 and not self._ended:
                data = os.read(self.descriptor, min(CHUNK, left))
                left -= len(data)
                self._ended = not data
                self._feed(data)
        if self._partial:
            self._emit(self._partial)
            self._partial = b""

    def close(self) -> None:
        """Take what is there. A background process that keeps the pipe open is listened to further on:
        it would die of the next line that it writes if nobody held the other end.
        """
        self.drain()
        if self._ended:
            os.close(self.descriptor)
        else:
            threading.Thread(target=self._follow, name="background-output", daemon=True).start()

    def _follow(self) -> None:
        os.set_blocking(self.descriptor, True)
        while self.read():
            pass
        os.close(self.descriptor)

    def _feed(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(self._partial) > LINE_LIMIT:
            cut = _before_a_character(self._partial, LINE_LIMIT)
            self._emit(self._partial[:cut])
            self._partial = self._partial[cut:]

    def _emit(self, line: bytes) -> None:
        self._sink(self._stream, printable(line))


def _before_a_character(data: bytes, position: int) -> int:
    """``position``, or a little before it, where no UTF-8 character is cut."""
    for cut in range(position, position - 4, -1):
        if data[cut] & 0xC0 != 0x80:  # not the continuation of one
            return cut
    return position


class _Process:
    """A running child with its pipes."""

    def __init__(self, pid: int, outputs: Iterable[_Output]) -> None:
        self.pid = pid
        self.status = 0
        self.detail = ""
        self.ended = False
        self._pidfd = os.pidfd_open(pid)
        self._outputs = {output.descriptor: output for output in outputs}
        self._poll = select.poll()
        for descriptor in (self._pidfd, *self._outputs):
            self._poll.register(descriptor, select.POLLIN)

    def watch(self, descriptor: int) -> None:
        self._poll.register(descriptor, select.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)

    def step(self, seconds: float | None) -> bool:
        """Wait for one thing to happen and see to it; True when the process has ended."""
        timeout = None if seconds is None else min(max(0.0, seconds), LONGEST_POLL) * 1000
        for descriptor, _ in self._poll.poll(timeout):
            output = self._outputs.get(descriptor)
            if output is not None and not output.read():
                self._poll.unregister(descriptor)
            elif descriptor == self._pidfd:
                self._bury()
        return self.ended

    def close(self) -> None:
        if not self.ended:  # something unforeseen: not one process is left to itself
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._await_end(1.0)
        if not self.ended:  # not even that: it is buried later, if ever
            self.status, self.detail = 137, "could not be ended"
        os.close(self._pidfd)
        for output in self._outputs.values():
            output.close()

    def _await_end(self, seconds: float) -> None:
        """Its end alone: its output may be what failed, and the pipes close before it has ended."""
        only = select.poll()
        only.register(self._pidfd, select.POLLIN)
        if only.poll(seconds * 1000):
            self._bury()

    def _bury(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.status = 128 - code if code < 0 else code
        if code < 0:
            self.detail = f"was ended by signal {-code}"
        self.ended = True
        self._poll.unregister(self._pidfd)


def end(process: _Process, hook_id: str, grace: float) -> None:
    """TERM to all that belongs to the process, ``grace`` seconds, then KILL until nothing is left.

    Not for ever: there are processes that KILL does not end, in the kernel or of another user.
    """
    family = Family(process.pid, hook_id)
    _signal(family.members(), signal.SIGTERM)
    kill = time.monotonic() + grace
    while _remaining(process, family) and time.monotonic() < kill + UNKILLABLE:
        if time.monotonic() >= kill:
            _signal(family.members(), signal.SIGKILL)


def _remaining(process: _Process, family: "Family") -> bool:
    """Take output and bury the dead for a moment; whether anything still lives."""
    if process.ended:
        time.sleep(LOOK_AGAIN)
        reap_orphans()
    else:
        process.step(LOOK_AGAIN)
    return not process.ended or bool(family.members())


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        # A process that has become another user's can only be named, if we are not root.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_leftovers(hook_id: str, grace: float) -> tuple[int, ...]:
    """End what still runs of a hook whose agent is gone; the pids that were found.

    Found by the mark in their environment, so never a stranger's, with their sessions and descendants.
    """
    found = marked_family(hook_id)
    _signal(found, signal.SIGTERM)
    kill = time.monotonic() + grace
    while (left := marked_family(hook_id)) and time.monotonic() < kill + UNKILLABLE:
        if time.monotonic() >= kill:
            _signal(left, signal.SIGKILL)
        time.sleep(LOOK_AGAIN)
    return tuple(sorted(found))


def marked_family(hook_id: str) -> set[int]:
    """All processes with the hook's mark, what shares a session with one, and what descends from them."""
    table = process_table()
    marked = {pid for pid in table if _is_marked(pid, hook_id)}
    sessions = {table[pid].session for pid in marked}
    family = _with_descendants({pid for pid, entry in table.items() if entry.session in sessions}, table)
    # The hook itself may be what calls the agent anew.
    return family - {os.getpid()}


@dataclass
class Family:
    """A process of ours and everything that it started, however it tried to get away."""

    leader: int
    hook_id: str
    _known: set[int] = field(default_factory=set)

    def members(self) -> set[int]:
        """The pids that live now, zombies left out."""
        table = process_table()
        members = {pid for pid, entry in table.items() if entry.session == self.leader}
        if self.leader in table:
            members.add(self.leader)
        for pid, entry in table.items():
            if entry.parent == os.getpid() and pid not in members and self._is_ours(pid):
                members.add(pid)
        return _with_descendants(members, table)

    def _is_ours(self, pid: int) -> bool:
        """Once seen with the mark, always: a process may overwrite its environment."""
        if pid in self._known or _is_marked(pid, self.hook_id):
            self._known.add(pid)
            return True
        return False


def _with_descendants(members: set[int], table: Mapping[int, "Entry"]) -> set[int]:
    while more := {pid for pid, entry in table.items() if entry.parent in members} - members:
        members = members | more
    return members


def _is_marked(pid: int, hook_id: str) -> bool:
    if not hook_id:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{HOOK_ID}={hook_id}".encode() in file.read().split(b"\0")
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Entry:
    parent: int
    session: int


def process_table() -> Mapping[int, Entry]:
    """Every process that is not a zombie, from /proc."""
    table = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The command's name is in parentheses and may hold anything, also parentheses.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in {b"Z", b"X"}:
            table[int(name)] = Entry(int(fields[1]), int(fields[3]))
    return table


def _start(command: Command, sink: LineSink) -> _Process:
    with contextlib.ExitStack() as ours:
        outputs, actions = [], [(os.POSIX_SPAWN_DUP2, _stdin(command.stdin, ours), 0)]
        for stream, number in ((Stream.STDOUT, 1), (Stream.STDERR, 2)):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            ours.callback(os.close, writer)
            outputs.append(_Output(reader, stream, sink))
            actions.append((os.POSIX_SPAWN_DUP2, writer, number))
            os.set_blocking(reader, False)
        try:
            pid = _spawn(command.path, command.argv, command.env, actions)
        except OSError:
            for output in outputs:
                os.close(output.descriptor)
            raise
    return _Process(pid, outputs)


def _spawn(
    path: str, argv: tuple[str, ...], env: Mapping[str, str], actions: list[tuple[int, int, int]]
) -> int:
    def spawn(program: str, arguments: tuple[str, ...]) -> int:
        return os.posix_spawn(
            program, arguments, env, file_actions=actions, setsid=True, setsigdef=_RESET, setsigmask=[]
        )

    try:
        return spawn(path, argv)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        # No shebang: dib-run-parts is bash, which runs such a file itself.
        return spawn("/bin/bash", ("bash", path, *argv[1:]))


def _stdin(data: bytes, ours: contextlib.ExitStack) -> int:
    """/dev/null, or a file in memory: nothing that a full pipe could block."""
    if not data:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    else:
        descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
    ours.callback(os.close, descriptor)
    return descriptor


def _why_not_started(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT and os.path.exists(path):
        return f"cannot be started: its interpreter {_interpreter(path)} does not exist"
    return f"cannot be started: {error.strerror}"


def _interpreter(path: str) -> str:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        first = file.readline(256)
        if first.startswith(b"#!") and (words := first[2:].strip(b" \t\n").split(b" ")):
            # As it is: a Windows line end is part of the name.
            return shown(words[0].decode("utf-8", "backslashreplace"))
    return "(its loader)"
