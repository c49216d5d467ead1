"""Hooks that are really run, by the real dib-run-parts and by ``refresh-agent run-parts``."""

import os
import pathlib
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st

from tests.functional.node import COMMAND
from tests.integration import hook_trees
from tests.integration.hook_trees import Hook
from tools import environments

PARTS = 8
TREES = int(os.environ.get("REFRESH_AGENT_TEST_RUN_TREES", "320"))
"""In all parts together; each costs a dib-run-parts, about 150 ms."""

SECONDS = 60
"""Until something hangs."""


@dataclass(frozen=True)
class Ran:
    """What can be seen of a run. ``$0`` and other paths are told as if the tree were at /TREE."""

    stdout: bytes
    status: int
    hooks: list[str]
    stderr: bytes = field(compare=False, default=b"")


class Side:
    """A tree and the program that runs it, in the tree's root."""

    def __init__(self, root: pathlib.Path, *program: str) -> None:
        self.root = root
        self.temporary = root / "tmp"
        self._program = program
        self.temporary.mkdir(parents=True)

    def make(self, hooks: Mapping[str, Hook], environment: Mapping[str, str] | None, path: str) -> None:
        directory = self.root / path
        directory.mkdir(parents=True)
        for name, hook in hooks.items():
            (directory / name).write_text(hook.text, newline="")
            (directory / name).chmod(hook.mode)
        if environment is not None:
            (directory.parent / "environment.d").mkdir()
            for name, text in environment.items():
                (directory.parent / "environment.d" / name).write_text(f"{text}\n")

    def start(self, directory: str, env: Mapping[str, str], stdin: bytes = b"") -> subprocess.Popen[bytes]:
        (self.root / "stdin").write_bytes(stdin)
        standard = {
            "PATH": os.environ["PATH"],
            "RAN": str(self.root / "ran"),
            "TMPDIR": str(self.temporary),
            "SHOWN": "as given",
        }
        with (self.root / "stdin").open("rb") as file:
            return subprocess.Popen(
                [*self._program, directory.replace("/TREE", str(self.root))],
                cwd=self.root,
                env={**standard, **env},
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

    def finish(self, process: subprocess.Popen[bytes]) -> Ran:
        try:
            stdout, stderr = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        seen = stdout.replace(os.fsencode(self.root), b"/TREE")
        ran = self.root / "ran"
        return Ran(seen, process.returncode, ran.read_text().splitlines() if ran.exists() else [], stderr)


class Bench:
    """Both sides, which run at the same time."""

    def __init__(self, root: pathlib.Path, dib_run_parts: str) -> None:
        self.root = root
        self.theirs = Side(root / "theirs", dib_run_parts)
        self.ours = Side(root / "ours", COMMAND, "run-parts")

    def run(self, directory: str, env: Mapping[str, str], stdin: bytes = b"") -> tuple[Ran, Ran]:
        sides = (self.theirs, self.ours)
        processes = [side.start(directory, env, stdin) for side in sides]
        theirs, ours = (side.finish(process) for side, process in zip(sides, processes, strict=True))
        return theirs, ours


@pytest.fixture(scope="session")
def dib_run_parts() -> str:
    return str(environments.ensure("peers") / "bin" / "dib-run-parts")


HABITS = {name: Hook(deeds=('echo "$0"',)) for name in ("10-a", "20-b", "9-z")}
PATHS = st.sampled_from(["/TREE/configure.d"] * 4 + ["configure.d", "./configure.d/", "/TREE/configure.d//"])


@pytest.mark.parametrize("part", range(PARTS))
@settings(
    max_examples=TREES // PARTS,
    deadline=None,
    derandomize=False,  # the parts would be the same trees
    phases=set(Phase) - {Phase.explain},  # which takes longer than a test may
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    hooks=hook_trees.HOOK_TREES,
    environment=hook_trees.mostly(st.none(), hook_trees.ENVIRONMENTS, 2),
    locale=hook_trees.LOCALES,
    regex=st.sampled_from([*[None] * 8, "-", "^[[:digit:]]+[-.]", r"\."]),
    path=PATHS,
)
@example(hooks=HABITS, environment={"1": "export SHOWN=1"}, locale={}, regex=None, path="configure.d")
def test_the_same_hooks_run_with_the_same_results(
    tmp_path: pathlib.Path,
    dib_run_parts: str,
    part: int,
    hooks: dict[str, Hook],
    environment: dict[str, str] | None,
    locale: dict[str, str],
    regex: str | None,
    path: str,
) -> None:
    env = locale if regex is None else {**locale, "RUN_PARTS_REGEX": regex}
    bench = Bench(tmp_path / "bench", dib_run_parts)
    try:
        for side in (bench.theirs, bench.ours):
            side.make(hooks, environment, "configure.d")
        theirs, ours = bench.run(path, env)
        event(f"status {'0' if theirs.status == 0 else '1..'}, hooks: {len(theirs.hooks)}")
        assert ours == theirs, f"ours said:\n{ours.stderr!r}\ntheirs said:\n{theirs.stderr!r}"
    finally:
        shutil.rmtree(bench.root)


@dataclass(frozen=True)
class Repair:
    """Where a run differs on purpose."""

    reason: str
    theirs: Ran
    ours: Ran
    hooks: Mapping[str, Hook]
    environment: Mapping[str, str] | None = None
    path: str = "configure.d"
    stdin: bytes = b""
    linked: bool = False
    """environment.d is a link to where its files are."""


def telling(*deeds: str, end: str = "") -> Hook:
    return Hook(deeds=deeds, end=end)


NAMED = telling('echo "${0##*/}"')
READER = telling("cat")
FAILING = telling(end="exit 3")

REPAIRS = {
    "a path with a blank": Repair(
        "its hooks are not run, and that is called a success",
        theirs=Ran(b"", 0, []),
        ours=Ran(b"10-a\n", 0, ["10-a"]),
        hooks={"10-a": NAMED},
        path="my hooks/configure.d",
    ),
    "an empty environment.d": Repair(
        "grep finds nothing there, which ends it without a word",
        theirs=Ran(b"", 1, []),
        ours=Ran(b"10-a\n", 0, ["10-a"]),
        hooks={"10-a": NAMED},
        environment={},
    ),
    "an environment.d with nothing to source": Repair(
        "as when it is empty",
        theirs=Ran(b"", 1, []),
        ours=Ran(b"10-a\n", 0, ["10-a"]),
        hooks={"10-a": NAMED},
        environment={"a~": "export A=1"},
    ),
    "an environment.d that is a link": Repair(
        "find does not follow it, so as when it is empty",
        theirs=Ran(b"", 1, []),
        ours=Ran(b"linked\n", 0, ["10-a"]),
        hooks={"10-a": telling('echo "$A"')},
        environment={"1": "export A=linked"},
        linked=True,
    ),
    "set +e in an environment file": Repair(
        "a hook that fails is no failure, and those behind it run",
        theirs=Ran(b"20-b\n", 0, ["10-a", "20-b"]),
        ours=Ran(b"", 3, ["10-a"]),
        hooks={"10-a": FAILING, "20-b": NAMED},
        environment={"1": "set +e"},
    ),
    "exit 0 in an environment file": Repair(
        "no hook is run, and that is called a success",
        theirs=Ran(b"", 0, []),
        ours=Ran(b"", 1, []),
        hooks={"10-a": NAMED},
        environment={"1": "exit 0"},
    ),
    "more than variables in an environment file": Repair(
        "the shell that sources it runs the hooks: its directory, its umask, its options are theirs",
        theirs=Ran(b"/\n0777\n", 0, ["10-a"]),
        ours=Ran(b"/TREE\n0022\n", 0, ["10-a"]),
        hooks={"10-a": telling("pwd; umask")},
        environment={"1": "cd /; umask 777"},
    ),
    "an environment file that prints": Repair(
        "it looks like a hook's output",
        theirs=Ran(b"printed\n10-a\n", 0, ["10-a"]),
        ours=Ran(b"10-a\n", 0, ["10-a"]),
        hooks={"10-a": NAMED},
        environment={"1": "echo printed"},
    ),
    "a hook that reads its standard input": Repair(
        "it takes away what is meant for another, or waits for ever",
        theirs=Ran(b"input\n", 0, ["10-a", "20-b"]),
        ours=Ran(b"", 0, ["10-a", "20-b"]),
        hooks={"10-a": READER, "20-b": READER},
        stdin=b"input\n",
    ),
}
"""The generated trees keep clear of these."""


@pytest.mark.parametrize("repair", [pytest.param(repair, id=name) for name, repair in REPAIRS.items()])
def test_what_differs_on_purpose(tmp_path: pathlib.Path, dib_run_parts: str, repair: Repair) -> None:
    bench = Bench(tmp_path, dib_run_parts)
    for side in (bench.theirs, bench.ours):
        side.make(repair.hooks, repair.environment, repair.path)
        if repair.linked:
            (side.root / "environment.d").rename(side.root / "elsewhere")
            (side.root / "environment.d").symlink_to("elsewhere")
    theirs, ours = bench.run(f"/TREE/{repair.path}", {}, repair.stdin)
    assert theirs == repair.theirs, repair.reason
    assert ours == repair.ours, ours.stderr


def test_values_are_not_traced(tmp_path: pathlib.Path, dib_run_parts: str) -> None:
    """dib-run-parts sources environment.d with xtrace."""
    bench = Bench(tmp_path, dib_run_parts)
    for side in (bench.theirs, bench.ours):
        side.make({"10-a": NAMED}, {"1": "export PLAIN=of-no-importance PASSWORD=open-sesame"}, "configure.d")
    theirs, ours = bench.run("/TREE/configure.d", {})
    assert theirs == ours
    assert b"open-sesame" in theirs.stderr
    assert b"open-sesame" not in ours.stderr
    assert b"of-no-importance" not in ours.stderr


def test_a_failure_leaves_nothing_behind(tmp_path: pathlib.Path, dib_run_parts: str) -> None:
    """dib-run-parts leaves the directory in which it keeps its times."""
    bench = Bench(tmp_path, dib_run_parts)
    for side in (bench.theirs, bench.ours):
        side.make({"10-a": FAILING}, None, "configure.d")
    theirs, ours = bench.run("/TREE/configure.d", {})
    assert theirs == ours == Ran(b"", 3, ["10-a"])
    assert [path.name.partition(".")[0] for path in bench.theirs.temporary.iterdir()] == ["profiledir"]
    assert list(bench.ours.temporary.iterdir()) == []
