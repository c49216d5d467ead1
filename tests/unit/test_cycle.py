"""One refresh, in this process, on real trees with real hooks: what the functional tests do not look into."""

import fcntl
import json
import logging
import os
import pathlib
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from refresh_agent import pause, run
from refresh_agent.cycle import Cycle, Result
from refresh_agent.errors import ExitCode, LockedError, StateError
from refresh_agent.journal import Journal
from refresh_agent.model import CollectorSettings, RetrySettings, Settings, Target, Trigger
from refresh_agent.plan import Action, Request
from refresh_agent.wakeup import Stop
from tests.unit.support import Tree, looping_link, open_descriptors, write_json


class Node(Tree):
    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self.stop = Stop()
        self.changes: dict[str, Any] = {}
        write_json(self.metadata, {"a": 1})

    def cycle(self) -> Cycle:
        return Cycle(self.settings(**self.changes), self.stop)

    def refresh(self, trigger: Trigger = Trigger.CHANGE, **request: Any) -> Result:
        return self.cycle().refresh(Request(trigger, **request))

    def printed(self) -> dict[str, str]:
        """The variables that ``hook("…", PRINT)`` has written."""
        text = (self.root / "env").read_text()
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


PRINT = 'env | grep -E "^(OS_CONFIG_FILES|REFRESH_AGENT_|NOTIFY|WATCHDOG)" > "$OUT"'


