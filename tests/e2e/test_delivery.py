"""refresh-agent in os-collect-config's place: real stacks, real hooks, and Heat learns how it went."""

import pytest

from tests.e2e.cloud import Cloud
from tests.e2e.nodes import NodeTree
from tests.e2e.proxy import Exchange
from tests.e2e.stacks import Stack
from tests.waiting import eventually

SUBSCRIBED = "[zaqar]\nuse_websockets = true\n"


def deliver_once(node: NodeTree) -> None:
    done = node.once()
    assert done.returncode == 0, done.stderr


def assert_delivered(stack: Stack, node: NodeTree, status: str, *greetings: str) -> None:
    """Heat has the outputs of the last greeting, and each was said once."""
    stack.wait(status)
    assert stack.outputs()["said"] == greetings[-1]
    assert stack.outputs()["stdout"] == f"{greetings[-1]} from the node\n"
    assert node.ran() == list(greetings)


def exchanges(cloud: Cloud) -> list[Exchange]:
    """With any of the services."""
    return [one for proxy in cloud.proxies.values() for one in proxy.exchanges()]


@pytest.mark.parametrize(
    ("transport", "signal"),
    [
        ("POLL_SERVER_CFN", "CFN_SIGNAL"),
        ("POLL_SERVER_HEAT", "HEAT_SIGNAL"),
        ("ZAQAR_MESSAGE", "HEAT_SIGNAL"),
    ],
)
def test_a_deployment_is_delivered_by_hand_and_then_by_the_daemon(
    cloud: Cloud, stack: Stack, node: NodeTree, transport: str, signal: str
) -> None:
    if transport == "ZAQAR_MESSAGE":
        cloud.zaqar()
    stack.create(transport, signal, "hello")
    node.point_at(stack.os_collect_config())
    deliver_once(node)
    assert_delivered(stack, node, "CREATE_COMPLETE", "hello")
    stack.update("good day")
    deliver_once(node)
    assert_delivered(stack, node, "UPDATE_COMPLETE", "hello", "good day")
    with node.daemon():
        stack.update("goodbye")
        assert_delivered(stack, node, "UPDATE_COMPLETE", "hello", "good day", "goodbye")
    deliver_once(node)  # nothing new
    assert node.ran() == ["hello", "good day", "goodbye"]


@pytest.mark.parametrize(
    ("transport", "signal"), [("POLL_SERVER_CFN", "HEAT_SIGNAL"), ("POLL_SERVER_HEAT", "CFN_SIGNAL")]
)
def test_the_daemon_delivers_and_then_asks_once_a_poll_on_a_kept_connection(
    cloud: Cloud, stack: Stack, node: NodeTree, transport: str, signal: str
) -> None:
    stack.create(transport, signal, "hello")
    node.point_at(stack.os_collect_config())
    with node.daemon():
        assert_delivered(stack, node, "CREATE_COMPLETE", "hello")
        stack.update("goodbye")
        assert_delivered(stack, node, "UPDATE_COMPLETE", "hello", "goodbye")
        for proxy in cloud.proxies.values():
            proxy.clear()
        eventually(lambda: len(exchanges(cloud)) >= 3)
        asked = exchanges(cloud)
        assert {one.method for one in asked} == {"GET"}
        assert len({one.path for one in asked}) == len({one.connection for one in asked}) == 1


def test_a_websocket_brings_changes_between_two_polls(cloud: Cloud, stack: Stack, node: NodeTree) -> None:
    cloud.zaqar()
    stack.create("ZAQAR_MESSAGE", "HEAT_SIGNAL", "hello")
    node.point_at(stack.os_collect_config())
    node.configure(SUBSCRIBED, polling_interval="600", min_polling_interval="600")
    with node.daemon():
        assert_delivered(stack, node, "CREATE_COMPLETE", "hello")
        stack.update("goodbye")
        assert_delivered(stack, node, "UPDATE_COMPLETE", "hello", "goodbye")
