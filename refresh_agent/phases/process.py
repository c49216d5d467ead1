"""Start processes, pass on their output, time them out, end them with everything that they started.

One thread waits for all of them at once. What lies between the end of one hook and the start of the next is
kept short: everything else a caller can do while the next one runs.
"""

import contextlib
import errno
import functools
import os
import select
import signal
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple, overload

from refresh_agent import systemd
from refresh_agent.marks import HOOK_ID
from refresh_agent.model import ByteSink, Command, Ending, Exit, StopSignal, Stream
from refresh_agent.phases import cgroup, handover
from refresh_agent.phases.family import (
    LOOK_AGAIN,
    UNKILLABLE,
    Family,
    become_subreaper,
    reap_orphans,
)
from refresh_agent.phases.handover import RECENT, Call, Watch
from refresh_agent.phases.pipes import Pipe
from refresh_agent.redact import shown

LONGEST_POLL = 86400.0
"""Seconds; a poll refuses more than 24 days."""

ABANDONED = 1.0
"""Seconds that are given to what is killed because something unforeseen happened."""

_DUP2 = os.POSIX_SPAWN_DUP2
_NOTHING_TO_READ = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)

_RESET = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
"""All dispositions are reset: Python ignores SIGPIPE, a predecessor handed on an ignored SIGHUP."""


class Grace(NamedTuple):
    """Seconds: between TERM and KILL, and for a running process once a stop was requested."""

    kill: float = 10.0
    stop: float = 60.0


