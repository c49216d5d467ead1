"""Standard output, for the commands: what cannot be written is lost, and nothing else."""

import json
import logging
import sys
from typing import Any

LOG = logging.getLogger("refresh_agent")


def say(text: str) -> None:
    """A line. A reader that is gone or a full disk do not change what a command did, nor its exit code."""
    try:
        sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        LOG.warning("the result cannot be written to standard output: %s", error)


def say_json(value: Any) -> None:
    say(json.dumps(value))


def iso(wall: float | None) -> str | None:
    """A time as JSON has it: ISO 8601 with the offset of the local time; None if unknown. ``wall``: clock."""
    from datetime import datetime  # noqa: PLC0415 - what tells no times need not pay for it

    if wall is None:
        return None
    try:
        return datetime.fromtimestamp(wall).astimezone().isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None  # of a clock that was far off
