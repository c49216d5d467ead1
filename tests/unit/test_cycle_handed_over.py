"""A hook has had the agent stopped, and goes on: what the next agent makes of it."""

import contextlib
import os
import pathlib
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from refresh_agent.cycle import Cycle, Result
from refresh_agent.errors import ExitCode, LockedError
from refresh_agent.journal import Journal
from refresh_agent.journal_file import since_boot
from refresh_agent.model import RunOutcome, Trigger
from refresh_agent.phases import handover
from refresh_agent.phases.handover import Watch
from refresh_agent.plan import Action, Request
from refresh_agent.wakeup import Stop
from tests.processes import alive, children
from tests.unit.support import Tree, write_json
from tests.waiting import eventually

UNIT = "refresh-agent.service"

UPGRADES = f"""
echo "$REFRESH_AGENT_TRIGGER $REFRESH_AGENT_ATTEMPT ${{REFRESH_AGENT_INTERRUPTED:--}}" >> $ROOT/told
[ ! -e $ROOT/upgraded ] || exit 0
echo $$ > $ROOT/pid
$ROOT/systemctl -c "read -t 30 <> $ROOT/answer" restart {UNIT} & caller=$!
sleep 0.1
kill -TERM $AGENT
until [ -e $ROOT/go ]; do sleep 0.01; done
kill $caller
touch $ROOT/upgraded
"""
"""``systemctl`` is bash under another name, which shows the arguments and waits: there is no systemd here."""


class Node(Tree):
    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self.changes: dict[str, Any] = {}
        write_json(self.metadata, {"a": 1})
        self.hook("pre-configure/10-stop")
        self.hook("configure/55-upgrade", UPGRADES)
        self.hook("configure/60-after")

    def refresh(self, trigger: Trigger) -> Result:
        """As another agent does it."""
        stop = Stop()
        before = signal.signal(signal.SIGTERM, lambda number, _: stop.request(number))
        try:
            return Cycle(self.settings(**self.changes), stop).refresh(Request(trigger))
        finally:
            signal.signal(signal.SIGTERM, before)
            stop.close()

    def pid(self) -> int:
        return int((self.root / "pid").read_text())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the journal says; or what is changed in it."""
        with contextlib.closing(sqlite3.connect(self.state / "journal.sqlite")) as db, db:
            return db.execute(query).fetchall()


@pytest.fixture
def node(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """Its agent has just left the hook 55-upgrade, which still runs, to the next one."""
    systemctl = tmp_path / "systemctl"
    shutil.copy("/bin/bash", systemctl)
    os.mkfifo(tmp_path / "answer")
    watch = Watch(UNIT, str(systemctl))
    monkeypatch.setattr(handover, "watch", lambda: watch)
    monkeypatch.setenv("ROOT", str(tmp_path))
    monkeypatch.setenv("AGENT", str(os.getpid()))
    node = Node(tmp_path)
    result = node.refresh(Trigger.START)
    assert result.failure is not None
    assert result.failure.stopped
    yield node
    os.close(watch.fileno())
    for pid in children():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_run_is_interrupted_there_and_nothing_has_ended_the_hook(node: Node) -> None:
    assert alive(node.pid())
    assert node.rows("SELECT outcome, failed_phase, failed_hook FROM runs") == [
        (RunOutcome.INTERRUPTED, "configure", "55-upgrade")
    ]
    assert node.ran() == ["pre-configure/10-stop", "configure/55-upgrade"]
    journal = Journal(str(node.state))
    assert [hook.where for hook in journal.handed_over()] == ["configure/55-upgrade"]
    journal.close()


def test_the_next_agent_waits_for_it_and_ends_nothing(node: Node) -> None:
    with pytest.raises(LockedError, match=rf"configure/55-upgrade \(pid {node.pid()}\) still runs: an"):
        node.refresh(Trigger.START)
    with pytest.raises(LockedError):
        node.refresh(Trigger.START)
    assert alive(node.pid())
    assert len(node.rows("SELECT * FROM runs")) == 1


def test_then_it_runs_again_and_the_hook_knows_that_it_was_itself(node: Node) -> None:
    (node.root / "go").touch()
    eventually(lambda: not alive(node.pid()))
    assert (node.root / "upgraded").exists()
    result = node.refresh(Trigger.START)
    assert (result.exit_code, result.failure) == (ExitCode.OK, None)
    assert result.decision is not None
    assert result.decision.action is Action.RETRY
    assert node.ran()[2:] == ["pre-configure/10-stop", "configure/55-upgrade", "configure/60-after"]
    told = (node.root / "told").read_text().splitlines()
    assert told == ["start 1 -", "retry 2 configure/55-upgrade"]


def test_it_is_waited_for_as_long_as_it_may_run(node: Node, log: pytest.LogCaptureFixture) -> None:
    node.rows("UPDATE hooks SET until = 1.0 WHERE hook = '55-upgrade'")
    (node.root / "upgraded").touch()  # it runs to its end when it is made again
    assert node.refresh(Trigger.START).exit_code is ExitCode.OK
    assert not alive(node.pid())
    assert "configure/55-upgrade, which was left to this agent, has had its time; it is ended" in log.text


@pytest.mark.parametrize("limit", ["hook_timeout", "phase_timeout", "run_timeout"])
def test_the_limits_that_it_had_hold_until_its_end(limit: str, node: Node) -> None:
    (node.root / "go").touch()
    eventually(lambda: not alive(node.pid()))
    (node.root / "go").unlink()
    (node.root / "upgraded").unlink()
    node.changes = {"phases": {limit: 600}}
    assert node.refresh(Trigger.START).failure is not None  # it is left to the next agent once more
    ((left,),) = node.rows("SELECT until FROM hooks WHERE outcome = 'handed over' AND hook = '55-upgrade'")
    assert 500 < left - since_boot() <= 600


def test_it_is_no_hook_of_another_boot(node: Node) -> None:
    node.rows("UPDATE runs SET boot_id = 'before'")
    (node.root / "upgraded").touch()
    assert node.refresh(Trigger.START).exit_code is ExitCode.OK


def test_a_process_that_was_given_its_number_since_is_not_waited_for(node: Node) -> None:
    node.rows("UPDATE hooks SET began = began - 1 WHERE hook = '55-upgrade'")
    (node.root / "upgraded").touch()
    assert node.refresh(Trigger.START).exit_code is ExitCode.OK
    assert alive(node.pid())
