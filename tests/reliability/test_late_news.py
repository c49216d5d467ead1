"""Whenever a change comes, it is run, and nothing is run twice without need. With the installed command."""

import json
import pathlib
import signal

import pytest

from refresh_agent import metadata
from tests.functional.node import Node
from tests.waiting import eventually

PATIENT = "[retry]\ninitial = 600\nmaximum = 600\n"
SEEN = """
python3 -c 'import json, os; print(json.load(open(os.environ["OS_CONFIG_FILES"]))["a"])' >> "$0.seen"
"""


@pytest.fixture
def node(node: Node) -> Node:
    """It notes the content that each run had at its beginning."""
    node.hook("pre-configure/10-stop")
    node.hook("configure/10-see", SEEN)
    node.hook("post-configure/10-start")
    return node


def seen(node: Node) -> list[str]:
    path = node.base / "configure.d" / "10-see.seen"
    return path.read_text().split() if path.exists() else []


def committed(node: Node) -> str:
    """The content that counts as brought onto the node."""
    index = json.loads((node.state / "sources" / "heat_local.json").read_text())
    (document,) = index["committed"]
    ((fingerprint,),) = node.rows("SELECT fingerprint FROM committed")
    assert document["fingerprint"] == fingerprint
    return str(json.loads((node.state / "sources" / "heat_local" / document["file"]).read_text())["a"])


def waiting_hook(node: Node, place: str = "configure/50-wait") -> pathlib.Path:
    """A hook that goes on once this file exists."""
    go = node.root / "go"
    node.hook(place, f"until [ -e {go} ]; do sleep 0.02; done")
    return go


def unless_locked(returncode: int) -> int:
    return 0 if returncode == 11 else returncode


def wait_for(node: Node, place: str) -> None:
    """Until this hook runs, for the first time."""
    eventually(lambda: node.ran().count(place) == 1, 20)


def test_what_was_collected_at_the_beginning_is_committed_and_what_came_meanwhile_is_run(node: Node) -> None:
    go = waiting_hook(node)
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        wait_for(node, "configure/50-wait")
        node.metadata({"a": 2})
        node.metadata({"a": 3})
        go.touch()
        node.wait_for_outcomes(["success"] * 2)
        assert "changed in heat_local: a" in daemon.log()
    assert seen(node) == ["1", "3"]
    assert committed(node) == "3"
    expected = [[["heat_local", metadata.fingerprint({"a": number})]] for number in (1, 3)]
    assert [json.loads(text) for (text,) in node.rows("SELECT documents FROM runs ORDER BY id")] == expected


def test_a_change_that_is_taken_back_during_a_run_is_no_second_run(node: Node) -> None:
    go = waiting_hook(node)
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        wait_for(node, "configure/50-wait")
        node.metadata({"a": 2})
        node.metadata({"a": 1})
        go.touch()
        node.wait_for_outcomes(["success"])
        node.metadata({"a": 4})  # the next run is for this, so there was none in between
        node.wait_for_outcomes(["success"] * 2)
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(20) == 0
    assert seen(node) == ["1", "4"]


def test_a_change_that_a_hook_of_the_run_makes_is_run_too_and_only_once(node: Node) -> None:
    """Between collecting and committing."""
    node.metadata({"a": 1})
    node.hook(
        "post-configure/90-change",
        f"[ -e $0.done ] || printf '{{\"a\": 2}}' > {node.metadata_file}\ntouch $0.done",
    )
    with node.daemon():
        node.wait_for_outcomes(["success"] * 2)
        node.metadata({"a": 5})
        node.wait_for_outcomes(["success"] * 3)
    assert seen(node) == ["1", "2", "5"]


def test_a_change_during_a_back_off_is_tried_at_once_and_as_the_first_attempt(node: Node) -> None:
    node.configure(PATIENT)
    node.hook("configure/20-fail", f"[ -e {node.root}/good ]")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        daemon.wait_for_log("the next attempt is in")
        (node.root / "good").touch()
        node.metadata({"a": 2})
        node.wait_for_outcomes(["hook failed", "success"])
    assert node.rows("SELECT attempt, trigger FROM runs ORDER BY id") == [(1, "start"), (1, "change")]
    assert committed(node) == "2"


def test_hup_during_a_back_off_tries_at_once(node: Node) -> None:
    node.configure(PATIENT)
    node.hook("configure/20-fail", f"[ -e {node.root}/good ]")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        daemon.wait_for_log("the next attempt is in")
        (node.root / "good").touch()
        daemon.signal(signal.SIGHUP)
        node.wait_for_outcomes(["hook failed", "success"])
    assert node.rows("SELECT attempt, trigger FROM runs ORDER BY id") == [(1, "start"), (2, "signal")]


def test_a_change_while_the_agent_is_stopping_is_run_at_the_next_start(node: Node) -> None:
    go = waiting_hook(node)
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        wait_for(node, "configure/50-wait")
        daemon.signal(signal.SIGTERM)
        node.metadata({"a": 2})
        go.touch()
        assert daemon.process.wait(20) == 0
        assert "the node is quiesced until a run gets through post-configure" in daemon.log()
    assert node.outcomes() == ["interrupted"]
    with node.daemon() as daemon:
        node.wait_for_outcomes(["interrupted", "success"])
        assert "the node is quiesced: run " in daemon.log()
    assert seen(node) == ["1", "2"]
    assert committed(node) == "2"


def test_a_change_while_the_agent_is_down_and_held_is_tried(node: Node) -> None:
    node.configure("[retry]\ninitial = 0.05\nmaximum = 0.05\nmax_attempts = 2\n")
    node.hook("configure/20-fail", f"[ -e {node.root}/good ]")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        node.wait_for_outcomes(["hook failed"] * 2)
        daemon.wait_for_log("held until the metadata changes or an operator asks")
    (node.root / "good").touch()
    with node.daemon() as daemon:
        daemon.wait_for_log("hold: held after 2 attempts")
        assert node.outcomes() == ["hook failed"] * 2
        node.metadata({"a": 2})
        node.wait_for_outcomes(["hook failed", "hook failed", "success"])
    assert committed(node) == "2"


def test_a_node_that_a_run_by_hand_left_quiesced_is_activated_again_by_the_daemon(node: Node) -> None:
    node.configure(polling_interval="0.2")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        node.wait_for_outcomes(["success"])
        node.hook("configure/20-fail", f"[ -e {node.root}/good ] || kill -9 $PPID")
        # The daemon may hold the lock for a moment yet when its run is over.
        ended = eventually(lambda: unless_locked(node.command("run-phases").returncode))
        assert ended == -signal.SIGKILL
        (node.root / "good").touch()
        node.wait_for_outcomes(["success", "interrupted", "success"])
        assert "the node is quiesced by run" in daemon.log()
    assert node.rows("SELECT attempt, trigger FROM runs WHERE id = 3") == [(2, "retry")]
