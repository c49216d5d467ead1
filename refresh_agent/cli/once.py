"""``refresh-agent --once``: one refresh in the foreground, for debugging and for cron."""

import argparse
import contextlib
from collections.abc import Iterator
from typing import Any

from refresh_agent.cli.output import say, say_json
from refresh_agent.cli.stopping import stop_on_signals
from refresh_agent.cycle import Cycle, Result
from refresh_agent.errors import ExitCode, LockedError, StateError
from refresh_agent.model import Settings, Trigger
from refresh_agent.plan import Request
from refresh_agent.redact import shown
from refresh_agent.wakeup import Stop


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """The refresh's exit code, or 128+N if signal N kept it from its end."""
    stop = stop_on_signals()
    with told_as_json(arguments):
        result = Cycle(settings, stop).refresh(Request(Trigger.ONCE, arguments.force))
    if arguments.json:
        say_json(as_json(result))
    else:
        say(shown(result.summary))
    return exit_code(result, stop)


@contextlib.contextmanager
def told_as_json(arguments: argparse.Namespace) -> Iterator[None]:
    """What kept a refresh from beginning is a result too, for whoever reads JSON: the lock, or the state."""
    try:
        yield
    except (LockedError, StateError) as error:
        if arguments.json:
            say_json(as_json(Result(ExitCode(error.exit_code), str(error))))
        raise


def exit_code(result: Result, stop: Stop) -> int:
    if result.stopped or (result.failure is not None and result.failure.stopped):
        return 128 + stop.signal
    return result.exit_code


def as_json(result: Result) -> dict[str, Any]:
    """Plain values, as docs/commands.rst tells them."""
    decision = result.decision
    return {
        "exit_code": int(result.exit_code),
        "summary": result.summary,
        "action": decision.action if decision else None,
        "reason": decision.reason if decision else None,
        "run": result.run_id or None,
        "trigger": decision.trigger if decision else None,
        "attempt": decision.attempt if decision else None,
        "changed": decision.changed if decision else [],
        "seconds": round(result.seconds, 3),
        "quiesced": result.quiesced,
        "held": result.held,
        "failure": result.failure._asdict() if result.failure else None,
        "migrations": [migration._asdict() for migration in result.migrations],
    }
