"""``refresh-agent run-parts``: the installed command in dib-run-parts' place."""

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.functional.node import COMMAND
from tests.processes import alive
from tests.waiting import eventually


class Tree:
    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.directory = root / "some hooks" / "configure.d"
        self.directory.mkdir(parents=True)

    def hook(self, name: str, body: str) -> pathlib.Path:
        path = self.directory / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
        return path

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [COMMAND, "run-parts", *(arguments or (str(self.directory),))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.PIPE,
            cwd=self.root,
            env={**os.environ, **(env or {})},
        )

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        process = self.start(*arguments, env=env)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def shell(self, script: str) -> subprocess.CompletedProcess[bytes]:
        """``$run`` runs the directory."""
        words = ["bash", "-c", f'run() {{ "$0" run-parts "$1"; }}\n{script}', COMMAND, str(self.directory)]
        return subprocess.run(words, capture_output=True, timeout=60)


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> Tree:
    return Tree(tmp_path)


def test_a_path_with_a_blank_works(tree: Tree) -> None:
    tree.hook("10-a", 'echo "$0 $#"')
    ended = tree.run()
    assert (ended.returncode, ended.stdout) == (0, f"{tree.directory}/10-a 0\n".encode())
    assert f" Running {tree.directory}/10-a\n".encode() in ended.stderr


@pytest.mark.parametrize(
    "path", ["some hooks/configure.d", "./some hooks/configure.d/", "some hooks/../some hooks/configure.d//"]
)
def test_a_hook_is_called_by_the_path_as_it_was_given(tree: Tree, path: str) -> None:
    tree.hook("10-a", 'echo "$0"; pwd; readlink /proc/self/fd/0')
    assert tree.run(path).stdout.decode().splitlines() == [f"{path}/10-a", str(tree.root), "/dev/null"]


def test_output_is_passed_on_as_it_was_written(tree: Tree) -> None:
    tree.hook("10-a", r"printf '\377\000\033[31m\r\nno end'; printf '\376 complaint' >&2; exit 3")
    ended = tree.run()
    assert ended.returncode == 3
    assert ended.stdout == b"\xff\x00\x1b[31m\r\nno end"
    assert ended.stderr.partition(b"\n")[2].startswith(b"\xfe complaintdib-run-parts ")


def test_output_comes_while_the_hook_runs(tree: Tree) -> None:
    tree.hook("10-a", "echo now; echo complaint >&2; read -r _ < go")
    os.mkfifo(tree.root / "go")
    process = tree.start()
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"now\n"
    assert b" Running " in process.stderr.readline()
    assert process.stderr.readline() == b"complaint\n"
    assert process.poll() is None
    (tree.root / "go").write_text("\n")
    assert process.wait(20) == 0
    process.communicate()


def test_the_order_is_kept_where_both_streams_are_one(tree: Tree) -> None:
    tree.hook("10-a", "for i in {1..200}; do echo $i; echo $i >&2; done")
    lines = tree.shell('run "$1" 2>&1').stdout.split(b"\n")[1:401]
    assert lines == [str(number).encode() for number in range(1, 201) for _ in range(2)]


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", ">&- 2>&-", "2>/dev/full", "| true"])
def test_a_standard_stream_that_is_of_no_use_changes_nothing(tree: Tree, redirection: str) -> None:
    tree.hook("10-a", "echo said; echo complaint >&2; exit 5")
    ended = tree.shell(f'run "$1" {redirection}; exit ${{PIPESTATUS[0]}}')
    assert (ended.returncode, b"Traceback" in ended.stderr) == (5, False)


def test_nothing_is_left_behind(tree: Tree) -> None:
    (tree.root / "tmp").mkdir()
    tree.hook("10-a", "exit 3")
    assert tree.run(env={"TMPDIR": str(tree.root / "tmp")}).returncode == 3
    assert list((tree.root / "tmp").iterdir()) == []
    assert sorted(path.name for path in tree.root.iterdir()) == ["some hooks", "tmp"]


