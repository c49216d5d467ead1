"""Writing the sample configuration of any project: what goes into it, and where it goes."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.functional.projects import (
    BIN,
    BOTH,
    OWN_SAMPLE,
    SCRIPTS,
    TOP,
    Project,
    Tools,
    defining,
    either_way,
    listing,
    options_of,
    state,
)

ENTRY_POINTS = '[project]\nname = "shop"\n[project.entry-points."oslo.config.opts"]\n'
RC = "oslo.config.generator.rc"


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Project:
    made = Project(tmp_path)
    made.file("shop/till.py", defining("coins"))
    return made


@either_way
def test_this_projects_own_sample_is_what_its_own_tools_write(tmp_path: pathlib.Path, tools: Tools) -> None:
    before = state(OWN_SAMPLE)
    Project(tmp_path, tools).generate("--strict", "-b", TOP, "-o", tmp_path)
    assert (tmp_path / OWN_SAMPLE.name).read_bytes() == OWN_SAMPLE.read_bytes()
    assert state(OWN_SAMPLE) == before


@either_way
def test_what_a_project_declares_need_not_be_installed(tmp_path: pathlib.Path, tools: Tools) -> None:
    """It is as oslo-config-generator writes it where the project is installed."""
    project = Project(tmp_path, tools)
    project.file("pyproject.toml", ENTRY_POINTS + 'shop = "shop.opts:list_opts"\n')
    project.file("shop/opts.py", listing("coins", "notes", group="till"))
    project.file("shop/other.py", defining("undeclared"))
    ended = project.generate()
    assert ended.stdout == ""
    assert ended.stderr.endswith("etc/shop.conf.sample: 2 options\n")
    assert len(ended.stderr.splitlines()) == 1
    metadata = project.place / "installed" / "shop-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[oslo.config.opts]\nshop = shop.opts:list_opts\n")
    expected = project.run(
        BIN / "oslo-config-generator",
        *("--namespace", "shop"),
        env={"PYTHONPATH": f"{project.base}:{metadata.parent}"},
    )
    assert project.sample.read_text() == expected.stdout


def test_what_a_tree_declares_wins_over_what_an_older_build_has_left(project: Project) -> None:
    project.file("pyproject.toml", ENTRY_POINTS + 'shop = "shop.opts:list_opts"\n')
    project.file("shop/opts.py", listing("coins"))
    project.file("shop.egg-info/PKG-INFO", "Metadata-Version: 2.1\nName: shop\nVersion: 1\n")
    project.file("shop.egg-info/entry_points.txt", "[oslo.config.opts]\nshop.old = shop.gone:list_opts\n")
    project.generate("--strict")
    assert options_of(project.sample.read_text()) == {"DEFAULT": {"coins": "COINS"}}


def test_further_modules(project: Project) -> None:
    project.file("till_plugin/opts.py", defining("plugged", group="plugin"))
    found = project.options("-m", "till_plugin.opts", "--module", "till_plugin")
    assert found == {"DEFAULT": {"coins": "COINS"}, "plugin": {"plugged": "PLUGGED"}}


@pytest.mark.parametrize(
    ("library", "group", "option"),
    [
        ("oslo.log", "DEFAULT", "use_journal"),
        ("oslo.service.sslutils", "ssl", "cert_file"),
        ("oslo.service", "ssl", "cert_file"),
        ("oslo_concurrency", "oslo_concurrency", "disable_process_locking"),
    ],
    ids=["the name of both", "a namespace", "a distribution", "another spelling of it"],
)
def test_a_library_is_a_namespace_or_a_distribution(
    project: Project, library: str, group: str, option: str
) -> None:
    found = project.options("--strict", "--library", library)
    assert option in found[group]
    assert found["DEFAULT"]["coins"] == "COINS"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-m", "no_such_module"], ["cannot import no_such_module", "ModuleNotFoundError", "its options"]),
        (["-m", "colorsys"], ["no options of colorsys", "it defines and registers none"]),
        (["-l", "no.such.library"], ["no library no.such.library", "oslo.config.opts", "its options"]),
    ],
)
def test_what_is_not_there_is_a_warning(project: Project, words: list[str], told: list[str]) -> None:
    warning = project.generate(*words).stderr.splitlines()[0]
    assert warning.startswith("generate_sample.sh: warning: ")
    assert all(each in warning for each in told)
    assert options_of(project.sample.read_text()) == {"DEFAULT": {"coins": "COINS"}}
    before = state(project.sample)
    project.generate("--strict", *words, status=1)
    assert state(project.sample) == before


def test_the_file_beside_a_copied_script_is_read_and_adds_to_the_projects_own(project: Project) -> None:
    copied = project.place / "the tools" / "config"
    shutil.copytree(SCRIPTS, copied)
    project.tools = Tools(copied / "generate_sample.sh", copied / "check_uptodate.sh")
    project.file("plugins/red.py", defining("red"))
    project.file("plugins/blue.py", defining("blue"))
    (copied / RC).write_text('OSLO_CONFIG_GENERATOR_EXTRA_MODULES="plugins.red"\n')
    own = project.file(f"tools/config/{RC}", "OSLO_CONFIG_GENERATOR_EXTRA_MODULES+=' plugins.blue'\n")
    assert set(project.options("--strict")["DEFAULT"]) == {"coins", "red", "blue"}
    own.unlink()
    assert set(project.options("--strict")["DEFAULT"]) == {"coins", "red"}
    project.check()


@either_way
@pytest.mark.parametrize("value", ['"plugins.red plugins.blue"', "(plugins.red plugins.blue)"])
def test_variables_are_words_or_arrays(tmp_path: pathlib.Path, tools: Tools, value: str) -> None:
    project = Project(tmp_path, tools)
    project.file("shop/till.py", defining("coins"))
    project.file("plugins/red.py", defining("red"))
    project.file("plugins/blue.py", defining("blue"))
    project.file(f"tools/config/{RC}", f"OSLO_CONFIG_GENERATOR_EXTRA_MODULES={value}\n")
    assert set(project.options("--strict")["DEFAULT"]) == {"coins", "red", "blue"}


def test_a_file_may_be_given_and_exports_to_the_modules(project: Project) -> None:
    given = project.place / "given file.rc"
    given.write_text(
        "export SHOP_COLOUR=green OS_SHOP=secret\nOSLO_CONFIG_GENERATOR_EXTRA_LIBRARIES=oslo.log\n"
    )
    project.file(
        "shop/paint.py",
        """
        import os
        from oslo_config import cfg
        colour, shop = os.environ.get("SHOP_COLOUR"), os.environ.get("OS_SHOP", "nowhere")
        cfg.CONF.register_opts([cfg.StrOpt("colour", default=colour), cfg.StrOpt("place", default=shop)])
        """,
    )
    found = project.options("--rc", given)["DEFAULT"]
    assert (found["colour"], found["place"]) == ("green", "nowhere")
    assert "use_journal" in found


def test_variables_may_be_exported_instead(project: Project) -> None:
    project.file("shop/legacy/old.py", defining("old"))
    project.file("plugins/red.py", defining("red"))
    told = {
        "OSLO_CONFIG_GENERATOR_EXTRA_MODULES": "plugins.red",
        "OSLO_CONFIG_GENERATOR_EXTRA_LIBRARIES": "oslo.concurrency",
        "OSLO_CONFIG_GENERATOR_EXCLUDED_FILES": "shop/legacy/*.py",
    }
    found = project.options("--strict", env=told)
    assert found["DEFAULT"] == {"coins": "COINS", "red": "RED"}
    assert "lock_path" in found["oslo_concurrency"]


def test_excluded_files_do_not_come_in_by_another_module(project: Project) -> None:
    project.file("shop/legacy.py", defining("old"))
    project.file("shop/uses.py", "import shop.legacy\n" + defining("used"))
    project.file("shop/broken.py", "import nowhere  # Opt(\n")
    project.file(f"tools/config/{RC}", 'OSLO_CONFIG_GENERATOR_EXCLUDED_FILES="./shop/legacy.py shop/brok*"\n')
    assert project.options("--strict") == {"DEFAULT": {"coins": "COINS", "used": "USED"}}


def test_snippets_are_appended_in_order_but_never_the_sample_itself(project: Project) -> None:
    project.generate()
    plain = project.sample.read_text()
    config = project.base / "tools" / "config"
    project.file("tools/config/20-second.conf.sample", "[second]\n#two = 2")
    project.file("tools/config/10-first.conf.sample", "[first]\n#one = 1")
    project.file("tools/config/note.txt", "not a snippet\n")
    project.generate("-o", config)
    project.generate("-o", config)
    assert (config / "shop.conf.sample").read_text() == plain + "[first]\n#one = 1\n[second]\n#two = 2\n"


@either_way
def test_every_format_has_the_same_options(tmp_path: pathlib.Path, tools: Tools) -> None:
    project = Project(tmp_path, tools)
    project.file("shop/till.py", defining("coins", "notes", group="till"))
    project.file("tools/config/more.conf.sample", "[only]\n#in = ini\n")
    expected = {"till": {"coins": "COINS", "notes": "NOTES"}}
    assert project.options() == {**expected, "only": {"in": "ini"}}
    for form, parse in (("json", json.loads), ("yaml", yaml.safe_load)):
        project.generate("--strict", "--format", form)
        options = parse(project.sample.read_text())["options"]
        assert {
            group: {option["name"]: option["default"] for option in content["opts"]}
            for group, content in options.items()
            if content["opts"]
        } == expected
        project.check("--format", form)
        project.check(status=1)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", '[project]\nname = "vendor-shop"\n'),
        ("pyproject.toml", '[tool.poetry]\nname = "vendor-shop"\n'),
        ("setup.cfg", "[metadata]\nname = vendor-shop\n"),
        ("setup.py", "from setuptools import setup\nsetup(name='vendor-shop')\n"),
    ],
)
def test_the_name_is_the_projects_own(project: Project, file: str, text: str) -> None:
    (project.base / "pyproject.toml").unlink()
    project.file(file, text)
    project.file("src/vendor_shop/till.py", defining("notes"))
    project.generate("--strict", "-b", project.base, cwd=project.home)
    sample = project.base / "etc" / "vendor-shop.conf.sample"
    assert options_of(sample.read_text()) == {"DEFAULT": {"notes": "NOTES"}}


def test_a_tree_that_says_no_name_has_its_directorys(project: Project) -> None:
    (project.base / "pyproject.toml").unlink()
    base = project.base.rename(project.place / "shop")
    project.generate("-b", base, cwd=project.home)
    assert (base / "etc" / "shop.conf.sample").exists()


@either_way
def test_the_sample_goes_into_the_packages_directory_if_there_is_one(
    tmp_path: pathlib.Path, tools: Tools
) -> None:
    project = Project(tmp_path, tools)
    project.file("shop/till.py", defining("coins"))
    project.generate()
    assert project.sample.exists()
    project.sample.unlink()
    (project.base / "etc" / "shop").mkdir()
    project.generate()
    assert [path.name for path in (project.base / "etc").rglob("*.sample")] == ["shop.conf.sample"]
    assert (project.base / "etc" / "shop" / "shop.conf.sample").exists()


def test_paths_with_blanks_everywhere(project: Project) -> None:
    """And an interpreter that is a script, since a link would not be one of the environment any more."""
    scripts = project.place / "other tools" / "tools" / "config"
    shutil.copytree(SCRIPTS, scripts)
    python = project.place / "my python" / "python 3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (project.place / "an rc.rc").write_text("OSLO_CONFIG_GENERATOR_EXTRA_MODULES=till_plugin.opts\n")
    project.file("till_plugin/opts.py", defining("plugged"))
    output = project.place / "the output"
    output.mkdir()
    project.generate(
        *("-b", "../the shop", "-o", "../the output", "--rc", "../an rc.rc", "--python", python),
        cwd=project.home,
        env={"PYTHON": str(python)},
    )
    assert set(options_of((output / "shop.conf.sample").read_text())["DEFAULT"]) == {"coins", "plugged"}


def test_a_link_stays_one_and_the_mode_is_kept(project: Project) -> None:
    target = project.place / "elsewhere.conf"
    target.write_text("old\n")
    target.chmod(0o640)
    project.sample.symlink_to(os.path.relpath(target, project.sample.parent))
    project.generate()
    assert project.sample.is_symlink()
    assert options_of(target.read_text()) == {"DEFAULT": {"coins": "COINS"}}
    assert target.stat().st_mode & 0o7777 == 0o640


def test_a_new_sample_is_for_everybody_to_read(project: Project) -> None:
    project.run("sh", "-c", 'umask 077; exec "$0"', project.tools.generate)
    assert project.sample.stat().st_mode & 0o7777 == 0o644


@either_way
def test_a_project_without_options_keeps_its_old_sample(tmp_path: pathlib.Path, tools: Tools) -> None:
    project = Project(tmp_path, tools)
    project.file("shop/till.py", "COINS = 3\n")
    project.sample.write_text("old\n")
    before = state(project.sample)
    ended = project.generate(status=1)
    assert "no options were found in shop" in ended.stderr
    assert state(project.sample) == before


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
@pytest.mark.parametrize("tools", list(BOTH.values()), ids=list(BOTH))
def test_help_names_every_option(tmp_path: pathlib.Path, tools: Tools, words: list[str]) -> None:
    shown = Project(tmp_path, tools).generate(*words).stdout
    assert shown.startswith(f"usage: {tools.generate.name} ")
    for option in ("-b", "--base-dir", "-p", "--package-name", "-o", "--output-dir", "-m", "--module"):
        assert option in shown
    assert subprocess.run([tools.check, *words], capture_output=True).returncode == 0
