"""Which modules of a tree may define options: known without importing any."""

import os
import pathlib

import pytest

from refresh_agent.tools import project
from refresh_agent.tools.candidates import candidates, excluded_modules, options_in
from refresh_agent.tools.project import Project
from tests.unit.tools.support import tree

OPTION = "raise SystemExit  # nobody imports this\ncfg.StrOpt('a')\n"


def shop(base: pathlib.Path, *files: str, text: str = OPTION) -> Project:
    return project.read(str(tree(base, dict.fromkeys(files, text))), "shop")


def test_modules_with_options_are_found_in_the_order_of_their_names(tmp_path: pathlib.Path) -> None:
    read = shop(tmp_path, "shop/z.py", "shop/a/__init__.py", "shop/a/b.py", "shop/__init__.py")
    tree(tmp_path, {"shop/none.py": "x = 1\n", "shop/words.txt": OPTION, "else/where.py": OPTION})
    assert list(candidates(read, []).items()) == [
        ("shop", "shop/__init__.py"),
        ("shop.a", "shop/a/__init__.py"),
        ("shop.a.b", "shop/a/b.py"),
        ("shop.z", "shop/z.py"),
    ]


def test_modules_that_only_tell_of_others_are_found(tmp_path: pathlib.Path) -> None:
    read = shop(tmp_path, "shop/opts.py", "shop/conf/opts.py", text="def list_web_opts():\n")
    tree(
        tmp_path,
        {
            "shop/listing.py": "def _list_opts():\n",
            "shop/db/opts/__init__.py": "def list_opts():\n",
            "shop/cli/opts.py": "import click\n",
            "shop/none.py": "def list_web_opts():\n  list_opts()\n",
        },
    )
    assert list(candidates(read, [])) == ["shop.conf.opts", "shop.db.opts", "shop.listing", "shop.opts"]


def test_below_src_a_file_is_told_as_it_lies_and_a_module_as_it_is_imported(tmp_path: pathlib.Path) -> None:
    assert candidates(shop(tmp_path, "src/shop/a.py"), []) == {"shop.a": "src/shop/a.py"}


def test_a_package_may_be_a_single_module(tmp_path: pathlib.Path) -> None:
    read = shop(tmp_path, "shop.py", "other.py")
    assert candidates(read, []) == {"shop": "shop.py"}
    assert candidates(read, ["shop.py"]) == {}


def test_a_package_that_is_not_in_the_tree_has_none(tmp_path: pathlib.Path) -> None:
    assert candidates(shop(tmp_path, "other/a.py"), []) == {}


def test_tests_are_left_out_wherever_they_lie_in_the_package(tmp_path: pathlib.Path) -> None:
    read = shop(tmp_path, "shop/tests/a.py", "shop/a/tests/unit/b.py", "shop/tests.py", "shop/contests/c.py")
    assert list(candidates(read, [])) == ["shop.contests.c", "shop.tests"]


def test_a_tree_may_lie_below_a_directory_called_tests(tmp_path: pathlib.Path) -> None:
    (tmp_path / "tests").mkdir()
    assert list(candidates(shop(tmp_path / "tests" / "tree", "shop/a.py"), [])) == ["shop.a"]


@pytest.mark.parametrize(
    ("excluded", "left"),
    [
        ([], ["shop.a", "shop.old.b", "shop.old.c"]),
        (["shop/a.py"], ["shop.old.b", "shop.old.c"]),
        (["./shop//a.py", "shop/old/c.py"], ["shop.old.b"]),
        (["shop/old/*.py"], ["shop.a"]),
        (["shop/old/[b].py"], ["shop.a", "shop.old.c"]),
        (["a.py", "old", "shop/A.py", "shop/old/"], ["shop.a", "shop.old.b", "shop.old.c"]),
    ],
)
def test_files_and_patterns_of_such_are_left_out(
    tmp_path: pathlib.Path, excluded: list[str], left: list[str]
) -> None:
    read = shop(tmp_path, "shop/a.py", "shop/old/b.py", "shop/old/c.py")
    assert list(candidates(read, excluded)) == left
    everything = {"shop.a", "shop.old.b", "shop.old.c"}
    assert excluded_modules(read, excluded) == sorted(everything - set(left))


