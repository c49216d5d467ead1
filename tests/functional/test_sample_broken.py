"""Projects that cannot be imported as a whole: what is missing is told, and the rest is there."""

import pathlib
import re
import textwrap

import pytest

from tests.functional.projects import Project, Tools, defining, either_way, listing, options_of, state

LOST = """
from oslo_config import cfg

lost = [
    cfg.StrOpt("lost_one"),
    cfg.IntOpt(name="lost-two", deprecated_opts=[cfg.DeprecatedOpt("older")]),
]
"""
"""What stands in each module that cannot be imported."""

BREAKS = {
    "something is not installed": ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
    "an error": ("raise ValueError('wrong\\nin two lines')", "ValueError: wrong;"),
    "an error that cannot be told": (
        "class E(Exception):\n    def __str__(self):\n        raise OSError\nraise E",
        " E;",
    ),
    "bad syntax": ("def broken(:", "SyntaxError"),
    "not text": ("name = '\udcff'", "SyntaxError"),
    "sys.exit": ("import sys; sys.exit('enough')", "it ends the program (sys.exit('enough'))"),
    "os._exit": ("import os; os._exit(3)", "it ends the interpreter (exit code 3);"),
    "os._exit as if all were well": ("import os; os._exit(0)", "it ends the interpreter (exit code 0);"),
    "a signal": (
        "import os; os.kill(os.getpid(), 11)",
        "it ends the interpreter (SIGSEGV);",
    ),
}

ENTRY_POINTS = """
[project]
name = "shop"
[project.entry-points."oslo.config.opts"]
"shop.good" = "shop.good:list_opts"
"shop.bad" = "shop.bad:list_opts"
"""


def break_module(project: Project, line: str) -> None:
    path = project.file("shop/bad.py", "")
    path.write_text(f"{LOST}{line}\n", errors="surrogateescape")


def in_one_line(text: str) -> list[str]:
    """Warnings and errors, without the line that says what was written."""
    return [line for line in text.splitlines() if not re.search(r"\.conf\.sample: \d+ options$", line)]


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Project:
    made = Project(tmp_path)
    made.file("shop/good.py", defining("good"))
    return made


@pytest.mark.parametrize(("line", "why"), list(BREAKS.values()), ids=list(BREAKS))
def test_a_module_that_cannot_be_imported_is_named_with_its_options(
    project: Project, line: str, why: str
) -> None:
    break_module(project, line)
    project.file("shop/worse.py", defining("worse"))  # those that come later are looked at, too
    (told,) = in_one_line(project.generate().stderr)
    assert told.startswith("generate_sample.sh: warning: cannot import shop.bad (shop/bad.py")
    assert why in told
    assert told.endswith("; missing from the sample: its options lost_one, lost_two")
    assert options_of(project.sample.read_text()) == {"DEFAULT": {"good": "GOOD", "worse": "WORSE"}}


@pytest.mark.parametrize(("line", "why"), list(BREAKS.values()), ids=list(BREAKS))
def test_with_strict_it_is_an_error_and_nothing_is_written(project: Project, line: str, why: str) -> None:
    break_module(project, line)
    project.sample.write_bytes(b"# old \xff\r\n")
    before = state(project.sample)
    error, outcome = project.generate("--strict", status=1).stderr.splitlines()
    assert error.startswith("generate_sample.sh: error: cannot import shop.bad (shop/bad.py")
    assert why in error
    assert outcome == "generate_sample.sh: etc/shop.conf.sample was left as it is, for --strict was given"
    assert state(project.sample) == before


def test_every_module_that_ends_the_interpreter_is_left_out(project: Project) -> None:
    for number in (1, 2, 3):
        project.file(f"shop/end{number}.py", f"import os; os._exit({number})  # Opt(\n")
    told = in_one_line(project.generate().stderr)
    assert [each.split()[4] for each in told] == ["shop.end1", "shop.end2", "shop.end3"]
    assert options_of(project.sample.read_text()) == {"DEFAULT": {"good": "GOOD"}}


def test_the_line_that_is_told_is_the_projects_own(project: Project) -> None:
    """Not one of the library that it calls; of a package, its __init__.py, which is where it fails."""
    project.file("shop/bad/__init__.py", "import json\n\njson.loads('{')\n")
    project.file("shop/bad/deep/options.py", LOST)
    (told,) = in_one_line(project.generate().stderr)
    assert "cannot import shop.bad.deep.options (shop/bad/__init__.py, line 3): JSONDecodeError" in told
    assert told.endswith("its options lost_one, lost_two")


@either_way
def test_an_entry_point_that_imports_a_broken_module(tmp_path: pathlib.Path, tools: Tools) -> None:
    project = Project(tmp_path, tools)
    project.file("pyproject.toml", ENTRY_POINTS)
    project.file("shop/good.py", listing("good"))
    project.file("shop/bad.py", "from shop import deep\n" + listing("bad"))
    project.file("shop/deep.py", "\n\nimport not_there\n")
    (told,) = in_one_line(project.generate().stderr)
    assert told == (
        f"{tools.generate.name}: warning: cannot load the entry point shop.bad of oslo.config.opts "
        "(shop/deep.py, line 3): ModuleNotFoundError: No module named 'not_there'; "
        "missing from the sample: every option of shop.bad"
    )
    assert options_of(project.sample.read_text()) == {"DEFAULT": {"good": "GOOD"}}
    before = state(project.sample)
    project.generate("--strict", status=1)
    assert state(project.sample) == before


