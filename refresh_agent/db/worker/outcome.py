"""What became of a change, in words and as plain JSON."""

from __future__ import annotations

from typing import Any

from . import protocol
from .course import Course
from .faults import TargetError
from .ledger import Ledger, Step, Unfinished
from .stopping import ASKED, Stopped
from .task import Task

LONGEST_STATEMENT = 200
"""Characters of a statement in a message; the report has it whole."""


def dirty_text(target: str, unfinished: Unfinished) -> str:
    """What stopped half-way, and what to do."""
    error = f" ({_short(unfinished.error)})" if unfinished.error else ""
    return (
        f"it is dirty: {unfinished.step.text}, begun {unfinished.begun_at} by {unfinished.holder}, stopped"
        f" half-way at: {_short(unfinished.failed or unfinished.current)}{error}; {_kept(unfinished)}."
        f" {_advice(target, unfinished)}"
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_STATEMENT else f"{text[: LONGEST_STATEMENT - 1]}…"


def _kept(unfinished: Unfinished) -> str:
    count = len(unfinished.kept)
    return f"{count} statement{'' if count == 1 else 's'} before it took effect"


def _advice(target: str, unfinished: Unfinished) -> str:
    """Both ways out. A resumed step goes on behind what took effect; a stamped one is run whole."""
    at = unfinished.step.revision if unfinished.step.down else unfinished.step.previous
    return (
        f"Remove the cause, then: refresh-agent db upgrade --target {target} --resume; or undo its half by"
        f" hand, then: refresh-agent db stamp --target {target} {at}"
    )


def interrupted_text(unfinished: Unfinished) -> str:
    """A predecessor was cut short, and nothing has to be done about it."""
    return f"{unfinished.holder} did not finish {unfinished.step.text}; nothing of it remained"


def change_report(course: Course, ledger: Ledger) -> dict[str, Any]:
    """For the result of a change, also of one that failed."""
    applied = [step.text for step in course.done]
    return {"applied": applied, "dirty": dirty_report(_unfinished(ledger))}


def _unfinished(ledger: Ledger) -> Unfinished | None:
    try:
        return ledger.unfinished()
    except TargetError:  # what cannot be read now must not hide what has failed
        return None


def dirty_report(unfinished: Unfinished | None) -> dict[str, Any] | None:
    """For status and for the result of a change; None if the target is not dirty."""
    if unfinished is None or not unfinished.dirty:
        return None
    return {
        "step": unfinished.step.text,
        "statement": unfinished.failed or unfinished.current,
        "error": unfinished.error,
        "since": unfinished.begun_at,
        "holder": str(unfinished.holder),
        "kept": len(unfinished.kept),
    }


def failed(task: Task, course: Course, ledger: Ledger, fault: TargetError) -> tuple[str, str]:
    """Write down what failed, after its rollback; the result and its message."""
    result, reason = protocol.FAILED, str(fault)
    if task.stopping.requested:
        result = protocol.STOPPED if task.stopping.reason == ASKED else protocol.FAILED
        if not isinstance(fault, Stopped):
            reason = f"{task.stopping.reason} ({fault})"
    running = course.running
    if running is None:
        return result, reason
    ledger.failed(running, fault.__cause__ or fault)
    unfinished = _unfinished(ledger)
    course.take_back(unfinished)
    words = f"{running.text} failed: {reason}"
    if unfinished is None:
        return result, words
    if unfinished.dirty:
        return result, f"{words}. {dirty_text(task.job.name, unfinished)}"
    return result, f"{words}; nothing of it remains"


def has_run(step: Step, version: int | None) -> bool:
    """Whether a legacy step has come to its end, from the version that the database is at."""
    return version is not None and (version >= int(step.revision)) != step.down
