"""What is asked of a project's interpreter, and what becomes of its answer."""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from refresh_agent.errors import ConfigError
from refresh_agent.tools import project
from refresh_agent.tools.order import Order, fresh, interpreter
from tests.unit.support import looping_link
from tests.unit.tools import support

REPEAT = "answer(json.dumps(request) + '\\n')"


class Shop:
    """A project whose interpreter does what ``body`` says."""

    def __init__(self, place: pathlib.Path) -> None:
        self.place = place
        self.base = support.tree(place / "the shop", {"etc/remark": ""})

    def order(
        self,
        body: str = REPEAT,
        form: str = "ini",
        name: str = "shop",
        modules: Sequence[str] = (),
        libraries: Sequence[str] = (),
    ) -> Order:
        read = project.read(str(self.base), name)
        python = support.interpreter(self.place / "python", body)
        path = project.destination(read, None)
        return Order(read, path, modules, libraries, [], form, python, strict=False, words=[])

    def asked(self, **more: Any) -> dict[str, Any]:
        request: dict[str, Any] = json.loads(fresh(self.order(**more)).text)
        return request


@pytest.fixture
def shop(tmp_path: pathlib.Path) -> Shop:
    shop = Shop(tmp_path)
    support.tree(shop.base, {"src/shop/__init__.py": ""})
    return shop


def test_what_the_project_the_caller_and_the_script_say_is_asked_for(shop: Shop) -> None:
    support.tree(
        shop.base,
        {
            "setup.cfg": "[metadata]\nname = Shop\n[entry_points]\n"
            "oslo.config.opts =\n    b = shop.b:f\n    a = shop.a:f\nshop.plugins =\n    p = shop.p:P\n",
            "src/shop/a.py": "StrOpt('a')",
            "src/shop/old.py": "StrOpt('a')",
            "tools/config/oslo.config.generator.rc": "OSLO_CONFIG_GENERATOR_EXTRA_MODULES=rc.module\n"
            "OSLO_CONFIG_GENERATOR_EXTRA_LIBRARIES=rc.library\n"
            "OSLO_CONFIG_GENERATOR_EXCLUDED_FILES=src/shop/old.py\n",
        },
    )
    assert shop.asked(modules=["m"], libraries=["l"], form="yaml") == {
        "processors": {"first": 2, "second": 16},
        "base": str(shop.base),
        "root": str(shop.base / "src"),
        "package": "shop",
        "name": "Shop",
        "declared_by": "Shop",
        "entry_points": "[oslo.config.opts]\nb = shop.b:f\na = shop.a:f\n[shop.plugins]\np = shop.p:P",
        "namespaces": ["a", "b"],
        "modules": ["m", "rc.module"],
        "libraries": ["l", "rc.library"],
        "candidates": ["shop.a"],
        "excluded": ["shop.old"],
        "format": "yaml",
        "fatal": {},
    }


def test_a_project_that_declares_nothing_has_the_name_that_it_is_given(shop: Shop) -> None:
    asked = shop.asked()
    assert (asked["name"], asked["entry_points"], asked["namespaces"]) == ("shop", "", [])
    assert asked["declared_by"] == "the shop"


MANY = {
    "setup.cfg": "[metadata]\nname = mall\n[entry_points]\noslo.config.opts =\n"
    "    one = shop.a:f\n    two = shop:f\n    three = shopping.a:f\n    four = mall.shop:f\n"
}


@pytest.mark.parametrize(
    ("name", "namespaces"),
    [
        ("shop", ["one", "two"]),
        ("shopping", ["three"]),
        ("store", []),
        ("mall", ["four", "one", "three", "two"]),
    ],
)
def test_of_a_tree_with_several_packages_each_has_the_namespaces_that_it_gives(
    shop: Shop, name: str, namespaces: list[str]
) -> None:
    support.tree(shop.base, {**MANY, f"{name}/__init__.py": ""})
    asked = shop.asked(name=name)
    assert (asked["name"], asked["declared_by"], asked["namespaces"]) == (name, "mall", namespaces)


@pytest.mark.parametrize("name", ["mall", "Mall"])
def test_what_a_tree_declares_is_the_whole_trees_if_its_package_is_called_otherwise(
    shop: Shop, name: str
) -> None:
    support.tree(shop.base, {"setup.cfg": MANY["setup.cfg"].replace("mall.shop", "centre.shop")})
    support.tree(shop.base, {f"{name}/__init__.py": ""})
    assert shop.asked(name=name)["namespaces"] == ["four", "one", "three", "two"]


def test_a_package_that_is_nowhere_is_an_error_whatever_else_was_found(shop: Shop) -> None:
    with pytest.raises(ConfigError) as caught:
        fresh(shop.order("answer('text', 7)", name="store"))
    assert str(caught.value) == (
        f"no package store is in {shop.base} or its src, and none is installed with entry points of the "
        "group oslo.config.opts: -p takes the name of the project's package, -b its directory"
    )
    assert fresh(shop.order("answer('text', 7, namespaces=['store'])", name="store")).text == "text"


def test_what_the_script_exports_is_there_during_the_imports(shop: Shop) -> None:
    rc = {"tools/config/oslo.config.generator.rc": "export SHOP_HOME='/the home'"}
    support.tree(shop.base, rc)
    assert fresh(shop.order("answer(os.environ['SHOP_HOME'])")).text == "/the home"


# --- snippets ----------------------------------------------------------------------------------------------


def test_snippets_stand_at_the_end_of_ini_each_with_a_line_end(shop: Shop) -> None:
    snippets = {"b.conf.sample": "[b]\n", "a.conf.sample": "[a]\n#ä = 1", "c.conf.sample": "", "d.conf": "no"}
    support.tree(shop.base, {f"tools/config/{name}": text for name, text in snippets.items()})
    assert fresh(shop.order("answer('[DEFAULT]\\n')")).text == "[DEFAULT]\n[a]\n#ä = 1\n[b]\n"


