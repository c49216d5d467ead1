"""``run-phases`` in this process: what its options become, how its end is told."""

import argparse
import json
import logging
import pathlib

import pytest

from refresh_agent import journal, main
from refresh_agent.cli import run_phases
from refresh_agent.cycle import Result
from refresh_agent.errors import ExitCode, StateError
from refresh_agent.model import RunOutcome
from tests.unit.support import Tree


class Node(Tree):
    def configure(self) -> "Node":
        (self.root / "agent.conf").write_text(
            f"[DEFAULT]\nstate_dir = {self.state}\nlock_file = {self.lock}\ncachedir = {self.cache}\n"
            f"collectors = heat_local\nbase_dir = {self.base}\n[heat_local]\npath = {self.metadata}\n"
        )
        return self

    def main(self, *arguments: str) -> int:
        return main.main(["--config-file", f"{self.root}/agent.conf", "run-phases", *arguments])


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path).configure()


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run_phases.add_arguments(parser)
    return parser.parse_args(words)


def test_options_win_over_the_configuration(node: Node) -> None:
    settings = node.settings(phases={"run_timeout": 7})
    assert run_phases._changed(settings, arguments()) == settings
    assert run_phases._changed(settings, arguments("--timeout", "2")).phases.run_timeout == 2
    assert run_phases._changed(settings, arguments("--timeout", "0")).phases.run_timeout == 0


@pytest.mark.parametrize("text", ["", "-1", "1.5", "nan", "1e3", "x", "²"])
def test_a_timeout_is_whole_seconds(text: str) -> None:
    with pytest.raises(SystemExit) as caught:
        arguments(f"--timeout={text}")
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("result", "base", "level"),
    [
        (Result(ExitCode.OK, "", run_id="1"), True, logging.INFO),
        (Result(ExitCode.LOCKED, "", run_id="1"), True, logging.WARNING),
        (Result(ExitCode.OK, ""), True, logging.DEBUG),
        (Result(ExitCode.OK, ""), False, logging.WARNING),
        (Result(ExitCode.MIGRATION_FAILED, "", run_id="1"), True, logging.ERROR),
    ],
)
def test_how_loud_the_end_is(node: Node, result: Result, base: bool, level: int) -> None:
    if base:
        node.base.mkdir()
    assert run_phases._level(result, node.settings()) == level


def test_a_success_that_cannot_be_recorded_is_5(
    node: Node, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def succeed(*_: object) -> None:
        raise StateError("no room")

    monkeypatch.setattr(journal.Journal, "succeed", succeed)
    node.hook("configure/10-a", "echo said")
    assert node.main() == 5
    out, err = capfd.readouterr()
    assert out == "said\n"
    assert "the success is not recorded: no room" in err


def test_what_is_recorded_is_a_success_for_no_documents(node: Node) -> None:
    node.hook("configure/10-a")
    assert node.main() == 0
    record = journal.Journal(str(node.state))
    try:
        rows = record._db.execute("SELECT outcome, documents, trigger, reason FROM runs").fetchall()
        assert rows == [(RunOutcome.SUCCESS, "[]", "once", "run-phases was called")]
        assert record.history().committed is None
        assert record.history().unfinished is None
    finally:
        record.close()


def test_a_stop_is_128_and_the_signal_as_json_too(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    node.hook("configure/10-a", "kill -TERM $PPID")
    node.hook("configure/20-b")
    assert node.main("--json") == 128 + 15
    assert json.loads(capfd.readouterr().out)["failure"]["stopped"] is True
    assert node.ran() == ["configure/10-a"]
