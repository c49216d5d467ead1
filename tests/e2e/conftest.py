import pathlib
from collections.abc import Iterator

import pytest

from tests.e2e.cloud import Cloud
from tests.e2e.nodes import NodeTree
from tests.e2e.stacks import Stack
from tools import environments


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One for all tests; its requests are counted."""
    with Cloud(tmp_path_factory.mktemp("cloud"), counted=True) as started:
        yield started


@pytest.fixture(scope="session")
def heat_agents() -> pathlib.Path:
    return environments.ensure("heat-agents")


@pytest.fixture(scope="session")
def peers() -> pathlib.Path:
    return environments.ensure("peers")


@pytest.fixture
def stack(cloud: Cloud) -> Stack:
    """Still to be created. It is left behind: deleting takes as long as all else."""
    return cloud.stack()


@pytest.fixture
def node(tmp_path: pathlib.Path, peers: pathlib.Path, heat_agents: pathlib.Path) -> NodeTree:
    root = tmp_path / "node"
    root.mkdir(0o700)
    return NodeTree(root, peers, heat_agents)