def test_what_is_excluded_is_known_as_a_module_even_without_options(tmp_path: pathlib.Path) -> None:
    read = shop(tmp_path, "src/shop/old/__init__.py", "src/shop/old/a.py", text="")
    assert excluded_modules(read, ["src/shop/old/*"]) == ["shop.old", "shop.old.a"]


def test_a_file_that_cannot_be_read_is_not_in_the_way_of_the_others(tmp_path: pathlib.Path) -> None:
    read = shop(tmp_path, "shop/a.py")
    os.symlink("nowhere", tmp_path / "shop" / "gone.py")
    assert list(candidates(read, [])) == ["shop.a"]


def test_the_options_of_a_module_that_cannot_be_parsed_are_those_that_are_written_down(
    tmp_path: pathlib.Path,
) -> None:
    text = """
        def broken(:
        cfg.StrOpt('one', deprecated_opts=[cfg.DeprecatedOpt('older')])
        IntOpt( "two-words", default=cfg.CONF.x)
        cfg.MultiOpt(
            'three',
        )
        cfg.Opt(name='four')
        cfg.Opt(name = "five.dotted"); cfg.StrOpt('one')
        cfg.SubCommandOpt('command')
        cfg.StrOpt(NAME); StrOption('no'); cfg.StrOpt(f'{no}')
        """
    tree(tmp_path, {"broken.py": text})
    assert options_in(str(tmp_path / "broken.py")) == ["one", "two_words", "three", "four", "five.dotted"]


def test_the_options_of_a_module_are_those_that_can_stand_in_a_file(tmp_path: pathlib.Path) -> None:
    text = """
        '''cfg.StrOpt('in a text')'''
        OPTIONS = [StrOpt('one', deprecated_opts=[cfg.DeprecatedOpt('older')]), my.own.ColourOpt("two-words")]
        cfg.Opt(  # a remark
            default=1, name='three')
        cfg.SubCommandOpt('command')
        cfg.StrOpt('place', positional=True); cfg.DeprecatedStrOpt('no'); StrOptGroup('no')
        cfg.StrOpt(NAME); StrOption('no'); cfg.StrOpt(); cfg.IntOpt(3); StrOpts('no'); make()('no')
        def f(): return [cfg.StrOpt('one')]
        """
    tree(tmp_path, {"good.py": text})
    assert sorted(options_in(str(tmp_path / "good.py"))) == ["one", "place", "three", "two_words"]


def test_what_a_module_would_be_warned_of_does_not_matter(tmp_path: pathlib.Path) -> None:
    tree(tmp_path, {"good.py": "cfg.StrOpt(regex='\\d', name='one')\n"})
    assert options_in(str(tmp_path / "good.py")) == ["one"]


@pytest.mark.parametrize("file", ["shop/a-b.py", "shop/1.py", "shop/a.b.py", "shop/a-b/c.py", "shop/.a/c.py"])
def test_what_cannot_be_imported_by_name_is_no_module(tmp_path: pathlib.Path, file: str) -> None:
    assert list(candidates(shop(tmp_path, "shop/a.py", file), [])) == ["shop.a"]


def test_what_is_no_file_is_not_opened(tmp_path: pathlib.Path) -> None:
    read = shop(tmp_path, "shop/a.py")
    os.mkfifo(tmp_path / "shop" / "pipe.py")
    (tmp_path / "shop" / "directory.py").mkdir()
    assert list(candidates(read, [])) == ["shop.a"]


def test_of_a_file_that_is_no_text_or_gone_nothing_is_in_the_way(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.py").write_bytes(b"\xff\0StrOpt('a')\xff")
    assert options_in(str(tmp_path / "a.py")) == ["a"]
    assert options_in(str(tmp_path / "gone.py")) == []
