"""What could not be looked into, and what the sample lacks because of it."""

from __future__ import annotations

import os
import traceback

WORDS = 300
"""Characters of an exception's text that are passed on."""

Trouble = dict[str, str]
"""``what`` was tried, ``where`` it failed (a file and a line of the project, or ""), ``why``, ``outcome``
(what that makes of the sample), and the ``module`` ("" if it is none) whose options are missing."""


def trouble(what: str, why: str, outcome: str, module: str = "", where: str = "") -> Trouble:
    return {"what": what, "why": why, "outcome": outcome, "module": module, "where": where}


def missing(what: str) -> str:
    return f"missing from the sample: {what}"


def reason(error: BaseException) -> str:
    """One line, whatever the exception says of itself."""
    try:
        if isinstance(error, SystemExit):
            return f"it ends the program (sys.exit({error.code!r}))"
        lines = str(error).strip().splitlines()
    except BaseException:  # noqa: BLE001 - a project's exception may fail at anything
        lines = []
    said = f": {lines[0][:WORDS]}" if lines else ""
    return type(error).__name__ + said


def place(error: BaseException, base: str) -> str:
    """``FILE, line N`` of the innermost line of the project that had to do with it; "" if none had."""
    if isinstance(error, SyntaxError) and error.filename:
        frames = [(error.filename, error.lineno)]
    else:
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    for filename, line in reversed([frame for frame in frames if not frame[0].startswith("<")]):
        relative = os.path.relpath(os.path.realpath(filename), base)
        if (
            not relative.startswith(os.pardir)
            and f"{os.sep}site-packages{os.sep}" not in f"{os.sep}{relative}"
        ):
            return f"{relative}, line {line}"
    return ""
