"""What the tests of whole phases start from."""

import itertools
import os
import pathlib
import signal
import threading
from typing import Any

from refresh_agent.model import Failure, PhaseSettings
from refresh_agent.phases import execute, order
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.redact import Masker
from refresh_agent.wakeup import Stop
from tests.unit.support import Recording, write_hook
from tests.waiting import eventually


class Node:
    def __init__(self, base: pathlib.Path) -> None:
        self.base = base
        self.stop = Stop()
        self.mask = Masker()
        self.told = Recording()
        self.env = {"PATH": os.environ["PATH"]}
        self.run_env = {"REFRESH_AGENT_RUN_ID": "run-1"}
        self.settings: dict[str, Any] = {"kill_grace": 0.2, "stop_grace": 20.0}

    def hook(self, place: str, body: str = "") -> pathlib.Path:
        phase, name = place.split("/")
        return write_hook(self.base / f"{phase}.d" / name, f"echo {place} >> {self.base}/ran\n{body}")

    def job(self) -> execute.Job:
        settings = PhaseSettings(str(self.base), **self.settings)
        runner = ProcessRunner(self.stop, Grace(settings.kill_grace, settings.stop_grace))
        ids = (f"run-1-{number}" for number in itertools.count(1))
        return execute.Job(settings, self.env, self.run_env, runner, self.told, self.stop, self.mask, ids)

    def run(self) -> Failure | None:
        return execute.run_phases(self.job(), order.PHASES)

    def run_until(self, *names: str) -> Failure | None:
        """Run, and be told to stop once all files of these names are there."""

        def request() -> None:
            eventually(lambda: all((self.base / name).exists() for name in names))
            self.stop.request(signal.SIGTERM)

        thread = threading.Thread(target=request)
        thread.start()
        failure = self.run()
        thread.join()
        return failure

    def ran(self) -> list[str]:
        path = self.base / "ran"
        return path.read_text().split() if path.exists() else []

    def said(self) -> list[str]:
        return [line.partition(": ")[2] for line in self.told.lines]
