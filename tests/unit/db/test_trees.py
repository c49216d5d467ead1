"""Which files of a target have to be judged before a worker executes them."""

import os
import pathlib
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from refresh_agent.db import trees
from refresh_agent.db.trees import Ini, TreeError, programs, read_ini, suspects
from refresh_agent.model import Target

OURS = frozenset({os.geteuid()})


class Shop:
    """An alembic tree below a folder, and the target for it."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.ini = root / "alembic.ini"
        self.ini.write_text("[alembic]\nscript_location = %(here)s/alembic\n")
        self.write("alembic/env.py")
        self.write("alembic/versions/1_first.py")
        self.write("alembic/versions/__pycache__/1_first.pyc")
        self.target = Target("shop", "sqlite:////shop.db", "/python", "", alembic_config=str(self.ini))

    def write(self, name: str, mode: int = 0o644) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(mode)
        return str(path)

    def found(self, *, owners: frozenset[int] = OURS, locate: trees.Locate | None = None) -> list[str]:
        """Below the folder, by their names in it."""

        def none(package: str) -> Sequence[str]:
            raise AssertionError(package)

        paths = suspects(self.target, owners, locate or none)
        return [os.path.relpath(path, self.root) for path in paths]


@pytest.fixture
def shop(tmp_path: pathlib.Path) -> Shop:
    return Shop(tmp_path)


TREE = ["alembic.ini", "alembic", "alembic/versions", "alembic/versions/__pycache__"]


def test_of_what_is_ours_alone_the_directories_are_enough(shop: Shop) -> None:
    assert shop.found() == TREE


@pytest.mark.parametrize(
    "name", ["alembic/env.py", "alembic/versions/1_first.py", "alembic/versions/__pycache__/1_first.pyc"]
)
@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_whatever_others_may_write_is_among_them(shop: Shop, name: str, mode: int) -> None:
    shop.write(name, mode)
    assert sorted(shop.found()) == sorted([*TREE, name])


def test_so_is_what_belongs_to_somebody_else(shop: Shop) -> None:
    files = ["alembic/env.py", "alembic/versions/1_first.py", "alembic/versions/__pycache__/1_first.pyc"]
    assert sorted(shop.found(owners=frozenset({99}))) == sorted([*TREE, *files])


def test_links_are_among_them_and_what_they_lead_to_is_looked_at(shop: Shop, tmp_path: pathlib.Path) -> None:
    shop.write("elsewhere/2_second.py", 0o666)
    (tmp_path / "alembic" / "versions" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "alembic" / "versions" / "3.py").symlink_to("1_first.py")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "alembic")
    new = {"alembic/versions/more", "alembic/versions/more/2_second.py", "alembic/versions/3.py"}
    assert set(shop.found()) == {*TREE, *new, "alembic/versions/more/circle"}


def test_the_legacy_repository_and_the_import_path_are_among_them(shop: Shop) -> None:
    script = shop.write("legacy/versions/001_a.py", 0o666)
    shop.target = replace(
        shop.target, migrate_repository=f"{shop.root}/legacy", python_path=(f"{shop.root}/lib",)
    )
    expected = {*TREE, "lib", "legacy", "legacy/versions", os.path.relpath(script, shop.root)}
    assert set(shop.found()) == expected


def test_a_location_without_an_ini(shop: Shop) -> None:
    shop.target = replace(shop.target, alembic_config="", alembic_location=f"{shop.root}/alembic")
    assert shop.found() == TREE[1:]


def test_a_location_in_a_package_is_where_the_interpreter_finds_it(shop: Shop) -> None:
    shop.write("site/depot/db/alembic/env.py", 0o666)
    shop.target = replace(shop.target, alembic_config="", alembic_location="depot.db:alembic")

    def locate(package: str) -> Sequence[str]:
        assert package == "depot"
        return [f"{shop.root}/site/depot"]

    assert shop.found(locate=locate) == [
        "site/depot/__init__.py",
        "site/depot/db/__init__.py",
        "site/depot/db/alembic",
        "site/depot/db/alembic/env.py",
    ]


def test_what_is_missing_is_for_the_worker_to_tell(shop: Shop) -> None:
    shop.target = replace(
        shop.target, alembic_config="/nowhere/alembic.ini", migrate_repository="/nowhere/repo"
    )
    assert list(suspects(shop.target, OURS, lambda _package: ())) == ["/nowhere/alembic.ini", "/nowhere/repo"]


def test_a_tree_without_end_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MOST", 2)
    with pytest.raises(TreeError, match=r"has more than 2 files in it, so it is no tree of migrations"):
        shop.found()


@pytest.mark.parametrize(
    ("text", "ini"),
    [
        ("script_location = shop:alembic", Ini(("shop:alembic",))),
        ("script_location = %(here)s/a", Ini(("HERE/a",))),
        ("script_location = a\nversion_locations = %(here)s/b, c  d", Ini(("a", "HERE/b", "c", "d"))),
        ("script_location = a\nversion_locations = b:c\nversion_path_separator = :", Ini(("a", "b", "c"))),
        ("script_location = a\nversion_locations = b:c\nversion_path_separator = os", Ini(("a", "b", "c"))),
        ("script_location = a\nversion_locations = b;c d\npath_separator = ;", Ini(("a", "b", "c d"))),
        (
            "script_location = a\nversion_locations =\n  b\n  c d\npath_separator = newline",
            Ini(("a", "b", "c d")),
        ),
        ("script_location = a\nprepend_sys_path = .:lib,x", Ini(("a",), (".", "lib", "x"))),
        ("script_location = a\nprepend_sys_path = . lib\npath_separator = space", Ini(("a",), (".", "lib"))),
        ("script_location = %(nowhere)s", Ini()),
    ],
)
def test_an_ini_is_read_as_alembic_reads_it(tmp_path: pathlib.Path, text: str, ini: Ini) -> None:
    path = tmp_path / "alembic.ini"
    path.write_text(f"[alembic]\n{text}\n")
    expected = Ini(*(tuple(item.replace("HERE", str(tmp_path)) for item in part) for part in ini))
    assert read_ini(str(path)) == expected


def test_what_is_no_ini_names_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "alembic.ini").write_bytes(b"\xff\xfe no ini")
    assert read_ini(str(tmp_path / "alembic.ini")) == Ini()


def test_what_is_started_as_a_program() -> None:
    target = Target("shop", "sqlite:////a", "/python", "/old", backup="/bin/dump --to '/a b'")
    assert programs(target) == ("/python", "/bin/dump")
    assert programs(replace(target, migrate_repository="/repo", backup="builtin:/a")) == ("/python", "/old")
    assert programs(replace(target, migrate_repository="/repo", legacy_python="/python", backup="")) == (
        "/python",
    )


def test_two_thousand_revisions_cost_next_to_nothing(shop: Shop) -> None:
    for number in range(2000):
        shop.write(f"alembic/versions/{number}_x.py")
        shop.write(f"alembic/versions/__pycache__/{number}_x.pyc")
    took = []
    for _ in range(5):
        began = time.perf_counter()
        assert shop.found() == TREE
        took.append(time.perf_counter() - began)
    assert min(took) < 0.1
