"""A source tree: its name, its entry points, its package, and the place of its sample."""

import json
import os
import pathlib

import pytest

from refresh_agent.errors import ConfigError
from refresh_agent.tools import project
from tests.unit.support import looping_link
from tests.unit.tools.support import tree

PEP_621 = """
    [project]
    name = "shop"
    [project.entry-points."oslo.config.opts"]
    shop = "shop.opts:list_opts"
    """
POETRY = """
    [tool.poetry]
    name = "shop"
    [tool.poetry.plugins."oslo.config.opts"]
    shop = "shop.opts:list_opts"
    """
SETUPTOOLS = """
    [metadata]
    name = shop
    [options.entry_points]
    oslo.config.opts =
        # a remark = that is no entry point
        shop = shop.opts:list_opts
    """
PBR = SETUPTOOLS.replace("options.entry_points", "entry_points")
SETUP_PY = """
    import setuptools
    setuptools.setup(
        name="shop",
        version=read("VERSION"),
        entry_points={"oslo.config.opts": ["shop = shop.opts:list_opts"]},
    )
    """
SECTIONS = '''
    from setuptools import setup
    setup(name="shop", entry_points="""
        [oslo.config.opts]
        # a remark
        shop = shop.opts:list_opts
    """)
    '''
OTHER_SETUP_PY = '''
    from setuptools import setup
    setup(name="shop", entry_points={"oslo.config.opts": """
        # a remark = that is no entry point
        shop = shop.opts:list_opts
    """})
    '''


# --- metadata ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", PEP_621),
        ("pyproject.toml", POETRY),
        ("setup.cfg", SETUPTOOLS),
        ("setup.cfg", PBR),
        ("setup.py", SETUP_PY),
        ("setup.py", OTHER_SETUP_PY),
        ("setup.py", SECTIONS),
    ],
    ids=[
        "PEP 621",
        "poetry",
        "setuptools",
        "pbr",
        "setup.py",
        "setup.py with lines",
        "setup.py with sections",
    ],
)
def test_the_name_and_the_entry_points_are_read_from_wherever_they_stand(
    tmp_path: pathlib.Path, file: str, text: str
) -> None:
    tree(tmp_path, {file: text})
    found = project.read(str(tmp_path), None)
    assert (found.name, found.own_name, found.package) == ("shop", "shop", "shop")
    assert found.entry_points == {"oslo.config.opts": {"shop": "shop.opts:list_opts"}}


def test_a_tree_that_says_nothing_of_itself_is_called_as_its_directory(tmp_path: pathlib.Path) -> None:
    found = project.read(str(tree(tmp_path / "shop", {})), None)
    assert (found.name, found.own_name, found.entry_points) == ("shop", "", {})
    assert found.package_path is None


def test_what_one_file_does_not_say_another_one_does(tmp_path: pathlib.Path) -> None:
    tree(
        tmp_path,
        {
            "pyproject.toml": "[build-system]\nrequires = ['pbr']\n",
            "setup.cfg": "[metadata]\nname = shop\n",
            "setup.py": SETUP_PY.replace('"shop"', '"other"'),
        },
    )
    found = project.read(str(tmp_path), None)
    assert found.name == "shop"
    assert found.entry_points == {"oslo.config.opts": {"shop": "shop.opts:list_opts"}}


def test_of_two_files_that_contradict_each_other_the_first_is_right(tmp_path: pathlib.Path) -> None:
    tree(tmp_path, {"pyproject.toml": PEP_621, "setup.cfg": PBR.replace("shop.opts", "shop.old")})
    found = project.read(str(tmp_path), None)
    assert found.entry_points == {"oslo.config.opts": {"shop": "shop.opts:list_opts"}}


def test_the_name_that_is_given_wins_and_the_own_one_is_known(tmp_path: pathlib.Path) -> None:
    found = project.read(str(tree(tmp_path, {"pyproject.toml": PEP_621})), "store")
    assert (found.name, found.own_name, found.package) == ("store", "shop", "store")


