"""The daemon's worker without its process: timers by numbers, and turns of a real agent on a real tree."""

import fcntl
import pathlib
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from refresh_agent import systemd
from refresh_agent.backoff import Backoff
from refresh_agent.cycle import Result
from refresh_agent.errors import ExitCode, StateError
from refresh_agent.journal_file import since_boot
from refresh_agent.model import PollingSettings, RetrySettings, Trigger
from refresh_agent.plan import Action, Decision
from refresh_agent.quiescence import Quiescence
from refresh_agent.service import Agent, Means, Timers
from refresh_agent.triggers import Watcher
from tests.unit.serving import Node
from tests.unit.support import write_json
from tests.waiting import eventually

# --- timers ------------------------------------------------------------------------------------------------

TIMERS = Timers(Quiescence(1, 10), Backoff(1, 300), rescan=50.0)


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({}, 50.0),
        ({"quiescence": Quiescence(1, 10).touched(20)}, 21.0),
        ({"backoff": Backoff(1, 300).failed(20, 3, 0.5)}, 22.0),
        ({"lock": (30.0, Trigger.SIGNAL)}, 30.0),
        ({"rescan": 5.0, "lock": (30.0, Trigger.SIGNAL)}, 5.0),
        ({"quiescence": Quiescence(1, 10).touched(20), "backoff": Backoff(1, 300, 19.5)}, 19.5),
    ],
)
def test_the_next_look_is_at_the_earliest_of_all_timers(changes: dict[str, Any], due: float) -> None:
    assert TIMERS._replace(**changes).next_due() == due


def test_the_clock_goes_on() -> None:
    before = since_boot()
    assert 0 < before <= since_boot()


# --- turns -------------------------------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.stop.request(signal.SIGTERM)


@pytest.fixture
def living(node: Node) -> Iterator[Node]:
    """The agent at work in a thread; in the end it is stopped and has to end well."""
    thread = threading.Thread(target=node.agent.start)
    thread.start()
    eventually(lambda: node.runs() or not thread.is_alive())
    yield node
    node.agent.stop()
    node.agent.wait()
    thread.join()
    assert node.agent.error is None


def test_it_runs_at_its_start_and_at_a_change(living: Node) -> None:
    write_json(living.metadata, {"a": 2})
    eventually(lambda: living.runs() == 2)


def test_a_reload_is_a_refresh_although_nothing_changed(living: Node, log: pytest.LogCaptureFixture) -> None:
    living.agent.reset()
    eventually(lambda: living.runs() == 2)
    assert "configuration reloaded: collectors heat_local" in log.text


def test_a_bad_configuration_is_told_and_the_old_one_stays(
    living: Node, log: pytest.LogCaptureFixture
) -> None:
    living.bad_configuration = "one problem\nanother"
    living.agent.reset()
    eventually(lambda: living.runs() == 2)
    for problem in ("one problem", "another"):
        assert f"the configuration is not reloaded, the old one stays: {problem}" in log.text


def test_a_failed_run_is_tried_again_by_itself(living: Node, log: pytest.LogCaptureFixture) -> None:
    (living.root / "broken").touch()
    write_json(living.metadata, {"a": 2})
    eventually(lambda: living.runs() >= 3)
    assert "the next attempt is in" in log.text
    (living.root / "broken").unlink()
    eventually(lambda: "success" in log.records[-1].getMessage() or "waiting" in log.text)


