"""What the agent did, read from its journal, and the table that the demo ends with."""

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from demo_parts.conditions import DemoError


@dataclass(frozen=True)
class Step:
    """One line of the table: a hook, or the migration of one database."""

    phase: str
    hook: str
    seconds: float
    result: str


@dataclass(frozen=True)
class Run:
    """A refresh that has ended."""

    number: int
    trigger: str
    outcome: str
    steps: tuple[Step, ...]


def begun(journal: pathlib.Path) -> int:
    """How many refreshes have begun so far."""
    return len(_select(journal, "SELECT id FROM runs"))


def runs(journal: pathlib.Path) -> list[Run]:
    """All refreshes that have ended, the oldest first."""
    rows = _select(journal, "SELECT id, trigger, outcome FROM runs WHERE outcome IS NOT NULL ORDER BY id")
    return [
        Run(row, trigger, outcome, (*_hooks(journal, row), *_migrations(journal, row)))
        for row, trigger, outcome in rows
    ]


def _hooks(journal: pathlib.Path, run: int) -> Iterable[Step]:
    query = "SELECT phase, hook, seconds, status, outcome FROM hooks WHERE run = ? ORDER BY position"
    for phase, hook, seconds, status, outcome in _select(journal, query, run):
        result = "ok" if status == 0 else f"status {status}" if outcome == "exited" else outcome
        yield Step(phase, hook, seconds or 0.0, result or "unfinished")


def _migrations(journal: pathlib.Path, run: int) -> Iterable[Step]:
    rows = _select(journal, "SELECT target, seconds, outcome FROM migrations WHERE run = ?", run)
    for target, seconds, outcome in rows:
        yield Step("databases", target, seconds, outcome)


def _select(journal: pathlib.Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Read-only: the agent is writing at the same time, or has not begun yet."""
    if not journal.exists():
        return []
    try:
        with contextlib.closing(sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)) as database:
            return database.execute(query, values).fetchall()
    except sqlite3.OperationalError as error:
        # Between the file's creation and its tables'.
        if "no such table" in str(error):
            return []
        raise DemoError(f"{journal.name}: cannot be read: {error}") from error


def table(history: Iterable[Run]) -> str:
    """Aligned columns, with the run and its trigger only where they change."""
    lines = [("run", "trigger", "phase", "hook", "seconds", "result")]
    for run in history:
        begin = (str(run.number), run.trigger)
        for step in run.steps:
            lines.append((*begin, step.phase, step.hook, f"{step.seconds:.3f}", step.result))
            begin = ("", "")
        if not run.steps:
            lines.append((*begin, "", "", "", run.outcome))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    ruled = [lines[0], tuple("-" * width for width in widths), *lines[1:]]
    return "\n".join(_aligned(line, widths) for line in ruled)


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        text.rjust(width) if column == 4 else text.ljust(width)
        for column, (text, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