def test_entry_points_keep_their_case(tmp_path: pathlib.Path) -> None:
    tree(tmp_path, {"setup.cfg": "[entry_points]\nShop.Plugins =\n    Shop.API = shop.Opts:list\n"})
    assert project.read(str(tmp_path), None).entry_points == {"Shop.Plugins": {"Shop.API": "shop.Opts:list"}}


def test_a_setup_cfg_is_read_as_lightly_as_others_read_it(tmp_path: pathlib.Path) -> None:
    """Of sections that come twice both count, and a percent sign is one."""
    text = "[metadata]\nname = shop\n[metadata]\nauthor = x\n[entry_points]\ng =\n    100% = a:b\n"
    found = project.read(str(tree(tmp_path, {"setup.cfg": text})), None)
    assert (found.own_name, found.entry_points) == ("shop", {"g": {"100%": "a:b"}})


@pytest.mark.parametrize(
    "call",
    ["name=NAME, entry_points=points()", "name=f'{x}', **more", "entry_points={**more, 'a': 1}", "'shop'"],
)
def test_what_a_setup_py_computes_is_not_known_and_nothing_is_executed(
    tmp_path: pathlib.Path, call: str
) -> None:
    tree(tmp_path / "shop", {"setup.py": f"raise SystemExit(9)\nsetup({call})\n"})
    found = project.read(str(tmp_path / "shop"), None)
    assert (found.own_name, found.entry_points) == ("", {})


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("pyproject.toml", "[project\n", "line 1"),
        ("setup.cfg", "name = shop\n", "no section headers"),
        ("setup.py", "setup(name=\n", "never closed"),
        ("setup.py", "setup(name='a\0b')\n", "null bytes"),
    ],
)
def test_metadata_that_cannot_be_parsed_are_named(
    tmp_path: pathlib.Path, file: str, text: str, why: str
) -> None:
    tree(tmp_path, {file: text})
    with pytest.raises(ConfigError, match=why) as caught:
        project.read(str(tmp_path), "shop")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path / file} cannot be read: ")


@pytest.mark.parametrize("file", ["pyproject.toml", "setup.cfg", "setup.py"])
@pytest.mark.parametrize(
    ("kind", "why"),
    [("directory", "Is a directory"), ("bytes", "it is not UTF-8"), ("loop", "Too many levels")],
)
def test_metadata_that_cannot_be_read_are_named(
    tmp_path: pathlib.Path, file: str, kind: str, why: str
) -> None:
    if kind == "directory":
        (tmp_path / file).mkdir()
    elif kind == "loop":
        looping_link(tmp_path / file)
    else:
        (tmp_path / file).write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match=why) as caught:
        project.read(str(tmp_path), "shop")
    assert str(caught.value).startswith(f"{tmp_path / file} cannot be read: ")


@pytest.mark.parametrize("file", ["pyproject.toml", "setup.cfg", "setup.py"])
@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_metadata_that_go_on_for_ever_are_not_read(
    tmp_path: pathlib.Path, file: str, more: int, fits: bool
) -> None:
    (tmp_path / file).write_text("#" * (project.LARGEST - 1 + more) + "\n")
    if fits:
        assert project.read(str(tmp_path), "shop").own_name == ""
        return
    with pytest.raises(ConfigError) as caught:
        project.read(str(tmp_path), "shop")
    assert str(caught.value) == f"{tmp_path / file} cannot be read: it has more than {project.LARGEST} bytes"


