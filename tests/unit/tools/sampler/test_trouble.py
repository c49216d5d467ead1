"""What a project's exception says of itself, in a line, and where the project has to do with it."""

import importlib
import pathlib
from typing import Any

import pytest

from refresh_agent.tools.sampler.trouble import WORDS, missing, place, reason, trouble


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a is wrong"), "ValueError: a is wrong"),
        (ValueError(), "ValueError"),
        (ValueError(" \n\n"), "ValueError"),
        (ValueError("\n  one\ntwo\n"), "ValueError: one"),
        (ValueError("one\r\ntwo"), "ValueError: one"),
        (ValueError("x" * 10_000), "ValueError: " + "x" * WORDS),
        (KeyError("name"), "KeyError: 'name'"),
        (MuteError("a"), "MuteError"),
        (ModuleNotFoundError("No module named 'a'"), "ModuleNotFoundError: No module named 'a'"),
        (SystemExit(3), "it ends the program (sys.exit(3))"),
        (SystemExit(), "it ends the program (sys.exit(None))"),
        (SystemExit("one\ntwo"), "it ends the program (sys.exit('one\\ntwo'))"),
        (GeneratorExit(), "GeneratorExit"),
    ],
    ids=repr,
)
def test_a_reason_is_one_line_whatever_the_exception_says(error: BaseException, said: str) -> None:
    assert reason(error) == said


def test_a_trouble_has_every_field_also_those_that_say_nothing() -> None:
    assert trouble("what", "why", missing("a, b")) == {
        "what": "what",
        "where": "",
        "why": "why",
        "outcome": "missing from the sample: a, b",
        "module": "",
    }


# --- where -------------------------------------------------------------------------------------------------


def raised(name: str, *arguments: Any) -> BaseException:
    """By the import of the module, or by its ``f``."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it is does not matter here
        importlib.import_module(name).f(*arguments)
    return caught.value


def test_the_place_is_the_innermost_line_of_the_project(shop: pathlib.Path) -> None:
    (shop / "goods").mkdir()
    (shop / "goods" / "a.py").write_text("import json\nfrom goods import b\n")
    (shop / "goods" / "b.py").write_text("import json\n\njson.loads('{')\n")
    assert place(raised("goods.a"), str(shop)) == "goods/b.py, line 3"
    assert place(raised("goods.a"), str(shop / "goods")) == "b.py, line 3"


def test_a_wrong_syntax_is_where_it_is_written(shop: pathlib.Path) -> None:
    (shop / "one.py").write_text("import other\n")
    (shop / "other.py").write_text("x = 1\ndef f(:\n")
    assert place(raised("one"), str(shop)) == "other.py, line 2"


def test_a_module_that_is_missing_is_where_it_is_imported(shop: pathlib.Path) -> None:
    (shop / "one.py").write_text("\nimport no_such_module\n")
    assert place(raised("one"), str(shop)) == "one.py, line 2"


def test_what_is_not_the_projects_has_no_place(shop: pathlib.Path) -> None:
    (shop / "outside.py").write_text("def f():\n    raise ValueError\n")
    (shop / "shop").mkdir()
    assert place(raised("outside"), str(shop / "shop")) == ""
    assert place(ValueError("never raised"), str(shop)) == ""
    assert place(SyntaxError("without a file"), str(shop)) == ""


def test_an_environment_in_the_tree_is_not_the_projects(
    shop: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = shop / ".tox" / "lib" / "site-packages"
    packages.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(packages))
    (packages / "some_library.py").write_text("def f():\n    raise ValueError\n")
    assert place(raised("some_library"), str(shop)) == ""
    (shop / "one.py").write_text("import some_library\n\nsome_library.f()\n")
    assert place(raised("one"), str(shop)) == "one.py, line 3"


def test_what_lies_in_no_file_has_no_place(shop: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of such frames are not paths below the directory that the sampler works in."""
    monkeypatch.chdir(shop)
    assert place(raised("no_such_module"), str(shop)) == ""
    (shop / "one.py").write_text("def f():\n    exec('\\n\\nraise ValueError')\n")
    assert place(raised("one"), str(shop)) == "one.py, line 2"


def test_below_links_a_place_is_told_as_the_project_has_it(
    shop: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "real").mkdir()
    (shop / "link").symlink_to("real")
    (shop / "real" / "linked.py").write_text("raise ValueError\n")
    monkeypatch.syspath_prepend(str(shop / "link"))
    assert place(raised("linked"), str(shop / "real")) == "linked.py, line 1"
