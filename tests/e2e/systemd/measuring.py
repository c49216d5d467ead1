"""What the tests start in a machine counts for their coverage, too. Nothing happens while nobody measures."""

import base64
import json
import os
import pathlib

from tests.e2e.systemd.machine import Machine

FOLDER = "/var/tmp/coverage"
"""In the machine: it has the checkout read-only."""

VARIABLE = "COVERAGE_PROCESS_CONFIG"
"""By which ``patch = subprocess`` in setup.cfg has processes measured."""


def setting() -> str:
    """The variable for a process in there, as lines for [Service]; it writes to FOLDER."""
    config = _config()
    if not config:
        return ""
    config["data_file"] = f"{FOLDER}/.coverage"
    return f'[Service]\nEnvironment="{VARIABLE}={base64.b64encode(json.dumps(config).encode()).decode()}"\n'


def collect(machine: Machine) -> None:
    """Put the data beside those of the processes out here."""
    for path in machine.path(FOLDER).glob(".coverage.*"):
        pathlib.Path(_config()["data_file"]).with_name(path.name).write_bytes(path.read_bytes())


def _config() -> dict[str, str]:
    """As coverage hands it on; empty if it does not."""
    given = os.environ.get(VARIABLE, "")
    config: dict[str, str] = json.loads(base64.b64decode(given)) if given else {}
    return config
