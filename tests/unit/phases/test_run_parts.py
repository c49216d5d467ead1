"""Which files are hooks, and their order: against find, grep and sort themselves."""

import errno
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refresh_agent.phases import ere, run_parts

NUMBERISH = st.from_regex(r"-?[0-9]{0,4}(\.[0-9]{0,3})?[a-zA-Z_.-]{0,3}", fullmatch=True)
ANY_BYTES = (
    st.binary(min_size=1, max_size=8).filter(lambda name: not {0, 10, 47} & set(name)).map(os.fsdecode)
)
BLANKS = st.from_regex(r"[ \t]{0,2}-?0{0,3}[0-9]{0,2}[+a,]?", fullmatch=True)
NAMES = (NUMBERISH | ANY_BYTES | BLANKS).filter(lambda name: name not in {"", ".", ".."})


def by_sort(names: list[str]) -> list[str]:
    """dib-run-parts' order, by the program that it uses."""
    result = subprocess.run(
        ["sort", "-n"],
        input=b"".join(os.fsencode(name) + b"\n" for name in names),
        env={"PATH": os.environ["PATH"], "LANG": "C"},
        capture_output=True,
        check=True,
    )
    return [os.fsdecode(name) for name in result.stdout.split(b"\n")[:-1]]


@settings(max_examples=40)
@given(st.lists(NAMES, max_size=150, unique=True))
def test_the_order_is_that_of_sort(names: list[str]) -> None:
    assert sorted(names, key=run_parts.sort_key) == by_sort(names)


def test_the_order_of_known_names() -> None:
    """As dib-run-parts was seen to run them."""
    expected = ["-5neg", "_x", "abc", "9-a", "010-c", "10-a", "10-b", "41-link", "100-z"]
    mixed = expected[::-1]
    assert sorted(mixed, key=run_parts.sort_key) == expected == by_sort(mixed)


@pytest.mark.parametrize(
    "names",
    [
        [
            "-0",
            "0",
            "00",
            "-",
            "--1",
            "-1",
            "-1.5",
            "-1.50",
            "-1.05",
            "-10",
            ".5",
            "0.5",
            "-.5",
            "a",
            "1a",
            "1",
        ],
        ["1.", "1", "1.0", "1.00x", "1.0.5", "1.05", "1,5", "+1", "1e3", "0x10", " 1", "\t2", "\v1"],
        ["9" * 200, "9" * 199, "-" + "9" * 200, "0" * 200],
        [os.fsdecode(b"10-\xff"), "10-ü", "10-z", "10-Z", os.fsdecode(b"\xff10")],
    ],
)
def test_numbers_of_every_form_are_ordered_as_sort_does(names: list[str]) -> None:
    assert sorted(names, key=run_parts.sort_key) == by_sort(names)


# --- selection ---------------------------------------------------------------------------------------------

KINDS = ("file", "script", "directory", "link to script", "link to file", "dangling", "loop", "fifo")


def make(directory: pathlib.Path, name: str, kind: str) -> None:
    path = directory / name
    aside = directory.parent / "aside"
    aside.mkdir(exist_ok=True)
    (aside / "script").touch(0o755)
    (aside / "file").touch(0o644)
    match kind:
        case "file":
            path.touch(0o644)
        case "script":
            path.touch(0o755)
        case "directory":
            path.mkdir(0o755)
        case "dangling":
            path.symlink_to("nowhere-at-all")
        case "loop":
            path.symlink_to(path.name)
        case "fifo":
            os.mkfifo(path, 0o755)
        case _:
            path.symlink_to(aside / kind.rpartition(" ")[2])


def by_find(directory: pathlib.Path) -> list[str]:
    """What dib-run-parts selects, by the programs that it uses."""
    pipe = (
        "find . -maxdepth 1 -xtype f -executable -printf '%f\\n' 2>/dev/null"
        " | grep -E '^[0-9A-Za-z_-]+$' | LANG=C sort -n"
    )
    result = subprocess.run(
        ["sh", "-c", pipe],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        capture_output=True,
    )
    return [os.fsdecode(name) for name in result.stdout.split(b"\n")[:-1]]


