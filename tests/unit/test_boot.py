"""The first refresh after the node's boot, in this process, on a real tree with real hooks."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from refresh_agent import pause
from refresh_agent.cycle import Cycle, Edges, Result
from refresh_agent.errors import ExitCode
from refresh_agent.journal_file import Edge
from refresh_agent.model import MetadataLimits, RunAtBoot, Suspicious, Trigger
from refresh_agent.plan import Request
from refresh_agent.wakeup import Stop
from tests.unit.support import Tree, write_json

NEVER_AGAIN = "nothing changed since the last success"
BOOTED = "the node has booted since the last success"


class Node(Tree):
    """``boots`` is all that changes between two boots; ``changes`` are of its settings."""

    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self.stop = Stop()
        self.changes: dict[str, Any] = {}
        self._boots = 1
        write_json(self.metadata, {"a": 1})
        self.hook("configure/10-a", f"test ! -e {root}/broken")

    def boots(self) -> None:
        self._boots += 1

    def cycle(self) -> Cycle:
        edge = Edge(boot_id=lambda: f"boot {self._boots}", agent=f"an agent of boot {self._boots}")
        return Cycle(self.settings(**self.changes), self.stop, Edges(edge))

    def refresh(self, trigger: Trigger = Trigger.START, **request: Any) -> Result:
        return self.cycle().refresh(Request(trigger, **request))

    def breaks(self) -> None:
        """From now on its hook fails."""
        (self.root / "broken").touch()

    def is_mended(self) -> None:
        (self.root / "broken").unlink()


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.stop.close()


def test_the_hooks_run_after_every_boot_and_only_once(node: Node) -> None:
    assert node.refresh().run_id
    for number in (2, 3):
        node.boots()
        result = node.refresh()
        assert result.decision is not None
        assert (result.exit_code, result.decision.reason) == (ExitCode.OK, BOOTED)
        assert (result.decision.trigger, result.decision.attempt) == (Trigger.START, 1)
        assert NEVER_AGAIN in node.refresh().summary
        assert len(node.ran()) == number


def test_not_if_the_option_says_that_only_changes_count(node: Node) -> None:
    node.changes["run_at_boot"] = RunAtBoot.CHANGED
    node.refresh()
    node.boots()
    assert NEVER_AGAIN in node.refresh().summary
    node.changes["run_at_boot"] = RunAtBoot.ALWAYS
    assert node.refresh(Trigger.CHANGE).run_id


def test_what_was_left_unfinished_is_made_again_whatever_the_option_says(node: Node) -> None:
    node.changes["run_at_boot"] = RunAtBoot.CHANGED
    node.breaks()
    node.refresh()
    node.boots()
    node.is_mended()
    result = node.refresh()
    assert result.decision is not None
    assert (result.decision.trigger, result.decision.attempt) == (Trigger.RETRY, 2)
    assert result.decision.reason == "the last attempt failed in configure/10-a"


def test_a_change_while_the_node_was_down_is_one_run(node: Node) -> None:
    node.refresh()
    node.boots()
    write_json(node.metadata, {"a": 2})
    result = node.refresh()
    assert result.decision is not None
    assert result.decision.reason == "changed: heat_local"
    assert NEVER_AGAIN in node.refresh().summary


def test_if_it_fails_it_is_tried_again_as_any_other(node: Node) -> None:
    node.refresh()
    node.boots()
    node.breaks()
    assert node.refresh().exit_code is ExitCode.HOOK_FAILED
    node.is_mended()
    again = node.refresh(Trigger.RETRY)
    assert again.decision is not None
    assert (again.exit_code, again.decision.trigger, again.decision.attempt) == (
        ExitCode.OK,
        Trigger.RETRY,
        2,
    )
    assert NEVER_AGAIN in node.refresh().summary


def test_what_is_held_is_tried_once_in_each_boot(node: Node) -> None:
    node.changes["retry"] = node.settings().retry._replace(max_attempts=1)
    node.breaks()
    assert node.refresh(max_attempts=1).held
    assert "held after 1 attempts" in node.refresh(max_attempts=1).summary
    for number in (2, 3):
        node.boots()
        tried = node.refresh(max_attempts=1)
        assert (tried.exit_code, tried.held) == (ExitCode.HOOK_FAILED, True)
        held = node.refresh(max_attempts=1)
        assert (held.exit_code, held.run_id) == (ExitCode.HELD, "")
        assert f"held after {number} attempts" in held.summary


def test_what_is_held_stays_so_if_only_changes_count(node: Node) -> None:
    node.changes["retry"] = node.settings().retry._replace(max_attempts=1)
    node.changes["run_at_boot"] = RunAtBoot.CHANGED
    node.breaks()
    node.refresh(max_attempts=1)
    node.boots()
    assert node.refresh(max_attempts=1).exit_code is ExitCode.HELD


def test_a_pause_outlives_the_boot_and_the_run_follows_it(node: Node) -> None:
    node.refresh()
    pause.begin(str(node.state), "maintenance", 0.0)
    node.boots()
    assert node.refresh().exit_code is ExitCode.PAUSED
    assert len(node.ran()) == 1
    pause.end(str(node.state))
    result = node.refresh(Trigger.RETRY)
    assert result.decision is not None
    assert (result.decision.reason, result.decision.trigger) == (BOOTED, Trigger.START)


def test_what_the_sources_last_gave_is_run_where_they_give_nothing(node: Node) -> None:
    node.refresh()
    node.boots()
    node.metadata.unlink()
    assert node.refresh().run_id


def test_a_node_without_data_has_nothing_to_run_after_a_boot_either(node: Node) -> None:
    node.metadata.unlink()
    for _ in range(2):
        assert node.refresh().exit_code is ExitCode.NO_DATA
        node.boots()


def test_suspicious_metadata_is_held_back_and_the_last_good_runs(node: Node) -> None:
    node.changes["limits"] = MetadataLimits(suspicious=Suspicious.HOLD)
    node.hook("configure/20-seen", f'cp "$OS_CONFIG_FILES" {node.root}/seen')
    node.refresh()
    node.boots()
    write_json(node.metadata, {"a": ""})
    (node.root / "seen").unlink()
    assert node.refresh().run_id
    assert json.loads((node.root / "seen").read_text()) == {"a": 1}
    assert node.refresh().exit_code is ExitCode.HELD


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_by_hand_is_not_the_boots_refresh(node: Node, fails: bool) -> None:
    node.refresh()
    node.boots()
    if fails:
        node.hook("pre-configure/10-a", f"test ! -e {node.root}/broken")
        node.breaks()
    assert node.cycle().run_phases(None, joined=True).quiesced is fails
    if fails:
        node.is_mended()
    result = node.refresh()
    assert result.decision is not None
    assert (result.exit_code, result.decision.reason) == (ExitCode.OK, BOOTED)
    assert not result.quiesced
    assert NEVER_AGAIN in node.refresh().summary


def test_what_is_taken_over_from_os_collect_config_runs_only_after_the_next_boot(node: Node) -> None:
    node.cache.mkdir()
    for name in ("heat_local.json", "heat_local.json.orig", "heat_local.json.last"):
        write_json(node.cache / name, {"a": 1})
    write_json(node.cache / "os_config_files.json", [str(node.cache / "heat_local.json")])
    for _ in range(2):
        assert NEVER_AGAIN in node.refresh().summary
    node.boots()
    assert node.refresh().run_id