@pytest.mark.parametrize("name", ["../shop", "a/b", ".", "-p", "the shop", "shop\n"])
def test_what_is_no_name_is_refused_where_it_is_given_and_not_taken_from_metadata(
    tmp_path: pathlib.Path, name: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        project.read(str(tmp_path), name)
    told = f"{name!r} is not the name of a package: -p takes the one of the project in {tmp_path}"
    assert str(caught.value) == told
    tree(tmp_path, {"pyproject.toml": f"[project]\nname = {json.dumps(name)}\n", "setup.cfg": PBR})
    assert project.read(str(tmp_path), None).own_name == "shop"


def test_what_a_setup_py_would_be_warned_of_does_not_matter(tmp_path: pathlib.Path) -> None:
    tree(tmp_path, {"setup.py": "setup(name='shop', version=re.match('\\d', x))\n"})
    assert project.read(str(tmp_path), None).own_name == "shop"


@pytest.mark.parametrize(
    "text", ["project = 1\n", "[tool]\npoetry = []\n", "[project]\nentry-points = 'a'\n"]
)
def test_a_table_that_is_none_says_nothing(tmp_path: pathlib.Path, text: str) -> None:
    tree(tmp_path, {"pyproject.toml": text, "setup.cfg": PBR})
    assert project.read(str(tmp_path), None).own_name == "shop"


# --- where the package is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shop", "nothing"])
def test_the_base_has_to_be_a_directory(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / "shop").write_text("")
    with pytest.raises(ConfigError) as caught:
        project.read(str(tmp_path / name), None)
    assert str(caught.value) == f"{tmp_path / name} is not a directory: -b takes the directory of a project"


@pytest.mark.parametrize(
    ("file", "name", "root", "package", "path"),
    [
        ("shop/__init__.py", "shop", "", "shop", "shop"),
        ("src/shop/__init__.py", "shop", "src", "shop", "src/shop"),
        ("shop.py", "shop", "", "shop", "shop.py"),
        ("src/shop.py", "shop", "src", "shop", "src/shop.py"),
        ("the_shop/__init__.py", "the-shop", "", "the_shop", "the_shop"),
        ("the_shop.py", "the-shop", "", "the_shop", "the_shop.py"),
        ("the_shop/__init__.py", "the.shop", "", "the_shop", "the_shop"),
        ("the/shop/__init__.py", "the.shop", "", "the.shop", "the/shop"),
        ("src/the/shop/__init__.py", "the.shop", "src", "the.shop", "src/the/shop"),
    ],
)
def test_a_package_is_found_by_every_spelling_of_its_name_at_the_top_or_below_src(
    tmp_path: pathlib.Path, file: str, name: str, root: str, package: str, path: str
) -> None:
    found = project.read(str(tree(tmp_path, {file: ""})), name)
    assert found.name == name
    assert found.package == package
    assert (found.root, found.package_path) == (os.path.normpath(tmp_path / root), str(tmp_path / path))


def test_a_package_that_is_not_in_the_tree_may_be_installed(tmp_path: pathlib.Path) -> None:
    found = project.read(str(tree(tmp_path, {"shop/__init__.py": ""})), "oslo.config")
    assert (found.root, found.package, found.package_path) == (str(tmp_path), "oslo_config", None)


def test_links_are_followed_so_that_paths_are_the_same_as_modules_have_them(tmp_path: pathlib.Path) -> None:
    tree(tmp_path / "there", {"shop/__init__.py": ""})
    (tmp_path / "link").symlink_to("there")
    found = project.read(str(tmp_path / "link"), "shop")
    assert (found.base, found.package_path) == (str(tmp_path / "there"), str(tmp_path / "there" / "shop"))


def test_snippets_are_the_projects_own_in_the_order_of_their_names(tmp_path: pathlib.Path) -> None:
    files = ["b.conf.sample", "a.conf.sample", "oslo.config.generator.rc", "a.conf"]
    tree(tmp_path, {f"tools/config/{name}": "" for name in files})
    directory = tmp_path / "tools" / "config"
    found = project.read(str(tmp_path), "shop")
    assert found.snippets == [str(directory / "a.conf.sample"), str(directory / "b.conf.sample")]
    assert project.read(str(tree(tmp_path / "empty", {})), "shop").snippets == []


# --- where the sample belongs ------------------------------------------------------------------------------


def destination(base: pathlib.Path, name: str | None, directory: str | None = None) -> str:
    """Below the base, if it is."""
    path = project.destination(project.read(str(base), name), directory)
    return os.path.relpath(path, base)


@pytest.mark.parametrize("directory", [None, "conf"])
def test_a_directory_of_the_packages_own_is_preferred(tmp_path: pathlib.Path, directory: str | None) -> None:
    parent = directory or "etc"
    given = directory and str(tmp_path / directory)
    (tmp_path / parent).mkdir()
    assert destination(tmp_path, "shop", given) == f"{parent}/shop.conf.sample"
    (tmp_path / parent / "shop").write_text("no directory")
    assert destination(tmp_path, "shop", given) == f"{parent}/shop.conf.sample"
    (tmp_path / parent / "shop").unlink()
    (tmp_path / parent / "shop").mkdir()
    assert destination(tmp_path, "shop", given) == f"{parent}/shop/shop.conf.sample"


@pytest.mark.parametrize(
    ("name", "there", "expected"),
    [
        ("the_shop", "etc/the-shop/", "etc/the-shop/the-shop.conf.sample"),
        ("the-shop", "etc/the_shop/", "etc/the_shop/the_shop.conf.sample"),
        ("the_shop", "etc/the-shop/the_shop.conf.sample", "etc/the-shop/the_shop.conf.sample"),
        ("the_shop", "etc/the-shop.conf.sample", "etc/the-shop.conf.sample"),
        ("the_shop", "etc/the.shop.conf.sample", "etc/the.shop.conf.sample"),
        ("the_shop", "etc/shop.conf.sample", "etc/the_shop.conf.sample"),
        ("the_shop", "etc/", "etc/the_shop.conf.sample"),
        ("the-shop", "etc/", "etc/the-shop.conf.sample"),
        ("store", "etc/the.shop/", "etc/store.conf.sample"),
    ],
)
def test_another_spelling_counts_where_only_that_exists(
    tmp_path: pathlib.Path, name: str, there: str, expected: str
) -> None:
    tree(
        tmp_path,
        {"setup.cfg": "[metadata]\nname = the.shop\n", f"{there}remark" if there[-1] == "/" else there: ""},
    )
    assert destination(tmp_path, name) == expected


def test_a_sample_that_is_there_stays_where_it_is(tmp_path: pathlib.Path) -> None:
    tree(tmp_path, {"etc/shop/remark": "", "etc/shop.conf.sample": ""})
    assert destination(tmp_path, "shop") == "etc/shop.conf.sample"
    tree(tmp_path, {"etc/shop/shop.conf.sample": ""})
    assert destination(tmp_path, "shop") == "etc/shop/shop.conf.sample"


def test_of_two_spellings_that_exist_the_one_that_was_given_counts(tmp_path: pathlib.Path) -> None:
    tree(tmp_path, {"etc/the_shop.conf.sample": "", "etc/the-shop.conf.sample": ""})
    assert destination(tmp_path, "the_shop") == "etc/the_shop.conf.sample"
    assert destination(tmp_path, "the-shop") == "etc/the-shop.conf.sample"


@pytest.mark.parametrize("directory", [None, "conf"])
def test_a_directory_that_is_missing_is_named_and_how_to_give_another_one(
    tmp_path: pathlib.Path, directory: str | None
) -> None:
    path = tmp_path / (directory or "etc")
    with pytest.raises(ConfigError) as caught:
        destination(tmp_path, "shop", directory and str(path))
    assert str(caught.value) == f"{path} is not a directory: make it, or give another one with -o"


def test_names_that_mean_the_same_distribution() -> None:
    assert {project.normal(name) for name in ("The.Shop", "the-shop", "the_shop", "the-_.shop")} == {
        "the-shop"
    }
    assert project.normal("theshop") != "the-shop"


@pytest.mark.parametrize(
    ("file", "text"),
    [("setup.py", "setup(x={[]: 1}, name='shop')"), ("setup.py", f"setup(name='shop', x={'-' * 5000}1)")],
    ids=["a list as a key", "five thousand signs"],
)
def test_what_python_itself_cannot_read_is_no_traceback(tmp_path: pathlib.Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    try:
        assert project.read(str(tmp_path), None).name == "shop"
    except ConfigError as error:
        assert f"{file} cannot be read" in str(error)  # noqa: PT017 - which of the two depends on the Python


def test_a_module_below_a_namespace_is_a_package_by_its_full_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "web.py").touch()
    assert project.read(str(tmp_path), "shop.web").package == "shop.web"


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "setup.cfg").write_text("\ufeff[metadata]\nname = shop\n")
    assert project.read(str(tmp_path), None).name == "shop"