def test_secrets_of_environment_d_are_masked_and_values_not_traced(tree: Tree) -> None:
    (tree.directory.parent / "environment.d").mkdir()
    (tree.directory.parent / "environment.d" / "1").write_text(
        "export PLAIN=of-no-importance DB_PASSWORD=open-sesame"
    )
    tree.hook("10-a", 'echo "$PLAIN $DB_PASSWORD"; echo "$DB_PASSWORD" >&2')
    ended = tree.run()
    assert ended.stdout == b"of-no-importance ***\n"
    assert b"open-sesame" not in ended.stderr
    assert b"of-no-importance" not in ended.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_lets_the_running_hook_finish_and_starts_no_other(tree: Tree, name: str) -> None:
    os.mkfifo(tree.root / "go")
    tree.hook("10-a", "echo began; read -r _ < go; echo ended")
    tree.hook("20-b", "echo never")
    process = tree.start()
    assert process.stdout is not None
    assert process.stdout.readline() == b"began\n"
    process.send_signal(signal.Signals[name])
    (tree.root / "go").write_text("\n")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (128 + signal.Signals[name], b"ended\n")
    assert b" 20-b: not started: the agent is stopping\n" in err


def test_a_background_process_holds_nothing_up_and_is_named(tree: Tree) -> None:
    tree.hook("10-a", f"sleep 300 & echo $! > '{tree.root}/pid'")
    try:
        ended = tree.run()
        assert ended.returncode == 0
        pid = int((tree.root / "pid").read_text())
        (told,) = [line for line in ended.stderr.decode().splitlines() if "10-a: left running" in line]
        assert told.endswith(f" ({pid})")  # by its name of that moment: it may not have become sleep yet
        assert alive(pid)
    finally:
        os.kill(int((tree.root / "pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("where", ["metadata", "environment"])
def test_what_is_secret_beforehand_is_masked(tree: Tree, where: str) -> None:
    named = tree.root / "metadata.json"
    named.write_text('{"db": {"password": "correct-horse"}}')
    tree.hook("10-a", "echo it is correct-horse")
    given = {"OS_CONFIG_FILES": str(named)} if where == "metadata" else {"DB_PASSWORD": "correct-horse"}
    ended = tree.run(env=given)
    assert ended.stdout == b"it is ***\n"


def test_neither_configuration_nor_what_reads_it_is_touched(tree: Tree) -> None:
    tree.hook("10-a", "true")
    program = (
        "import sys; from refresh_agent.main import main; code = main(sys.argv[1:]);"
        "heavy = {'oslo_config', 'refresh_agent.opts', 'refresh_agent.cycle', 'sqlite3', 'subprocess'};"
        "print('heavy:', *sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "run-parts", str(tree.directory)]
    # Measuring the coverage of child processes imports some of it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    ended = subprocess.run(command, capture_output=True, timeout=60, env=env)
    assert (ended.returncode, ended.stdout) == (0, b"heavy:\n")


@pytest.mark.parametrize(
    "arguments", [["--no-such"], ["--trust", "sometimes"], ["a", "b"], ["--config-file", "x", "a"]]
)
def test_wrong_arguments_are_2_with_a_line_that_names_them(tree: Tree, arguments: list[str]) -> None:
    ended = tree.run(*arguments)
    assert ended.returncode == 2
    assert b"error: " in ended.stderr.splitlines()[-1]
    assert b"Traceback" not in ended.stderr


def test_a_second_signal_does_not_shorten_the_grace(tree: Tree) -> None:
    tree.hook("10-a", f"echo $$ > '{tree.root}/pid'; exec sleep 300")
    process = tree.start()
    pid = int(eventually(lambda: (tree.root / "pid").exists() and (tree.root / "pid").read_text()))
    try:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert alive(pid)
    finally:
        os.kill(pid, signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    process.communicate()
