"""How the node stands: a judgement, and its exit code, from what the files tell. Pure."""

import math
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from refresh_agent.errors import ExitCode
from refresh_agent.model import RunOutcome
from refresh_agent.pause import Pause, moment
from refresh_agent.presence import Daemon
from refresh_agent.seen import Seen
from refresh_agent.standing import Standing

INTERVALS = 3
"""Polling intervals after which a source that has not answered is given up on."""


class State(StrEnum):
    """The worst comes first. UNKNOWN: the journal cannot be read."""

    UNKNOWN = "unknown"
    QUIESCED = "quiesced"
    HELD = "held"
    FAILING = "failing"
    PAUSED = "paused"
    STALE = "stale"
    HEALTHY = "healthy"


EXIT_CODES = {
    State.UNKNOWN: ExitCode.STATE,
    State.QUIESCED: ExitCode.HOOK_FAILED,
    State.HELD: ExitCode.HOOK_FAILED,
    State.FAILING: ExitCode.HOOK_FAILED,
    State.PAUSED: ExitCode.PAUSED,
    State.STALE: ExitCode.NO_DATA,
    State.HEALTHY: ExitCode.OK,
}


class Health(NamedTuple):
    """``state``: the worst that holds; ``reasons``: all that do, the worst first."""

    state: State
    reasons: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        return EXIT_CODES[self.state]


class Doing(StrEnum):
    """What the agent does now."""

    RUNNING = "running"
    PAUSED = "paused"
    BACKING_OFF = "backing off"
    HELD = "held"
    WAITING = "waiting"
    NO_DAEMON = "no daemon"


class SourceFacts(NamedTuple):
    """``timeout``: seconds that its answer may take. ``seen`` None: as far as is known, never asked."""

    name: str
    timeout: float = 0.0
    seen: Seen | None = None


class Facts(NamedTuple):
    """What there is to judge by. ``now``: wall clock. ``interval``: of polling, in seconds."""

    now: float
    standing: Standing
    daemon: Daemon | None = None
    paused: Pause | None = None
    sources: tuple[SourceFacts, ...] = ()
    interval: float = 30.0
    max_attempts: int = 0
    targets: tuple[str, ...] = ()


def judge(facts: Facts) -> Health:
    found = list(_findings(facts))
    return Health(found[0][0] if found else State.HEALTHY, tuple(reason for _, reason in found))


def _findings(facts: Facts) -> Iterator[tuple[State, str]]:
    """The worst first. What is under way is judged by what was before it."""
    standing = facts.standing
    if standing.trouble:
        yield State.UNKNOWN, standing.trouble
    if standing.quiesced is not None:
        yield State.QUIESCED, f"no run has got through post-configure since {moment(standing.quiesced.since)}"
    if standing.doubt:
        yield State.FAILING, f"whether the node is quiesced is not known: {standing.doubt}"
    yield from _of_the_newest(facts)
    if facts.paused is not None:
        yield State.PAUSED, "no run starts until refresh-agent resume"
    if standing.newest is None and not standing.doubt and not standing.trouble:
        yield State.STALE, "nothing was ever run here"
    for source in facts.sources:
        yield from ((State.STALE, f"source {source.name}: {reason}") for reason in _staleness(source, facts))


def _of_the_newest(facts: Facts) -> Iterator[tuple[State, str]]:
    """If the newest metadata is not on the node: it has failed, or its run was cut off."""
    newest = facts.standing.newest
    if newest is not None and is_held(facts):
        yield State.HELD, f"not tried again by itself after {newest.failures} attempts that failed"
    elif newest is not None and newest.outcome not in _NO_FAILURE:
        where = f" in {newest.where}" if newest.where else ""
        yield State.FAILING, f"the newest run: {newest.outcome}{where}"
    elif doing(facts) is Doing.BACKING_OFF and (newest is None or newest.outcome != RunOutcome.DEFERRED):
        # Not even a run could begin.
        yield State.FAILING, facts.daemon.doing if facts.daemon else ""


_NO_FAILURE = frozenset({RunOutcome.SUCCESS, RunOutcome.DEFERRED})


def is_held(facts: Facts) -> bool:
    """Whether the newest change has failed so often that it is not tried again by itself."""
    newest = facts.standing.newest
    if newest is None or newest.outcome == RunOutcome.SUCCESS:
        return False
    return newest.held or (facts.max_attempts > 0 and newest.failures >= facts.max_attempts)


def _staleness(source: SourceFacts, facts: Facts) -> Iterator[str]:
    """Why what is known of the source is not what it should give now."""
    seen, overdue = source.seen, is_overdue(source, facts)
    if seen is not None:
        yield from (problem.text for problem in seen.problems if not problem.expected)
    if overdue and seen is not None:
        yield f"it was asked {facts.now - seen.asked:.0f} s ago for the last time"
    elif overdue:
        yield "it never answered"


def is_stale(source: SourceFacts, facts: Facts) -> bool:
    return any(_staleness(source, facts))


def is_overdue(source: SourceFacts, facts: Facts) -> bool:
    """Whether a daemon lives and should have had an answer, good or bad, of the source.

    Of one that is watched, the first is enough.
    """
    daemon = facts.daemon
    # What was never asked counts as asked when the daemon began: it asks all of them then.
    asked, _, every, _ = source.seen or Seen(-math.inf, every=0.0)
    if every is None or daemon is None or daemon.started is None:
        return False
    patience = INTERVALS * max(facts.interval, every) + source.timeout
    return facts.now - max(asked, daemon.started) > patience


def doing(facts: Facts) -> Doing:
    daemon = facts.daemon
    if facts.standing.running is not None:
        return Doing.RUNNING
    if daemon is None:
        return Doing.NO_DAEMON
    if facts.paused is not None:
        return Doing.PAUSED
    if daemon.until is not None and daemon.until > facts.now:
        return Doing.BACKING_OFF
    return Doing.HELD if is_held(facts) else Doing.WAITING
