"""The configuration of a command, in force for its log."""

import os

from refresh_agent import log, opts
from refresh_agent.model import Settings


def load(location: opts.Location) -> Settings:
    """As ``opts.load``; from now on the log is as it says."""
    settings = opts.load(location, os.environ)
    log.use(settings.log_format)
    return settings
