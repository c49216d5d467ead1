"""argv to one command and its exit code, in this process."""

import json
import logging
import pathlib
import runpy
import sys

import pytest

from refresh_agent import __version__, cycle, main, opts
from refresh_agent.errors import LockedError
from tests.unit.support import Tree, write_json


class Node(Tree):
    @property
    def config(self) -> str:
        return str(self.root / "refresh-agent.conf")

    def configure(self, extra: str = "") -> "Node":
        pathlib.Path(self.config).write_text(
            f"[DEFAULT]\nbase_dir = {self.base}\nstate_dir = {self.state}\nlock_file = {self.lock}\n"
            f"cachedir = {self.cache}\nbackup_cachedir =\ncollectors = heat_local\n"
            f"[heat_local]\npath = {self.metadata}\n{extra}"
        )
        return self

    def main(self, *arguments: str) -> int:
        return main.main(["--config-file", self.config, *arguments])


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path).configure()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["no-such-command"], "invalid choice: 'no-such-command'"),
        (["--config-file"], "expected one argument"),
        (["--log-level", "LOUD"], "invalid choice: 'LOUD'"),
        (["--force"], "--force goes with --once"),
        (["--once", "extra"], "invalid choice: 'extra'"),
        (["check-config", "extra"], "unrecognized arguments: extra"),
    ],
)
def test_a_wrong_argument_is_2_and_told(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_help_tells_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert all(name in told for name in main.COMMANDS)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--version"])
    assert capsys.readouterr().out == f"refresh-agent {__version__}\n"


def test_a_configuration_error_is_2_with_a_line_for_each_problem(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.configure("[nonsense]\n[debounce]\nquite = 1\n")
    assert node.main("--once") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"refresh-agent: error: {node.config}: [") for line in lines)


@pytest.mark.parametrize("arguments", [["check-config"], ["--config-file", "X", "check-config"]])
def test_common_options_stand_before_and_behind_a_command(
    node: Node, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    given = [node.config if argument == "X" else argument for argument in arguments]
    if "X" not in arguments:
        given += ["--config-file", node.config]
    assert main.main([*given, "--json", "--log-level", "ERROR"]) == 0
    assert json.loads(capsys.readouterr().out) == {"files": [node.config], "problems": []}


def test_check_config_tells_good_and_bad(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert node.main("check-config") == 0
    assert capsys.readouterr().out == f"The configuration is good ({node.config}).\n"
    node.configure("[debounce]\nquiet = x\n")
    assert node.main("check-config") == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert f"refresh-agent: error: {node.config}: [debounce] quiet = x: " in told.err
    assert node.main("check-config", "--json") == 2
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 1


def test_check_config_without_files_says_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opts, "CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(opts, "CONFIG_DIR", str(tmp_path / "none.d"))
    assert main.main(["check-config"]) == 0
    assert "all defaults" in capsys.readouterr().out


def test_once_ends_with_a_line_and_its_code(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert node.main("--once") == 3
    assert "no source has data" in capsys.readouterr().out
    write_json(node.metadata, {"a": 1})
    node.hook("configure/10-a", "exit 42")
    assert node.main("--once", "--log-level", "CRITICAL") == 1
    assert "failed after" in capsys.readouterr().out
    node.hook("configure/10-a")
    assert node.main("--once", "--force", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["exit_code"], told["trigger"], told["attempt"], told["failure"]) == (0, "once", 2, None)
    assert node.main("--once") == 0
    assert capsys.readouterr().out == "noop: nothing changed since the last success\n"


def test_once_tells_a_failure_as_json_too(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(node.metadata, {"a": 1})
    node.hook("configure/10-a", "kill -TERM $PPID; exit 0")
    node.hook("configure/20-b")
    assert node.main("--once", "--json") == 128 + 15
    failure = json.loads(capsys.readouterr().out)["failure"]
    assert (failure["phase"], failure["hook"], failure["stopped"]) == ("configure", "20-b", True)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (LockedError("/lock is held by another refresh"), 11, "refresh-agent: error: /lock is held"),
        (
            ZeroDivisionError("division by zero"),
            70,
            "refresh-agent: internal error: ZeroDivisionError: division",
        ),
    ],
)
def test_whatever_goes_wrong_is_a_line_and_a_code(
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    words: str,
) -> None:
    def refresh(*_: object) -> None:
        raise error

    monkeypatch.setattr(cycle.Cycle, "refresh", refresh)
    assert node.main("--once") == code
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told


def test_a_state_directory_that_cannot_be_made_is_5(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.state.write_text("")
    assert node.main("--once") == 5
    assert str(node.state) in capsys.readouterr().err


def test_the_log_level_is_set_and_the_log_goes_to_stderr(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(node.metadata, {"a": 1})
    node.hook("configure/10-a", "echo hello")
    assert node.main("--log-level", "INFO", "--once") == 0
    assert logging.getLogger("refresh_agent").level == logging.INFO
    assert "configure/10-a| hello" in capsys.readouterr().err


def test_it_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["refresh-agent", "--version"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("refresh_agent", run_name="__main__")
    assert caught.value.code == 0
    assert __version__ in capsys.readouterr().out
