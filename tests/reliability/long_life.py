"""One agent that sees ten thousand changes at full speed: nothing of it grows beyond its limits.

    .venvs/dev/bin/python -m tests.reliability.long_life --seed 7 --count 10000

Each change is a run of four phases; every 50th fails at first, half of the changes bring new secrets. The
clock is a number, and nobody sleeps. Prints what there was at most at first and in the end; exit code 1 if
any of it has grown.
"""

import argparse
import gc
import json
import logging
import os
import pathlib
import random
import shlex
import sqlite3
import sys
import threading
import time
from collections import deque
from typing import Any, NamedTuple, cast

from refresh_agent.cycle import Edges
from refresh_agent.journal_file import Edge, path_in
from refresh_agent.model import (
    ByteSink,
    Command,
    Ending,
    Exit,
    RetrySettings,
    Settings,
    StopSignal,
    Stream,
    Trigger,
)
from refresh_agent.phases import order
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.service import Agent, Means
from refresh_agent.wakeup import Stop
from tests.reliability.faults import NOBODY
from tests.reliability.model import in_memory
from tests.unit.support import Tree, open_descriptors, write_json

KEEP_RUNS = (20, 500)
"""The smallest that makes sense, and the default."""

WARM_UP = 500
"""Changes. By then every cache is full, and the journal, too."""

LOOK_EVERY = 20
"""Changes."""

SECRETS = 40
"""New ones with each change that has some."""

SECRET = "geheim"

MOST_TURNS = 30
"""Of the agent, until a change has been run for, its second attempt included."""


class Sizes(NamedTuple):
    """``blocks``: of Python's memory. ``memory``: of the process, ``journal``: of all its files; in KiB."""

    blocks: int
    memory: int
    descriptors: int
    threads: int
    journal: int
    files: int

    def most(self, other: "Sizes") -> "Sizes":
        return Sizes(*map(max, zip(self, other, strict=True)))


NOTHING = Sizes(0, 0, 0, 0, 0, 0)

ALLOWED = Sizes(blocks=2000, memory=3072, descriptors=0, threads=0, journal=64, files=0)
"""Growth from the first quarter after the warm-up to the last. Memory is given back in pages, if at all."""


class Comparison(NamedTuple):
    """The most that there was, at first and in the end; ``left`` are secrets that the journal holds."""

    first: Sizes
    last: Sizes
    left: int

    @property
    def problems(self) -> list[str]:
        grown = [
            f"{name} has grown from {first} to {last}"
            for name, first, last, allowed in zip(Sizes._fields, self.first, self.last, ALLOWED, strict=True)
            if last > first + allowed
        ]
        return [*grown, *([f"{self.left} secrets are in the journal"] if self.left else [])]


class _Process:
    pid = NOBODY


class _Runner:
    """In place of ProcessRunner, for ten thousand runs in a minute. Each hook tells all that it was given."""

    def __init__(self, life: "LongLife", _stop: StopSignal, _grace: Grace) -> None:
        self._life = life
        self._ended: deque[tuple[_Process, Exit]] = deque()

    def start(self, command: Command, sink: ByteSink) -> _Process:
        process = _Process()
        with open(command.env["OS_CONFIG_FILES"], "rb") as file:
            sink(Stream.STDOUT, file.read() + b"\n")
        status = self._life.status_of(command.env["REFRESH_AGENT_PHASE"])
        self._ended.append((process, Exit(status, Ending.EXITED, 0.0)))
        return process

    def next_ended(self, _seconds: float | None = None) -> tuple[_Process, Exit]:
        return self._ended.popleft()

    def abandon(self) -> None:
        """Nothing runs."""


