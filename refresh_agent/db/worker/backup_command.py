"""Running a backup command: what it prints goes to stderr; a stop ends it with all that it has started.

But not a dump: one that is printed goes nowhere, and must not go into the log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from .faults import TargetError
from .stopping import Stopping

GRACE = 5.0
"""Seconds between TERM and KILL."""

PRIVATE = 0o077
"""The command's umask: a dump is for nobody else's eyes, as little as the database."""

LINE_LIMIT = 4096
"""Bytes; a longer line is cut into several."""

_HINT = "password retrieved from file"
"""What libpq adds on a line of its own after "password authentication failed": it hides the reason."""

_DUMPS = (b"PGDMP", b"-- PostgreSQL database", b"-- MariaDB dump", b"-- MySQL dump", b"/*M!999999", b"/*!")
"""How the dumps of pg_dump, mariadb-dump and mysqldump begin."""

_DRAIN = 5.0
"""Seconds for what is left in the pipe when the command has ended, and nobody holds it open any more."""


def run(
    command: Sequence[str], environment: Mapping[str, str], mask: Callable[[str], str], stopping: Stopping
) -> None:
    """Come back when the command has succeeded. Raises TargetError if it has failed, Stopped if stopped."""
    try:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=PRIVATE,
        )
    except OSError as error:
        raise TargetError(f"backup: {command[0]} cannot be run: {error.strerror or error}") from error
    group = _Group(process)
    output = _Output(process.stdout, mask)
    try:
        with stopping.during(0, group.end):
            status = group.wait()
            output.finish()
            if output.is_dump:
                raise TargetError(
                    f"backup: {command[0]} prints its dump, which is kept nowhere; have it write a file"
                    " (pg_dump --file, mariadb-dump --result-file); nothing was changed"
                )
            if status:
                raise TargetError(_failure(command[0], status, output.last))
    finally:
        group.wait(kill=True)
        output.finish()


def _failure(name: str, status: int, last: str) -> str:
    how = f"exited with status {status}"
    if status < 0:
        how = f"was ended by {_signal_name(-status)}"
    return f"backup: {name} {how}{f': {last}' if last else ' and said nothing'}; nothing was changed"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Group:
    """The command with all that it has started, in a session and process group of its own.

    Its number is signalled only as long as its leader has not been reaped: nobody else can have it then.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def wait(self, kill: bool = False) -> int:
        """Return its status. What it has left running is ended: its password file is about to go."""
        if self._process.returncode is None:
            if kill:
                self._signal(signal.SIGKILL)
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._signal_locked(signal.SIGKILL)
                self._process.wait()
        if self._timer:
            self._timer.cancel()
        return self._process.returncode

    def end(self) -> None:
        """TERM, and after GRACE seconds KILL; again and again does no more. Called from another thread."""
        if self._timer is None:
            self._timer = threading.Timer(GRACE, self._signal, (signal.SIGKILL,))
            self._timer.daemon = True
            self._timer.start()
            self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            self._signal_locked(number)

    def _signal_locked(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


class _Output:
    """Hands on the lines; ``last`` is the last one that is not blank. ``is_dump``: it is thrown away."""

    def __init__(self, stream: IO[bytes] | None, mask: Callable[[str], str]) -> None:
        self.last = ""
        self.is_dump = False
        self._stream = stream
        self._mask = mask
        self._thread = threading.Thread(target=self._run, name="backup output", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if self._stream is None:
            return
        with self._stream as stream:
            for line in iter(lambda: stream.readline(LINE_LIMIT), b""):
                # pg_dump begins with "--" on a line of its own.
                self.is_dump = self.is_dump or line.startswith(_DUMPS)
                if self.is_dump or line == b"--\n":
                    continue
                text = self._mask(line.decode(errors="backslashreplace").rstrip())
                if text:
                    self.last = self.last if text.startswith(_HINT) else text
                    print(text, file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Wait for the last line; not for a process that has left the group and keeps the pipe."""
        self._thread.join(_DRAIN)