@pytest.mark.parametrize(("line", "why"), list(BREAKS.values()), ids=list(BREAKS))
def test_an_entry_point_whose_module_is_broken(project: Project, line: str, why: str) -> None:
    project.file("pyproject.toml", ENTRY_POINTS)
    project.file("shop/good.py", listing("good"))
    break_module(project, line)
    (told,) = in_one_line(project.generate().stderr)
    assert "the entry point shop.bad of oslo.config.opts" in told
    assert why in told
    assert options_of(project.sample.read_text()) == {"DEFAULT": {"good": "GOOD"}}


@pytest.mark.parametrize(
    "value",
    ["shop.good:not_there", "shop.good", "shop.good:broken", "shop.good:wrong", "shop.not_there:list_opts"],
)
def test_an_entry_point_that_does_not_answer(project: Project, value: str) -> None:
    project.file("pyproject.toml", ENTRY_POINTS.replace("shop.bad:list_opts", value))
    more = "\n\ndef broken():\n    raise ValueError\n\n\ndef wrong():\n    return 7\n"
    project.file("shop/good.py", listing("good") + more)
    (told,) = in_one_line(project.generate().stderr)
    assert "the entry point shop.bad of oslo.config.opts" in told
    assert "<" not in told  # such as a line of Python's own import machinery
    assert options_of(project.sample.read_text()) == {"DEFAULT": {"good": "GOOD"}}


def test_a_thread_that_never_ends_holds_nothing_up(project: Project) -> None:
    project.file(
        "shop/busy.py",
        "import threading\nthreading.Thread(target=threading.Event().wait).start()\n" + defining("busy"),
    )
    assert in_one_line(project.generate("--strict").stderr) == []
    assert set(options_of(project.sample.read_text())["DEFAULT"]) == {"busy", "good"}


@pytest.mark.parametrize("form", ["ini", "json"])
def test_what_a_module_prints_gets_into_nothing(project: Project, form: str) -> None:
    project.file("shop/loud.py", "# Opt(\n")
    project.generate("--format", form)
    quiet = project.sample.read_bytes()
    project.file(
        "shop/loud.py", 'import os\nprint("{}")\nos.system("echo loud")\nos.write(1, b"\\xff\\n")\n# Opt(\n'
    )
    ended = project.run(
        "sh", "-c", 'exec "$@" 2>errors', "sh", project.tools.generate, "--format", form, "--strict"
    )
    assert ended.stdout == ""
    assert project.sample.read_bytes() == quiet
    assert b"loud\n" in (project.base / "errors").read_bytes()


def test_a_module_may_close_what_it_writes_to(project: Project) -> None:
    project.file("shop/shut.py", "import os, sys\nsys.stdout = None\nos.close(1)\n" + defining("shut"))
    project.generate("--strict")
    assert set(options_of(project.sample.read_text())["DEFAULT"]) == {"good", "shut"}


def test_a_module_may_read_what_it_likes(project: Project) -> None:
    project.file("shop/asks.py", "import sys\nanswer = sys.stdin.read()\n" + defining("asks"))
    project.generate("--strict")
    assert set(options_of(project.sample.read_text())["DEFAULT"]) == {"asks", "good"}


GROUPS = {
    "an OptGroup with a help text, registered by a function": (
        """
        group = cfg.OptGroup("till", title="Till", help="All about money.")

        def register_opts(conf):
            conf.register_group(group)
            conf.register_opts(opts, group=group)
        """,
        "till",
    ),
    "the name of a group, told by a function": (
        """
        def list_opts():
            return {"till": opts}
        """,
        "till",
    ),
    "registered at once": ("cfg.CONF.register_opts(opts, 'till')", "till"),
    "registered at once, as arguments too": ("cfg.CONF.register_cli_opts(opts, 'till')", "till"),
    "registered at once, one by one": ("[cfg.CONF.register_opt(o, group='till') for o in opts]", "till"),
    "without a group": ("cfg.CONF.register_opts(opts)", "DEFAULT"),
}


@pytest.mark.parametrize(("code", "group"), list(GROUPS.values()), ids=list(GROUPS))
def test_options_are_in_the_group_that_the_project_gives_them(
    project: Project, code: str, group: str
) -> None:
    before = 'from oslo_config import cfg\nopts = [cfg.IntOpt("coins", default=3, help="Many.")]\n'
    project.file("shop/good.py", before + textwrap.dedent(code))
    assert in_one_line(project.generate("--strict").stderr) == []
    text = project.sample.read_text()
    assert options_of(text) == {group: {"coins": "3"}}
    assert ("\n# All about money.\n" in text) == ("OptGroup" in code)


def test_an_option_that_nobody_registers_is_in_default_with_a_warning(project: Project) -> None:
    project.file(
        "shop/loose.py",
        'from oslo_config import cfg\nopts = [cfg.IntOpt("coins", default=3, help="Many.")]\n',
    )
    (told,) = in_one_line(project.generate().stderr)
    assert "shop.loose does not register all of its options when it is imported" in told
    assert told.endswith("listed under [DEFAULT]: coins")
    assert options_of(project.sample.read_text()) == {"DEFAULT": {"coins": "3", "good": "GOOD"}}
    before = state(project.sample)
    project.generate("--strict", status=1)
    assert state(project.sample) == before