def test_a_deferred_run_is_tried_again_but_not_at_once(
    node: Node, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    node.changes["retry"] = RetrySettings(7, 60, 0)
    result = Result(ExitCode.LOCKED, "run 1: deferred", Decision(Action.RUN, "changed", Trigger.CHANGE), "1")
    node.agent._use(node.load())
    node.agent._told(result)
    not_before = node.agent._timers.backoff.not_before
    assert not_before is not None
    assert 6 < not_before - since_boot() <= 7
    assert "the next attempt is in 7.0 s" in log.text
    assert [record.levelname for record in log.records if "deferred" in record.getMessage()] == ["WARNING"]


def test_it_waits_for_another_refresh_to_end(living: Node, log: pytest.LogCaptureFixture) -> None:
    eventually(lambda: living.lock.read_text() == "")
    with living.lock.open("w") as theirs:
        eventually(lambda: taken(theirs.fileno()))
        living.agent.reset()
        eventually(lambda: "waiting for it" in log.text)
        assert living.runs() == 1
    eventually(lambda: living.runs() == 2)
    assert log.text.count("waiting for it") == 1


def taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_a_state_error_later_on_is_told_and_tried_again(living: Node, log: pytest.LogCaptureFixture) -> None:
    journal = living.state / "journal.sqlite"
    eventually(lambda: living.lock.read_text() == "")
    for path in living.state.glob("journal.sqlite*"):
        path.unlink()
    journal.mkdir()
    write_json(living.metadata, {"a": 2})
    eventually(lambda: "journal cannot be opened" in log.text)
    journal.rmdir()
    eventually(lambda: living.runs() == 2)


def test_a_refresh_that_was_asked_for_and_met_a_state_error_is_made_up_for(
    living: Node, log: pytest.LogCaptureFixture
) -> None:
    """Also if nothing changed: it was asked for."""
    eventually(lambda: living.lock.read_text() == "")
    living.lock.unlink()
    living.lock.mkdir()
    living.agent.reset()
    eventually(lambda: "the lock file cannot be opened" in log.text)
    living.lock.rmdir()
    eventually(lambda: living.runs() == 2)


class Announced(Watcher):
    """It tells systemd, too, what it does."""

    def watch(self, paths: Iterable[str]) -> None:
        super().watch(paths)
        systemd.notify("WATCHED=1")


def test_it_is_ready_once_its_files_are_watched(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes from then on is not missed."""
    node.agent = Agent(node, node.stop, Means(watcher=Announced))
    node.stop.request(signal.SIGTERM)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(node.root / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(node.root / "notify"))
        node.agent.start()
        assert [manager.recv(100) for _ in range(2)] == [b"WATCHED=1", b"READY=1"]


def test_a_state_error_at_the_start_ends_it(node: Node) -> None:
    (node.state / "journal.sqlite").mkdir()
    node.agent.start()
    node.agent.wait()
    assert isinstance(node.agent.error, StateError)


def test_something_unforeseen_ends_it_without_a_traceback(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refresh(_trigger: Trigger) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(node.agent, "_refresh", refresh)
    node.agent.start()
    assert str(node.agent.error) == "internal error: ZeroDivisionError: division by zero"


def test_the_same_content_written_again_neither_runs_nor_waits(node: Node) -> None:
    node.agent._refresh(Trigger.START)
    timers = node.agent._timers
    write_json(node.metadata, {"a": 1})
    assert node.agent._touched(since_boot()) is False
    assert node.agent._timers == timers


def test_the_rescan_finds_what_was_not_reported(node: Node, log: pytest.LogCaptureFixture) -> None:
    node.agent._refresh(Trigger.START)
    node.agent._watcher.close()  # from now on nothing is reported
    moment = since_boot()
    node.agent._rescan(moment)
    assert node.agent._timers.rescan == moment + 30
    assert node.agent._timers.quiescence.due_at() is None
    write_json(node.metadata, {"a": 2})
    node.agent._rescan(moment)
    assert "the rescan found a change" in log.text
    assert node.agent._timers.quiescence.due_at() is not None


def test_no_data_is_told_once(node: Node, log: pytest.LogCaptureFixture) -> None:
    node.metadata.unlink()
    for _ in range(3):
        node.agent._refresh(Trigger.CHANGE)
    assert [record.getMessage() for record in log.records].count(
        f"no source has data: {node.metadata}: no such file, or nothing in it"
    ) == 1


def test_a_held_change_is_told_and_not_tried_again(node: Node, log: pytest.LogCaptureFixture) -> None:
    node.changes["retry"] = RetrySettings(0.1, 0.2, 1)
    (node.root / "broken").touch()
    node.agent._use(node.load())
    node.agent._refresh(Trigger.START)
    assert node.agent._timers.backoff.not_before is None
    assert "; held until the metadata changes or an operator asks" in log.text
    node.agent._refresh(Trigger.RETRY)
    assert node.agent._timers.backoff.not_before is None
    assert "held after 1 attempts" in log.text
    assert node.runs() == 1


def test_once_it_stops_it_plans_no_further_attempt(node: Node) -> None:
    (node.root / "broken").touch()
    node.stop.request(signal.SIGTERM)
    node.agent._refresh(Trigger.START)
    assert node.agent._timers.backoff.not_before is None


# --- a configuration that a hook rewrites ------------------------------------------------------------------


def write_conf(node: Node, text: str) -> None:
    path = node.root / "conf"
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def test_a_configuration_file_that_changed_is_read_without_a_run(
    living: Node, log: pytest.LogCaptureFixture
) -> None:
    living.changes["quiet"] = 0.01
    write_conf(living, "new credentials")
    eventually(lambda: "configuration reloaded" in log.text)
    eventually(lambda: living.agent._timers.quiescence.quiet == 0.01)
    write_json(living.metadata, {"a": 2})
    eventually(lambda: living.runs() == 2)
    assert log.text.count("configuration reloaded") == 1


def test_the_same_configuration_written_again_is_not_read(
    living: Node, log: pytest.LogCaptureFixture
) -> None:
    """20-os-apply-config writes it at every run."""
    write_conf(living, "x")
    eventually(lambda: "configuration reloaded" in log.text)
    write_conf(living, "x")
    write_json(living.metadata, {"a": 2})
    eventually(lambda: living.runs() == 2)
    assert log.text.count("configuration reloaded") == 1


def test_a_broken_configuration_file_is_told_once_and_the_old_settings_stay(
    living: Node, log: pytest.LogCaptureFixture
) -> None:
    living.bad_configuration = "/etc/x.conf: line 1: bad"
    write_conf(living, "broken")
    eventually(lambda: "the configuration is not reloaded, the old one stays: /etc/x.conf" in log.text)
    write_json(living.metadata, {"a": 2})
    eventually(lambda: living.runs() == 2)
    assert log.text.count("not reloaded") == 1
    living.bad_configuration = ""
    write_conf(living, "mended")
    eventually(lambda: "configuration reloaded" in log.text)


def test_a_configuration_that_changes_while_a_run_fails_does_not_hasten_the_retry(node: Node) -> None:
    """A hook may write it anew at every attempt."""
    (node.root / "broken").touch()
    node.agent._refresh(Trigger.START)
    timers = node.agent._timers
    write_conf(node, "another")
    assert node.agent._touched(since_boot()) is False
    assert node.agent._timers.backoff == timers.backoff
    node.changes["quiet"] = 0.01
    node.agent._refresh(Trigger.RETRY)
    assert node.agent._settings.quiet == 0.01


def test_a_configuration_that_changes_before_the_first_refresh_is_read_by_it(node: Node) -> None:
    write_conf(node, "another")
    node.changes["quiet"] = 0.01
    node.agent._refresh(Trigger.START)
    assert node.agent._settings.quiet == 0.01


def test_a_fleet_does_not_start_at_once(node: Node, log: pytest.LogCaptureFixture) -> None:
    """os-collect-config defect 7: a splay ends it on newer Pythons."""
    node.changes["polling"] = PollingSettings(splay=3600)
    node.agent._use(node.load())
    node.agent.wakeup.because(Trigger.SIGNAL)
    node.agent._splay()
    assert "the first refresh is in" in log.text


def test_after_a_reload_the_watched_files_are_watched_still(
    living: Node, log: pytest.LogCaptureFixture
) -> None:
    """A new collector does not know yet what it watches; nothing has changed, so nobody asks it."""
    write_conf(living, "a comment")
    eventually(lambda: "configuration reloaded" in log.text)
    for number in (2, 3):
        write_json(living.metadata, {"a": number})
        eventually(lambda number=number: living.runs() == number)  # type: ignore[misc]


def test_a_collector_that_cannot_be_made_is_a_bad_configuration(
    living: Node, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: Any) -> Any:
        raise RuntimeError("geheim")

    monkeypatch.setattr("refresh_agent.collectors.build", build)
    write_conf(living, "other options")
    eventually(
        lambda: "the configuration is not reloaded, the old one stays: [DEFAULT] collectors" in log.text
    )
    assert "geheim" not in log.text
    write_json(living.metadata, {"a": 2})
    eventually(lambda: living.runs() == 2)
