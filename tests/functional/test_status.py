"""The installed ``status``, ``pause`` and ``resume``, beside a real daemon and without one."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
from typing import Any

import pytest

from tests.functional.node import COMMAND, Daemon, Node
from tests.waiting import eventually


@pytest.fixture
def busy(node: Node) -> pathlib.Path:
    """A node that is quiesced until a hook finds this file."""
    go = node.root / "go"
    node.hook("pre-configure/10-stop")
    node.hook("configure/10-wait", f"until [ -e {go} ]; do sleep 0.02; done")
    node.metadata({"a": 1})
    return go


def status(node: Node) -> Any:
    ended = node.command("status", "--json")
    assert ended.stderr == ""
    told = json.loads(ended.stdout)
    assert told["exit_code"] == ended.returncode
    return told


def test_its_exit_codes(node: Node) -> None:
    node.hook("pre-configure/10-stop")
    node.hook("configure/10-a", f"echo the last words; test ! -e {node.root}/broken")
    node.metadata({"a": 1})
    assert node.command("status").returncode == 3
    node.once()
    assert node.command("status").returncode == 0
    node.command("pause", "a", "reason")
    paused = node.command("status")
    assert paused.returncode == 6
    assert ": a reason\n" in paused.stdout
    node.command("resume")
    (node.root / "broken").touch()
    node.metadata({"a": 2})
    node.once()
    failing = node.command("status")
    assert failing.returncode == 1
    assert "configure/10-a: failed with status 1\n              | the last words\n" in failing.stdout
    (node.root / "broken").unlink()
    node.once()
    node.metadata_file.write_text("{")
    node.once()
    stale = status(node)
    assert (stale["health"], stale["sources"][0]["stale"]) == ("stale", True)


def test_it_writes_nothing_and_makes_nothing(node: Node) -> None:
    node.metadata({"a": 1})
    assert status(node)["doing"] == "no daemon"
    assert not node.state.exists()
    assert not node.lock.exists()
    node.hook("configure/10-a")
    node.once()
    before = {path: os.stat(path).st_mtime_ns for path in sorted(node.state.rglob("*"))}
    status(node)
    assert {path: os.stat(path).st_mtime_ns for path in sorted(node.state.rglob("*"))} == before


def test_it_tells_what_the_daemon_does_without_waiting_for_it(node: Node, busy: pathlib.Path) -> None:
    with node.daemon() as daemon:
        eventually(node.ran)
        running = eventually(
            lambda: found if (found := status(node))["run"] and found["run"]["hook"] else None
        )
        assert running["doing"] == "running"
        assert running["daemon"]["pid"] == daemon.process.pid
        assert (running["run"]["phase"], running["run"]["hook"]) == ("configure", "10-wait")
        assert (running["health"], running["quiesced"]) == ("stale", None)
        busy.touch()
        node.wait_for_outcomes(["success"])
        waiting = eventually(lambda: found if (found := status(node))["doing"] == "waiting" else None)
        assert waiting["last_success"]["outcome"] == "success"
    assert status(node)["doing"] == "no daemon"
    assert status(node)["health"] == "healthy"


def test_once_is_seen_too(node: Node, busy: pathlib.Path) -> None:
    command = [COMMAND, "--config-file", str(node.config_file), "--once"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as once:
        eventually(lambda: status(node)["doing"] == "running")
        assert status(node)["exit_code"] == 3
        busy.touch()
        assert once.wait(20) == 0


def test_a_run_whose_agent_was_killed_has_left_the_node_quiesced(node: Node, busy: pathlib.Path) -> None:
    with node.daemon() as daemon:
        eventually(lambda: (status(node)["run"] or {}).get("hook"))
        daemon.signal(signal.SIGKILL)
        daemon.process.wait()
    killed = status(node)
    assert (killed["doing"], killed["health"], killed["run"]) == ("no daemon", "quiesced", None)
    assert killed["quiesced"]["interrupted"]
    assert (killed["quiesced"]["phase"], killed["quiesced"]["hook"]) == ("configure", "10-wait")
    busy.touch()
    with node.daemon():
        node.wait_for_outcomes(["interrupted", "success"])
    assert status(node)["health"] == "healthy"


def test_while_the_next_agent_ends_what_a_dead_one_has_left_the_node_is_quiesced(node: Node) -> None:
    """It holds the lock meanwhile, but does not work on that run."""
    node.configure("[phases]\nkill_grace = 2")
    node.hook("pre-configure/10-stop")
    node.hook("configure/10-stay", f"trap '' TERM; touch {node.root}/stays; while :; do sleep 0.02; done")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        eventually((node.root / "stays").exists)
        eventually(lambda: (status(node)["run"] or {}).get("hook"))
        daemon.signal(signal.SIGKILL)
        daemon.process.wait()
    with node.daemon() as daemon:
        eventually(lambda: f"pid=={daemon.process.pid} " in node.lock.read_text())
        cleaning = status(node)
        assert node.outcomes() == [None]
        assert (cleaning["health"], cleaning["run"], cleaning["exit_code"]) == ("quiesced", None, 1)
        (node.base / "configure.d" / "10-stay").unlink()
        node.wait_for_outcomes(["interrupted", "success"])


def test_a_run_that_was_stopped_before_it_quiesced_anything_is_failing_until_it_is_made_again(
    node: Node, busy: pathlib.Path
) -> None:
    (node.base / "pre-configure.d" / "10-stop").unlink()
    (node.base / "pre-configure.d").rmdir()
    with node.daemon() as daemon:
        eventually(lambda: (status(node)["run"] or {}).get("hook"))
        daemon.signal(signal.SIGKILL)
        daemon.process.wait()
    cut_off = status(node)
    assert (cut_off["health"], cut_off["quiesced"], cut_off["exit_code"]) == ("failing", None, 1)
    assert cut_off["reasons"][0] == "the newest run: interrupted in configure/10-wait"
    busy.touch()
    with node.daemon():
        node.wait_for_outcomes(["interrupted", "success"])
    assert status(node)["health"] == "healthy"


def test_a_back_off_and_then_a_held_change_are_told(node: Node) -> None:
    node.configure("[retry]\ninitial = 3000\nmaximum = 3000\nmax_attempts = 2")
    node.hook("configure/10-a", "false")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        daemon.wait_for_log("the next attempt is in")
        backing_off = eventually(lambda: found if (found := status(node))["retry_at"] else None)
        assert (backing_off["doing"], backing_off["health"]) == ("backing off", "failing")
        daemon.signal(signal.SIGHUP)
        node.wait_for_outcomes(["hook failed"] * 2)
        held = eventually(lambda: found if (found := status(node))["doing"] == "held" else None)
        assert (held["health"], held["held"]["attempts"], held["retry_at"]) == ("held", 2, None)


def test_a_damaged_journal_is_5_and_the_rest_is_told(node: Node) -> None:
    node.hook("configure/10-a")
    node.metadata({"a": 1})
    node.once()
    (node.state / "journal.sqlite").write_bytes(b"garbage" * 1000)
    damaged = status(node)
    assert (damaged["exit_code"], damaged["health"]) == (5, "unknown")
    assert "file is not a database" in damaged["reasons"][0]
    assert damaged["sources"][0]["asked_at"]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="root becomes somebody else")
def test_who_may_not_read_the_state_is_told_so(node: Node) -> None:
    node.metadata({"a": 1})
    node.once()
    for path in (node.root, *node.root.parents):
        if path != pathlib.Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    node.config_file.chmod(0o644)
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", COMMAND]
    ended = subprocess.run(
        [*command, "--config-file", str(node.config_file), "status"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 5, ended.stderr
    assert f"{node.state}: cannot be read: Permission denied" in ended.stderr
    as_json = subprocess.run(
        [*command, "--config-file", str(node.config_file), "status", "--json"],
        capture_output=True,
        timeout=60,
    )
    told = json.loads(as_json.stdout)
    assert (told["health"], told["exit_code"], as_json.returncode) == ("unknown", 5, 5)


# --- pause and resume --------------------------------------------------------------------------------------


@pytest.fixture
def simple(node: Node) -> Node:
    node.hook("configure/10-a", 'tr -d "\\n " < "$OS_CONFIG_FILES" >> "$0.seen"; echo >> "$0.seen"')
    node.metadata({"a": 1})
    return node


def told_of_the_pause(daemon: Daemon, times: int = 1) -> None:
    eventually(lambda: daemon.log().count("it ends with refresh-agent resume") >= times)


def test_a_change_while_paused_is_run_after_resume_once(simple: Node) -> None:
    with simple.daemon() as daemon:
        simple.wait_for_outcomes(["success"])
        simple.command("pause", "an upgrade")
        simple.metadata({"a": 2})
        told_of_the_pause(daemon)
        assert simple.outcomes() == ["success"]
        assert status(simple)["doing"] == "paused"
        simple.metadata({"a": 3})
        assert "it was paused since" in simple.command("resume").stdout
        simple.wait_for_outcomes(["success"] * 2)
        simple.metadata({"a": 4})
        simple.wait_for_outcomes(["success"] * 3)
    seen = (simple.base / "configure.d" / "10-a.seen").read_text().split("\n")
    assert [json.loads(line)["a"] for line in seen if line] == [1, 3, 4]


def test_a_hup_while_paused_is_made_up_for(simple: Node) -> None:
    with simple.daemon() as daemon:
        simple.wait_for_outcomes(["success"])
        simple.command("pause", "an upgrade")
        daemon.signal(signal.SIGHUP)
        told_of_the_pause(daemon)
        simple.command("resume")
        simple.wait_for_outcomes(["success"] * 2)
    assert simple.rows("SELECT trigger FROM runs ORDER BY id")[-1] == ("signal",)


def test_a_pause_outlives_a_restart_and_even_a_kill(simple: Node) -> None:
    simple.command("pause", "an upgrade")
    with simple.daemon() as daemon:
        told_of_the_pause(daemon)
        daemon.signal(signal.SIGKILL)
        daemon.process.wait()
    with simple.daemon() as daemon:
        told_of_the_pause(daemon, 2)
        assert simple.outcomes() == []
        simple.command("resume")
        simple.wait_for_outcomes(["success"])


def test_resume_ends_a_back_off(simple: Node) -> None:
    """Who has mended what failed, and resumes, does not mean: some time."""
    simple.configure("[retry]\ninitial = 3000\nmaximum = 3000")
    broken = simple.root / "broken"
    broken.touch()
    simple.hook("configure/10-a", f"test ! -e {broken}")
    with simple.daemon() as daemon:
        daemon.wait_for_log("the next attempt is in")
        simple.command("pause", "to mend it")
        eventually(lambda: "paused" in (status(simple)["daemon"] or {})["doing"])
        broken.unlink()
        simple.command("resume")
        simple.wait_for_outcomes(["hook failed", "success"])


@pytest.mark.parametrize("arguments", [["--once"], ["--once", "--force"], ["run-phases"]])
def test_while_paused_nothing_runs_in_the_foreground_either(simple: Node, arguments: list[str]) -> None:
    simple.command("pause", "an upgrade")
    ended = simple.command(*arguments)
    assert ended.returncode == 6
    assert ": an upgrade; it ends with refresh-agent resume" in ended.stdout + ended.stderr
    assert simple.ran() == simple.outcomes() == []


def test_a_run_that_is_under_way_goes_on_when_it_is_paused(node: Node, busy: pathlib.Path) -> None:
    with node.daemon():
        eventually(node.ran)
        assert "a refresh is under way and goes on to its end" in node.command("pause", "now").stderr
        busy.touch()
        node.wait_for_outcomes(["success"])
        assert status(node)["health"] == "paused"
        node.command("resume")