@pytest.mark.parametrize("form", ["yaml", "json", "rst"])
def test_nothing_but_ini_has_snippets(shop: Shop, form: str) -> None:
    support.tree(shop.base, {"tools/config/a.conf.sample": "[a]\n"})
    assert fresh(shop.order("answer('made')", form)).text == "made"


def test_a_sample_is_no_snippet_of_itself(shop: Shop) -> None:
    support.tree(
        shop.base, {"tools/config/shop.conf.sample": "[old]\n", "tools/config/a.conf.sample": "[a]\n"}
    )
    (shop.base / "etc" / "shop.conf.sample").symlink_to("../tools/config/shop.conf.sample")
    assert fresh(shop.order("answer('made\\n')")).text == "made\n[a]\n"


@pytest.mark.parametrize(("kind", "why"), [("loop", "Too many levels"), ("bytes", "it is not UTF-8")])
def test_a_snippet_that_cannot_be_read_is_named(shop: Shop, kind: str, why: str) -> None:
    support.tree(shop.base, {"tools/config/remark": ""})
    path = shop.base / "tools" / "config" / "a.conf.sample"
    if kind == "loop":
        looping_link(path)
    else:
        path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=why) as caught:
        fresh(shop.order("answer('')"))
    assert str(caught.value).startswith(f"{path} cannot be read: ")


# --- troubles ----------------------------------------------------------------------------------------------


def named(shop: Shop, **fields: str) -> tuple[str, str]:
    """Where the trouble is and what comes of it, as it is told."""
    (found,) = fresh(
        shop.order(f"answer('', 1, [{support.trouble(**fields)}], namespaces=['some'])")
    ).troubles
    return found.where, found.outcome


def test_of_a_module_that_cannot_be_imported_the_file_and_the_options_are_told(shop: Shop) -> None:
    support.tree(shop.base, {"src/shop/a.py": "StrOpt('one'), IntOpt('the-other')"})
    assert named(shop, module="shop.a", outcome="missing:") == ("src/shop/a.py", "missing: one, the_other")
    there = "shop/b.py, line 3"
    assert named(shop, module="shop.a", where=there, outcome="missing:") == (there, "missing: one, the_other")


def test_of_what_is_no_module_of_the_tree_nothing_is_added(shop: Shop) -> None:
    support.tree(shop.base, {"src/shop/a.py": "StrOpt('one')", "src/shop/b.py": "StrOpt(NAME)"})
    assert named(shop, module="other", outcome="missing:") == ("", "missing:")
    assert named(shop, module="", where="x", outcome="missing:") == ("x", "missing:")
    assert named(shop, module="shop.b", outcome="missing:") == ("src/shop/b.py", "missing:")


def unseen(shop: Shop, *names: str, more: str = "") -> list[tuple[str, str, str]]:
    """What is said of options that no import has brought to light."""
    found = fresh(shop.order(f"answer('', 1, names={list(names)}{more})")).troubles
    return [
        (each.what, each.where, each.outcome) for each in found if each.why.startswith("nobody registers")
    ]


def test_options_that_no_import_has_brought_to_light_are_told_of(shop: Shop) -> None:
    support.tree(shop.base, {"src/shop/a.py": "def f(): return [StrOpt('one'), StrOpt('the-other')]"})
    support.tree(shop.base, {"src/shop/b.py": "StrOpt('two')\nStrOpt(NAME)\n"})
    what, missing = "shop.a has options of which nothing is known", "missing from the sample: its options"
    assert unseen(shop, "two") == [(what, "src/shop/a.py", f"{missing} one, the_other")]
    assert unseen(shop, "two", "one") == [(what, "src/shop/a.py", f"{missing} the_other")]
    assert unseen(shop, "two", "one", "the_other") == []


def test_what_is_told_already_or_was_not_looked_for_is_not_told_again(shop: Shop) -> None:
    support.tree(shop.base, {"src/shop/a.py": "StrOpt('one')"})
    assert len(unseen(shop)) == 1
    assert unseen(shop, more=f", troubles=[{support.trouble(module='shop.a')}]") == []
    assert unseen(shop, more=", namespaces=['shop']") == []


# --- the interpreter ---------------------------------------------------------------------------------------


def test_the_interpreter_is_the_given_one_or_that_of_the_active_environment_or_our_own(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "bin" / "python"
    active = {"VIRTUAL_ENV": str(tmp_path)}
    assert interpreter(None, {}) == interpreter(None, {"VIRTUAL_ENV": ""}) == sys.executable
    assert interpreter(None, active) == sys.executable
    python.parent.mkdir()
    python.write_text("")
    assert interpreter(None, active) == sys.executable
    python.chmod(0o755)
    assert interpreter(None, active) == str(python)
    assert interpreter("python3.9", active) == "python3.9"
    assert interpreter("/usr/bin/python3", active) == "/usr/bin/python3"
    monkeypatch.chdir(tmp_path)
    assert interpreter("bin/../bin/python", active) == str(python)
    assert interpreter(None, {"VIRTUAL_ENV": "bin/.."}) == str(python)


def test_an_exclusion_that_excludes_nothing_is_told(shop: Shop) -> None:
    support.tree(
        shop.base,
        {
            "src/shop/old.py": "StrOpt('a')",
            "tools/config/oslo.config.generator.rc": "OSLO_CONFIG_GENERATOR_EXCLUDED_FILES="
            "'src/shop/o*.py shop/old.py'",
        },
    )
    told = [each.what for each in fresh(shop.order()).troubles]
    assert told == ["shop/old.py excludes nothing"]
