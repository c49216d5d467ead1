"""docs/ tells of all that there is, of nothing else, and its links lead somewhere."""

import argparse
import ast
import contextlib
import pathlib
import re
import shlex
import sqlite3
from typing import Any

import pytest

from refresh_agent import journal_schema, main, opts
from refresh_agent.errors import ExitCode
from tests import pages
from tests.pages import TOP, read

DOCS = TOP / "docs"
PAGES = sorted(DOCS.glob("*.rst"))
TEXT_PAGES = (TOP / "README.rst", *PAGES)

OPTION = re.compile(r"^``(?P<name>\w+)`` \((?P<facts>.*)\)$", re.MULTILINE)


# --- options ---------------------------------------------------------------------------------------------


def documented_options() -> dict[str, dict[str, str]]:
    """Group → option → what stands in its parentheses: type and default."""
    parts = re.split(r"^\[(.+)\]\n-+\n", read(DOCS / "configuration.rst"), flags=re.MULTILINE)[1:]
    return {
        group.casefold(): {match["name"]: match["facts"] for match in OPTION.finditer(text)}
        for group, text in zip(parts[::2], parts[1::2], strict=True)
    }


def existing_options() -> dict[str, dict[str, Any]]:
    return {
        group.casefold(): {option.dest: option for option in options} for group, options in opts.list_opts()
    }


def test_every_option_is_documented_and_no_other() -> None:
    documented = {group: set(options) for group, options in documented_options().items()}
    assert documented == {group: set(options) for group, options in existing_options().items()}


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, options in existing_options().items() for name in options]
)
def test_the_documented_default_is_the_real_one(group: str, name: str) -> None:
    option = existing_options()[group][name]
    default = option.default
    shown = ", ".join(default) if isinstance(default, list) else default
    if isinstance(default, bool):
        shown = str(default).lower()  # as people write it
    told = documented_options()[group][name].rpartition("default")[2]
    if shown in {None, ""}:
        assert told.startswith(": ")
    else:
        assert told == f" ``{shown}``"


# --- commands --------------------------------------------------------------------------------------------


def flags() -> set[str]:
    """Every flag and command of the command line."""
    return flags_of(main._parser(list(main.COMMANDS)))


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    """Those of its commands, and of theirs, too."""
    found = {flag for action in parser._actions for flag in action.option_strings if flag[:2] == "--"}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                found |= {name} | flags_of(command)
    return found


@pytest.mark.parametrize("page", ["commands.rst", "refresh-agent.8.rst"])
def test_every_flag_and_command_is_documented(page: str) -> None:
    text = read(DOCS / page)
    assert [flag for flag in sorted(flags()) if not re.search(rf"(?<![\w-]){flag}(?![\w-])", text)] == []


def test_no_flag_is_documented_that_does_not_exist() -> None:
    told = set(
        re.findall(r"(?<=[`*])--[a-z-]+", read(DOCS / "commands.rst") + read(DOCS / "refresh-agent.8.rst"))
    )
    assert told - flags() == set()


def test_what_is_to_be_typed_exists() -> None:
    typed = [shlex.split(command) for page in TEXT_PAGES for command in pages.commands(read(page))]
    ours = [words[1:] for words in typed if words[0] == "refresh-agent"]
    assert len(ours) > 2
    for words in ours:
        main._parser(words).parse_args(words)  # or it exits


@pytest.mark.parametrize(
    ("path", "row"),
    [
        (DOCS / "commands.rst", r"^``(\d+)`` +\w"),
        (DOCS / "refresh-agent.8.rst", r"^\*\*(\d+)\*\*$"),
        (TOP / "README.rst", r"^(\d+)  +\w"),
    ],
    ids=["commands", "man-page", "readme"],
)
def test_every_exit_code_is_documented_and_no_other(path: pathlib.Path, row: str) -> None:
    told = [int(code) for code in re.findall(row, read(path), re.MULTILINE)]
    assert told == sorted(ExitCode)


# --- what hooks and operators see --------------------------------------------------------------------------


