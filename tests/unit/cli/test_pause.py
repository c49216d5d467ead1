"""``pause`` and ``resume``, in this process."""

import fcntl
import json
import logging
import pathlib
from typing import Any

import pytest

from refresh_agent import main, pause
from refresh_agent.journal import Journal
from refresh_agent.model import Failure, RunOutcome, Trigger
from refresh_agent.plan import Action, Decision
from tests.unit.support import Tree

STOPPED = Failure("configure", "10-a", 1, "failed")


class Node(Tree):
    def command(self, *arguments: str) -> int:
        return main.main(["--config-file", str(self.root / "conf"), *arguments])

    def quiesce(self) -> None:
        journal = Journal(str(self.state))
        decision = Decision(Action.RUN, "new", Trigger.CHANGE)
        run = journal.begin(decision, (("heat", "1"),), quiesces="pre-configure")
        journal.fail(run, RunOutcome.HOOK_FAILED, STOPPED)
        journal.close()


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    node = Node(tmp_path)
    (tmp_path / "conf").write_text(
        f"[DEFAULT]\nstate_dir = {node.state}\nlock_file = {node.lock}\ncachedir = {node.cache}\n"
    )
    return node


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def said_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(said(capsys))


def test_several_words_are_one_reason(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert node.command("pause", "the  database", "is", "moved") == 0
    assert said(capsys) == "paused: the database is moved\n"
    found = pause.read(str(node.state))
    assert found is not None
    assert found.reason == "the database is moved"


def test_pausing_again_replaces_the_reason_and_says_what_it_was(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    pause.begin(str(node.state), "one", 0.0)
    assert node.command("pause", "two") == 0
    assert said(capsys) == f"paused: two; it was paused since {pause.moment(0.0)}: one\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["", " "], "the reason is empty"), (["x" * 1001], "the reason has 1001 characters; 1000 are the most")],
)
def test_a_reason_that_is_none_is_a_usage_error(
    node: Node, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert node.command("pause", *words) == 2
    assert complaint in capsys.readouterr().err
    assert pause.read(str(node.state)) is None


def test_without_a_reason_it_is_a_usage_error(node: Node) -> None:
    with pytest.raises(SystemExit) as caught:
        node.command("pause")
    assert caught.value.code == 2


def test_a_reason_cannot_steer_a_terminal(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert node.command("pause", "a\x1b[2J\udcff") == 0
    assert said(capsys) == "paused: a\\x1b[2J\\udcff\n"


def test_it_warns_of_a_quiesced_node(node: Node, log: pytest.LogCaptureFixture) -> None:
    node.quiesce()
    assert node.command("pause", "x") == 0
    warnings = [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("the node is quiesced since ")


def test_it_warns_of_a_refresh_that_goes_on_and_leaves_its_lock_alone(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.lock.write_text("Locked by pid==1 at some time\n")
    with node.lock.open() as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        assert node.command("pause", "x", "--json") == 0
    told = said_json(capsys)
    assert told == {
        "reason": "x",
        "replaced": None,
        "warnings": ["a refresh is under way and goes on to its end"],
    }
    assert node.lock.read_text() == "Locked by pid==1 at some time\n"


def test_a_damaged_journal_is_no_reason_not_to_pause(node: Node, log: pytest.LogCaptureFixture) -> None:
    node.state.mkdir()
    (node.state / "journal.sqlite").write_bytes(b"garbage" * 1000)
    assert node.command("pause", "x") == 0
    assert "whether the node is quiesced is not known" in log.text
    assert pause.read(str(node.state)) is not None


def test_after_a_damaged_journal_it_warns_that_nobody_knows(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    node.state.mkdir()
    (node.state / "journal.sqlite.damaged-20260101T000000-0000").write_bytes(b"garbage")
    assert node.command("pause", "x") == 0
    assert "whether the node is quiesced is not known: the journal was damaged" in log.text


def test_resume_that_cannot_remove_the_pause_says_who_can(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    (node.state / "paused.json").mkdir(parents=True)
    assert node.command("resume") == 5
    told = "cannot be removed: Is a directory; the pause goes on until you remove it by hand"
    assert told in capsys.readouterr().err


def test_resume_says_what_it_ended(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    pause.begin(str(node.state), "an upgrade", 0.0)
    assert node.command("resume") == 0
    assert said(capsys) == f"resumed; it was paused since {pause.moment(0.0)}: an upgrade\n"
    assert pause.read(str(node.state)) is None
    assert node.command("resume") == 0
    assert said(capsys) == "nothing was paused\n"


def test_resume_as_json(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    pause.begin(str(node.state), "an upgrade", 0.0)
    assert node.command("resume", "--json") == 0
    assert said_json(capsys)["ended"]["reason"] == "an upgrade"
    assert node.command("resume", "--json") == 0
    assert said_json(capsys) == {"ended": None}


def test_a_state_directory_that_cannot_be_written_is_5(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.state.write_text("")
    assert node.command("pause", "x") == 5
    assert "paused.json: cannot be written: File exists" in capsys.readouterr().err
