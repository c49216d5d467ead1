"""Waiting for conditions with deadlines, and checks that say what was expected and what was seen."""

import pathlib
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds until a condition counts as missed. Generous: it is only ever used up when something is broken."""

INTERVAL = 0.005
"""Seconds between two looks."""


class DemoError(Exception):
    """The demo did not show what it claims; the message says what was expected and what was seen."""


def check(what: str, *, expected: object, seen: object) -> None:
    if seen != expected:
        raise DemoError(f"{what}\n  expected: {expected}\n  seen:     {seen}")


def read(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DemoError(f"{path.name}\n  expected: a file\n  seen:     {error.strerror}") from error


def wait_for(what: str, probe: Callable[[], T | None], *, seconds: float = PATIENCE) -> T:
    """The first answer of probe that is not None."""
    deadline = time.monotonic() + seconds
    while (answer := probe()) is None:
        if time.monotonic() > deadline:
            raise DemoError(f"{what}\n  expected: within {seconds:g} s\n  seen:     not by then")
        time.sleep(INTERVAL)
    return answer


def holds_for(seconds: float, probe: Callable[[], None]) -> None:
    """Look at probe, which raises when it is not as it should be, all through that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        probe()
        time.sleep(INTERVAL)
    probe()
