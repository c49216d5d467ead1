"""``python -m refresh_agent``."""

import sys

from refresh_agent.main import command

sys.exit(command())
