"""environment.d: with real bash."""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from refresh_agent.lines import Lines
from refresh_agent.model import ByteSink, Command, Exit
from refresh_agent.phases import environment
from refresh_agent.phases.environment import Evaluated, evaluate, files
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.wakeup import Stop


class Node:
    def __init__(self, base: pathlib.Path, stop: Stop) -> None:
        self.base = base
        self.directory = base / "environment.d"
        self.directory.mkdir()
        self.lines: list[str] = []
        self.begun: list[str] = []
        self.commands: list[Command] = []
        self._runner = ProcessRunner(stop, Grace(kill=0.2, stop=0.2))
        self.given = {"PATH": os.environ["PATH"], "FROM_AGENT": "yes"}

    def file(self, name: str, text: str) -> pathlib.Path:
        path = self.directory / name
        path.write_text(text)
        return path

    def run(self, command: Command, sink: ByteSink) -> Exit:
        self.commands.append(command)
        return self._runner.run(command, sink)

    def evaluate(self) -> Evaluated:
        lines = Lines(lambda _stream, text: self.lines.append(text))
        return evaluate(files(str(self.directory)), self.given, self.run, lines.feed, self.begun.append)

    def variables(self) -> dict[str, str]:
        evaluated = self.evaluate()
        assert evaluated.error == ""
        return dict(evaluated.variables)


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Iterator[Node]:
    stop = Stop()
    yield Node(tmp_path, stop)
    stop.close()


def test_exported_variables_are_added_to_the_agents_own(node: Node) -> None:
    node.file("10-a", "export CM1='Some thing'\nFROM_AGENT=changed\n")
    variables = node.variables()
    assert variables["CM1"] == "Some thing"
    assert variables["FROM_AGENT"] == "changed"
    assert "_" not in variables


def test_what_is_not_exported_does_not_reach_the_hooks(node: Node) -> None:
    node.file("10-a", "HIDDEN=1\nlocal_function() { :; }\nexport -n FROM_AGENT\n")
    variables = node.variables()
    assert "HIDDEN" not in variables
    assert "FROM_AGENT" not in variables


def test_files_share_one_shell(node: Node) -> None:
    node.file("10-a", "plain=7; f() { echo $1$plain; }")
    node.file("20-b", "export RESULT=$(f x)$'\\n'")
    assert node.variables()["RESULT"] == "x7\n"
    assert node.begun == list(files(str(node.directory)))


@pytest.mark.parametrize(
    "value",
    [
        "two\nlines\n",
        "tab\tand space ",
        "'single' \"double\"",
        "$HOME `id` \\",
        "grüße ✓",
        "a=b=c",
        "",
        "x" * 100_000,
    ],
)
def test_values_of_every_kind_survive(node: Node, value: str) -> None:
    quoted = value.replace("'", "'\\''")
    node.file("10-a", f"export VALUE='{quoted}'\n")
    assert node.variables()["VALUE"] == value


def test_values_that_are_not_utf_8_survive(node: Node) -> None:
    node.file("10-a", "export VALUE=$'\\xff\\xfe'\n")
    assert os.fsencode(node.variables()["VALUE"]) == b"\xff\xfe"


def test_what_the_agent_was_given_survives_too(node: Node) -> None:
    node.given |= {
        "ODD": "a\nb=c\n",
        "BYTES": "\udcff",
        "not-a-name": "1",
        "BASH_FUNC_f%%": "() {  echo hi\n}",
    }
    node.file("10-a", "")
    variables = node.variables()
    assert {name: variables[name] for name in node.given} == node.given


@pytest.mark.parametrize("content", [[], ["10 a", "ü", "a~"]])
def test_a_directory_with_nothing_to_source_is_fine(node: Node, content: list[str]) -> None:
    """dib-run-parts ends with 1 there, without a word."""
    for name in content:
        node.file(name, "exit 1")
    assert node.evaluate() == Evaluated(node.given)
    assert node.commands == []


def test_no_directory_is_fine(node: Node) -> None:
    node.directory.rmdir()
    assert node.evaluate() == Evaluated(node.given)


def test_names_may_have_dots_and_need_no_executable_bit(node: Node) -> None:
    node.file("set_var.bash", "export DOTTED=1")
    node.file(".hidden", "export HIDDEN=1")
    (node.directory / "link").symlink_to(node.base / "elsewhere")
    (node.base / "elsewhere").write_text("export LINKED=1")
    (node.directory / "directory").mkdir()
    (node.directory / "dangling").symlink_to("nowhere")
    variables = node.variables()
    assert {"DOTTED", "HIDDEN", "LINKED"} <= variables.keys()


