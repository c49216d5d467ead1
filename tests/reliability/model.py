"""The model test: what the agent lives through, in any order, and what must hold after every step.

    .venvs/dev/bin/python -m tests.reliability.model --seed 7 --count 1000000

Prints the seed and how much was done. A failure prints the steps that lead to it, as few as were found, and
the command that repeats it; exit code 1 then.
"""

import argparse
import contextlib
import logging
import os
import pathlib
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from refresh_agent.model import RunAtBoot
from tests.reliability.life import Life, Node
from tests.reliability.steps import WEIGHTS, Step

STEPS = 250
"""In one life. In its end it is to be seen that all is well, as a few times before."""

MEMORY = "/dev/shm"

SECONDS_OF_SHRINKING = 60.0


class Failure(NamedTuple):
    """``told``: the steps, and what happened in them."""

    text: str
    told: Sequence[str]


class Totals(NamedTuple):
    lives: int = 0
    steps: int = 0
    runs: int = 0


def node_of(seed: int, number: int) -> Node:
    chance = random.Random(f"{seed} node {number}")
    keep_runs, databases = chance.choice((3, 6, 500)), chance.random() < 0.5
    return Node(keep_runs, databases, chance.choice((0, 1, 2, 3)), chance.choice(list(RunAtBoot)))


def steps_of(seed: int, number: int) -> list[Step]:
    chance = random.Random(f"{seed} life {number}")
    names = ["change", "start", *chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS - 3), "settle"]
    return [Step(name, chance.getrandbits(32)) for name in names]


def live(node: Node, steps: Sequence[Step], *, heard: bool = False) -> tuple[int, Failure | None]:
    """A whole life on a node of its own; how many runs there were, and what was wrong.

    ``heard``: with what the agent has to say. That costs more than what it does.
    """
    with in_memory() as root, Life(root, node) as life, log_to(life.world.tell if heard else None):
        try:
            for step in steps:
                life.do(step)
        except Exception as error:  # noqa: BLE001 - whatever it is, the agent must not end like that
            text = "".join(traceback.format_exception(error)[-12:])
            return life.facts.runs, Failure(text, tuple(life.world.told))
        return life.facts.runs, None


class _Handler(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(f"    {record.levelname}: {record.getMessage()}")


@contextlib.contextmanager
def log_to(tell: Callable[[str], None] | None) -> Iterator[None]:
    """None: to nobody."""
    log = logging.getLogger("refresh_agent")
    before = log.level
    handler = _Handler(tell) if tell else logging.NullHandler()
    log.addHandler(handler)
    log.setLevel(logging.INFO if tell else logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)


@contextlib.contextmanager
def in_memory() -> Iterator[pathlib.Path]:
    """A folder whose writes do not wait for a disk, where there is such a thing."""
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="refresh-agent-model-", dir=memory) as folder:
        yield pathlib.Path(folder)


def shrunk(fails: Callable[[Sequence[Step]], bool], steps: Sequence[Step], deadline: float) -> list[Step]:
    """Fewer of these steps that still fail: piece after piece is left out, smaller and smaller ones."""
    left = list(steps)
    size = len(left) // 2
    while size and time.monotonic() < deadline:
        start = 0
        while start < len(left) and time.monotonic() < deadline:
            without = left[:start] + left[start + size :]
            if fails(without):
                left = without
            else:
                start += size
        size //= 2
    return left


def explained(seed: int, number: int, seconds: float = SECONDS_OF_SHRINKING) -> str:
    """What is wrong with this life, in as few steps as are found in so many seconds."""
    node, steps = node_of(seed, number), steps_of(seed, number)

    def fails(some: Sequence[Step]) -> bool:
        return live(node, some)[1] is not None

    few = shrunk(fails, steps, time.monotonic() + seconds)
    _, failure = live(node, few, heard=True)
    if failure is None:
        return f"life {number} of seed {seed}: it fails now and then"
    lines = [f"life {number} of seed {seed} on {node}:", *failure.told, failure.text]
    return "\n".join([*lines, "again:", f"  {command(seed, number)}"])


def command(seed: int, number: int) -> str:
    return f"{sys.executable} -m tests.reliability.model --seed {seed} --life {number}"


def lives(seed: int, count: int) -> tuple[Totals, str]:
    """As many as make ``count`` steps, or until one goes wrong; then what is to be said of it."""
    totals = Totals()
    while totals.steps < count:
        runs, failure = live(node_of(seed, totals.lives), steps_of(seed, totals.lives))
        if failure is not None:
            return totals, explained(seed, totals.lives)
        totals = Totals(totals.lives + 1, totals.steps + STEPS, totals.runs + runs)
    return totals, ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Random lives of the agent, and what must hold in them.")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="default: a new one")
    parser.add_argument("--count", type=int, default=20_000, help="steps; default: 20000")
    parser.add_argument("--life", type=int, help="only this one")
    arguments = parser.parse_args()
    print(f"model: --seed {arguments.seed} --count {arguments.count}", flush=True)
    began = time.monotonic()
    if arguments.life is not None:
        _, failure = live(node_of(arguments.seed, arguments.life), steps_of(arguments.seed, arguments.life))
        totals = Totals(1, STEPS)
        wrong = explained(arguments.seed, arguments.life) if failure else ""
    else:
        totals, wrong = lives(arguments.seed, arguments.count)
    seconds = time.monotonic() - began
    print(f"{totals.steps} steps in {totals.lives} lives with {totals.runs} runs, {seconds:.0f} s")
    if wrong:
        print(wrong, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