class LongLife:
    """A node, and the one agent on it, with its real watcher."""

    def __init__(self, root: pathlib.Path, seed: int, keep_runs: int) -> None:
        self._tree = Tree(root)
        self._random = random.Random(seed)
        self._keep_runs = keep_runs
        self._clock = 1000.0
        self._fails = False
        self._done = 0
        for phase in (*order.PHASES, order.ERROR):
            self._tree.hook(f"{phase}/10-a")
        self._change(0)
        self._stop = Stop()
        edge = Edge(wall=lambda: 1.7e9 + self._clock, since_boot=self._now)
        runner: Any = lambda stop, grace: cast(ProcessRunner, _Runner(self, stop, grace))  # noqa: E731
        self._agent = Agent(
            self, self._stop, Means(self._now, self._random.random, edges=Edges(edge, runner))
        )
        self._agent._presence.begin(str(self._tree.state))
        self._agent._poll()
        self._agent._refresh(Trigger.START)

    def close(self) -> None:
        self._agent._presence.end()
        self._agent._watcher.close()
        self._agent.wakeup.close()
        self._stop.close()

    def _now(self) -> float:
        return self._clock

    def watch(self) -> tuple[str, ...]:
        """As service.Configuration has it; it never changes."""
        return ()

    def digest(self) -> str:
        return ""

    def load(self) -> Settings:
        return self._tree.settings(retry=RetrySettings(1, 8, 0), keep_runs=self._keep_runs)

    def status_of(self, phase: str) -> int:
        """Of the hook of this phase, which runs now."""
        if self._fails and phase == order.CONFIGURE:
            self._fails = False
            return 1
        self._done += phase == order.MIGRATION
        return 0

    def live(self, changes: int, warm_up: int = WARM_UP) -> Comparison:
        for number in range(1, warm_up + 1):
            self.see(number)
        # Only these two are kept: what grows here is not the agent.
        first, last = NOTHING, NOTHING
        for number in range(1, changes + 1):
            self.see(warm_up + number)
            if number % LOOK_EVERY == 0 and 4 * number <= changes:
                first = self._sizes().most(first)
            elif number % LOOK_EVERY == 0 and 4 * number > 3 * changes:
                last = self._sizes().most(last)
        return Comparison(first, last, self._secrets_in_journal())

    def see(self, number: int) -> None:
        """One change, until it has been run for."""
        self._fails = number % 50 == 0
        self._change(number)
        self._agent.wakeup.because(Trigger.CHANGE)
        expected = self._done + 1
        for _ in range(MOST_TURNS):
            self._clock = max(self._clock, self._agent._timers.next_due())
            self._agent._turn(self._agent.wakeup.wait(0))
            if self._done == expected:
                return
        raise AssertionError(f"change {number} is not run for after {MOST_TURNS} turns")

    def _change(self, number: int) -> None:
        content: dict[str, Any] = {"number": number, "services": {f"name-{at}": "x" * 20 for at in range(20)}}
        if number % 2:
            content["passwords"] = [f"{SECRET}{self._random.getrandbits(64):016x}" for _ in range(SECRETS)]
        write_json(self._tree.metadata, content)

    def _sizes(self) -> Sizes:
        gc.collect()
        state, journal = self._tree.state, pathlib.Path(path_in(str(self._tree.state)))
        files = [path for folder in (state, self._tree.cache) for path in folder.rglob("*")]
        return Sizes(
            sys.getallocatedblocks(),
            resident(),
            open_descriptors(),
            threading.active_count(),
            sum(path.stat().st_size for path in journal.parent.glob(f"{journal.name}*")) // 1024,
            len(files),
        )

    def _secrets_in_journal(self) -> int:
        with sqlite3.connect(path_in(str(self._tree.state))) as db:
            tails = [tail for (tail,) in db.execute("SELECT tail FROM outputs")]
        db.close()
        assert tails
        return sum(SECRET.encode() in tail for tail in tails)


def resident() -> int:
    """KiB of this process that are in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def live(seed: int, changes: int, keep_runs: int, warm_up: int = WARM_UP) -> Comparison:
    """A whole life on a node of its own."""
    with in_memory() as root:
        life = LongLife(root, seed, keep_runs)
        try:
            return life.live(changes, warm_up)
        finally:
            life.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="One agent, thousands of changes, and what grows.")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="default: a new one")
    parser.add_argument("--count", type=int, default=10_000, help="changes; default: 10000")
    arguments = parser.parse_args()
    print(f"long life: --seed {arguments.seed} --count {arguments.count}", flush=True)
    logging.getLogger("refresh_agent").setLevel(logging.CRITICAL + 1)
    wrong = 0
    for keep_runs in KEEP_RUNS:
        began = time.monotonic()
        compared = live(arguments.seed, arguments.count, keep_runs)
        seconds = time.monotonic() - began
        sizes = {"first": compared.first._asdict(), "last": compared.last._asdict()}
        print(
            f"{arguments.count} changes, keep_runs {keep_runs}, {seconds:.0f} s: {json.dumps(sizes)}",
            flush=True,
        )
        for problem in compared.problems:
            print(f"  {problem}", file=sys.stderr)
        wrong += len(compared.problems)
    if wrong:
        words = ["-m", "tests.reliability.long_life", "--seed", arguments.seed, "--count", arguments.count]
        print(f"again: {shlex.join(map(str, [sys.executable, *words]))}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
