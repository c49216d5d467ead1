"""What hooks have left running when the daemon ends: it is heard further on, and holds nothing up."""

import os
import pathlib
import resource
from collections.abc import Iterator

import pytest

from tests.functional.node import Node
from tests.waiting import eventually

PASSWORD = "hunter2-hunter2"


@pytest.fixture
def go(node: Node) -> Iterator[pathlib.Path]:
    """What is left running waits for this file; in the end it is there in any case."""
    go = node.root / "go"
    node.metadata({"admin_password": PASSWORD})
    yield go
    go.touch()


def until(path: pathlib.Path) -> str:
    return f"until [ -e {path} ]; do sleep 0.02; done"


def test_a_secret_of_the_metadata_is_masked_also_after_the_daemons_end(node: Node, go: pathlib.Path) -> None:
    node.hook("configure/10-a", f"( {until(go)}; echo the password is {PASSWORD} ) &")
    with node.daemon() as daemon:
        node.wait_for_outcomes(["success"])
    go.touch()
    daemon.wait_for_log("configure/10-a| the password is ***\n")
    assert "hunter2" not in daemon.log()


def test_a_secret_of_which_the_daemon_has_heard_a_half_is_masked_and_its_line_whole(
    node: Node, go: pathlib.Path
) -> None:
    begin = node.root / "begin"
    # In one piece: who has told the line has read the half behind it, too.
    half = "/usr/bin/printf 'a line\\nthe password is hunter2-'"
    node.hook("configure/10-a", f"( {until(begin)}; {half}; {until(go)}; echo hunter2 ) &")
    with node.daemon() as daemon:
        node.wait_for_outcomes(["success"])
        begin.touch()
        daemon.wait_for_log("configure/10-a| a line\n")
    go.touch()
    daemon.wait_for_log("configure/10-a| the password is ***\n")
    assert "hunter2" not in daemon.log()


def test_a_daemon_without_a_free_descriptor_ends_all_the_same(node: Node, go: pathlib.Path) -> None:
    node.hook("configure/10-a", f"( until [ -e {go} ]; do echo chatter; sleep 0.02; done ) &")
    with node.daemon() as daemon:
        node.wait_for_outcomes(["success"])
        daemon.wait_for_log("configure/10-a| chatter")
        pid = daemon.process.pid
        eventually(lambda: "waiting for a change" in node.command("status").stdout)
        taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        free = next(number for number in range(len(taken) + 1) if number not in taken)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, free))
        daemon.process.terminate()
        assert daemon.process.wait(10) == 0
    assert "nobody listens any more to what hooks have left running" in daemon.log()
    assert "Traceback" not in daemon.log()
