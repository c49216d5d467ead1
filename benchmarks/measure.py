"""What the benchmarks share: a scratch node, timing in turns, and the words for a result."""

import json
import os
import pathlib
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One promised figure: what was seen, against what was promised; both in ``unit``."""

    name: str
    seen: float
    limit: float
    unit: str
    detail: str = ""

    @property
    def kept(self) -> bool:
        return self.seen <= self.limit

    def __str__(self) -> str:
        verdict = "kept" if self.kept else "NOT KEPT"
        seen = f"{self.seen:8.3f} {self.unit}".rstrip()
        return f"{self.name:<54} {seen:<13} at most {self.limit:<5g} {verdict}  {self.detail}".rstrip()


class Tree:
    """Hooks, metadata and configuration in a folder."""

    def __init__(self, root: pathlib.Path, agent: pathlib.Path) -> None:
        self.root = root
        self.base = root / "hooks"
        self.metadata_file = root / "metadata.json"
        self.config_file = root / "refresh-agent.conf"
        self.agent = str(agent / "bin" / "refresh-agent")
        self.base.mkdir()
        self.configure({"quiet": "0.1"})

    def configure(self, debounce: Mapping[str, str]) -> None:
        settled = "\n".join(f"{name} = {value}" for name, value in debounce.items())
        self.config_file.write_text(
            f"[DEFAULT]\ncollectors = heat_local\nbase_dir = {self.base}\nstate_dir = {self.root}/state\n"
            f"lock_file = {self.root}/lock\ncachedir = {self.root}/cache\n"
            f"[heat_local]\npath = {self.metadata_file}\n[debounce]\n{settled}\n"
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
    """Seconds of wall time, each candidate once a round so that noise hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            began = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def quietly(command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    """Run to success without output."""
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **(env or {})})


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not so after {seconds:g} s")
        time.sleep(0.002)
