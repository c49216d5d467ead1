"""What became of a change, in words and as plain JSON."""

from __future__ import annotations

from typing import Any

from . import protocol
from .course import Course
from .faults import TargetError
from .ledger import APPLIED, UNDONE, Ledger, Step, Unfinished
from .prelude import MIGRATE
from .stopping import ASKED, Stopped
from .task import Task

LONGEST_STATEMENT = 200
"""Characters of a statement in a message; the report has it whole."""


def dirty_text(target: str, unfinished: Unfinished) -> str:
    """What stopped half-way, and what to do."""
    statement = unfinished.failed or unfinished.current
    at = f"at: {_short(statement)}" if statement else "after its last statement"
    error = f" ({_short(unfinished.error)})" if unfinished.error else ""
    return (
        f"it is dirty: {unfinished.step.text}, begun by {unfinished.holder}, stopped half-way {at}{error};"
        f" {_kept(unfinished)}. {_advice(target, unfinished)}"
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_STATEMENT else f"{text[: LONGEST_STATEMENT - 1]}…"


def _kept(unfinished: Unfinished) -> str:
    if unfinished.unseen:
        return unfinished.unseen
    count = len(unfinished.kept)
    return f"{count} statement{'' if count == 1 else 's'} before it took effect"


def _advice(target: str, unfinished: Unfinished) -> str:
    """The ways out. A resumed step goes on behind what took effect; a stamped one is run whole.

    What nobody has seen, or what went with a session, cannot be left out: then only the second way is left.
    """
    step = unfinished.step
    before = step.revision if step.down else step.previous
    again = f"downgrade {step.text.partition(' -> ')[2].partition(',')[0]}" if step.down else "upgrade"
    if step.down and step.engine == MIGRATE:
        before = step.previous
    by_hand = f"undo its half by hand, then: refresh-agent db stamp --target {target} {before}"
    if unfinished.unseen or unfinished.session:
        return f"It cannot be resumed: {by_hand}"
    return f"Remove the cause, then: refresh-agent db {again} --target {target} --resume; or {by_hand}"


def _resumes(task: Task, unfinished: Unfinished) -> bool:
    """Whether this order is to go on with that step: the same way, up or down."""
    down = task.order.operation == protocol.DOWNGRADE or (
        task.job.legacy is not None and task.job.legacy.direction == protocol.DOWN
    )
    return task.order.resume and unfinished.step.down == down


def settle(task: Task, course: Course, ledger: Ledger, unfinished: Unfinished, ended: bool) -> str:
    """See to the step that a predecessor has left open; the refusal, if that takes a person.

    ``ended``: it has come to its end after all, by whatever hand.
    """
    if ended:
        ledger.settle(APPLIED)
    elif not unfinished.dirty:
        task.report.step(interrupted_text(unfinished))
        ledger.settle(UNDONE)
    elif not _resumes(task, unfinished):
        return dirty_text(task.job.name, unfinished)
    else:
        course.resume(unfinished)
    return ""


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
    words = f"{running.text} failed: {reason}"
    if more := course.take_back(unfinished):
        words += f"; env.py has one transaction around all of them: {more} revisions before it are taken back"
    if unfinished is None:
        return result, words
    if not unfinished.dirty and _is_locked_out(fault):
        return protocol.DEFERRED, f"{words}; nothing of it remains, it is tried again"
    if unfinished.dirty:
        return result, f"{words}. {dirty_text(task.job.name, unfinished)}"
    return result, f"{words}; nothing of it remains"


_LOCK_TIMEOUTS = {"55P03", 1205}
"""PostgreSQL's lock_not_available and MariaDB's ER_LOCK_WAIT_TIMEOUT."""


def _is_locked_out(fault: BaseException) -> bool:
    """Whether another session held what it needed, for as long as ``lock_timeout``."""
    cause: BaseException | None = fault
    while cause is not None:
        driver = getattr(cause, "orig", None) or cause
        code = getattr(driver, "pgcode", None) or getattr(driver, "sqlstate", None)
        if code in _LOCK_TIMEOUTS or (driver.args and driver.args[0] in _LOCK_TIMEOUTS):
            return True
        cause = cause.__cause__
    return False


def has_run(step: Step, version: int | None) -> bool:
    """Whether a legacy step has come to its end, from the version that the database is at."""
    return version is not None and (version >= int(step.revision)) != step.down
