"""The installed command and a source that has to be asked: a small web server of the test's."""

import contextlib
import http.server
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.node import COMMAND, Node
from tests.waiting import eventually


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: Any = {"remote": 1}
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/metadata"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        self.server.gate.wait(20)
        body = json.dumps(self.server.content).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def polling(node: Node, server: Server) -> Node:
    """Asks ``server`` every 0.2 s, and hooks note what they were given."""
    node.metadata({"local": 1})
    configure(node, server)
    node.hook("configure/10-a", f"cat ${{OS_CONFIG_FILES%%:*}} > {node.root}/given")
    return node


def configure(node: Node, server: Server, interval: str = "0.2") -> None:
    node.configure(
        f"[request]\nmetadata_url = {server.url}\n",
        collectors="request, heat_local",
        polling_interval=interval,
        min_polling_interval="0.1",
    )


def given(node: Node) -> Any:
    return json.loads((node.root / "given").read_text())


def test_a_change_at_the_source_is_a_run(polling: Node, server: Server) -> None:
    with polling.daemon():
        polling.wait_for_outcomes(["success"])
        server.content = {"remote": 2}
        polling.wait_for_outcomes(["success"] * 2)
        assert given(polling) == {"remote": 2}
        asked = server.asked
        eventually(lambda: server.asked >= asked + 3)  # and no run for what is the same
    assert polling.outcomes() == ["success"] * 2


def test_polling_goes_on_while_hooks_run_and_what_it_finds_is_the_next_run(
    polling: Node, server: Server
) -> None:
    polling.hook("configure/20-b", f"until [ -e {polling.root}/go ]; do sleep 0.05; done")
    with polling.daemon():
        eventually(lambda: polling.ran() == ["configure/10-a", "configure/20-b"])
        asked = server.asked
        eventually(lambda: server.asked >= asked + 3)
        server.content = {"remote": 2}
        eventually(lambda: server.asked >= asked + 6)
        (polling.root / "go").touch()
        polling.wait_for_outcomes(["success"] * 2)
    assert given(polling) == {"remote": 2}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_once_that_is_ended_while_it_asks_decides_nothing(
    polling: Node, server: Server, number: signal.Signals
) -> None:
    server.gate.clear()
    process = subprocess.Popen(
        [COMMAND, "--config-file", str(polling.config_file), "--once"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    eventually(lambda: server.asked)
    began = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert time.monotonic() - began < 5
    assert "stopped before anything was decided" in output
    assert "Traceback" not in output
    assert (polling.ran(), polling.outcomes(), polling.cache.exists()) == ([], [], False)


def test_a_daemon_that_is_ended_while_it_asks_ends_at_once_and_well(polling: Node, server: Server) -> None:
    server.gate.clear()
    with polling.daemon() as daemon:
        eventually(lambda: server.asked)
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(20) == 0
        assert time.monotonic() - began < 5
    assert polling.ran() == []


def test_once_beside_a_daemon_is_not_undone_by_it(polling: Node, server: Server) -> None:
    """What the daemon heard at its last poll is older than what --once has brought onto the node."""
    configure(polling, server, interval="3600")
    with polling.daemon() as daemon:
        polling.wait_for_outcomes(["success"])
        server.status = 503  # from here on the daemon hears nothing
        daemon.signal(signal.SIGHUP)
        polling.wait_for_outcomes(["success"] * 2)
        server.status, server.content = 200, {"remote": 2}
        assert polling.once().returncode == 0
        polling.metadata({"local": 2})
        polling.wait_for_outcomes(["success"] * 4)
        assert given(polling) == {"remote": 2}


def test_a_slow_source_does_not_hold_up_the_others_again_and_again(polling: Node, server: Server) -> None:
    polling.configure(
        f"[request]\nmetadata_url = {server.url}\n[debounce]\nquiet = 0.1\nmax_wait = 4\n",
        collectors="request, heat_local",
    )
    server.gate.clear()
    with polling.daemon():
        polling.wait_for_outcomes(["success"])
        began = time.monotonic()
        polling.metadata({"local": 2})
        polling.wait_for_outcomes(["success"] * 2)
        assert time.monotonic() - began < 3.5
        server.gate.set()
        polling.wait_for_outcomes(["success"] * 3)
    assert given(polling) == {"remote": 1}


def test_a_configuration_that_a_hook_rewrites_with_the_same_content_is_read_once(
    polling: Node, server: Server
) -> None:
    """As 20-os-apply-config does at every run."""
    conf = polling.config_file
    polling.hook("configure/05-conf", f"cp {conf} {conf}.new; mv {conf}.new {conf}")
    with polling.daemon() as daemon:
        polling.wait_for_outcomes(["success"])
        server.content = {"remote": 2}
        polling.wait_for_outcomes(["success"] * 2)
        polling.metadata({"local": 2})
        polling.wait_for_outcomes(["success"] * 3)
        assert "configuration reloaded" not in daemon.log()
        conf.write_text(conf.read_text() + "# a comment\n")
        daemon.wait_for_log("configuration reloaded")
        polling.metadata({"local": 3})
        polling.wait_for_outcomes(["success"] * 4)
    assert len(polling.outcomes()) == 4
