"""The programs that the demo starts: their output is shown, and none of them outlives it."""

import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO

from demo_parts.conditions import DemoError

STOP_SECONDS = 20.0
"""How long a program may take to end after SIGTERM; a hook of the demo takes less than a second."""

KEPT_LINES = 30
"""How much of a quiet program's output is shown when it fails."""


class Program:
    """A running program. ``quiet``: its output is shown only when it goes wrong."""

    def __init__(
        self, name: str, command: Sequence[str | pathlib.Path], env: Mapping[str, str], *, quiet: bool = False
    ) -> None:
        self.name = name
        self._quiet = quiet
        self._lines: list[str] = []
        # A session of its own: an interrupt at the terminal reaches the demo, which then ends this one.
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                text = f"{self.name} | {line.decode(errors='replace').rstrip()}\n"
                if self._quiet:
                    self._lines = [*self._lines[1 - KEPT_LINES :], text]
                else:
                    sys.stdout.write(text)
                    sys.stdout.flush()

    def must_run(self) -> None:
        status = self._process.poll()
        if status is not None:
            self._reader.join(timeout=1)
            sys.stdout.writelines(self._lines)
            raise DemoError(f"{self.name}\n  expected: running\n  seen:     ended with {status}")

    def stop(self) -> int:
        """End it, by force if it does not go; the exit status as Popen has it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._reader.join(timeout=1)
        return status


def run(what: str, command: Sequence[str | pathlib.Path], env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end; its standard output, or an error that shows all it said."""
    done = subprocess.run(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"{what}: exit code {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout
