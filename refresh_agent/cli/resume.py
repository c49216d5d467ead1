"""``refresh-agent resume``: the end of ``refresh-agent pause``."""

import argparse

from refresh_agent import opts, pause
from refresh_agent.cli.loading import load
from refresh_agent.cli.output import say, say_json
from refresh_agent.cli.pause import as_json
from refresh_agent.errors import ExitCode
from refresh_agent.redact import shown


def run(location: opts.Location, arguments: argparse.Namespace) -> int:
    """0, whether or not anything was paused. A daemon refreshes at once."""
    state_dir = load(location).state_dir
    ended = pause.read(state_dir)
    pause.end(state_dir)
    if arguments.json:
        say_json({"ended": as_json(ended)})
    else:
        say(shown(f"resumed; it was {ended.told}" if ended else "nothing was paused"))
    return ExitCode.OK
