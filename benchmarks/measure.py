"""What the benchmarks share: a scratch node, timing in turns, and the words for a result."""

import functools
import json
import os
import pathlib
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


class MissingError(Exception):
    """Something that a benchmark needs is not on this machine; the message says what to install."""


@dataclass(frozen=True)
class Figure:
    """What was seen, against what was promised; both in ``unit``. Without a limit it is only told."""

    name: str
    seen: float
    limit: float | None
    unit: str
    detail: str = ""
    at_least: bool = False

    @property
    def kept(self) -> bool:
        if self.limit is None:
            return True
        return self.seen >= self.limit if self.at_least else self.seen <= self.limit

    def __str__(self) -> str:
        seen = f"{self.seen:8.3f} {self.unit}".rstrip()
        return f"{self.name:<54} {seen:<13} {self._verdict():<23} {self.detail}".rstrip()

    def _verdict(self) -> str:
        if self.limit is None:
            return ""
        bound = f"at {'least' if self.at_least else 'most'} {self.limit:g}"
        return f"{bound:<14} {'kept' if self.kept else 'NOT KEPT'}"


class Tree:
    """Hooks, metadata and configuration in a folder."""

    def __init__(self, root: pathlib.Path, agent: pathlib.Path) -> None:
        self.root = root
        self.base = root / "hooks"
        self.metadata_file = root / "metadata.json"
        self.config_file = root / "refresh-agent.conf"
        self.agent = str(agent / "bin" / "refresh-agent")
        self.python = str(agent / "bin" / "python")
        self.base.mkdir(parents=True)
        self.configure()

    def configure(self, **phases: int) -> None:
        """Everything in the folder; options of ``[phases]`` as given."""
        options = "\n".join(f"{name} = {value}" for name, value in phases.items())
        self.config_file.write_text(
            f"[DEFAULT]\ncollectors = heat_local\nbase_dir = {self.base}\nstate_dir = {self.root}/state\n"
            f"lock_file = {self.root}/lock\ncachedir = {self.root}/cache\nbackup_cachedir =\n"
            f"[heat_local]\npath = {self.metadata_file}\n[debounce]\nquiet = 0.1\n[phases]\n{options}\n"
        )

    def hook(self, place: str, text: str) -> None:
        path = self.base / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def metadata(self, content: object) -> None:
        new = self.root / ".new"
        new.write_text(json.dumps(content))
        new.rename(self.metadata_file)

    def command(self, *arguments: str) -> list[str]:
        return [self.agent, "--config-file", str(self.config_file), *arguments]


def medians(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of wall time of each candidate."""

    def timed(name: str) -> dict[str, float]:
        return {name: wall_time(candidates[name])}

    return medians_told([functools.partial(timed, name) for name in candidates], rounds)


def medians_told(candidates: Sequence[Callable[[], Mapping[str, float]]], rounds: int) -> dict[str, float]:
    """Of what the candidates tell, by name. Each is run once a round, so that noise hits all alike."""
    told: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for candidate in candidates:
            os.sync()  # or the first one that syncs a file would pay for what those before it wrote
            for name, value in candidate().items():
                told[name].append(value)
    return {name: statistics.median(values) for name, values in told.items()}


def wall_time(candidate: Callable[[], object]) -> float:
    began = time.perf_counter()
    candidate()
    return time.perf_counter() - began


def quietly(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Run to success; its standard output. The log, on standard error, goes to /dev/null."""
    variables = {**os.environ, **(env or {})}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=variables, text=True
    )
    return done.stdout


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not so after {seconds:g} s")
        time.sleep(0.002)
