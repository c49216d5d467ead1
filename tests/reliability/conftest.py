"""A node in a folder, with the installed command."""

import pathlib

import pytest

from tests.functional.node import Node


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)
