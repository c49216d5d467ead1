"""What the tests of os-refresh-config and dib-run-parts ask for: of theirs, and of ours under their names.

Ours is called by a wrapper of one line, which is all that a node needs to take over. Below that, what
dib-run-parts and run-parts write, byte by byte.
"""

import os
import pathlib
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from tests.functional.node import COMMAND
from tools import environments

PHASES = ("pre-configure", "configure", "post-configure", "migration")


@dataclass(frozen=True)
class Programs:
    """A directory with os-refresh-config and dib-run-parts."""

    directory: pathlib.Path

    def run(self, *words: str, cwd: pathlib.Path, **env: str) -> subprocess.CompletedProcess[bytes]:
        variables = {"PATH": f"{self.directory}:{os.environ['PATH']}", "LC_ALL": "C", "TZ": "UTC", **env}
        return subprocess.run(
            [self.directory / words[0], *words[1:]],
            cwd=cwd,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )


@pytest.fixture(scope="session")
def theirs() -> Programs:
    return Programs(environments.ensure("peers") / "bin")


@pytest.fixture
def ours(tmp_path: pathlib.Path) -> Programs:
    """The wrappers of docs/moving-over.rst, but for a configuration that keeps to this directory."""
    directory = tmp_path / "bin"
    directory.mkdir()
    config = directory / "agent.conf"
    config.write_text(
        f"[DEFAULT]\nlock_file = {tmp_path}/run.lock\nstate_dir = {tmp_path}/state\n"
        f"cachedir = {tmp_path}/cache\nbackup_cachedir =\ncollectors = heat_local\n"
    )
    for name, words in (
        ("os-refresh-config", f"--config-file {config} run-phases"),
        ("dib-run-parts", "run-parts"),
    ):
        (directory / name).write_text(f'#!/bin/sh\nexec {COMMAND} {words} "$@"\n')
        (directory / name).chmod(0o755)
    return Programs(directory)


@pytest.fixture(params=["theirs", "ours"])
def programs(request: pytest.FixtureRequest) -> Programs:
    found: Programs = request.getfixturevalue(request.param)
    return found


