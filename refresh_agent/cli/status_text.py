"""What ``refresh-agent status`` tells, as text for people. Pure."""

from collections.abc import Iterator, Sequence

from refresh_agent import health
from refresh_agent.health import Doing, Facts, SourceFacts
from refresh_agent.pause import moment
from refresh_agent.redact import shown
from refresh_agent.standing import RunSeen

WIDTH = 14
"""Characters of the column that says what a line is about."""

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def lines(facts: Facts) -> Iterator[str]:
    """Lines for standard output. Nothing in them steers a terminal."""
    known = facts.standing
    yield from _labelled("health", _health(facts))
    yield from _labelled("doing", [_doing(facts)])
    if facts.daemon is not None:
        since = _when(facts.daemon.started, facts.now)
        yield from _labelled("daemon", [f"pid {facts.daemon.pid or 'unknown'}, since {since}"])
    yield from _labelled("quiesced", _quiesced(facts))
    yield from _labelled("held", _held(facts))
    if facts.paused is not None:
        since = _when(facts.paused.since, facts.now)
        yield from _labelled("paused", [f"since {since}: {facts.paused.reason}"])
    yield from _labelled("last success", [_run(known.success, facts.now)])
    yield from _labelled("last failure", _failure(known.failure, facts.now))
    if known.last is not None and known.last.row not in {_row(known.success), _row(known.failure)}:
        where = f" in {known.last.where}" if known.last.where else ""
        yield from _labelled("last run", [f"{known.last.outcome}{where}, {_run(known.last, facts.now)}"])
    yield from _listed("sources", [(source.name, _source(source, facts)) for source in facts.sources])
    yield from _listed("targets", [(name, _target(name, facts)) for name in facts.targets])


def ago(seconds: float) -> str:
    """How long ago that is; of a negative number, in how long it will be."""
    for size, unit in UNITS:
        if abs(seconds) >= size:
            count = f"{abs(seconds) // size:.0f} {unit}"
            return f"{count} ago" if seconds > 0 else f"in {count}"
    return "now"


def _labelled(label: str, texts: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield f"{'' if number else label:{WIDTH}}{shown(text)}"


def _listed(label: str, entries: Sequence[tuple[str, Sequence[str]]]) -> Iterator[str]:
    """Entries with a name each, and texts below each other."""
    width = max((len(name) for name, _ in entries), default=0) + 2
    texts = [
        f"{'' if number else name:{width}}{text}"
        for name, found in entries
        for number, text in enumerate(found)
    ]
    yield from _labelled(label, texts)


def _when(wall: float | None, now: float) -> str:
    return "an unknown time" if wall is None else f"{moment(wall)} ({ago(now - wall)})"


def _health(facts: Facts) -> list[str]:
    judgement = health.judge(facts)
    first, *others = judgement.reasons or ("",)
    return [f"{judgement.state}: {first}" if first else judgement.state, *others]


def _doing(facts: Facts) -> str:
    doing, running, daemon = health.doing(facts), facts.standing.running, facts.daemon
    if running is not None:
        of = f"{running.where} of " if running.where else ""
        return f"running {of}{_name(running)}, since {_when(running.started, facts.now)}"
    if doing is Doing.BACKING_OFF and daemon is not None:
        return f"{doing} until {_when(daemon.until, facts.now)}"
    if doing is Doing.WAITING and daemon is not None:
        return daemon.doing or doing
    return doing


def _quiesced(facts: Facts) -> list[str]:
    quiesced = facts.standing.quiesced
    return [] if quiesced is None else [f"since {_when(quiesced.since, facts.now)}: {quiesced}"]


def _held(facts: Facts) -> list[str]:
    newest = facts.standing.newest
    if newest is None or not health.is_held(facts):
        return []
    until = "until the metadata changes, or at SIGHUP or --once"
    return [f"since {_when(newest.ended, facts.now)}: {_name(newest)} is not tried again {until}"]


def _failure(run: RunSeen | None, now: float) -> list[str]:
    if run is None:
        return [_run(run, now)]
    what = ": ".join(filter(None, (run.where, run.reason)))
    return [_run(run, now), *filter(None, [what]), *(f"| {line}" for line in run.output)]


def _run(run: RunSeen | None, now: float) -> str:
    if run is None:
        return "never"
    return f"{_when(run.started if run.ended is None else run.ended, now)}, {_name(run)}"


def _name(run: RunSeen) -> str:
    return f"run {run.run_id[:8]} ({'by hand' if run.by_hand else run.trigger}, attempt {run.attempt})"


def _row(run: RunSeen | None) -> int | None:
    return None if run is None else run.row


def _source(source: SourceFacts, facts: Facts) -> list[str]:
    """How old what it gave is, and what is wrong with it."""
    known = source.seen
    late = ["it does not answer"] if health.is_overdue(source, facts) else []
    if known is None:
        return ["never asked", *late]
    text = f"{'read' if known.every is None else 'asked'} {ago(facts.now - known.asked)}"
    if known.answered is None:
        text += ", has never given anything good"
    elif known.answered < known.asked:
        text += f", the last good answer {ago(facts.now - known.answered)}"
    return [text, *late, *(problem.text for problem in known.problems)]


def _target(name: str, facts: Facts) -> list[str]:
    known = next((target for target in facts.standing.targets if target.target == name), None)
    if known is None:
        return ["never"]
    way = " -> ".join(dict.fromkeys(filter(None, (known.before, known.after))))
    texts = [f"{way or 'unknown'}, {known.outcome} {ago(facts.now - known.at)} (run {known.run_id[:8]})"]
    if known.message:
        texts.append(known.message)
    return texts
