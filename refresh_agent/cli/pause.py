"""``refresh-agent pause REASON``: no run starts until ``refresh-agent resume``."""

import argparse
import logging
import time
from collections.abc import Iterator
from typing import Any

from refresh_agent import lock, opts, pause, standing
from refresh_agent.cli.loading import load
from refresh_agent.cli.output import iso, say, say_json
from refresh_agent.errors import ConfigError, ExitCode, StateError
from refresh_agent.model import Settings
from refresh_agent.redact import shown

LOG = logging.getLogger("refresh_agent")

LONGEST = 1000
"""Characters of a reason: it stands in a line of the log."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reason", nargs="+", metavar="REASON", help="why; several words are one reason")


def run(location: opts.Location, arguments: argparse.Namespace) -> int:
    """0, or 2 without a reason. What goes on all the same, or stays as it is, is warned of."""
    reason = _reason(arguments.reason)
    settings = load(location)
    replaced = pause.read(settings.state_dir)
    pause.begin(settings.state_dir, reason, time.time())
    warnings = list(_warnings(settings))
    for warning in warnings:
        LOG.warning("%s", warning)
    if arguments.json:
        say_json({"reason": reason, "replaced": as_json(replaced), "warnings": warnings})
    else:
        before = f"; it was {replaced.told}" if replaced else ""
        say(shown(f"paused: {reason}{before}"))
    return ExitCode.OK


def as_json(paused: pause.Pause | None) -> dict[str, Any] | None:
    return paused and {"reason": paused.reason, "since": iso(paused.since)}


def _reason(words: list[str]) -> str:
    """One line, in characters that every file and log can hold."""
    text = " ".join(" ".join(words).split()).encode("utf-8", "backslashreplace").decode()
    if not text:
        raise ConfigError("pause: the reason is empty; say why, since status and the log will")
    if len(text) > LONGEST:
        raise ConfigError(f"pause: the reason has {len(text)} characters; {LONGEST} are the most")
    return text


def _warnings(settings: Settings) -> Iterator[str]:
    try:
        known = standing.read(settings.state_dir, lambda: lock.agent(settings.lock_file))
    except StateError as error:
        known = standing.Standing(trouble=str(error))
    for why in filter(None, (known.trouble, known.doubt)):
        yield f"whether the node is quiesced is not known: {why}"
    if known.quiesced is not None:
        since = pause.moment(known.quiesced.since)
        yield f"the node is quiesced since {since}: nothing activates it before refresh-agent resume"
    if lock.is_held(settings.lock_file):
        yield "a refresh is under way and goes on to its end"