@pytest.fixture
def node(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setenv("OUT", str(tmp_path / "env"))
    node = Node(tmp_path)
    yield node
    node.stop.close()


def test_a_success_is_committed_and_then_nothing_runs(node: Node, log: pytest.LogCaptureFixture) -> None:
    node.hook("configure/10-a")
    result = node.refresh(Trigger.START)
    assert (result.exit_code, result.failure) == (ExitCode.OK, None)
    assert "1 hook," in result.summary
    assert "success in" in result.summary
    assert "(1 phase, 1 hook, 0 databases)" in result.summary
    again = node.refresh()
    assert (again.exit_code, again.run_id) == (ExitCode.OK, "")
    assert again.decision is not None
    assert again.decision.action is Action.NOOP
    assert node.ran() == ["configure/10-a"]
    assert "configure/10-a: done after" in log.text


def test_a_change_is_told_by_its_keys_and_not_by_its_values(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    node.refresh()
    write_json(node.metadata, {"a": 2, "secret": {"password": "geheim"}})
    log.clear()
    node.refresh()
    assert "changed in heat_local: a, secret" in log.text
    assert "geheim" not in log.text


def test_many_changed_keys_are_told_in_short(node: Node, log: pytest.LogCaptureFixture) -> None:
    node.refresh()
    write_json(node.metadata, {"a": 1, **{f"k{number:02}": 1 for number in range(12)}})
    node.refresh()
    assert "changed in heat_local: k00, k01, k02, k03, k04, k05, k06, k07 and 4 more" in log.text


def test_contents_too_large_to_compare_are_run_all_the_same(
    node: Node, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "COMPARABLE", 5)
    node.refresh()
    write_json(node.metadata, {"a": 2})
    assert node.refresh().run_id
    assert "changed in" not in log.text


def test_what_was_committed_may_be_gone(node: Node) -> None:
    """It is only for the log: a run must not fail for it."""
    current = node.cycle()
    current.refresh(Request(Trigger.START))
    for path in (node.state / "sources" / "heat_local").iterdir():
        path.unlink()
    write_json(node.metadata, {"a": 2})
    assert current.refresh(Request(Trigger.CHANGE)).exit_code is ExitCode.OK


def test_a_hook_is_told_about_its_run(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(node.root / "nobody"))
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    monkeypatch.setenv("OS_CONFIG_FILES", "/stale")
    monkeypatch.setenv("REFRESH_AGENT_INTERRUPTED", "stale")
    node.hook("configure/10-a", PRINT)
    result = node.refresh(Trigger.START)
    told = node.printed()
    assert told.pop("REFRESH_AGENT_HOOK_ID")
    assert told == {
        "OS_CONFIG_FILES": f"{node.cache}/heat_local.json",
        "REFRESH_AGENT_RUN_ID": result.run_id,
        "REFRESH_AGENT_PHASE": "configure",
        "REFRESH_AGENT_TRIGGER": "start",
        "REFRESH_AGENT_ATTEMPT": "1",
        "REFRESH_AGENT_CHANGED": "heat_local",
    }
    assert json.loads((node.cache / "os_config_files.json").read_text()) == [f"{node.cache}/heat_local.json"]


def test_a_failure_keeps_the_commit_runs_error_hooks_and_is_retried(node: Node) -> None:
    node.refresh()
    write_json(node.metadata, {"a": 2})
    node.hook("configure/10-a", f"test -e {node.root}/fixed")
    node.hook("error/10-a", PRINT)
    result = node.refresh()
    assert result.exit_code is ExitCode.HOOK_FAILED
    assert "failed after" in result.summary
    assert ": configure/10-a: failed with status 1" in result.summary
    assert node.printed()["REFRESH_AGENT_FAILED_HOOK"] == "10-a"
    assert "1 hook," in result.summary
    (node.root / "fixed").touch()
    node.hook("post-configure/10-a", PRINT)
    again = node.refresh(Trigger.RETRY)
    assert again.exit_code is ExitCode.OK
    assert again.decision is not None
    assert (again.decision.trigger, again.decision.attempt) == (Trigger.RETRY, 2)
    assert node.printed()["REFRESH_AGENT_ATTEMPT"] == "2"
    assert "REFRESH_AGENT_INTERRUPTED" not in node.printed()


def test_a_run_that_was_killed_is_made_again_and_told_where_it_stood(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    node.hook("configure/10-a", PRINT)
    node.refresh()
    with sqlite3.connect(node.state / "journal.sqlite") as db:
        db.execute("UPDATE runs SET outcome = NULL, ended_at = NULL")
        db.execute("UPDATE hooks SET outcome = NULL")
        db.execute("UPDATE phases SET outcome = NULL")
        db.execute("DELETE FROM committed")
    db.close()
    result = node.refresh(Trigger.START)
    assert result.decision is not None
    assert (result.decision.action, result.decision.attempt) == (Action.RETRY, 2)
    assert node.printed()["REFRESH_AGENT_INTERRUPTED"] == "configure/10-a"
    assert "was interrupted" in log.text


def test_no_data_is_3_and_says_why(node: Node) -> None:
    node.metadata.unlink()
    result = node.refresh()
    assert (result.exit_code, result.decision) == (ExitCode.NO_DATA, None)
    assert str(node.metadata) in result.summary


def test_after_max_attempts_it_is_held(node: Node) -> None:
    node.changes["retry"] = RetrySettings(0.1, 0.2, 2)
    node.hook("configure/10-a", "exit 1")
    for _ in range(2):
        assert node.refresh(max_attempts=2).exit_code is ExitCode.HOOK_FAILED
    held = node.refresh(max_attempts=2)
    assert (held.exit_code, held.run_id) == (ExitCode.HELD, "")
    assert "held after 2 attempts" in held.summary
    assert node.refresh(Trigger.SIGNAL, max_attempts=2).exit_code is ExitCode.HOOK_FAILED
    write_json(node.metadata, {"a": 2})
    assert node.refresh(max_attempts=2).run_id


def test_a_stop_before_anything_is_decided_runs_nothing_and_records_nothing(node: Node) -> None:
    """The collection may have been cut short: what is missing is not gone."""
    node.hook("configure/10-a")
    node.hook("error/10-a")
    node.stop.request(signal.SIGTERM)
    result = node.refresh()
    assert (result.stopped, result.run_id) == (True, "")
    assert node.ran() == []
    assert not node.cache.exists()
    node.stop = Stop()
    assert node.refresh(Trigger.START).run_id


def test_while_another_refresh_runs_it_does_not(node: Node) -> None:
    node.hook("configure/10-a")
    current = node.cycle()
    with node.lock.open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(LockedError):
            current.refresh(Request(Trigger.CHANGE))
    assert node.ran() == []
    assert current.refresh(Request(Trigger.CHANGE)).exit_code is ExitCode.OK


def test_beside_os_collect_config_hooks_read_its_own_files_and_nothing_is_written_there(node: Node) -> None:
    theirs = [write_json(node.root / "occ" / name, {"from": name}) for name in ("heat.json", "cfn.json")]
    listing = write_json(node.root / "occ" / "os_config_files.json", [str(path) for path in theirs])
    node.changes["collectors"] = (CollectorSettings("os_collect_config", {"files_list": str(listing)}),)
    node.hook("configure/10-a", PRINT)
    node.refresh()
    assert node.printed()["OS_CONFIG_FILES"] == ":".join(map(str, theirs))
    assert not node.cache.exists()
    theirs[1].write_text('{"from"')
    write_json(theirs[0], {"from": "changed"})
    node.refresh()
    first, second = node.printed()["OS_CONFIG_FILES"].split(":")
    assert first == str(theirs[0])
    assert json.loads(pathlib.Path(second).read_text()) == {"from": "cfn.json"}
    assert node.printed()["REFRESH_AGENT_CHANGED"] == "heat"


def test_a_cache_that_cannot_be_written_ends_the_run_before_its_first_hook(node: Node) -> None:
    node.cache.write_text("")
    node.hook("configure/10-a")
    with pytest.raises(StateError, match="cache cannot be written"):
        node.refresh()
    assert node.ran() == []
    node.cache.unlink()
    assert node.refresh().exit_code is ExitCode.OK


@pytest.mark.parametrize("kind", ["file", "loop", "sources is a file"])
def test_a_state_directory_that_cannot_be_made_is_named_with_its_option(node: Node, kind: str) -> None:
    if kind == "file":
        node.state.write_text("")
    elif kind == "loop":
        looping_link(node.state)
    else:
        node.state.mkdir()
        (node.state / "sources").write_text("")
    with pytest.raises(StateError, match=r"see \[DEFAULT\] state_dir") as caught:
        node.cycle()
    assert str(node.state) in str(caught.value)


def test_a_journal_that_fails_in_the_middle_does_not_leave_the_node_quiesced(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    """The phases go on, so that post-configure activates the node again; the run is made once more."""
    statements = "DROP TABLE phases; DROP TABLE hooks; DROP TABLE committed"
    python = f"import sqlite3; sqlite3.connect('{node.state}/journal.sqlite').executescript('{statements}')"
    node.hook("pre-configure/10-a", f'{sys.executable} -c "{python}"')
    node.hook("post-configure/10-a")
    node.hook("pre-configure/20-b")
    result = node.refresh()
    assert result.exit_code is ExitCode.STATE
    assert "the success is not recorded" in result.summary
    assert node.ran() == ["pre-configure/10-a", "pre-configure/20-b", "post-configure/10-a"]
    assert "not recorded: " in log.text


def test_a_store_that_fails_after_the_commit_is_told_and_the_commit_holds(
    node: Node, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = node.cycle()

    def commit(_documents: object) -> None:
        raise StateError("/state: no space")

    monkeypatch.setattr(current.sources, "commit", commit)
    assert current.refresh(Request(Trigger.START)).exit_code is ExitCode.OK
    assert "not recorded: /state: no space" in log.text
    assert node.refresh().run_id == ""


def migration(node: Node, *lines: str, status: int = 0) -> Target:
    """A target whose interpreter says these lines."""
    python = node.root / "python"
    body = "\n".join(f"echo '{line}'" for line in lines)
    python.write_text(f"#!/bin/bash\ncat >/dev/null\n{body}\nexit {status}\n")
    python.chmod(0o755)
    return Target("shop", "sqlite:////shop.db", str(python), str(python), alembic_config="/alembic.ini")


def answer(result: str, **fields: object) -> str:
    return json.dumps({"target": "shop", "event": "result", "result": result, **fields})


def test_databases_are_migrated_after_every_phase(node: Node, log: pytest.LogCaptureFixture) -> None:
    node.hook("migration/10-a")
    node.changes["targets"] = (migration(node, answer("done", before="migrate 2", after="alembic b7")),)
    result = node.refresh()
    assert result.exit_code is ExitCode.OK
    assert [(m.target, m.before, m.after) for m in result.migrations] == [("shop", "migrate 2", "alembic b7")]
    assert "1 database)" in result.summary
    assert "migration: shop: migrate 2 -> alembic b7" in log.text


def test_a_migration_that_fails_is_4_and_runs_error_hooks(node: Node) -> None:
    node.hook("error/10-a", PRINT)
    node.changes["targets"] = (migration(node, answer("refused", message="nothing mapped")),)
    result = node.refresh()
    assert result.exit_code is ExitCode.MIGRATION_FAILED
    assert result.failure is not None
    assert "nothing mapped" in result.failure.reason
    assert node.printed()["REFRESH_AGENT_FAILED_HOOK"] == "migration:shop"
    assert node.refresh(Trigger.RETRY).decision is not None


HELD = "held by host web-2, pid 4711, run 3fa1c2d4"


def test_a_database_that_somebody_else_migrates_defers_the_run(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    node.hook("error/10-a")
    node.hook("configure/10-a", PRINT)
    node.changes["targets"] = (migration(node, answer("deferred", message=HELD)),)
    for _ in range(3):
        result = node.refresh(Trigger.RETRY)
        assert result.exit_code is ExitCode.LOCKED
        assert result.decision is not None
        assert result.decision.attempt == 1
        assert node.printed()["REFRESH_AGENT_ATTEMPT"] == "1"
        assert f"deferred after {result.seconds:.2f} s" in result.summary
        assert HELD in result.summary
        assert "error/10-a" not in node.ran()
    assert "was deferred in migration/migration:shop" in log.text
    assert not [record for record in log.records if record.levelno >= logging.ERROR]
    node.changes["targets"] = (migration(node, answer("done")),)
    assert node.refresh(Trigger.RETRY).exit_code is ExitCode.OK
    assert node.refresh().run_id == ""


def test_what_is_deferred_is_never_held(node: Node) -> None:
    node.changes["targets"] = (migration(node, answer("deferred", message=HELD)),)
    for _ in range(3):
        result = node.refresh(Trigger.RETRY, max_attempts=1)
        assert result.decision is not None
        assert result.decision.action in {Action.RUN, Action.RETRY}


def test_a_failure_beside_it_is_a_failure(node: Node) -> None:
    deferred = migration(node, answer("deferred", message=HELD))
    missing = replace(deferred, name="other", python="/nowhere/python", legacy_python="")
    node.changes["targets"] = (deferred, missing)
    result = node.refresh()
    assert result.exit_code is ExitCode.MIGRATION_FAILED
    assert result.failure is not None
    assert result.failure.hook == "migration:other"
    assert [each.outcome for each in result.migrations] == ["deferred", "failed"]


def test_a_database_whose_tree_anybody_may_write_is_refused(node: Node) -> None:
    target = migration(node, answer("done"))
    (node.root / "python").chmod(0o777)
    node.changes["targets"] = (target,)
    result = node.refresh()
    assert result.exit_code is ExitCode.MIGRATION_FAILED
    assert f"{node.root}/python is writable by everybody ([phases] trust)" in result.summary


def test_the_secret_of_a_services_own_configuration_is_masked(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    conf = node.root / "shop.conf"
    node.hook("configure/10-a", f"printf '[database]\\nconnection = mysql://a:open-sesame@db/x\\n' > {conf}")
    target = migration(node, "psycopg2: open-sesame is wrong", answer("failed", message="no: open-sesame"))
    node.changes["targets"] = (replace(target, connection="", connection_from=str(conf)),)
    result = node.refresh()
    assert result.exit_code is ExitCode.MIGRATION_FAILED
    assert "shop: no: ***" in result.summary
    assert "shop: psycopg2: *** is wrong" in log.text
    assert "open-sesame" not in log.text + result.summary


def test_databases_are_left_alone_when_a_phase_fails(node: Node) -> None:
    node.hook("migration/10-a", "exit 1")
    node.changes["targets"] = (migration(node, answer("done")),)
    result = node.refresh()
    assert (result.exit_code, result.migrations) == (ExitCode.HOOK_FAILED, ())


def test_a_refresh_leaves_no_descriptor_open(node: Node) -> None:
    node.hook("configure/10-a")
    node.refresh()
    before = open_descriptors()
    for number in range(5):
        write_json(node.metadata, {"a": number})
        node.refresh()
    assert open_descriptors() == before


def test_the_run_is_journalled_before_its_first_hook(node: Node) -> None:
    node.hook("configure/10-a", f"cp {node.state}/journal.sqlite* {node.root}/")
    node.refresh()
    copy = node.root / "copy"
    copy.mkdir()
    for path in node.root.glob("journal.sqlite*"):
        shutil.copy(path, copy)
    journal = Journal(str(copy))
    unfinished = journal.history().unfinished
    journal.close()
    assert unfinished is not None
    assert unfinished.interrupted


def test_the_log_tells_how_long_things_took(node: Node, log: pytest.LogCaptureFixture) -> None:
    node.hook("configure/10-a", "sleep 0.1")
    began = time.monotonic()
    result = node.refresh()
    assert 0.1 <= result.seconds <= time.monotonic() - began
    assert all(record.levelno <= logging.INFO for record in log.records)


def test_settings_are_not_changed_by_a_refresh(node: Node) -> None:
    settings: Settings = node.settings()
    node.refresh()
    assert node.settings() == settings
    assert os.environ["OUT"]


@pytest.mark.parametrize("how", ["damaged", "emptied", "gone"])
def test_what_a_lost_journal_knew_is_not_taken_from_os_collect_configs_cache(
    node: Node, log: pytest.LogCaptureFixture, how: str
) -> None:
    """The node may be quiesced, for something else than what the cache says was brought onto it."""
    node.cache.mkdir()
    for name in ("heat_local.json", "heat_local.json.orig", "heat_local.json.last"):
        write_json(node.cache / name, {"a": 1})
    write_json(node.cache / "os_config_files.json", [str(node.cache / "heat_local.json")])
    node.hook("configure/10-a", f"test -e {node.root}/fixed")
    write_json(node.metadata, {"a": 2})
    assert node.refresh(Trigger.START).quiesced is False
    write_json(node.metadata, {"a": 1})
    (node.root / "fixed").touch()
    journal = node.state / "journal.sqlite"
    {"damaged": lambda: journal.write_bytes(b"x" * 9999), "emptied": lambda: journal.write_bytes(b"")}.get(
        how, journal.unlink
    )()
    result = node.refresh(Trigger.START)
    assert (result.exit_code, bool(result.run_id)) == (ExitCode.OK, True)
    assert str(journal) in log.text
    assert "everything is run once more" in log.text
    assert node.refresh().run_id == ""


def test_a_pause_and_missing_data_do_not_hide_that_the_node_is_quiesced(node: Node) -> None:
    node.hook("pre-configure/10-a", "exit 1")
    assert node.refresh().quiesced
    pause.begin(str(node.state), "no reason", 0.0)
    for result in (node.refresh(), node.cycle().run_phases(None, joined=True)):
        assert (result.exit_code, result.quiesced) == (ExitCode.PAUSED, True)
        assert result.summary.endswith("; the node is quiesced")


def test_a_failure_that_goes_into_a_removed_journal_is_not_held_and_is_made_again(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    node.changes["retry"] = RetrySettings(0.1, 0.2, 1)
    node.hook("pre-configure/10-a", f"[ -e {node.root}/good ] || {{ rm -f {node.state}/journal*; exit 3; }}")
    result = node.refresh(max_attempts=1)
    assert (result.exit_code, result.held) == (ExitCode.HOOK_FAILED, False)
    assert "not recorded: " in log.text
    (node.root / "good").touch()
    assert node.refresh(Trigger.RETRY, max_attempts=1).exit_code is ExitCode.OK


def test_a_run_by_hand_that_left_a_node_without_metadata_quiesced_is_made_again(node: Node) -> None:
    node.metadata.unlink()
    node.hook("pre-configure/10-a", f"[ -e {node.root}/good ]")
    node.hook("configure/10-a", PRINT)
    assert node.cycle().run_phases(None, joined=True).quiesced
    again = node.refresh(Trigger.RETRY)
    assert (again.exit_code, again.quiesced) == (ExitCode.HOOK_FAILED, True)
    assert again.decision is not None
    assert (again.decision.attempt, again.decision.failures) == (2, 1)  # by which the back-off grows
    (node.root / "good").touch()
    assert node.refresh(Trigger.RETRY).exit_code is ExitCode.OK
    assert "OS_CONFIG_FILES" not in node.printed()
    assert node.refresh(Trigger.RETRY).exit_code is ExitCode.NO_DATA
    write_json(node.metadata, {"a": 1})
    assert node.refresh().exit_code is ExitCode.OK
