"""Metadata that says from where metadata is to be fetched from now on: the real hook writes it down.

From Heat's own API to its CloudFormation API; on the other way Heat hands out a password that it never set.
"""

import contextlib
import json
import sqlite3

from tests.e2e.cloud import Cloud
from tests.e2e.nodes import NodeTree
from tests.e2e.stacks import Stack
from tests.waiting import eventually


def test_a_stack_that_changes_its_transport_is_followed_without_a_restart(
    cloud: Cloud, stack: Stack, node: NodeTree
) -> None:
    stack.create("POLL_SERVER_HEAT", "HEAT_SIGNAL", "hello")
    node.point_at(stack.os_collect_config())
    with node.daemon() as daemon:
        stack.wait("CREATE_COMPLETE")
        stack.update("good day", transport="POLL_SERVER_CFN")
        stack.wait("UPDATE_COMPLETE")
        daemon.wait_for_log("configuration reloaded: collectors cfn, local")
        eventually(lambda: documents(node) == ["cfn"])
        for proxy in cloud.proxies.values():
            proxy.clear()
        stack.update("goodbye")
        stack.wait("UPDATE_COMPLETE")
        asked = cloud.proxies["cfn"].requests()["GET /v1/"]
    assert asked > 0
    assert node.ran() == ["hello", "good day", "goodbye"]
    assert stack.outputs()["said"] == "goodbye"
    assert triggers(node) == {"start", "change"}


def documents(node: NodeTree) -> list[str]:
    """What hooks were last given."""
    listed = json.loads((node.cache / "os_config_files.json").read_text())
    return [path.rpartition("/")[2].removesuffix(".json") for path in listed]


def triggers(node: NodeTree) -> set[str]:
    """Why runs took place."""
    with contextlib.closing(sqlite3.connect(node.state / "journal.sqlite")) as journal:
        return {trigger for (trigger,) in journal.execute("SELECT trigger FROM runs")}
