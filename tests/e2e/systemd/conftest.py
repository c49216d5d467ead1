import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.systemd import measuring
from tests.e2e.systemd.machine import Machine
from tests.e2e.systemd.unit import Unit
from tests.functional.node import COMMAND
from tests.pages import TOP
from tools import environments


@pytest.fixture(scope="session")
def installed() -> pathlib.Path:
    """The virtual environment of somebody who followed the documentation."""
    return environments.ensure("agent")


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory, installed: pathlib.Path) -> Iterator[Machine]:
    """One for all tests. What they start is the command of their own environment: it is measured."""
    if os.geteuid() != 0:
        reason = "a systemd of its own takes root: namespaces, mounts, a cgroup"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    # Scripts and links in an environment name the place where it was made, and the Python it was made by.
    binds = {str(TOP): TOP, "/opt/refresh-agent": installed}
    if not sys.base_prefix.startswith("/usr"):
        binds[sys.base_prefix] = pathlib.Path(sys.base_prefix)
    with Machine(tmp_path_factory.mktemp("machine"), binds) as started:
        yield started
        measuring.collect(started)


@pytest.fixture
def bare(machine: Machine) -> Iterator[Unit]:
    """Nothing of it is there yet; without a trace afterwards."""
    unit = Unit(machine)
    unit.begin_journal()
    try:
        yield unit
    finally:
        unit.remove()


@pytest.fixture
def unit(bare: Unit) -> Unit:
    """Installed and configured, not started."""
    bare.install(pathlib.Path(COMMAND))
    return bare
