"""Where the tests of processes run their scripts."""

import os
import pathlib
import threading

from refresh_agent.lines import Lines
from refresh_agent.marks import HOOK_ID
from refresh_agent.model import Command, Exit, Stream
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.wakeup import Stop
from tests.unit.support import write_hook
from tests.waiting import eventually

Told = list[tuple[Stream, str]]
OUT, ERR = Stream.STDOUT, Stream.STDERR


class Shop:
    """Runs bash scripts, by default under a short grace."""

    def __init__(self, root: pathlib.Path, stop: Stop) -> None:
        self.root = root
        self.stop = stop
        self.lines: Told = []
        self.runner = ProcessRunner(stop, Grace(kill=0.3, stop=0.3))

    def script(self, body: str, shebang: str = "#!/bin/bash\n") -> pathlib.Path:
        return write_hook(self.root / "hook", body, shebang=shebang)

    def run(self, body: str, *, timeout: float = 0, stdin: bytes = b"", **env: str) -> Exit:
        return self.run_file(self.script(body), timeout=timeout, stdin=stdin, **env)

    def run_file(self, path: pathlib.Path, *, timeout: float = 0, stdin: bytes = b"", **env: str) -> Exit:
        self.lines.clear()
        variables = {"PATH": os.environ["PATH"], HOOK_ID: "the-hook", **env}
        return self.listen(Command(str(path), (str(path),), variables, stdin, timeout))

    def listen(self, command: Command) -> Exit:
        lines = Lines(lambda *line: self.lines.append(line))
        ended = self.runner.run(command, lines.feed)
        lines.flush()
        return ended

    def pid(self, name: str = "pid") -> int:
        return int(eventually(lambda: (self.root / name).exists() and (self.root / name).read_text()))


def followers() -> int:
    """Threads that listen to what hooks have left in the background."""
    return sum(thread.name == "background-output" for thread in threading.enumerate())
