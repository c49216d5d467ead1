"""Whether to run, and why: a decision from plain values, without side effects."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from refresh_agent.model import Fingerprints, History, Quiesced, Trigger, Unfinished


class Action(StrEnum):
    NOOP = "noop"
    RUN = "run"
    RETRY = "retry"
    HOLD = "hold"


class Decision(NamedTuple):
    """What to do and the reason in words; the rest is for the run, if there is one.

    ``failures``: how often the same documents have failed in a row before.
    """

    action: Action
    reason: str
    trigger: Trigger
    attempt: int = 1
    changed: tuple[str, ...] = ()
    failures: int = 0

    @property
    def runs(self) -> bool:
        return self.action in {Action.RUN, Action.RETRY}


class Request(NamedTuple):
    """Who asks. ``force``: run even if nothing changed. ``max_attempts`` 0: never hold."""

    trigger: Trigger
    force: bool = False
    max_attempts: int = 0


def decide(request: Request, documents: Fingerprints, history: History) -> Decision:
    """From what was collected, what was committed and what was left unfinished to what happens now."""
    changed = changed_names(history.committed or (), documents)
    if history.unfinished is not None and history.unfinished.documents == documents:
        return _again(request, changed, history.unfinished, booted=history.booted)
    if reason := _news(changed, history):
        return Decision(Action.RUN, reason, _fresh(request.trigger), 1, changed)
    if history.booted:
        # What hooks have set up outside of the disk is gone; the newest run is the last success here.
        return Decision(Action.RUN, "the node has booted since the last success", _at_boot(request.trigger))
    if history.quiesced is not None:
        return activate(request, history.quiesced)
    if request.force or request.trigger is Trigger.SIGNAL:
        return Decision(Action.RUN, "asked for, nothing changed", _fresh(request.trigger))
    return Decision(Action.NOOP, "nothing changed since the last success", request.trigger)


def activate(request: Request, quiesced: Quiesced) -> Decision:
    """A run by hand has left the node so: nothing else would ever activate it again."""
    reason = f"the node is quiesced by run {quiesced.run_id[:8]}"
    trigger = request.trigger if _asked(request) else Trigger.RETRY
    return Decision(Action.RETRY, reason, trigger, quiesced.attempt + 1)


def changed_names(before: Fingerprints, after: Fingerprints) -> tuple[str, ...]:
    """The documents that came, went or differ, in the order of ``after``; all if only the order did."""
    old, new = dict(before), dict(after)
    names = [name for name, fingerprint in after if old.get(name) != fingerprint]
    names += [name for name, _ in before if name not in new]
    if not names and before != after:
        names = [name for name, _ in after]
    return tuple(names)


def _news(changed: tuple[str, ...], history: History) -> str:
    """What the documents have that was not run yet, in words; empty if there is nothing."""
    if history.unfinished is not None:
        # Also when the metadata went back to what is committed: the node holds half of something else.
        return f"changed since the run that did not succeed: {_listed(changed) or 'back to the last commit'}"
    if history.committed is None:
        return "nothing was ever committed here"
    return f"changed: {_listed(changed)}" if changed else ""


def _again(request: Request, changed: tuple[str, ...], unfinished: Unfinished, *, booted: bool) -> Decision:
    """``booted``: since the last attempt. That counts as if an operator had asked: as an attempt, once."""
    asked = _asked(request) or booted
    if request.max_attempts and unfinished.failures >= request.max_attempts and not asked:
        reason = f"held after {unfinished.failures} attempts, until the metadata changes or an operator asks"
        return Decision(
            Action.HOLD, reason, request.trigger, unfinished.attempts, changed, unfinished.failures
        )
    how = "was interrupted" if unfinished.interrupted else "was deferred" if unfinished.deferred else "failed"
    since = ", and the node has booted since" if booted else ""
    return Decision(
        Action.RETRY,
        f"the last attempt {how} {unfinished.where}{since}",
        _at_boot(request.trigger) if booted else request.trigger if asked else Trigger.RETRY,
        unfinished.attempts + 1,
        changed,
        unfinished.failures,
    )


def _asked(request: Request) -> bool:
    """By an operator: back-off and held are for what happens by itself."""
    return request.force or request.trigger in {Trigger.SIGNAL, Trigger.ONCE}


def _at_boot(trigger: Trigger) -> Trigger:
    """What comes first after a boot by itself is a start, also if it had to wait for the end of a pause."""
    return Trigger.START if trigger in {Trigger.CHANGE, Trigger.RETRY} else trigger


def _fresh(trigger: Trigger) -> Trigger:
    """A retry that finds new metadata is a change."""
    return Trigger.CHANGE if trigger is Trigger.RETRY else trigger


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
