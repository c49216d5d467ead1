"""The installed daemon and ``--once`` on a node that has booted: what ran, ran in another boot."""

import contextlib
import json
import sqlite3

import pytest

from tests.functional.node import Node
from tests.waiting import eventually

TOLD = 'echo "$REFRESH_AGENT_TRIGGER $REFRESH_AGENT_ATTEMPT [$REFRESH_AGENT_CHANGED]" >> "$0.told"'


@pytest.fixture
def booted(node: Node) -> Node:
    """A node that was brought up to date before it booted."""
    node.hook("configure/10-a", TOLD)
    node.metadata({"a": 1})
    assert node.once().returncode == 0
    boot(node)
    return node


def boot(node: Node) -> None:
    with contextlib.closing(sqlite3.connect(node.state / "journal.sqlite")) as db, db:
        db.execute("UPDATE runs SET boot_id = 'a boot before' WHERE boot_id <> 'a boot before'")


def told(node: Node) -> list[str]:
    return (node.base / "configure.d" / "10-a.told").read_text().splitlines()


def test_the_daemon_runs_the_hooks_as_it_starts_and_not_again_when_it_is_restarted(booted: Node) -> None:
    with booted.daemon() as daemon:
        booted.wait_for_outcomes(["success", "success"])
    assert told(booted) == ["once 1 [heat_local]", "start 1 []"]
    assert "the node has booted since the last success" in daemon.log()
    with booted.daemon() as daemon:
        daemon.wait_for_log("nothing changed since the last success")
    assert booted.outcomes() == ["success", "success"]


def test_once_does_it_too(booted: Node) -> None:
    first = booted.once("--json")
    assert (first.returncode, json.loads(first.stdout)["action"]) == (0, "run")
    assert told(booted)[1:] == ["once 1 []"]
    assert "nothing changed" in booted.once().stdout


def test_with_changed_a_boot_alone_runs_nothing(booted: Node) -> None:
    booted.configure(run_at_boot="changed")
    assert "nothing changed" in booted.once().stdout
    booted.metadata({"a": 2})
    assert booted.once().returncode == 0
    assert told(booted)[1:] == ["once 1 [heat_local]"]


def test_held_before_the_boot_the_daemon_tries_it_once_more(node: Node) -> None:
    node.configure("[retry]\ninitial = 0.1\nmaximum = 0.2\nmax_attempts = 2")
    node.hook("configure/10-a", f"{TOLD}; exit 1")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        daemon.wait_for_log("held until the metadata changes")
    boot(node)
    with node.daemon() as daemon:
        node.wait_for_outcomes(["hook failed"] * 3)
        eventually(lambda: daemon.log().count("held until the metadata changes") == 2)
        status = node.command("status", "--json")
    assert json.loads(status.stdout)["health"] == "held"
    assert told(node) == ["start 1 [heat_local]", "retry 2 [heat_local]", "start 3 [heat_local]"]


def test_a_value_that_nobody_knows_is_told_with_those_that_are(node: Node) -> None:
    node.configure(run_at_boot="never")
    checked = node.command("check-config")
    assert checked.returncode == 2
    assert "run_at_boot" in checked.stderr
    assert "always, changed" in checked.stderr