class Process:
    """A command that was started; ``pid`` is 0 if it could not be."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.began = time.monotonic()
        self.pid = 0
        self.pidfd = -1
        self.outputs: dict[int, Pipe] = {}
        self.status = 0
        self.detail = ""
        self.limit = self.began + command.timeout if command.timeout else float("inf")
        self.due = self.limit
        self.ending = Ending.TIMEOUT
        self.why = f"ran longer than {command.timeout:.3g} s and was ended" if command.timeout else ""
        self.kill_at: float | None = None
        self.call: Call | None = None
        self.group: cgroup.Group | None = None

    @property
    def hook_id(self) -> str:
        return self.command.env.get(HOOK_ID, "")

    @functools.cached_property
    def family(self) -> Family:
        """The same at each look: it remembers whom it has seen."""
        return Family(self.pid, self.hook_id, self.group)

    @property
    def buried(self) -> bool:
        return self.pidfd < 0

    def bury(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.status = 128 - code if code < 0 else code
        self.detail = f"was ended by signal {-code}" if code < 0 else ""
        self.let_go()

    @property
    def may_outlive_us(self) -> bool:
        return self.command.outlives and not self.buried and self.kill_at is None

    def wants_our_end(self, watch: Watch) -> bool:
        """Whether it asks, or has just asked, systemd to stop or restart the agent."""
        if not self.may_outlive_us:
            return False
        if call := watch.look(self.family.members()):
            self.call = call
            return True
        # One that waits for the stop would be there still: that was another stop.
        return self.call is not None and not self.call.waits and time.monotonic() - self.call.at < RECENT

    def let_go(self) -> None:
        os.close(self.pidfd)
        self.pidfd = -1

    def end_by(self, moment: float, ending: Ending, why: str) -> None:
        """It has to end at ``moment``, unless it has to sooner."""
        if self.kill_at is None and moment < self.due:
            self.due, self.ending, self.why = moment, ending, why


class ProcessRunner:
    """Runs processes, side by side if more than one is started; ``run`` is a ``model.Runner``."""

    def __init__(self, stop: StopSignal, grace: Grace) -> None:
        self._stop = stop
        self._grace = grace
        self._running: list[Process] = []
        self._ended: deque[tuple[Process, Exit]] = deque()
        self._waited_for: dict[int, Process] = {}
        self._poll = select.poll()
        self._poll.register(stop.fileno(), select.POLLIN)
        self._watch = handover.watch()
        if self._watch.fileno() >= 0:
            self._watch.forget()
            self._poll.register(self._watch.fileno(), select.POLLIN)
        self._own_group = cgroup.own()
        cgroup.sweep()
        become_subreaper()
        withhold_descriptors()

    def run(self, command: Command, sink: ByteSink) -> Exit:
        """From start to end."""
        return self.wait(self.start(command, sink))

    def start(self, command: Command, sink: ByteSink) -> Process:
        """Its output goes to ``sink`` while ``next_ended`` or ``wait`` is called, and in the background
        after its end if something that it left behind goes on writing.
        """
        process = Process(command)
        if self._stop.requested:
            self._ended.append((process, Exit(143, Ending.STOPPED, 0.0, "the agent is stopping")))
            return process
        try:
            self._spawn_in_group(process, sink)
        except OSError as error:
            if process.group:
                process.group.kill()
                process.group.remove()
            status = 126 if error.errno == errno.EACCES else 127
            why = _why_not_started(command.path, error)
            self._ended.append((process, Exit(status, Ending.NOT_STARTED, 0.0, why)))
            return process
        self._running.append(process)
        for descriptor in (*process.outputs, process.pidfd):
            self._waited_for[descriptor] = process
            self._poll.register(descriptor, select.POLLIN)
        return process

    def _spawn_in_group(self, process: Process, sink: ByteSink) -> None:
        if self._own_group is None:
            _spawn(process, sink)
            return
        with self._own_group.for_hook(process.hook_id) as process.group:
            _spawn(process, sink)

    @overload
    def next_ended(self) -> tuple[Process, Exit]: ...

    @overload
    def next_ended(self, seconds: float) -> tuple[Process, Exit] | None: ...

    def next_ended(self, seconds: float | None = None) -> tuple[Process, Exit] | None:
        """Wait until one of those that were started has ended, and how; None if that takes longer."""
        until = None if seconds is None else time.monotonic() + seconds
        while not self._ended:
            if until is not None and time.monotonic() >= until:
                return None
            self._step(until)
        return self._ended.popleft()

    def wait(self, process: Process) -> Exit:
        """Until this one has ended; others that end meanwhile are still to be had from ``next_ended``."""
        while True:
            for ended, how in self._ended:
                if ended is process:
                    self._ended.remove((ended, how))
                    return how
            self._step()

    def cancel(self, reason: str) -> None:
        """End all that runs, as at a time-out."""
        for process in self._running:
            process.end_by(time.monotonic(), Ending.CANCELLED, reason)

    def _step(self, until: float | None = None) -> None:
        """Wait for something to happen, not longer than ``until``, and see to it."""
        try:
            for descriptor, _ in self._poll.poll(self._milliseconds(until)):
                self._serve(descriptor)
            for process in tuple(self._running):
                if process in self._running and (process.buried or time.monotonic() >= process.due):
                    self._advance(process, time.monotonic())
        except BaseException:
            self.abandon()
            raise

    def _milliseconds(self, until: float | None) -> float | None:
        now = time.monotonic()
        due = min(now + systemd.PULSE.beat(), *(process.due for process in self._running))
        due = due if until is None else min(due, until)
        if due == float("inf"):
            return None
        return min(max(0.0, due - now), LONGEST_POLL) * 1000

    def _serve(self, descriptor: int) -> None:
        process = self._waited_for.get(descriptor)
        if descriptor == self._watch.fileno():
            self._heed()
        elif descriptor == self._stop.fileno():
            self._stop_all()
        elif process is None:
            return  # it was readable, too, when what it is of was handed over
        elif descriptor == process.pidfd:
            self._forget(descriptor)
            process.bury()
        elif not process.outputs[descriptor].read():
            self._forget(descriptor)
            process.outputs.pop(descriptor).close()

    def _forget(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._waited_for[descriptor]

    def _stop_all(self) -> None:
        self._poll.unregister(self._stop.fileno())
        grace = self._grace.stop
        if self._is_called_for():
            self._hand_over()
        if not self._running:
            return
        names = ", ".join(process.command.path for process in self._running)
        most = max(self._kill_grace(process) for process in self._running)
        longest = grace + (most if most < float("inf") else self._grace.kill) + UNKILLABLE
        systemd.stopping(f"{names} may take {grace:g} s to end", longest)
        detail = f"the agent is stopping and {grace:g} s were not enough; it was ended"
        for process in self._running:
            process.end_by(time.monotonic() + grace, Ending.STOPPED, detail)

    def _heed(self) -> None:
        """Somebody has called systemctl, just now: was it one of ours, and does it want the agent's end?"""
        self._watch.forget()
        for _ in range(handover.LOOKS):
            if self._is_called_for():
                if self._stop.requested:  # by somebody else: this one waits for our end all the same
                    self._hand_over()
                return
            time.sleep(handover.PAUSE)

    def _is_called_for(self) -> bool:
        return any(process.wants_our_end(self._watch) for process in self._running)

    def _hand_over(self) -> None:
        """To the next agent: what runs goes on without this one, and so does all that runs beside it."""
        handed_over = [process for process in self._running if process.may_outlive_us]
        names = ", ".join(process.command.path for process in handed_over)
        systemd.stopping(f"{names} is left to the next agent", 0)
        for process in handed_over:
            self._let_go_of(process)
            why = f"it has called {process.call.text!r}" if process.call else "with what runs beside it"
            detail = f"is left to the next agent ({why})"
            now = time.monotonic()
            seconds, left = now - process.began, max(0.0, process.limit - now)
            self._ended.append((process, Exit(143, Ending.HANDED_OVER, seconds, detail, left=left)))

    def _advance(self, process: Process, now: float) -> None:
        """TERM to all that belongs to a process whose time is up, the grace, then KILL until nothing is left.

        Not for ever: there are processes that KILL does not end, in the kernel or of another user.
        """
        if process.kill_at is None:
            if process.buried:
                self._finish(process, Ending.EXITED)
                return
            if process.ending is Ending.STOPPED and self._is_called_for():
                self._hand_over()  # it has called after the stop, and was missed then: it waits still
                return
            process.kill_at = now + self._kill_grace(process)
            systemd.PULSE.doing(f"ending {process.command.path}", process.why)
            process.family.signal(signal.SIGTERM)
        elif now >= process.kill_at + UNKILLABLE or (process.buried and not process.family.lives()):
            self._finish(process, process.ending)
            return
        elif now >= process.kill_at:
            process.family.signal(signal.SIGKILL)
        elif process.buried:
            process.kill_at = min(process.kill_at, now + self._grace.kill)
        process.due = now + LOOK_AGAIN

    def _kill_grace(self, process: Process) -> float:
        own = process.command.kill_grace
        return self._grace.kill if own is None else own

    def _finish(self, process: Process, ending: Ending) -> None:
        status, detail = process.status, process.detail if ending is Ending.EXITED else process.why
        if not process.buried:  # it is buried later, if ever
            status, detail = 137, f"{detail}; that could not be done"
        self._let_go_of(process)
        survivors = process.family.survivors() if self._running or reap_orphans() else ()
        if process.group:
            process.group.remove()
        seconds = time.monotonic() - process.began
        self._ended.append((process, Exit(status, ending, seconds, detail, survivors)))

    def _let_go_of(self, process: Process) -> None:
        """It is waited for no more. Who still writes into its pipes is listened to in the background."""
        self._running.remove(process)
        if not process.buried:
            self._forget(process.pidfd)
            process.let_go()
        for descriptor, output in process.outputs.items():
            self._forget(descriptor)
            output.let_go()
        process.outputs.clear()

    def abandon(self) -> None:
        """Something unforeseen: not one process is left to itself."""
        for process in self._running:
            if not process.buried:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                if process.group:
                    process.group.kill()
                _await(process)
            for output in process.outputs.values():
                output.close()
        for descriptor in self._waited_for:
            self._poll.unregister(descriptor)
        self._waited_for.clear()
        self._running.clear()


