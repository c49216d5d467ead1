"""The agent's runner without what it tells: ``runner`` is processes alone, ``phases`` the phases around them.

Run by the agent's own Python: ``layers.py runner|phases BASE_DIR``. Prints the seconds for all hooks.
"""

import itertools
import os
import pathlib
import sys
import time
from collections.abc import Sequence

from refresh_agent.lines import Lines
from refresh_agent.model import Command, Failure, HookEvent, PhaseSettings
from refresh_agent.phases import execute, order, run_parts
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.redact import Masker
from refresh_agent.wakeup import Stop


class Silent:
    """An ``execute.Recorder`` that keeps and tells nothing."""

    def phase_began(self, phase: str, hooks: int) -> None: ...

    def phase_ended(self, phase: str, failure: Failure | None) -> None: ...

    def hooks_changed(self, events: Sequence[HookEvent]) -> None: ...

    def listener(self, phase: str, hook: str) -> Lines:
        del phase, hook
        return Lines(lambda *_: None)

    def sourcing(self, phase: str, path: str) -> None: ...

    def note(self, phase: str, text: str) -> None: ...

    def warn(self, phase: str, text: str) -> None: ...


def processes(runner: ProcessRunner, base_dir: str, env: dict[str, str]) -> None:
    for phase in order.PHASES:
        directory = order.directory(base_dir, phase)
        for hook in run_parts.select(directory).hooks:
            path = str(pathlib.Path(directory) / hook)
            runner.start(Command(path, (path,), env, joined=True), lambda *_: None)
            runner.next_ended()


def main(what: str, base_dir: str) -> float:
    stop, env = Stop(), dict(os.environ)
    runner = ProcessRunner(stop, Grace())
    ids = (str(number) for number in itertools.count())
    began = time.perf_counter()
    if what == "runner":
        processes(runner, base_dir, env)
    else:
        settings = PhaseSettings(base_dir)
        execute.run_phases(
            execute.Job(settings, env, {}, runner, Silent(), stop, Masker(), ids), order.PHASES
        )
    return time.perf_counter() - began


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
