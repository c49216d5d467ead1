"""``run-parts`` in this process: which hooks, which messages, which status."""

import os
import pathlib
import re

import pytest

from refresh_agent import main
from refresh_agent.cli import run_parts
from refresh_agent.model import Ending, Exit, Failure, HookResult, StartedHook
from tests.unit.support import looping_link, write_hook

DATE = re.compile(r"^dib-run-parts \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \S+ \d{4} ", re.MULTILINE)


class Directory:
    def __init__(self, path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.out = ""
        self._capfd = capfd
        path.mkdir(parents=True)

    def hook(self, name: str, body: str) -> pathlib.Path:
        return write_hook(self.path / name, body, shebang="#!/bin/sh\n")

    def run(self, *arguments: str) -> int:
        status = main.main(["run-parts", *arguments, str(self.path)])
        self.out, err = self._capfd.readouterr()
        self.said = [DATE.sub("", line) for line in err.splitlines()]
        return status


@pytest.fixture
def directory(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> Directory:
    return Directory(tmp_path / "configure.d", capfd)


def test_hooks_run_in_order_and_the_profile_is_in_that_of_their_names(directory: Directory) -> None:
    directory.hook("10-a", "echo ten")
    directory.hook("9-b", "echo nine; echo complaint >&2")
    assert directory.run() == 0
    assert directory.out == "nine\nten\n"
    path = directory.path
    assert directory.said[:5] == [
        f"Running {path}/9-b",
        "complaint",
        "9-b completed",
        f"Running {path}/10-a",
        "10-a completed",
    ]
    assert directory.said[5:12] == [
        "----------------------- PROFILING -----------------------",
        "",
        "Target: configure.d",
        "",
        "Script                                     Seconds",
        "---------------------------------------  ----------",
        "",
    ]
    assert [line.split()[0] for line in directory.said[12:14]] == ["10-a", "9-b"]
    assert all(re.fullmatch(r".{40} [ \d]{6}\.\d{3}", line) for line in directory.said[12:14])
    assert directory.said[14:] == ["", "--------------------- END PROFILING ---------------------"]


def test_the_status_is_the_failing_hooks_own_and_the_profile_is_told_all_the_same(
    directory: Directory,
) -> None:
    directory.hook("10-a", "exit 42")
    directory.hook("20-b", "echo never")
    assert directory.run() == 42
    assert directory.out == ""
    assert directory.said[1] == "10-a: failed with status 42"
    assert [line.split()[0] for line in directory.said if line.startswith("10-a   ")] == ["10-a"]
    assert "10-a completed" not in directory.said


def test_an_empty_directory_is_a_success_with_an_empty_profile(directory: Directory) -> None:
    assert directory.run() == 0
    assert (directory.out, directory.said[0][:5], len(directory.said)) == ("", "-----", 9)


def test_hooks_are_told_the_directory_as_their_phase(directory: Directory) -> None:
    directory.hook("10-a", 'echo "$REFRESH_AGENT_PHASE $KEPT ${REFRESH_AGENT_HOOK_ID#outer}"')
    os.environ |= {"KEPT": "kept", "REFRESH_AGENT_HOOK_ID": "outer"}
    try:
        assert directory.run() == 0
    finally:
        del os.environ["KEPT"]
    phase, kept, hook_id = directory.out.split()
    assert (phase, kept, len(hook_id) > 30) == ("configure", "kept", True)


def test_environment_d_lies_beside_the_directory_and_is_told_file_by_file(directory: Directory) -> None:
    beside = directory.path.parent / "environment.d"
    beside.mkdir()
    (beside / "1").write_text("export A=one")
    (beside / "2").write_text("echo printed; export B=$A-two")
    directory.hook("10-a", 'echo "$B"')
    assert directory.run() == 0
    assert directory.out == "one-two\n"
    sourcing = [f"Sourcing environment file {directory.path}/../environment.d/{name}" for name in "12"]
    assert directory.said[:3] == [*sourcing, "printed"]


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [("(exit 7)", 7, "ended with status 7"), ("exit 0", 1, "ended with status 0")],
)
def test_an_environment_file_that_fails_is_named_even_without_hooks(
    directory: Directory, text: str, status: int, words: str
) -> None:
    (directory.path.parent / "environment.d").mkdir()
    (directory.path.parent / "environment.d" / "1").write_text(text)
    assert directory.run() == status
    assert directory.said[1] == f"{directory.path}/../environment.d/1: {words}"


class TestTrust:
    @pytest.fixture
    def loose(self, directory: Directory) -> Directory:
        directory.hook("10-a", "echo ran").chmod(0o777)
        return directory

    def test_a_hook_that_others_may_write_is_refused_with_126(self, loose: Directory) -> None:
        assert loose.run() == 126
        refusal = f"{loose.path}/10-a is not to be trusted: {loose.path}/10-a is writable by everybody"
        assert loose.said[1] == f"10-a: {refusal} (--trust)"
        assert loose.out == ""

    def test_warn_runs_it_with_a_warning(self, loose: Directory) -> None:
        assert loose.run("--trust", "warn") == 0
        assert loose.said[0].startswith(f"warning: {loose.path}/10-a is not to be trusted")
        assert loose.out == "ran\n"

    def test_off_does_not_look(self, loose: Directory) -> None:
        assert loose.run("--trust", "off") == 0
        assert loose.said[0].startswith("Running ")

    def test_the_kernels_way_to_environment_d_is_judged(self, directory: Directory) -> None:
        """Behind a link, DIR/.. is another directory than the text says."""
        elsewhere = directory.path.parent / "elsewhere"
        write_hook(elsewhere / "configure.d" / "10-a", 'echo "$FROM"')
        for place, mode in (("elsewhere/environment.d", 0o666), ("environment.d", 0o644)):
            path = directory.path.parent / place / "1"
            path.parent.mkdir()
            path.write_text(f"export FROM={place}")
            path.chmod(mode)
        directory.path.rmdir()
        directory.path.symlink_to(elsewhere / "configure.d")
        assert directory.run() == 1
        assert f"{elsewhere}/environment.d/1 is writable by everybody" in directory.said[0]
        assert directory.run("--trust", "off") == 0
        assert directory.out == "elsewhere/environment.d\n"


class TestList:
    def test_paths_in_order_and_nothing_is_run(self, directory: Directory) -> None:
        directory.hook("10-a", "echo ran")
        directory.hook("9-b", "echo ran")
        directory.hook("8-b.sh", "echo ran")
        assert directory.run("--list") == 0
        assert directory.out == f"{directory.path}/9-b\n{directory.path}/10-a\n"
        assert directory.said == []

    def test_the_regex_of_the_environment_holds(
        self, directory: Directory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory.hook("10-a", "")
        directory.hook("b.sh", "")
        monkeypatch.setenv("RUN_PARTS_REGEX", "[.]sh$")
        assert directory.run("--list") == 0
        assert directory.out == f"{directory.path}/b.sh\n"

    @pytest.mark.parametrize("arguments", [["--list"], []])
    def test_a_regex_that_is_none_is_told(
        self, directory: Directory, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
    ) -> None:
        directory.hook("10-a", "echo ran")
        monkeypatch.setenv("RUN_PARTS_REGEX", "(10")
        assert directory.run(*arguments) == 1
        assert directory.said[0].startswith(f"{directory.path}: RUN_PARTS_REGEX '(10' is not")
        assert directory.out == ""


@pytest.mark.parametrize("kind", ["missing", "file", "loop", "empty"])
@pytest.mark.parametrize("arguments", [["--list"], []])
def test_what_is_no_directory_is_named_with_the_usage(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], kind: str, arguments: list[str]
) -> None:
    path = tmp_path / "it"
    if kind == "file":
        path.touch()
    if kind == "loop":
        looping_link(path)
    given = "" if kind == "empty" else str(path)
    assert main.main(["run-parts", *arguments, given]) == 1
    out, err = capfd.readouterr()
    first, usage = err.splitlines()
    assert DATE.sub("", first) == f"Scripts directory [{given}] must exist and be a directory"
    assert (out, usage) == (
        "",
        "usage: refresh-agent run-parts [-h] [--list] [--trust {enforce,warn,off}] [DIR]",
    )


def test_no_directory_at_all_is_the_usage(capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run-parts"]) == 1
    assert capfd.readouterr().err.startswith("usage: refresh-agent run-parts [-h]")


@pytest.mark.parametrize("option", [["--config-file", "/x"], ["--config-dir", "/x"], ["--json"]])
def test_options_about_configuration_do_not_go_with_it(
    directory: Directory, capfd: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert main.main([*option, "run-parts", str(directory.path)]) == 2
    assert capfd.readouterr().err.startswith("refresh-agent: error: run-parts knows no --config-file")


@pytest.mark.parametrize("path", ["/", "//", "."])
def test_the_target_is_named_as_basename_does(
    monkeypatch: pytest.MonkeyPatch, directory: Directory, path: str
) -> None:
    assert run_parts._basename(path) == path[:1]


def test_what_a_hook_left_running_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    started = StartedHook("configure", "10-a", "id", 7)
    run_parts._Narrator("d").hooks_changed(
        [HookResult(started, Exit(0, Ending.EXITED, 0.1, "", ("sleep (8)",)))]
    )
    said = [DATE.sub("", line) for line in capfd.readouterr().err.splitlines()]
    assert said == ["10-a completed", "10-a: left running in the background: sleep (8)"]


def test_nothing_quoted_makes_a_line_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    run_parts._say(run_parts._told(Failure("p", "a\nb\x1b[2J\udcff", 1, "x")))
    (line,) = capfd.readouterr().err.splitlines()
    assert DATE.sub("", line) == r"a\nb\x1b[2J\udcff: x"
