"""Selection and order against the real dib-run-parts, over generated directories."""

import errno
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st

from refresh_agent.phases import run_parts
from tests.functional.node import COMMAND
from tests.integration import hook_trees
from tests.integration.hook_trees import SCRIPT, Entry
from tools import environments

PARTS = 10
TREES = int(os.environ.get("REFRESH_AGENT_TEST_TREES", "2000"))
"""In all parts together; each costs a dib-run-parts, about 20 ms."""


@pytest.fixture(scope="session")
def dib_run_parts() -> str:
    return str(environments.ensure("peers") / "bin" / "dib-run-parts")


class Bench:
    """An empty working directory, what links lead to, and room for one tree after the other."""

    def __init__(self, root: pathlib.Path, program: str) -> None:
        self.root = root
        self._program = program
        (root / "empty").mkdir()
        hook_trees.make(root / "aside", hook_trees.ASIDE)

    def theirs(self, directory: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
        """In the empty directory, where its words that look like patterns match nothing."""
        return subprocess.run(
            [self._program, "--list", directory],
            cwd=self.root / "empty",
            env={"PATH": os.environ["PATH"], **env},
            capture_output=True,
            check=True,
        )


@pytest.fixture
def bench(tmp_path: pathlib.Path, dib_run_parts: str) -> Bench:
    return Bench(tmp_path, dib_run_parts)


def lines(output: bytes) -> list[str]:
    return [os.fsdecode(line) for line in output.split(b"\n")[:-1]]


def words(names: tuple[str, ...]) -> list[str]:
    """What bash makes of a list of names: see REPAIRS, "a name with blanks"."""
    return [word for name in names for word in re.split("[ \t]+", name) if word]


def for_certain(env: Mapping[str, str], tree: Mapping[str, Entry]) -> dict[str, str]:
    """Beyond ASCII a regex means something else in another locale than C: see REPAIRS."""
    if all(text.isascii() for text in (*tree, env["RUN_PARTS_REGEX"])):
        return dict(env)
    return {**env, "LC_ALL": "C"}


TREES_OF_NOTE = (
    dict.fromkeys(["10-b", "10-a", "9-z", "-5neg", "_x", "abc", "010-c", "100-z", "-", "-0"], SCRIPT),
    {"20-foo.sh": SCRIPT, "20-foo~": SCRIPT, ".20-foo": SCRIPT, "20-foo": Entry("link", target="/bin/true")},
    {
        f"link to {name}".replace(" ", "-"): Entry("link", target=f"../aside/{name}")
        for name in hook_trees.ASIDE
    },
)
SOMETIMES_A_REGEX = hook_trees.mostly(st.none(), hook_trees.REGEXES, 3)
SUFFIXES = st.sampled_from(["", "", "/", "//", "/."])


@pytest.mark.parametrize("part", range(PARTS))
@settings(
    max_examples=TREES // PARTS,
    deadline=None,
    derandomize=False,  # the parts would be the same trees
    phases=set(Phase) - {Phase.explain},  # which takes longer than a test may
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=hook_trees.TREES, locale=hook_trees.LOCALES, regex=SOMETIMES_A_REGEX, suffix=SUFFIXES)
@example(tree={}, locale={}, regex=None, suffix="")
@example(tree=TREES_OF_NOTE[0], locale={"LANG": "C.UTF-8"}, regex=None, suffix="")
@example(tree=TREES_OF_NOTE[1], locale={"LANG": "POSIX"}, regex=None, suffix="")
@example(tree=TREES_OF_NOTE[2], locale={}, regex=None, suffix="")
def test_the_same_hooks_in_the_same_order(
    bench: Bench, part: int, tree: dict[str, Entry], locale: dict[str, str], regex: str | None, suffix: str
) -> None:
    env = locale if regex is None else for_certain({**locale, "RUN_PARTS_REGEX": regex}, tree)
    directory = bench.root / "configure.d"
    hook_trees.make(directory, tree)
    try:
        theirs = bench.theirs(f"{directory}{suffix}", env)
        try:
            hooks = run_parts.select(f"{directory}{suffix}", run_parts.name_regex(env)).hooks
        except OSError as error:  # see REPAIRS, "a regex that is none"
            if error.errno != errno.EINVAL:
                raise
            assert b"grep: " in theirs.stderr
            hooks = ()
        event(f"regex: {regex is not None}, hooks: {len(hooks)}")
        assert lines(theirs.stdout) == [f"{directory}{suffix}/{word}" for word in words(hooks)]
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("tree", TREES_OF_NOTE)
def test_the_command_lists_them_as_dib_run_parts_does(bench: Bench, tree: dict[str, Entry]) -> None:
    hook_trees.make(bench.root / "configure.d", tree)
    for directory in (f"{bench.root}/configure.d", "../configure.d/"):
        command = [COMMAND, "run-parts", "--list", directory]
        listed = subprocess.run(command, cwd=bench.root / "empty", capture_output=True, check=True).stdout
        assert listed == bench.theirs(directory, {}).stdout


@dataclass(frozen=True)
class Repair:
    """Where the selection differs on purpose. ``ours`` is an error's text if it is no list."""

    reason: str
    names: tuple[str, ...]
    theirs: list[str]
    ours: list[str] | str
    env: Mapping[str, str] = field(default_factory=dict)
    path: str = "configure.d"
    link: str = ""
    """Is used instead of the path, and leads there."""


REPAIRS = {
    "a path with a blank": Repair(
        "its hooks are not run, and that is called a success", ("10-a",), [], ["10-a"], path="my hooks"
    ),
    "a path that is a link": Repair(
        "its hooks are not run, and that is called a success", ("10-a",), [], ["10-a"], link="linked.d"
    ),
    "a name with blanks": Repair(
        "other names are run than those that were found",
        ("10-a b", "20\tc"),
        ["10-a", "b", "20", "c"],
        ["10-a b", "20\tc"],
        {"RUN_PARTS_REGEX": "."},
    ),
    "a name with a line break": Repair(
        "other names are run than those that were found", ("10-a\n20-b",), ["10-a", "20-b"], []
    ),
    "a name that is a pattern": Repair(
        "what it matches in the working directory is run",
        ("*",),
        ["in-the-working-directory"],
        ["*"],
        {"RUN_PARTS_REGEX": "."},
    ),
    "a regex that is none": Repair(
        "nothing is run, and that is called a success",
        ("10-a",),
        [],
        "RUN_PARTS_REGEX '(10' is not an extended regular expression: Unmatched ( or \\(",
        {"RUN_PARTS_REGEX": "(10"},
    ),
    "a regex that begins with a hyphen": Repair(
        "it is an option of grep", ("10-a", "20-b"), [], ["20-b"], {"RUN_PARTS_REGEX": "-b"}
    ),
    "a locale with characters of several bytes": Repair(
        "which hooks are run depends on who started it",
        ("a", "ü"),
        ["a", "ü"],
        ["a"],
        {"RUN_PARTS_REGEX": "^.$", "LC_ALL": "C.UTF-8"},
    ),
    "a name that is not text in the locale": Repair(
        "it is not run, and hides all that find happens to print after it",
        ("10-\udcff",),
        [],
        ["10-\udcff"],
        {"RUN_PARTS_REGEX": "10", "LC_ALL": "C.UTF-8"},
    ),
}
"""The generated trees keep clear of these, but for blanks and bad regexes, which are allowed for."""


@pytest.mark.parametrize("repair", [pytest.param(repair, id=name) for name, repair in REPAIRS.items()])
def test_what_differs_on_purpose(bench: Bench, repair: Repair) -> None:
    hook_trees.make(bench.root / repair.path, dict.fromkeys(repair.names, SCRIPT))
    (bench.root / "empty" / "in-the-working-directory").touch()
    if repair.link:
        (bench.root / repair.link).symlink_to(repair.path)
    directory = str(bench.root / (repair.link or repair.path))
    listed = lines(bench.theirs(directory, repair.env).stdout)
    try:
        ours: list[str] | str | None = list(
            run_parts.select(directory, run_parts.name_regex(repair.env)).hooks
        )
    except OSError as error:
        ours = error.strerror
    assert [path.removeprefix(f"{directory}/") for path in listed] == repair.theirs, repair.reason
    assert ours == repair.ours