@settings(max_examples=25)
@given(
    st.dictionaries(NAMES | st.from_regex(r"[0-9]{1,2}-[a-z]{1,3}", fullmatch=True), st.sampled_from(KINDS))
)
def test_the_selection_is_that_of_dib_run_parts(entries: dict[str, str]) -> None:
    root = pathlib.Path(tempfile.mkdtemp())
    try:
        directory = root / "configure.d"
        directory.mkdir()
        for name, kind in entries.items():
            make(directory, name, kind)
        selection = run_parts.select(str(directory))
        assert list(selection.hooks) == by_find(directory)
        told = {skipped.name for skipped in selection.skipped}
        unasked = {name for name, kind in entries.items() if kind in {"directory", "fifo"}}
        assert told == entries.keys() - set(selection.hooks) - unasked
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("10-a.sh", "script", "its name does not match ^[0-9A-Za-z_-]+$"),
        ("10-a~", "script", "its name does not match"),
        (".10-a", "script", "its name does not match"),
        ("10-a\n", "script", "its name does not match"),
        ("10-ü", "script", "its name does not match"),
        ("10-a", "file", "it is not executable"),
        ("10-a", "link to file", "it is not executable"),
        ("10-a", "dangling", "it is a link that leads nowhere"),
        ("10-a", "loop", "it is a link that leads nowhere"),
    ],
)
def test_an_author_is_told_why_a_file_is_not_run(
    tmp_path: pathlib.Path, name: str, kind: str, reason: str
) -> None:
    """72-swift-proxy-iptables of tripleo-image-elements 0.9.9 has no executable bit, and nobody noticed."""
    directory = tmp_path / "configure.d"
    directory.mkdir()
    make(directory, name, kind)
    selection = run_parts.select(str(directory))
    assert selection.hooks == ()
    assert [skipped.name for skipped in selection.skipped] == [name]
    assert reason in selection.skipped[0].reason


def test_directories_and_fifos_are_passed_over_without_a_word(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "configure.d"
    directory.mkdir()
    make(directory, "10-a", "directory")
    make(directory, "20-b", "fifo")
    assert run_parts.select(str(directory)) == run_parts.Selection(())


def test_a_directory_whose_name_has_spaces_is_no_exception(tmp_path: pathlib.Path) -> None:
    """dib-run-parts silently runs nothing there, and calls it a success."""
    directory = tmp_path / "my hooks" / "configure.d"
    directory.mkdir(parents=True)
    make(directory, "10-a", "script")
    assert run_parts.select(str(directory)).hooks == ("10-a",)


def test_another_regex_selects_other_names(tmp_path: pathlib.Path) -> None:
    for name in ("10-a.sh", "20-b", "30-c\n"):
        (tmp_path / name).touch(0o755)
    assert run_parts.select(str(tmp_path), r"\.sh$").hooks == ("10-a.sh",)
    assert run_parts.select(str(tmp_path), "[ac]").hooks == ("10-a.sh",)


def test_with_another_regex_too_an_author_is_told_why_a_file_is_not_run(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "configure.d"
    directory.mkdir()
    for name, kind in (("a", "script"), ("b", "script"), ("aa", "file"), ("bb", "file"), ("ab", "fifo")):
        make(directory, name, kind)
    selection = run_parts.select(str(directory), "a")
    assert selection.hooks == ("a",)
    assert [(skipped.name, skipped.reason) for skipped in selection.skipped] == [
        ("aa", "it is not executable"),
        ("b", "its name does not match a"),
        ("bb", "its name does not match a"),
    ]


def test_a_regex_that_is_none_is_an_error(tmp_path: pathlib.Path) -> None:
    """dib-run-parts runs nothing then, and calls it a success."""
    with pytest.raises(OSError, match="RUN_PARTS_REGEX") as caught:
        run_parts.select(str(tmp_path), "(10")
    assert caught.value.errno == errno.EINVAL


def test_the_default_costs_no_process(tmp_path: pathlib.Path) -> None:
    """Nor the import of what would start one."""
    make(tmp_path, "10-a", "script")
    program = (
        "import sys; from refresh_agent.phases import run_parts; print(run_parts.select(sys.argv[1]).hooks);"
        "print('subprocess' in sys.modules)"
    )
    command = [sys.executable, "-c", program, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "('10-a',)\nFalse\n"


@settings(max_examples=20)
@given(st.lists(NAMES, max_size=100, unique=True))
def test_the_default_means_the_same_to_grep(names: list[str]) -> None:
    by_grep = ere.matching(names, run_parts.DEFAULT_REGEX)
    assert set(run_parts._allowed(names, run_parts.DEFAULT_REGEX)) == by_grep


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, run_parts.DEFAULT_REGEX),
        ({"RUN_PARTS_REGEX": ""}, run_parts.DEFAULT_REGEX),
        ({"RUN_PARTS_REGEX": "x"}, "x"),
    ],
)
def test_the_regex_may_come_from_the_environment(environment: dict[str, str], expected: str) -> None:
    assert run_parts.name_regex(environment) == expected


@pytest.mark.parametrize("kind", ["missing", "file", "loop"])
def test_a_directory_that_cannot_be_read_is_an_error(tmp_path: pathlib.Path, kind: str) -> None:
    if kind != "missing":
        make(tmp_path, "x", kind)
    with pytest.raises(OSError):  # noqa: PT011
        run_parts.select(str(tmp_path / "x"))
