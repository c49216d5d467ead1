"""``refresh-agent collect``: what the sources give now, merged as hooks see it. Nothing is stored or run."""

import argparse
import json
import logging
import os

from refresh_agent import metadata, opts
from refresh_agent.cli.loading import load
from refresh_agent.cli.output import say
from refresh_agent.errors import ConfigError, ExitCode
from refresh_agent.pollers import side_by_side
from refresh_agent.redact import Masker, masked, secrets_in, shown
from refresh_agent.sources import Sources
from refresh_agent.wakeup import Stop

LOG = logging.getLogger("refresh_agent")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--show-secrets", action="store_true", help="mask nothing; for root only")


def run(location: opts.Location, arguments: argparse.Namespace) -> int:
    """0 and one JSON object, or 3 if no source has anything, not even from before.

    What is wrong with a source is told on standard error; its last good content stands in.
    """
    if arguments.show_secrets and os.geteuid() != 0:
        raise ConfigError("--show-secrets is for root: it shows every password that the node gets")
    settings = load(location)
    sources = Sources(settings.state_dir, settings.collectors, settings.limits)
    seen = side_by_side([source.peek for source in sources], Stop())
    mask = Masker(secret for entry in settings.collectors for secret in entry.secrets)
    contents = [content for peek in seen for content in peek.contents]
    for content in contents:
        mask.learn(secrets_in(content))
    for problem in (problem for peek in seen for problem in peek.problems):
        if not problem.expected or not contents:
            LOG.warning("%s", mask(shown(problem.text)))
    if not contents:
        LOG.error("no source has data")
        return ExitCode.NO_DATA
    merged = metadata.merge(contents)
    say(json.dumps(merged if arguments.show_secrets else masked(merged, mask), indent=1))
    return ExitCode.OK
