"""What the daemon tells systemd, to a socket of the test's; tests/e2e/systemd has the real one."""

import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.functional.node import COMMAND, Node
from tests.waiting import eventually

PATIENCE = 1.0
"""Seconds that this systemd waits for a sign of life."""


class Manager:
    """Hears the agent; when it was given each sign of life."""

    def __init__(self, path: pathlib.Path) -> None:
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(PATIENCE * 1_000_000))}
        self.told: list[str] = []
        self.beats: list[float] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def hear(self) -> list[str]:
        """Everything so far, an assignment each."""
        while True:
            try:
                lines = self.socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self.told
            self.told += lines
            self.beats += [time.monotonic() for line in lines if line == "WATCHDOG=1"]

    def silence(self) -> float:
        """Seconds since the last sign of life."""
        self.hear()
        return time.monotonic() - self.beats[-1]


@pytest.fixture
def manager(tmp_path: pathlib.Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.socket.close()


def test_a_long_hook_is_no_reason_to_fall_silent(node: Node, manager: Manager) -> None:
    node.hook("configure/10-long", f"sleep {3 * PATIENCE}")
    node.metadata({"a": 1})
    longest = 0.0
    with node.daemon(manager.env):
        eventually(lambda: [line for line in manager.hear() if "10-long" in line])
        eventually(lambda: manager.beats)
        while node.outcomes() != ["success"]:
            longest = max(longest, manager.silence())
    assert 0 < longest < PATIENCE


def test_nor_is_waiting_for_a_change(node: Node, manager: Manager) -> None:
    node.metadata({"a": 1})
    with node.daemon(manager.env):
        eventually(lambda: [line for line in manager.hear() if line.startswith("STATUS=waiting")])
        before = len(manager.beats)
        eventually(lambda: manager.hear() and len(manager.beats) >= before + 4)
    spaces = [after - earlier for earlier, after in zip(manager.beats, manager.beats[1:], strict=False)]
    assert max(spaces) < PATIENCE


def test_nor_is_a_hook_that_does_not_want_to_end(node: Node, manager: Manager) -> None:
    node.configure(f"[phases]\nhook_timeout = 0.2\nkill_grace = {2 * PATIENCE}")
    node.hook("configure/10-stubborn", "trap '' TERM; for i in {1..3000}; do sleep 0.1; done")
    node.metadata({"a": 1})
    longest = 0.0
    with node.daemon(manager.env):
        eventually(lambda: manager.hear() and manager.beats)
        while node.outcomes()[:1] != ["hook failed"]:
            longest = max(longest, manager.silence())
    assert 0 < longest < PATIENCE
    assert [line for line in manager.told if line.startswith("STATUS=ending ") and "10-stubborn" in line]


def test_a_worker_that_is_stuck_is_silent_although_its_process_lives(node: Node, manager: Manager) -> None:
    """Here it is stuck in its log, which nobody reads."""
    node.hook("configure/10-loud", "seq 200000")
    node.metadata({"a": 1})
    command = [COMMAND, "--config-file", str(node.config_file)]
    environment = os.environ | manager.env
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as daemon:
        try:
            eventually(lambda: manager.hear() and manager.beats)
            eventually(lambda: manager.silence() > 2 * PATIENCE)
            assert daemon.poll() is None
        finally:
            daemon.send_signal(signal.SIGKILL)


def test_a_stop_is_told_at_once_with_the_time_that_it_may_take(node: Node, manager: Manager) -> None:
    node.configure("[phases]\nstop_grace = 100\nkill_grace = 7")
    node.hook("configure/10-slow", f"until [ -e {node.root}/go ]; do sleep 0.05; done")
    node.metadata({"a": 1})
    with node.daemon(manager.env) as daemon:
        eventually(lambda: [line for line in manager.hear() if "10-slow" in line])
        daemon.signal(signal.SIGTERM)
        eventually(lambda: "STOPPING=1" in manager.hear())
        # 100 s that it may go on, 7 from TERM to KILL, 10 for what KILL does not end, 5 for the rest.
        eventually(lambda: "EXTEND_TIMEOUT_USEC=122000000" in manager.hear())
        stopping = f"STATUS=stopping: {node.base}/configure.d/10-slow may take 100 s to end"
        eventually(lambda: [line for line in manager.hear() if line.startswith(stopping)])
        (node.root / "go").touch()
        assert daemon.process.wait(20) == 0