def strings_of_the_code() -> list[str]:
    """Every string in the package; of one with values in it, the pieces between them."""
    return [
        node.value
        for path in (TOP / "refresh_agent").rglob("*.py")
        for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_every_variable_of_a_hook_is_documented() -> None:
    used = {text for text in strings_of_the_code() if re.fullmatch(r"REFRESH_AGENT_[A-Z_]+[A-Z]", text)}
    told = set(re.findall(r"``(REFRESH_AGENT_[A-Z_]+[A-Z])``", read(DOCS / "hooks.rst")))
    assert used == told
    assert len(used) >= 10


def messages() -> list[str]:
    """The terms of the definition lists in troubleshooting; "…" stands for values."""
    terms = re.findall(r"^``(.+)``\n    \S", read(DOCS / "troubleshooting.rst"), re.MULTILINE)
    assert len(terms) > 30
    return terms


@pytest.mark.parametrize("message", messages())
def test_a_message_is_one_that_the_code_can_give(message: str) -> None:
    code = strings_of_the_code()
    pieces = [piece.strip(" ;:()") for piece in re.split(r"…|; | \(", message)]
    # Words before the first colon may be put in front by the caller: "source NAME: ", "hold: ".
    unknown = [piece for piece in pieces if len(piece) > 3 and not _is_in(piece, code)]
    assert unknown == []


def _is_in(piece: str, code: list[str]) -> bool:
    _, _, behind = piece.partition(": ")
    return any(piece in text or (behind and behind in text) for text in code)


# --- the systemd unit --------------------------------------------------------------------------------------


def test_the_unit_waits_longer_than_a_stop_may_take() -> None:
    unit = read(TOP / "systemd" / "refresh-agent.service")
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    grace = sum(existing_options()["phases"][name].default for name in ("stop_grace", "kill_grace"))
    assert int(settings["TimeoutStopSec"]) > grace
    assert int(settings["RestartPreventExitStatus"]) == ExitCode.USAGE
    assert f"/var/lib/{settings['StateDirectory']}" == existing_options()["default"]["state_dir"].default


# --- links -----------------------------------------------------------------------------------------------


def test_every_page_is_in_the_table_of_contents() -> None:
    index = read(DOCS / "index.rst")
    listed = re.findall(r"^   ([\w.-]+)$", index[index.index("toctree") :], re.MULTILINE)
    assert sorted(listed) == sorted(
        page.name.removesuffix(".rst") for page in PAGES if page.name != "index.rst"
    )


@pytest.mark.parametrize("page", TEXT_PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    text = read(page)
    pages = [f"{name}.rst" for name in re.findall(r":doc:`([^`<]+)`", text)]
    files = [target for target in re.findall(r"`[^`]+<([^`>]+)>`_", text) if "://" not in target]
    assert [target for target in pages + files if not (page.parent / target).is_file()] == []
    if page.name == "README.rst":
        assert {f"docs/{other.name}" for other in PAGES} - set(files) == {
            "docs/index.rst",
            "docs/refresh-agent.8.rst",
        }


def test_the_architecture_names_every_module() -> None:
    package = TOP / "refresh_agent"
    told = re.findall(r"^``([\w/]+(?:\.py|/))`` ", read(DOCS / "architecture.rst"), re.MULTILINE)
    assert [name for name in told if not (package / name).exists()] == []
    modules = {
        str(path.relative_to(package)) for path in package.rglob("*.py") if not path.name.startswith("__")
    }
    folders = tuple(name for name in told if name.endswith("/"))
    assert {name for name in modules if not name.startswith(folders)} - set(told) == set()


def test_the_import_order_is_that_of_the_contract() -> None:
    contract = read(TOP / "setup.cfg").partition("layers =")[2].partition("[")[0]
    layers = [line.strip().replace("refresh_agent.", "") for line in contract.strip().splitlines()]
    order = read(DOCS / "architecture.rst").partition("checks it")[2].partition("::\n\n")[2]
    assert [line.strip() for line in order.partition("\n\n")[0].splitlines()] == layers[1:]


def test_the_journals_tables_are_documented_column_by_column() -> None:
    text = read(DOCS / "journal.rst")
    parts = re.split(r"^(\w+)\n-+\n", text.partition("Tables\n======")[2], flags=re.MULTILINE)[1:]
    documented = {
        table: re.findall(r"^``(\w+)``", part, re.MULTILINE)
        for table, part in zip(parts[::2], parts[1::2], strict=True)
    }
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(journal_schema.CURRENT)
        tables = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE TABLE%'")
        ]
        existing = {table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in tables}
    assert documented == existing
    assert f"is the version, {journal_schema.VERSION}." in text


def test_every_promise_has_its_tests_and_they_exist() -> None:
    promises = read(DOCS / "reliability.rst").partition("The promises\n=====")[2].partition("What is not")[0]
    proofs = re.findall(r"^    \| (\S+): (test_\w+)$", promises, re.MULTILINE)
    assert len(proofs) == promises.count("\n    |")
    missing = [(path, name) for path, name in proofs if f"def {name}(" not in read(TOP / "tests" / path)]
    assert missing == []
    untold = re.findall(r"^\S.*\.\n(?!    \|)", promises, re.MULTILINE)
    assert untold == []
