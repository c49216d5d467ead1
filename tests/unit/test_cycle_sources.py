"""What a refresh makes of its sources: a cache to take over, metadata that is held, a source that is mute."""

import json
import logging
import pathlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from refresh_agent import collectors
from refresh_agent.collectors import Polled
from refresh_agent.cycle import Cycle, Result
from refresh_agent.errors import ExitCode
from refresh_agent.model import CollectorSettings, Document, MetadataLimits, Snapshot, Suspicious, Trigger
from refresh_agent.plan import Action, Request
from refresh_agent.wakeup import Stop
from tests.unit.support import LIMITS, Tree, write_json
from tests.waiting import eventually


class Remote(Polled):
    """A polled source; the test says what it gives by its class."""

    content: Any = None
    error = ""
    unchanged = False
    unconfigured: frozenset[str] = frozenset()

    def __init__(self, name: str) -> None:
        self.name = name

    def collect(self) -> Snapshot:
        if self.error:
            return Snapshot(self.name, error=self.error)
        if self.name in self.unconfigured:
            return Snapshot(self.name, error="url is not set", absent=True, unconfigured=True)
        if self.unchanged:
            return Snapshot(self.name, unchanged=True)
        raw = json.dumps(self.content).encode()
        return Snapshot(self.name, (Document(self.name, raw),), deployment_keys=("deployments",))


class Node(Tree):
    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self.stop = Stop()
        self.limits = LIMITS
        self.names = ["remote", "heat_local"]
        self.backup = root / "backup"
        write_json(self.metadata, {"a": 1})
        self.hook("configure/10-a", f'echo "$OS_CONFIG_FILES" > {root}/files')

    def cycle(self) -> Cycle:
        options: Mapping[str, Any] = {"path": [str(self.metadata)]}
        chosen = tuple(CollectorSettings(name, options) for name in self.names)
        changes = {"collectors": chosen, "limits": self.limits, "backup_cachedir": str(self.backup)}
        return Cycle(self.settings(**changes), self.stop)

    def refresh(self, trigger: Trigger = Trigger.START, **request: Any) -> Result:
        return self.cycle().refresh(Request(trigger, **request))

    def files(self) -> list[str]:
        return [pathlib.Path(path).name for path in (self.root / "files").read_text().strip().split(":")]