def test_the_order_is_that_of_dib_run_parts(node: Node) -> None:
    """sort -n on whole paths: bytewise in effect, 10-x before 9-y."""
    names = ["9-y", "10-x", "A", "a", "-5", "1.b", "_z"]
    for name in names:
        node.file(name, f"export ORDER=${{ORDER:-}}:{name}")
    listing = "".join(f"{node.directory}/{name}\n" for name in names)
    by_sort = subprocess.run(
        ["sort", "-n"],
        input=listing,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        capture_output=True,
        text=True,
    ).stdout.split()
    assert list(environment.files(str(node.directory))) == by_sort
    assert node.variables()["ORDER"] == "".join(f":{os.path.basename(path)}" for path in by_sort)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("false", 1),
        ("(exit 42)", 42),
        ("echo $undefined", 1),
        ("false | true", 1),
        ("exit 9", 9),
        ("no-such-command-at-all", 127),
        ("if then", 2),
        ("kill -9 $$", 137),
        ("exec /bin/false", 1),
    ],
)
def test_a_file_that_fails_is_named_with_its_status(node: Node, text: str, status: int) -> None:
    node.file("10-good", "export A=1")
    bad = node.file("20-bad", text)
    node.file("30-never", f"touch {node.base}/never")
    evaluated = node.evaluate()
    words = "was ended by signal 9" if status == 137 else f"ended with status {status}"
    assert evaluated == Evaluated(node.given, f"{bad}: {words}", status)
    assert [os.path.basename(path) for path in node.begun] == ["10-good", "20-bad"]
    assert not (node.base / "never").exists()


def test_an_exit_inside_a_file_is_no_success(node: Node) -> None:
    bad = node.file("10-a", "export A=1; exit 0")
    assert node.evaluate() == Evaluated(node.given, f"{bad}: ended with status 0", 1)


def test_a_return_inside_a_file_ends_only_the_file(node: Node) -> None:
    node.file("10-a", "export A=1; return; export B=1")
    node.file("20-b", "export C=1")
    variables = node.variables()
    assert (variables.get("A"), variables.get("B"), variables.get("C")) == ("1", None, "1")


def test_a_file_may_switch_its_checks_off(node: Node) -> None:
    node.file("10-a", "set +eu\nfalse\nexport A=$undefined\nfalse\n:")
    assert node.variables()["A"] == ""


def test_a_file_that_switches_its_checks_off_does_not_hide_failing_hooks(node: Node) -> None:
    """dib-run-parts runs the hooks in the shell that sourced it: set +e makes all of their failures pass."""
    node.file("10-a", "set +e")
    assert "SHELLOPTS" not in node.variables()


def test_no_value_is_in_the_log(node: Node) -> None:
    """dib-run-parts traces them to stderr, passwords included."""
    node.file("10-a", 'export PASSWORD=geheim\nexport MORE="$PASSWORD-1"\n')
    node.given["OURS"] = "geheim-2"
    node.evaluate()
    assert not [line for line in node.lines if "geheim" in line]
    node.file("20-b", "echo $undefined")
    evaluated = node.evaluate()
    assert not [line for line in [*node.lines, evaluated.error] if "geheim" in line]
    assert "geheim" not in repr(node.commands)


def test_what_a_file_prints_is_in_the_log_and_not_in_the_variables(node: Node) -> None:
    node.file("10-a", "echo; echo to stdout\necho to stderr >&2\nexport A=1\n")
    assert node.variables()["A"] == "1"
    assert node.lines == ["", "to stdout", "to stderr"]


def test_bashs_words_about_a_failure_are_in_the_log(node: Node) -> None:
    node.file("10-a", "\necho $undefined")
    node.evaluate()
    assert any("line 2: undefined: unbound variable" in line for line in node.lines)


def test_many_variables_are_no_problem(node: Node) -> None:
    node.file("10-a", "for i in {1..2000}; do export V$i=$i; done")
    variables = node.variables()
    assert all(variables[f"V{number}"] == str(number) for number in range(1, 2001))


def test_the_base_directory_may_have_any_name(tmp_path: pathlib.Path) -> None:
    base = tmp_path / "a 'b' \"c\"\n$d"
    base.mkdir()
    stop = Stop()
    node = Node(base, stop)
    node.file("10-a", "export A=1")
    assert node.variables()["A"] == "1"
    stop.close()