def withhold_descriptors() -> None:
    """What the agent was started with is not for hooks, beyond the standard three (os-refresh-config:
    close_fds). All that it opens itself is closed on exec anyway.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.set_inheritable(int(name), False)


def _await(process: Process) -> None:
    """The end of a killed process alone: its output may be what failed, and closes before it has ended."""
    poll = select.poll()
    poll.register(process.pidfd, select.POLLIN)
    if poll.poll(ABANDONED * 1000):
        process.bury()
    else:
        process.let_go()


def _spawn(process: Process, sink: ByteSink) -> None:
    command = process.command
    writers: list[int] = []
    stdin = _in_memory(command.stdin) if command.stdin else -1
    try:
        actions: list[tuple[Any, ...]] = [_NOTHING_TO_READ] if stdin < 0 else [(_DUP2, stdin, 0)]
        for stream, number in ((Stream.STDOUT, 1), (Stream.STDERR, 2))[: 1 if command.joined else 2]:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            writers.append(writer)
            process.outputs[reader] = Pipe(reader, stream, sink, command)
            actions.append((_DUP2, writer, number))
        if command.joined:
            actions.append((_DUP2, 1, 2))
        process.pid = _posix_spawn(command.path, command.argv, command.env, actions)
        process.pidfd = os.pidfd_open(process.pid)
    except OSError:
        _undo(process)
        raise
    finally:
        for descriptor in (*writers, *(() if stdin < 0 else (stdin,))):
            os.close(descriptor)


def _undo(process: Process) -> None:
    """It was not started, or cannot be waited for."""
    for descriptor in process.outputs:
        os.close(descriptor)
    process.outputs.clear()
    if process.pid:
        os.killpg(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
        process.pid = 0


def _posix_spawn(
    path: str, argv: tuple[str, ...], env: Mapping[str, str], actions: list[tuple[Any, ...]]
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


def _in_memory(data: bytes) -> int:
    """A file to read from: nothing that a full pipe could block."""
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
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