@pytest.fixture
def node(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    build = collectors.build

    def with_remotes(settings: CollectorSettings, limits: MetadataLimits) -> collectors.Collector:
        is_remote = settings.name.startswith("remote")
        return Remote(settings.name) if is_remote else build(settings, limits)

    monkeypatch.setattr(collectors, "build", with_remotes)
    monkeypatch.setattr(Remote, "content", {"remote": 1})
    monkeypatch.setattr(Remote, "error", "")
    node = Node(tmp_path)
    yield node
    node.stop.close()


def test_polled_and_watched_sources_are_merged_in_their_order(node: Node) -> None:
    assert node.refresh().exit_code is ExitCode.OK
    assert node.files() == ["remote.json", "heat_local.json"]


def test_a_source_that_is_down_costs_no_document(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """os-collect-config defect 2: the command runs with that file missing."""
    node.refresh()
    monkeypatch.setattr(Remote, "error", "connection refused")
    write_json(node.metadata, {"a": 2})
    assert node.refresh(Trigger.CHANGE).run_id
    assert node.files() == ["remote.json", "heat_local.json"]
    monkeypatch.setattr(Remote, "error", "")
    assert not node.refresh(Trigger.CHANGE).run_id


def test_the_cache_is_os_collect_configs(node: Node) -> None:
    node.refresh()
    names = {path.name for path in node.cache.iterdir()}
    assert names == {
        *("remote.json", "remote.json.orig", "remote.json.last"),
        *("heat_local.json", "heat_local.json.orig", "heat_local.json.last"),
        "os_config_files.json",
    }


# --- a cache that os-collect-config left ---


def leave_cache(node: Node, **contents: Any) -> None:
    node.cache.mkdir()
    for name, content in contents.items():
        for suffix in ("", ".orig", ".last"):
            write_json(node.cache / f"{name}.json{suffix}", content)
    write_json(node.cache / "os_config_files.json", [str(node.cache / f"{name}.json") for name in contents])


def test_nothing_runs_after_the_switch_if_nothing_changed(node: Node, log: pytest.LogCaptureFixture) -> None:
    leave_cache(node, remote={"remote": 1}, heat_local={"a": 1})
    result = node.refresh()
    assert (result.exit_code, result.run_id, node.ran()) == (ExitCode.OK, "", [])
    assert f"{node.cache}: taken over, and nothing changed since" in log.text
    shutil.rmtree(node.cache)  # from now on the journal knows
    assert node.refresh().run_id == ""
    write_json(node.metadata, {"a": 2})
    assert node.refresh(Trigger.CHANGE).decision.changed == ("heat_local",)  # type: ignore[union-attr]


def test_what_changed_since_the_switch_is_run_and_named(node: Node) -> None:
    leave_cache(node, remote={"remote": 0}, heat_local={"a": 1})
    result = node.refresh()
    assert result.decision is not None
    assert result.decision.changed == ("remote",)
    assert node.ran() == ["configure/10-a"]


def test_what_a_queue_gave_before_the_switch_is_still_what_it_gave(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os-collect-config has popped it: the queue is empty, and without it the node's credentials would go."""
    leave_cache(
        node,
        remote={"remote": 1, "deployments": [{"name": "d", "config": {"x": 1}}]},
        d={"x": 1},
        heat_local={"a": 1},
    )
    monkeypatch.setattr(Remote, "unchanged", True)
    assert (node.refresh().run_id, node.ran()) == ("", [])
    write_json(node.metadata, {"a": 2})
    assert node.refresh(Trigger.CHANGE).run_id
    assert node.files() == ["remote.json", "d.json", "heat_local.json"]


def test_a_file_that_only_lies_about_in_the_cache_is_nobodys_metadata(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os-collect-config defect 13: what is of no use any more stays for ever."""
    leave_cache(node, heat_local={"a": 1})
    write_json(node.cache / "remote.json", {"of": "another time"})
    monkeypatch.setattr(Remote, "error", "down")
    assert (node.refresh().run_id, node.ran()) == ("", [])


def test_a_queue_that_was_switched_to_and_is_empty_does_not_cost_the_source_before(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.refresh()
    node.names = ["remote2", "heat_local"]
    monkeypatch.setattr(Remote, "unchanged", True)
    result = node.refresh(Trigger.CHANGE)
    assert (result.exit_code, result.run_id) == (ExitCode.NO_DATA, "")
    assert "remote would be dropped, but source remote2: has given nothing yet" in result.summary
    assert node.refresh(Trigger.ONCE, force=True).run_id
    assert node.files() == ["heat_local.json"]


def test_a_torn_cache_is_not_believed(node: Node) -> None:
    """os-collect-config writes .last without fsync, and ends at each start if one is torn."""
    leave_cache(node, remote={"remote": 1}, heat_local={"a": 1})
    (node.cache / "remote.json.last").write_text("")
    assert node.refresh().run_id
    assert (node.cache / "remote.json.last").read_bytes() == (node.cache / "remote.json").read_bytes()


def test_a_last_that_a_killed_agent_did_not_write_is_made_up_for(node: Node) -> None:
    node.refresh()
    (node.cache / "remote.json.last").unlink()
    assert node.refresh().run_id == ""
    assert (node.cache / "remote.json.last").exists()


# --- metadata that is held, sources that are mute ---


def test_metadata_that_is_held_back_is_told_by_the_exit_code_until_it_is_confirmed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.limits = LIMITS._replace(suspicious=Suspicious.HOLD)
    node.refresh()
    monkeypatch.setattr(Remote, "content", {})
    result = node.refresh(Trigger.ONCE)
    assert (result.exit_code, result.run_id) == (ExitCode.HELD, "")
    assert result.summary == "hold: source remote: remote has turned blank"
    write_json(node.metadata, {"a": 2})
    assert node.refresh(Trigger.CHANGE).exit_code is ExitCode.OK  # what is not held is run
    assert json.loads((node.cache / "remote.json").read_text()) == {"remote": 1}
    assert node.refresh(Trigger.ONCE, force=True).exit_code is ExitCode.OK
    assert json.loads((node.cache / "remote.json").read_text()) == {}
    assert node.refresh(Trigger.ONCE).exit_code is ExitCode.OK


def test_a_source_that_was_switched_to_and_is_mute_does_not_cost_the_one_before(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks would write a configuration without the credentials that the old one's metadata held."""
    node.refresh()
    node.names = ["remote2", "heat_local"]
    monkeypatch.setattr(Remote, "error", "401 Unauthorized")
    result = node.refresh(Trigger.CHANGE)
    assert (result.exit_code, result.run_id) == (ExitCode.NO_DATA, "")
    assert result.summary.startswith("hold: remote would be dropped, but source remote2: 401 Unauthorized")
    monkeypatch.setattr(Remote, "error", "")
    assert node.refresh(Trigger.CHANGE).run_id
    assert node.files() == ["remote2.json", "heat_local.json"]


def test_a_source_that_was_switched_to_and_has_yet_to_answer_does_not_cost_the_one_before(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.refresh()
    node.names = ["remote2", "heat_local"]
    gate = threading.Event()
    collect = Remote.collect

    def wait_and_collect(remote: Remote) -> Snapshot:
        assert gate.wait(20)
        return collect(remote)

    monkeypatch.setattr(Remote, "collect", wait_and_collect)
    changes: list[int] = []
    cycle = node.cycle()
    cycle.poll(lambda: changes.append(1))
    result = cycle.refresh(Request(Trigger.CHANGE))
    assert result.summary.startswith(
        "hold: remote would be dropped, but source remote2: has not answered yet;"
    )
    gate.set()
    eventually(lambda: changes)
    assert cycle.refresh(Request(Trigger.CHANGE)).run_id
    cycle.close()


def test_a_source_that_is_not_configured_any_more_gives_way_to_the_one_that_is(
    node: Node, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """All are in os-collect-config's default list: the old one's metadata would win over the new one's."""
    node.names = ["remote", "remote2", "heat_local"]
    monkeypatch.setattr(Remote, "unconfigured", frozenset({"remote"}))
    node.refresh()
    assert node.files() == ["remote2.json", "heat_local.json"]
    monkeypatch.setattr(Remote, "unconfigured", frozenset({"remote2"}))
    assert node.refresh(Trigger.CHANGE).run_id
    assert node.files() == ["remote.json", "heat_local.json"]
    assert not (node.cache / "remote2.json").exists()
    monkeypatch.setattr(Remote, "unconfigured", frozenset())
    monkeypatch.setattr(Remote, "error", "down")  # it comes back, and has nothing: what it gave then is gone
    assert not node.refresh(Trigger.CHANGE).run_id


def test_a_configuration_that_lost_its_only_source_does_not_cost_the_metadata(
    node: Node, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """heat-container-agent's was cleared at a restart, and the agent stopped working."""
    node.refresh()
    monkeypatch.setattr(Remote, "unconfigured", frozenset({"remote"}))
    write_json(node.metadata, {"a": 2})
    assert node.refresh(Trigger.CHANGE).run_id
    assert node.files() == ["remote.json", "heat_local.json"]
    assert "what it gave last counts until another source takes its place" in log.text


def test_a_source_that_was_there_all_along_takes_nobodys_place(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ec2, which os-collect-config's default list names, and which is always configured."""
    node.names = ["remote", "remote2"]
    node.refresh()
    monkeypatch.setattr(Remote, "unconfigured", frozenset({"remote"}))
    assert not node.refresh().run_id
    assert node.refresh(Trigger.SIGNAL).run_id
    assert node.files() == ["remote.json", "remote2.json"]


def test_a_source_that_was_removed_and_comes_back_has_given_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it gave long ago would win over what is in force."""
    node.refresh()
    node.names = ["remote2", "heat_local"]
    assert node.refresh(Trigger.CHANGE).run_id
    assert not (node.state / "sources" / "remote.json").exists()
    assert not (node.state / "sources" / "remote").exists()
    node.names = ["remote", "heat_local"]
    monkeypatch.setattr(Remote, "error", "503")
    result = node.refresh(Trigger.CHANGE)
    assert (result.exit_code, result.run_id) == (ExitCode.NO_DATA, "")
    assert "remote2 would be dropped, but source remote: 503" in result.summary


def test_a_lost_journal_is_not_a_cache_that_os_collect_config_left(node: Node) -> None:
    """What was run last may not have been brought to its end."""
    node.refresh()
    for path in node.state.glob("journal.sqlite*"):
        path.unlink()
    assert node.refresh().run_id


def test_a_copy_that_cannot_be_made_is_told_and_stops_nothing(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    node.backup.write_text("in the way")
    assert node.refresh().exit_code is ExitCode.OK
    assert node.refresh().exit_code is ExitCode.OK
    assert f"{node.backup}: the cache cannot be written" in log.text
    assert "backup_cachedir" in log.text


def test_on_a_new_node_a_mute_source_keeps_nobody_from_running(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the others give may be what it needs to become reachable."""
    monkeypatch.setattr(Remote, "error", "network is unreachable")
    assert node.refresh().run_id
    assert node.files() == ["heat_local.json"]


def test_a_collector_that_raises_is_a_source_that_is_down(
    node: Node, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """os-collect-config defect 5: an exception that it does not know ends it."""

    def collect(_self: Remote) -> Snapshot:
        raise ValueError("the password is geheim")

    monkeypatch.setattr(Remote, "collect", collect)
    assert node.refresh().run_id
    assert "source remote: its collector failed: ValueError" in log.text
    told = [record.getMessage() for record in log.records if record.levelno > logging.DEBUG]
    assert not [line for line in told if "geheim" in line]


@pytest.mark.parametrize(
    "given",
    [
        None,
        {"a": 1},
        Snapshot("remote", ({"a": 1},)),  # type: ignore[arg-type]
        Snapshot("remote", (Document("remote", "{}"),)),  # type: ignore[arg-type]
        Snapshot("remote", (Document("remote", None),)),
    ],
)
def test_a_collector_that_gives_anything_else_is_a_source_that_is_down(
    node: Node, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture, given: Any
) -> None:
    monkeypatch.setattr(Remote, "collect", lambda _self: given)
    assert node.refresh().run_id
    assert "source remote: its collector failed: TypeError" in log.text


def test_a_collectors_names_cannot_leave_the_store(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = (Document("../../evil", b"{}"), Document("../../evil", b"{}"))
    monkeypatch.setattr(Remote, "collect", lambda _self: Snapshot("remote", documents))
    assert node.refresh().run_id
    assert len(node.files()) == 3
    assert not list(node.root.glob("evil*"))


def test_a_collector_that_cannot_take_note_is_told_and_its_content_is_used(
    node: Node, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def stored(_self: Remote) -> None:
        raise KeyError("x")

    monkeypatch.setattr(Remote, "stored", stored)
    assert node.refresh().run_id
    assert "source remote: its collector failed: KeyError" in log.text


def test_threads_collect_between_the_refreshes(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    cycle = node.cycle()
    changes: list[int] = []
    cycle.poll(lambda: changes.append(1))
    assert cycle.refresh(Request(Trigger.START)).run_id
    assert node.files() == ["remote.json", "heat_local.json"]
    monkeypatch.setattr(Remote, "content", {"remote": 2})
    assert cycle.refresh(Request(Trigger.SIGNAL)).decision.changed == ("remote",)  # type: ignore[union-attr]
    monkeypatch.setattr(Remote, "content", {"remote": 3})
    before = len(changes)
    eventually(lambda: len(changes) > before)  # within the least interval: something has just changed
    assert cycle.refresh(Request(Trigger.CHANGE)).decision.action is Action.RUN  # type: ignore[union-attr]
    cycle.close()
