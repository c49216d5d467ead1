"""``refresh-agent run-phases``: phases and databases by hand, with os-refresh-config's command line."""

import argparse
import contextlib
import logging
import os

from refresh_agent import lock, log, opts
from refresh_agent.cli import once
from refresh_agent.cli.loading import load
from refresh_agent.cli.output import say, say_json
from refresh_agent.cli.passing_on import PassedOn, one_place
from refresh_agent.cli.stopping import stop_on_signals
from refresh_agent.cycle import Cycle, Result
from refresh_agent.errors import ExitCode
from refresh_agent.model import Settings
from refresh_agent.phases import order

LOG = logging.getLogger("refresh_agent")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout", type=_seconds, metavar="S", help="seconds for all phases; 0 for no limit"
    )
    parser.add_argument("--lockfile", metavar="F", help="lock this file too")
    parser.add_argument("--print-base", action="store_true", help="print the base directory, and end")
    parser.add_argument("--print-phases", action="store_true", help="print the phases, and end")


def run(location: opts.Location, arguments: argparse.Namespace) -> int:
    """The run's exit code, or 128+N if signal N kept it from its end."""
    settings = _changed(load(location), arguments)
    if arguments.print_base:
        _print(settings.phases.base_dir, as_json=arguments.json)
        return ExitCode.OK
    if arguments.print_phases:
        _print("\t".join(order.PHASES), as_json=arguments.json)
        return ExitCode.OK
    stop = stop_on_signals()
    cycle = Cycle(settings, stop)
    with once.told_as_json(arguments), _lock(arguments.lockfile, settings):
        # Standard output is the hooks', as it was os-refresh-config's, unless it is for the result.
        listener = None if arguments.json else PassedOn()
        joined = one_place() if listener else not log.tells_streams()
        result = cycle.run_phases(listener, joined=joined)
    if arguments.json:
        say_json(once.as_json(result))
    else:
        LOG.log(_level(result, settings), result.summary, extra=log.of(run_id=result.run_id))
    return once.exit_code(result, stop)


def _lock(path: str | None, settings: Settings) -> contextlib.AbstractContextManager[None]:
    """Besides the configured one: without that, a run of the daemon's would be taken for a crashed one."""
    if path is None or os.path.realpath(path) == os.path.realpath(settings.lock_file):
        return contextlib.nullcontext()
    return lock.held(os.path.realpath(path))


def _seconds(text: str) -> float:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return float(text)


def _changed(settings: Settings, arguments: argparse.Namespace) -> Settings:
    if arguments.timeout is None:
        return settings
    return settings._replace(phases=settings.phases._replace(run_timeout=arguments.timeout))


def _print(text: str, *, as_json: bool) -> None:
    if as_json:
        say_json(text)
    else:
        say(text)


def _level(result: Result, settings: Settings) -> int:
    """os-refresh-config is silent where there is nothing to run; but a missing base is a mistake."""
    if result.exit_code is ExitCode.LOCKED:
        return logging.WARNING  # deferred: another node is migrating, which is no failure
    if result.exit_code is not ExitCode.OK:
        return logging.ERROR
    if not result.run_id:
        return logging.DEBUG if os.path.isdir(settings.phases.base_dir) else logging.WARNING
    return logging.INFO
