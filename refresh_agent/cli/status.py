"""``refresh-agent status``: what the agent does and how the node stands, from files alone.

It works with and without a daemon, and while a run goes on: it writes nothing, waits for nobody and leaves
the run lock alone.
"""

import argparse
import os
import time
from typing import Any

from refresh_agent import health, lock, opts, pause, presence, seen, standing
from refresh_agent.cli import status_text
from refresh_agent.cli.loading import load
from refresh_agent.cli.output import iso, say, say_json
from refresh_agent.cli.pause import as_json as pause_as_json
from refresh_agent.errors import StateError
from refresh_agent.health import Doing, Facts, SourceFacts
from refresh_agent.model import CollectorSettings, Settings
from refresh_agent.standing import RunSeen, Standing


def run(location: opts.Location, arguments: argparse.Namespace) -> int:
    """The judgement's exit code: 0 healthy, 1 failing, quiesced or held, 3 stale, 5 unknown, 6 paused."""
    settings, now = load(location), time.time()
    try:
        facts = gather(settings, now)
    except StateError as error:
        if arguments.json:
            say_json(as_json(Facts(now, Standing(trouble=str(error)))))
        raise
    if arguments.json:
        say_json(as_json(facts))
    else:
        say("\n".join(status_text.lines(facts)))
    return health.judge(facts).exit_code


def gather(settings: Settings, now: float) -> Facts:
    """``now``: wall clock. Raises StateError if the state directory may not be read."""
    state_dir = settings.state_dir
    return Facts(
        now=now,
        standing=standing.read(state_dir, lambda: lock.agent(settings.lock_file)),
        daemon=presence.read(state_dir),
        paused=pause.read(state_dir),
        sources=tuple(_source(entry, state_dir) for entry in settings.collectors),
        interval=settings.polling.interval,
        max_attempts=settings.retry.max_attempts,
        targets=tuple(target.name for target in settings.targets),
    )


def _source(entry: CollectorSettings, state_dir: str) -> SourceFacts:
    timeout = entry.options.get("timeout") or 0.0
    directory = os.path.join(state_dir, "sources")
    return SourceFacts(entry.name, float(timeout), seen.read(directory, entry.name))


def as_json(facts: Facts) -> dict[str, Any]:
    """Plain values; times as ISO 8601 with the local offset; None for what is not so or is unknown."""
    judgement = health.judge(facts)
    doing = health.doing(facts)
    known, daemon = facts.standing, facts.daemon
    return {
        "health": judgement.state,
        "exit_code": int(judgement.exit_code),
        "reasons": judgement.reasons,
        "doing": doing,
        "daemon": daemon and {"pid": daemon.pid, "started_at": iso(daemon.started), "doing": daemon.doing},
        "retry_at": iso(daemon.until) if daemon and doing is Doing.BACKING_OFF else None,
        "run": _run(known.running),
        "last_run": _run(known.last),
        "last_success": _run(known.success),
        "last_failure": _run(known.failure),
        "quiesced": _quiesced(facts),
        "held": _held(facts),
        "paused": pause_as_json(facts.paused),
        "sources": [_source_as_json(source, facts) for source in facts.sources],
        "targets": [_target(name, facts) for name in facts.targets],
    }


def _run(run: RunSeen | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return {
        "run": run.run_id,
        "trigger": run.trigger,
        "attempt": run.attempt,
        "by_hand": run.by_hand,
        "started_at": iso(run.started),
        "ended_at": iso(run.ended),
        "outcome": run.outcome,
        "phase": run.phase or None,
        "hook": run.hook or None,
        "status": run.status,
        "reason": run.reason or None,
        "output": run.output,
    }


def _quiesced(facts: Facts) -> dict[str, Any] | None:
    quiesced = facts.standing.quiesced
    if quiesced is None:
        return None
    return {
        "since": iso(quiesced.since),
        "run": quiesced.run_id,
        "interrupted": quiesced.interrupted,
        "phase": quiesced.phase or None,
        "hook": quiesced.hook or None,
    }


def _held(facts: Facts) -> dict[str, Any] | None:
    newest = facts.standing.newest
    if newest is None or not health.is_held(facts):
        return None
    return {"since": iso(newest.ended), "run": newest.run_id, "attempts": newest.failures}


def _source_as_json(source: SourceFacts, facts: Facts) -> dict[str, Any]:
    known = source.seen
    return {
        "source": source.name,
        "polled": known and known.every is not None,
        "asked_at": known and iso(known.asked),
        "answered_at": known and iso(known.answered),
        "stale": health.is_stale(source, facts) or (known and False),
        "problems": [problem._asdict() for problem in known.problems] if known else [],
    }


def _target(name: str, facts: Facts) -> dict[str, Any]:
    known = next((target for target in facts.standing.targets if target.target == name), None)
    return {
        "target": name,
        "outcome": known and known.outcome,
        "before": known and (known.before or None),
        "after": known and (known.after or None),
        "message": known and (known.message or None),
        "at": known and iso(known.at),
        "run": known and known.run_id,
    }
