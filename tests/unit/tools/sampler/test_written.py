"""Registrations that stand in functions are read, as far as they can be."""

import ast
import importlib
import pathlib

import pytest
from oslo_config import cfg

from refresh_agent.tools.sampler.written import source, written
from tests.unit.tools.support import tree

HEAD = """\
from oslo_config import cfg
import goods_elsewhere
ONE, MANY = cfg.StrOpt("one"), [cfg.StrOpt("two"), cfg.StrOpt("three")]
GROUP = cfg.OptGroup("made")
NAME = "named"
"""
ELSEWHERE = """\
from oslo_config import cfg
OPTIONS = [cfg.StrOpt("four")]
NAME = "far"
GROUP = cfg.OptGroup("other")
"""


@pytest.fixture
def found(shop: pathlib.Path) -> "Found":
    tree(shop, {"goods_elsewhere.py": ELSEWHERE})
    return Found(shop)


class Found:
    def __init__(self, base: pathlib.Path) -> None:
        self.base = base

    def of(self, text: str) -> list[tuple[str, list[str] | None]]:
        """The group and the options' names of each registration; None for what cannot be known."""
        (self.base / "goods_here.py").write_text(HEAD + text)
        return [
            (
                group,
                None
                if what is None
                else [each.dest for each in (what if isinstance(what, list) else [what])],
            )
            for group, what in written(importlib.import_module("goods_here"))
        ]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("conf.register_opt(ONE)", ("DEFAULT", ["one"])),
        ("conf.register_opts(MANY, 'g')", ("g", ["two", "three"])),
        ("conf.register_cli_opt(ONE, group='g')", ("g", ["one"])),
        ("cfg.CONF.register_cli_opts(opts=MANY, group=NAME)", ("named", ["two", "three"])),
        ("conf.register_opt(group=GROUP, opt=ONE)", ("made", ["one"])),
        ("conf.register_opts(goods_elsewhere.OPTIONS, goods_elsewhere.NAME)", ("far", ["four"])),
        ("conf.register_opts(MANY, goods_elsewhere.GROUP)", ("other", ["two", "three"])),
        ("conf.register_opts(goods_elsewhere.NONE, 'g')", ("g", None)),
        ("conf.register_opts(MANY + MANY, 'g')", ("g", None)),
        ("conf.register_opts(made_here(), 'g')", ("g", None)),
    ],
)
def test_a_registration_is_looked_up_as_it_stands(
    found: Found, call: str, expected: tuple[str, list[str] | None]
) -> None:
    assert found.of(f"def f(conf, more):\n    {call}\n") == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "def f(conf, group): conf.register_opts(MANY, group)",
        "def f(conf, NAME): conf.register_opts(MANY, NAME)",
        "def f(conf):\n    NAME = g()\n    conf.register_opts(MANY, group=NAME)",
        "def f(conf): conf.register_opts(MANY, 'g' + NAME)",
        "def f(conf):\n    group = conf.Thing('g')\n    conf.register_opts(MANY, group)",
        "def f(conf): conf.register_group(GROUP)",
        "def f(conf): register_opts(MANY, 'g')",
        "def f(conf): conf.register_opts",
        "'conf.register_opts(MANY)'",
    ],
)
def test_of_a_group_that_cannot_be_known_nothing_is_said(found: Found, text: str) -> None:
    assert found.of(text + "\n") == []


def test_a_group_that_is_made_in_the_same_function_is_known_by_its_name(found: Found) -> None:
    text = "def f(conf):\n    group = cfg.OptGroup({})\n    conf.register_opts(MANY, group)\n"
    assert found.of(text.format("'g', title='t'")) == [("g", ["two", "three"])]


def test_of_two_groups_with_one_variable_neither_is_guessed(found: Found) -> None:
    text = "def {0}(conf):\n    group = cfg.OptGroup(name='{0}')\n    conf.register_opts(MANY, group)\n"
    assert found.of(text.format("g") + text.format("h")) == []


@pytest.mark.parametrize("name", ["sys", "unicodedata"])
def test_a_module_that_is_not_written_in_python_says_nothing(name: str) -> None:
    module = importlib.import_module(name)
    assert list(written(module)) == []
    assert list(ast.walk(source(module)))[1:] == []
    assert list(ast.walk(source(cfg)))[1:]


def test_what_fails_when_it_is_looked_at_is_not_known(found: Found) -> None:
    lazy = (
        "class Lazy:\n    def __getattr__(self, name):\n        raise RuntimeError(name)\n"
        "LAZY = Lazy()\ndef f(conf):\n    conf.register_opts(LAZY.options, 'g')\n"
    )
    assert found.of(lazy) == [("g", None)]
