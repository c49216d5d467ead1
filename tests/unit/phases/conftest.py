"""What the tests of processes, and of whole phases, start from."""

import os
import pathlib
import signal
from collections.abc import Iterator

import pytest

from refresh_agent.wakeup import Stop
from tests.processes import children
from tests.unit.phases.node import Node
from tests.unit.phases.shop import Shop, followers
from tests.waiting import eventually


@pytest.fixture
def shop(tmp_path: pathlib.Path, stop: Stop) -> Iterator[Shop]:
    yield Shop(tmp_path, stop)
    for pid in children():  # what a test has left on purpose, or because it failed
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    eventually(lambda: followers() == 0)


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.stop.close()
