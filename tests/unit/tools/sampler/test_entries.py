"""Namespaces: of the tree as it stands, of what is installed, and what comes of loading them."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import pytest

from refresh_agent.tools.sampler import entries
from tests.unit.tools.support import tree

POINTS = (
    "[oslo.config.opts]\nthe.shop = the_shop.opts:list_opts\nother = the_shop.other:list_opts\n[x]\ny = z:z\n"
)


def installed(base: pathlib.Path, name: str, points: str) -> None:
    """As pip leaves it, in a directory that modules are imported from."""
    directory = base / f"{name.replace('-', '_')}-1.dist-info"
    tree(
        directory,
        {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n", "entry_points.txt": points},
    )


# --- what there is -----------------------------------------------------------------------------------------


def test_what_a_tree_declares_is_found_as_if_it_were_installed(shop: pathlib.Path) -> None:
    entries.declare("the.shop", POINTS)
    assert entries.of_distribution("the.shop") == ["other", "the.shop"]
    assert {point.name for point in importlib.metadata.entry_points(group="x")} >= {"y"}
    (point,) = importlib.metadata.entry_points(group=entries.GROUP, name="the.shop")
    assert point.value == "the_shop.opts:list_opts"


@pytest.mark.parametrize("spelling", ["the.shop", "The-Shop", "the_shop"])
def test_a_distribution_is_found_by_every_spelling(shop: pathlib.Path, spelling: str) -> None:
    installed(shop, "the.shop", POINTS)
    assert entries.of_distribution(spelling) == ["other", "the.shop"]
    assert entries.of_distribution("theshop") == []


@pytest.mark.parametrize("spelling", ["the.shop", "the_shop", "The-Shop"])
def test_what_the_tree_declares_counts_not_what_an_older_build_has_left(
    shop: pathlib.Path, spelling: str
) -> None:
    installed(shop, spelling, POINTS.replace("the_shop.opts", "the_shop.old"))
    entries.declare("the.shop", POINTS)
    assert importlib.metadata.distribution(spelling).version == "0"
    (point,) = importlib.metadata.entry_points(group=entries.GROUP, name="the.shop")
    assert point.value == "the_shop.opts:list_opts"


def test_other_distributions_are_found_as_before(shop: pathlib.Path) -> None:
    entries.declare("the.shop", POINTS)
    assert importlib.metadata.version("oslo.config") != "0"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("shop")


def test_the_namespaces_of_a_package_are_those_whose_functions_lie_in_it(shop: pathlib.Path) -> None:
    points = (
        "[oslo.config.opts]\nb = mall.b:f\na = mall:f\nc = mall_2.c:f\nd = small.mall:f\n[x]\ne = mall:f\n"
    )
    installed(shop, "openstack-mall", points)
    assert entries.of_package("mall") == ["a", "b"]
    assert entries.of_package("mall_2") == ["c"]
    assert entries.of_package("nothing") == []


def test_a_library_is_a_namespace_or_else_a_distribution(shop: pathlib.Path) -> None:
    installed(shop, "mall", "[oslo.config.opts]\nmall.a = mall:f\nmall.b = mall:f\n")
    installed(shop, "store", "[oslo.config.opts]\nstore = store:f\nstore.more = store:f\n")
    assert entries.of_library("mall") == ["mall.a", "mall.b"]
    assert entries.of_library("mall.b") == ["mall.b"]
    assert entries.of_library("store") == ["store"]
    assert entries.of_library("nothing") == []


def test_a_package_has_entry_points_if_one_of_its_functions_is_named(shop: pathlib.Path) -> None:
    installed(shop, "openstack-mall", "[oslo.config.opts]\na = mall.a:f\nb = small:f\n[x]\nc = none:f\n")
    assert {"mall", "small"} <= entries.packages()
    assert not {"openstack-mall", "none", "mall.a"} & entries.packages()


# --- loading them ------------------------------------------------------------------------------------------

LOAD = """
import json, sys
from refresh_agent.tools.sampler import entries