def script(path: pathlib.Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


class TestDibRunParts:
    def test_an_empty_directory_lists_nothing_and_succeeds(
        self, programs: Programs, tmp_path: pathlib.Path
    ) -> None:
        (tmp_path / "td").mkdir()
        for words in (["--list", "td"], ["td"]):
            ended = programs.run("dib-run-parts", *words, cwd=tmp_path)
            assert (ended.returncode, ended.stdout) == (0, b"")

    def test_what_is_listed_is_what_is_called(self, programs: Programs, tmp_path: pathlib.Path) -> None:
        for name in ("call_me_2", "call_me_1"):
            script(tmp_path / "td" / name, f"echo {name} called")
        (tmp_path / "td" / "not_me").write_text("#!/bin/sh\necho not executable\n")
        listed = programs.run("dib-run-parts", "--list", "td", cwd=tmp_path)
        assert (listed.returncode, listed.stdout) == (0, b"td/call_me_1\ntd/call_me_2\n")
        ended = programs.run("dib-run-parts", "td", cwd=tmp_path)
        assert (ended.returncode, ended.stdout) == (0, b"call_me_1 called\ncall_me_2 called\n")

    def test_environment_d_beside_the_directory_is_seen(
        self, programs: Programs, tmp_path: pathlib.Path
    ) -> None:
        (tmp_path / "environment.d").mkdir()
        (tmp_path / "environment.d" / "set_var.bash").write_text(
            "export CM1='Some thing'\nexport CM2=other\n"
        )
        script(tmp_path / "td" / "call_me_1", 'echo "call_me_1 called [$CM1]"')
        script(tmp_path / "td" / "call_me_2", 'echo "call_me_2 called [$CM2]"')
        ended = programs.run("dib-run-parts", "td", cwd=tmp_path)
        assert ended.stdout == b"call_me_1 called [Some thing]\ncall_me_2 called [other]\n"
        assert ended.returncode == 0

    @pytest.mark.parametrize("words", [[], ["no-such-directory"], ["file"], ["--list", "no-such-directory"]])
    def test_without_a_directory_it_tells_its_usage(
        self, programs: Programs, tmp_path: pathlib.Path, words: list[str]
    ) -> None:
        (tmp_path / "file").touch()
        ended = programs.run("dib-run-parts", *words, cwd=tmp_path)
        assert (ended.returncode, ended.stdout) == (1, b"")
        assert b"usage: " in ended.stderr.lower()


class Refresh:
    def __init__(self, programs: Programs, root: pathlib.Path) -> None:
        self.base = root / "base"
        self.base.mkdir()
        self._programs = programs
        self._root = root

    def script(self, place: str, status: int = 0, wait: str = "") -> None:
        phase, name = place.split("/")
        body = f"echo {name} starting\n{wait or ':'}\necho {name} done\nexit {status}"
        script(self.base / f"{phase}.d" / name, body)

    def run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        options = ["--lockfile", str(self._root / "lock"), *words]
        env = {"OS_REFRESH_CONFIG_BASE_DIR": str(self.base)}
        return self._programs.run("os-refresh-config", *options, cwd=self._root, **env)


@pytest.fixture
def refresh(programs: Programs, tmp_path: pathlib.Path) -> Refresh:
    return Refresh(programs, tmp_path)


def said(*names: str) -> bytes:
    return "".join(f"{name} starting\n{name} done\n" for name in names).encode()


class TestOsRefreshConfig:
    def test_with_nothing_to_do_it_is_silent(self, refresh: Refresh) -> None:
        ended = refresh.run()
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")

    def test_phases_and_scripts_run_in_order_one_after_the_other(self, refresh: Refresh) -> None:
        names = [f"{number}-{phase}" for phase in PHASES for number in (9, 10)]
        for place in reversed([f"{name.partition('-')[2]}/{name}" for name in names]):
            refresh.script(place)
        ended = refresh.run()
        assert (ended.returncode, ended.stdout) == (0, said(*names))

    def test_a_failure_ends_it_with_1(self, refresh: Refresh) -> None:
        refresh.script("pre-configure/10-first")
        refresh.script("pre-configure/20-second", status=99)
        refresh.script("pre-configure/30-third")
        refresh.script("configure/10-first")
        ended = refresh.run()
        assert (ended.returncode, ended.stdout) == (1, said("10-first", "20-second"))

    def test_error_d_runs_after_a_failure_and_changes_nothing(self, refresh: Refresh) -> None:
        refresh.script("configure/10-first", status=99)
        refresh.script("error/10-told", status=7)
        ended = refresh.run()
        assert (ended.returncode, ended.stdout) == (1, said("10-first", "10-told"))

    def test_a_timeout_ends_the_script_and_the_run_with_1(self, refresh: Refresh) -> None:
        refresh.script("pre-configure/10-first", wait="sleep 60")
        refresh.script("pre-configure/20-second")
        refresh.script("configure/10-first")
        began = time.monotonic()
        ended = refresh.run("--timeout", "1", "--log-level", "DEBUG")
        assert (ended.returncode, ended.stdout) == (1, b"10-first starting\n")
        assert 1 <= time.monotonic() - began < 30

    def test_with_debug_it_says_something_to_standard_error(self, refresh: Refresh) -> None:
        ended = refresh.run("--log-level", "DEBUG")
        assert (ended.returncode, ended.stdout, ended.stderr != b"") == (0, b"", True)

    @pytest.mark.parametrize("level", ["ERROR", "WARN", "CRITICAL"])
    def test_its_quiet_log_levels(self, refresh: Refresh, level: str) -> None:
        assert refresh.run("--log-level", level).stderr == b""

    def test_it_prints_its_phases(self, refresh: Refresh) -> None:
        ended = refresh.run("--print-phases")
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert ended.stdout == b"pre-configure\tconfigure\tpost-configure\tmigration\n"

    def test_it_prints_its_base(self, refresh: Refresh) -> None:
        ended = refresh.run("--print-base")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{refresh.base}\n".encode(), b"")

    def test_the_lock_is_11(self, refresh: Refresh, tmp_path: pathlib.Path) -> None:
        command = f"flock -n {tmp_path}/lock true; echo $?"
        refresh.script("configure/10-first", wait=command)
        assert refresh.run().stdout == b"10-first starting\n1\n10-first done\n"
        holder = subprocess.Popen(
            ["flock", str(tmp_path / "lock"), "sh", "-c", "echo held; read _"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"held\n"
            assert refresh.run().returncode == 11
        finally:
            holder.communicate(b"\n", timeout=20)

    def test_wrong_arguments_are_2(self, refresh: Refresh) -> None:
        for words in (["--no-such"], ["--timeout", "soon"], ["--log-level", "LOUD"]):
            assert refresh.run(*words).returncode == 2


# --- byte by byte ------------------------------------------------------------------------------------------

DATE = re.compile(rb"^(dib-run-parts) \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d UTC \d{4} ", re.MULTILINE)
SECONDS = re.compile(rb"(?<=\S) {3,}\d+\.\d{3}$", re.MULTILINE)


@dataclass(frozen=True)
class Written:
    status: int
    stdout: bytes
    stderr: bytes

    def without(self, trace: bool) -> "Written":
        """Without xtrace of environment.d: one of the repairs."""
        return replace(self, stderr=re.sub(rb"(?m)^\++ .*\n", b"", self.stderr)) if trace else self


TREES: Mapping[str, Mapping[str, str]] = {
    "nothing": {},
    "one hook": {"10-a": "echo said"},
    "hooks in order": dict.fromkeys(("10-b", "9-z", "10-a", "-5neg", "_x", "010-c"), "echo $0"),
    "names of all lengths": {"1" * length: "true" for length in (1, 38, 39, 40, 41, 120)},
    "both streams": {"10-a": "echo out; echo err >&2", "20-b": "echo err >&2; printf 'no end of line'"},
    "binary": {"10-a": r"printf '\377\000\033[31m\r\n'; printf '\376\000' >&2; echo >&2"},
    "nothing that may run": {"10-a.sh": "echo never"},
}
ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {
    "no environment.d": {},
    "environment.d": {"10-x": "export A=1", "9-y.bash": "export B=2; : ${A:?}"},
}


def write_tree(root: pathlib.Path, hooks: Mapping[str, str], environment: Mapping[str, str]) -> None:
    (root / "td").mkdir(parents=True)
    for name, body in hooks.items():
        script(root / "td" / name, body)
    for name, text in environment.items():
        (root / "environment.d").mkdir(exist_ok=True)
        (root / "environment.d" / name).write_text(f"{text}\n")


def written(programs: Programs, root: pathlib.Path, *words: str) -> Written:
    ended = programs.run("dib-run-parts", *words, cwd=root)
    stderr = SECONDS.sub(b" S", DATE.sub(rb"\1 DATE ", ended.stderr))
    return Written(ended.returncode, ended.stdout, stderr)


def columns(stderr: bytes) -> list[int]:
    """Where the rows of the profile end."""
    return [len(line) for line in DATE.sub(b"", stderr).splitlines() if re.search(rb" \d+\.\d{3}$", line)]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("path", ["td", "td/", "./td//"])
def test_the_same_bytes(
    ours: Programs, theirs: Programs, tmp_path: pathlib.Path, tree: str, environment: str, path: str
) -> None:
    write_tree(tmp_path / "tree", TREES[tree], ENVIRONMENTS[environment])
    if path != "td":  # without environment.d it would be more of the same
        assert written(ours, tmp_path / "tree", "--list", path) == written(
            theirs, tmp_path / "tree", "--list", path
        )
    expected = written(theirs, tmp_path / "tree", path)
    assert expected.status == 0
    assert written(ours, tmp_path / "tree", path) == expected.without(trace=bool(ENVIRONMENTS[environment]))


def test_the_same_columns(ours: Programs, theirs: Programs, tmp_path: pathlib.Path) -> None:
    write_tree(tmp_path / "tree", TREES["names of all lengths"], {})
    seen = [
        columns(programs.run("dib-run-parts", "td", cwd=tmp_path / "tree").stderr)
        for programs in (ours, theirs)
    ]
    assert seen[0] == seen[1] == [51, 51, 51, 51, 52, 131]


class TestAFailure:
    """The same bytes as far as dib-run-parts goes; then the repairs."""

    @pytest.mark.parametrize(
        ("body", "status", "words"),
        [
            ("echo said; echo err >&2; exit 42", 42, b"failed with status 42"),
            ("kill -9 $$", 137, b"was ended by signal 9"),
        ],
    )
    def test_what_failed_is_named_and_the_profile_is_told(
        self, ours: Programs, theirs: Programs, tmp_path: pathlib.Path, body: str, status: int, words: bytes
    ) -> None:
        write_tree(tmp_path / "tree", {"10-a": "echo fine", "20-b": body, "30-c": "echo never"}, {})
        expected = written(theirs, tmp_path / "tree", "td")
        got = written(ours, tmp_path / "tree", "td")
        assert (got.status, got.stdout) == (expected.status, expected.stdout)
        assert got.status == status
        # bash's own word about a signal is not said of a hook that is not its child.
        common = re.sub(rb"(?m)^.*dib-run-parts: line \d+: .* Killed .*\n", b"", expected.stderr)
        assert got.stderr.startswith(common)
        first, *rest = got.stderr.removeprefix(common).splitlines()
        assert first == b"dib-run-parts DATE 20-b: " + words
        names = [line.split()[2] for line in rest if line.endswith(b" S")]
        assert names == [b"10-a", b"20-b"]
        assert rest[-1].endswith(b"--- END PROFILING ---------------------")

    def test_an_environment_file_is_named(
        self, ours: Programs, theirs: Programs, tmp_path: pathlib.Path
    ) -> None:
        write_tree(tmp_path / "tree", {"10-a": "echo never"}, {"1": "export A=1", "2": "(exit 9)", "3": ""})
        expected = written(theirs, tmp_path / "tree", "td").without(trace=True)
        got = written(ours, tmp_path / "tree", "td")
        assert (got.status, got.stdout) == (expected.status, expected.stdout) == (9, b"")
        assert got.stderr.startswith(expected.stderr)
        first, *_ = got.stderr.removeprefix(expected.stderr).splitlines()
        assert first == b"dib-run-parts DATE td/../environment.d/2: ended with status 9"
