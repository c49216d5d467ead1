"""The cloud of these tests is a real one, counts what it is asked, and leaves nothing behind."""

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import requests
import websocket

from tests.e2e.cloud import Cloud
from tests.e2e.nodes import NodeTree
from tests.e2e.stacks import Stack
from tests.processes import alive
from tests.waiting import eventually

TOP = pathlib.Path(__file__).resolve().parent.parent.parent

START_REDIS = """
import pathlib, time
from tests.e2e.servers import Servers

servers = Servers(pathlib.Path.cwd())
servers.redis()
print(servers.pids()["redis"], flush=True)
time.sleep(60)
"""


def test_os_collect_config_delivers_a_deployment(cloud: Cloud, stack: Stack, node: NodeTree) -> None:
    stack.create("POLL_SERVER_CFN", "CFN_SIGNAL", "hello")
    node.point_at(stack.os_collect_config())
    cfn = cloud.proxies["cfn"]
    cfn.clear()
    done = node.os_collect_config("--one-time")
    assert done.returncode == 0, done.stderr
    stack.wait("CREATE_COMPLETE")
    assert node.ran() == ["hello"]
    assert stack.outputs()["said"] == "hello"
    assert stack.outputs()["stdout"] == "hello from the node\n"
    assert cfn.requests()["GET /v1/"] == 1
    assert sum(cfn.requests().values()) == sum(cfn.connections().values()) == 2  # the other is the signal
    stack.delete()


def test_what_is_posted_to_a_queue_is_pushed_to_a_websocket(cloud: Cloud) -> None:
    cloud.zaqar()
    token = cloud.tenant()
    headers = {
        "X-Auth-Token": str(token.session.headers["X-Auth-Token"]),
        "X-Project-ID": token.project_id,
        "Client-ID": "7e6d5c4b-0000-4000-8000-000000000001",
    }
    socket = websocket.create_connection(token.catalog["messaging-websocket"], timeout=20)
    try:
        for action, body in (
            ("authenticate", {}),
            ("queue_create", {"queue_name": "news"}),
            ("subscription_create", {"queue_name": "news", "ttl": 600}),
        ):
            socket.send(json.dumps({"action": action, "headers": headers, "body": body}))
            assert json.loads(socket.recv())["headers"]["status"] < 300
        url = f"{token.catalog['messaging']}/v2/queues/news/messages"
        message: Any = {"body": {"greeting": "hello"}, "ttl": 600}
        requests.post(url, json={"messages": [message]}, headers=headers, timeout=20).raise_for_status()
        assert json.loads(socket.recv())["body"] == {"greeting": "hello"}
    finally:
        socket.close()


def test_servers_end_when_who_started_them_is_killed(tmp_path: pathlib.Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", START_REDIS],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TOP)},
    )
    with starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        eventually((tmp_path / "redis.sock").exists)
        assert alive(pid)
        starter.send_signal(signal.SIGKILL)
    eventually(lambda: not alive(pid))