sys.path.insert(0, sys.argv[1])
entries.declare("shop", sys.argv[2])
told = []
namespaces = entries.Namespaces(sys.argv[1], told.append)
found = namespaces.listing(json.loads(sys.argv[3]), json.loads(sys.argv[4]))
listing = {name: [[str(group), [option.dest for option in options]] for group, options in groups]
           for name, groups in found}
print(json.dumps([listing, namespaces.troubles, told]))
"""

SHOP = {
    "shop/__init__.py": "",
    "shop/opts.py": """
        from oslo_config import cfg
        def list_opts():
            return [("g", [cfg.StrOpt("a")]), (None, [cfg.StrOpt("b")])]
        """,
    "shop/broken.py": "import no_such_module\n",
    "shop/failing.py": "\ndef list_opts():\n    raise SystemExit(3)\n",
    "shop/deadly.py": "import os\nos._exit(9)\n",
    "shop/needy.py": """
        import sys
        asked = []
        def list_opts():
            asked.extend(sys.modules["shop.opts"].list_opts()[:1])
            return asked[:1]
        """,
    "shop/needier.py": """
        import sys
        def list_opts():
            return [sys.modules["shop.needy"].asked[0]]
        """,
}
DECLARED = """
[oslo.config.opts]
good = shop.opts:list_opts
broken = shop.broken:list_opts
failing = shop.failing:list_opts
absent = shop.opts:no_such
deadly = shop.deadly:list_opts
a.needy = shop.needy:list_opts
a.needier = shop.needier:list_opts
"""


class Loaded:
    """By a process of its own: what reads entry points keeps them for the next one, below its home."""

    def __init__(self, base: pathlib.Path, names: list[str], fatal: dict[str, str]) -> None:
        tree(base, SHOP)
        words = [str(base), DECLARED, json.dumps(names), json.dumps(fatal)]
        home = {"HOME": "/proc/nonexistent", "XDG_CACHE_HOME": "/proc/nonexistent"}
        ended = subprocess.run(
            [sys.executable, "-c", LOAD, *words],
            env={**os.environ, **home},
            check=True,
            capture_output=True,
            text=True,
        )
        self.listing, self.troubles, self.told = json.loads(ended.stdout.splitlines()[-1])


def test_namespaces_that_cannot_be_loaded_are_named_and_the_others_are_listed(tmp_path: pathlib.Path) -> None:
    names = ["absent", "broken", "deadly", "failing", "good"]
    loaded = Loaded(tmp_path, names, {"deadly": "it ends the interpreter"})
    assert loaded.listing == {"good": [["g", ["a"]], ["None", ["b"]]]}
    assert loaded.told == [*names, "absent", "broken", "failing"]
    troubles = {each["what"].split()[5]: (each["where"], each["why"]) for each in loaded.troubles}
    assert list(troubles) == ["absent", "broken", "deadly", "failing"]
    assert troubles["broken"] == (
        "shop/broken.py, line 1",
        "ModuleNotFoundError: No module named 'no_such_module'",
    )
    assert troubles["deadly"] == ("", "it ends the interpreter")
    assert troubles["failing"] == ("shop/failing.py, line 3", "it ends the program (sys.exit(3))")
    assert "no_such" in troubles["absent"][1]
    broken = next(each for each in loaded.troubles if "broken" in each["what"])
    assert broken["what"] == "cannot load the entry point broken of oslo.config.opts"
    assert broken["outcome"] == "missing from the sample: every option of broken"
    assert broken["module"] == ""


def test_what_needs_what_another_one_brings_along_is_loaded_all_the_same(tmp_path: pathlib.Path) -> None:
    """os_brick.opts:set_defaults needs an option that its other namespace's module registers."""
    names = ["a.needier", "a.needy", "good"]
    loaded = Loaded(tmp_path, names, {})
    one = [["g", ["a"]]]
    assert loaded.listing == {"a.needier": one, "a.needy": one, "good": [*one, ["None", ["b"]]]}
    assert loaded.told == [*names, "a.needier", "a.needy", "a.needier"]
    assert loaded.troubles == []


def test_without_a_namespace_there_is_nothing_to_list(tmp_path: pathlib.Path) -> None:
    loaded = Loaded(tmp_path, [], {})
    assert (loaded.listing, loaded.troubles, loaded.told) == ({}, [], [])
