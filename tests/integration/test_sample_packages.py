"""Samples of packages that OpenStack has published: byte for byte those of their own oslo-config-generator.

Keystone, Heat and two libraries are those of the environment "heat" of tools/environments.py, where Sphinx
lets oslo-config-generator write rst as well. os-collect-config, in "peers", declares no entry points.
"""

import configparser
import functools
import importlib.metadata
import json
import pathlib
import shutil
import socket
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from tests.functional.projects import Project, options_of
from tools import environments


class Published(NamedTuple):
    """``package`` is what is installed of the ``distribution``, in that environment."""

    package: str
    distribution: str
    environment: str = "heat"

    def __str__(self) -> str:
        return self.package

    @property
    def python(self) -> str:
        return str(environments.ensure(self.environment) / "bin" / "python")

    @property
    def site(self) -> pathlib.Path:
        (path,) = (environments.ensure(self.environment) / "lib").glob("python3*/site-packages")
        return path

    @property
    def entry_points(self) -> importlib.metadata.EntryPoints:
        (found,) = importlib.metadata.distributions(name=self.distribution, path=[str(self.site)])
        return found.entry_points

    @property
    def namespaces(self) -> list[str]:
        return sorted(each.name for each in self.entry_points if each.group == "oslo.config.opts")


MIDDLEWARE = Published("keystonemiddleware", "keystonemiddleware")
MESSAGING = Published("oslo.messaging", "oslo.messaging")
KEYSTONE = Published("keystone", "keystone")
HEAT = Published("heat", "openstack-heat")
COLLECTOR = Published("os_collect_config", "os-collect-config", "peers")
CLIENT = Published("keystoneclient", "python-keystoneclient", "peers")
WITHOUT_OPTIONS = Published("zaqarclient", "python-zaqarclient", "peers")


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Project:
    """A directory with a blank in its name, where samples are written and trees are made."""
    return Project(tmp_path)


@functools.cache
def theirs(*namespaces: str, form: str = "ini") -> str:
    """What oslo-config-generator gives. To standard output: it tells the name of another file in the json."""
    program = environments.ensure("heat") / "bin" / "oslo-config-generator"
    words = [word for namespace in namespaces for word in ("--namespace", namespace)]
    command = [program, *words, "--format", form]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ours(project: Project, package: Published, *words: str) -> str:
    """The sample of what is installed."""
    output = project.base / "the output"
    output.mkdir()
    place = ("-b", package.site, "-p", package.package, "--python", package.python, "-o", output)
    project.generate("--strict", *place, *words)
    return (output / f"{package.package}.conf.sample").read_text()


@pytest.mark.parametrize(
    ("package", "form"),
    [
        (MIDDLEWARE, "ini"),
        (MIDDLEWARE, "yaml"),
        (MIDDLEWARE, "json"),
        (MIDDLEWARE, "rst"),
        (MESSAGING, "ini"),
        (MESSAGING, "rst"),
        (KEYSTONE, "ini"),
        (KEYSTONE, "yaml"),
        (KEYSTONE, "json"),
        (HEAT, "ini"),
        (HEAT, "rst"),
    ],
    ids=str,
)
def test_the_sample_of_a_package_is_the_one_of_its_own_generator(
    project: Project, package: Published, form: str
) -> None:
    assert ours(project, package, "--format", form) == theirs(*package.namespaces, form=form)


def fields(text: str) -> dict[tuple[str, str, str], Any]:
    """(group, option, field) → value."""
    return {
        (group, option["name"], field): value
        for group, content in json.loads(text)["options"].items()
        for option in content["opts"]
        for field, value in option.items()
    }


@pytest.mark.parametrize(
    ("package", "where"),
    [
        (MESSAGING, {("oslo_messaging_rabbit", "hostname", "default")}),
        (HEAT, {("DEFAULT", "host", "default")}),
    ],
    ids=["oslo.messaging", "heat"],
)
def test_the_name_of_the_host_is_all_that_differs(
    project: Project, package: Published, where: set[tuple[str, str, str]]
) -> None:
    """In ini it is not seen, since both options have a default for samples. json has the real one, too."""
    real, own = (
        fields(theirs(*package.namespaces, form="json")),
        fields(ours(project, package, "--format", "json")),
    )
    assert real.keys() == own.keys()
    assert {key for key, value in own.items() if value != real[key]} == where
    assert {(real[key], own[key]) for key in where} == {(socket.gethostname(), "<host name>")}


# --- a source tree -----------------------------------------------------------------------------------------


def source_tree(project: Project, package: Published) -> None:
    """As its maintainers have it, where pbr reads setup.cfg."""
    project.file("pyproject.toml", '[build-system]\nrequires = ["pbr"]\nbuild-backend = "pbr.build"\n')
    lines = {each.group: "" for each in package.entry_points}
    for each in package.entry_points:
        lines[each.group] += f"\n{each.name} = {each.value}"
    setup = configparser.ConfigParser(interpolation=None)
    setup.read_dict({"metadata": {"name": package.distribution}, "entry_points": lines})
    with (project.base / "setup.cfg").open("w") as file:
        setup.write(file)
    ignore = shutil.ignore_patterns("__pycache__", "tests")
    shutil.copytree(package.site / package.package, project.base / package.package, ignore=ignore)


@pytest.mark.parametrize(
    ("package", "file", "text"),
    [
        (MIDDLEWARE, "keystonemiddleware/auth_token/_opts.py", "API version of the Identity API endpoint."),
        (MIDDLEWARE, "setup.cfg", "keystonemiddleware.audit"),
        (HEAT, "heat/common/config.py", "/etc/heat/templates"),
    ],
    ids=["keystonemiddleware", "keystonemiddleware's entry points", "heat"],
)
def test_the_sample_of_a_source_tree_says_what_the_tree_says(
    project: Project, package: Published, file: str, text: str
) -> None:
    """The same distribution is installed beside it, without what is changed here."""
    source_tree(project, package)
    path = project.base / file
    path.write_text(path.read_text().replace(text, "changed.here", 1))
    directory = project.base / "etc" / package.package
    directory.mkdir()
    words = ("-p", package.package, "--strict", "--python", package.python)
    project.generate(*words)
    expected = theirs(*package.namespaces)
    assert text in expected
    sample = directory / f"{package.package}.conf.sample"
    assert sample.read_text() == expected.replace(text, "changed.here")
    project.check(*words)


def test_libraries_are_added_with_the_defaults_that_the_package_sets_in_them(project: Project) -> None:
    """keystonemiddleware has two namespaces. Keystone has its own defaults for oslo.middleware."""
    libraries = ("-l", "oslo.messaging", "-l", "keystonemiddleware", "-l", "oslo.middleware")
    sample = ours(project, KEYSTONE, *libraries)
    namespaces = ("keystone", "oslo.messaging", *MIDDLEWARE.namespaces, "oslo.middleware")
    assert sample == theirs(*namespaces)
    allowed = "X-Subject-Token"
    assert allowed in options_of(sample)["cors"]["allow_headers"]
    assert allowed not in theirs("oslo.middleware")


# --- no entry points ---------------------------------------------------------------------------------------

REGISTERED = """
import importlib, json, pkgutil
import os_collect_config
from os_collect_config import collect

collect.setup_conf()
names = [each.name for each in pkgutil.iter_modules(os_collect_config.__path__, "os_collect_config.")]
modules = [importlib.import_module(name) for name in names if not name.endswith(".tests")]
own = {id(option) for module in modules for option in getattr(module, "opts", ())}
every = {"DEFAULT": collect.CONF._opts, **{name: group._opts for name, group in collect.CONF._groups.items()}}
print(json.dumps({
    group: sorted(name for name, each in options.items() if id(each["opt"]) in own)
    for group, options in every.items()
}))
"""
"""Group → the options of os-collect-config's own modules, as its program registers them when it starts."""


def generate(project: Project, package: Published, *words: str, status: int = 0) -> str:
    """What is told of it."""
    place = ("-b", package.site, "-p", package.package, "-o", project.base)
    return project.generate(*place, "--python", package.python, *words, status=status).stderr


def sample_of(project: Project, package: Published) -> dict[str, dict[str, str]]:
    return options_of((project.base / f"{package.package}.conf.sample").read_text())


def test_what_a_program_registers_when_it_starts_has_its_group(project: Project) -> None:
    """os-collect-config: register_cli_opts(ec2.opts, group="ec2"), in a function of another module."""
    command = [COLLECTOR.python, "-c", REGISTERED]
    registered = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len(registered) == 9
    told = generate(project, COLLECTOR)
    found = {group: sorted(options) for group, options in sample_of(project, COLLECTOR).items()}
    assert found == registered
    assert "warning" not in told


def tree_without_entry_points(project: Project, package: Published) -> str:
    """Its modules are in the project; the result is a PYTHONPATH with all that they need, without them."""
    name = package.package.replace(".", "_")
    needed = project.place / "what it needs"
    needed.mkdir()
    for path in package.site.iterdir():
        if path.name.partition("-")[0] != name:
            (needed / path.name).symlink_to(path)
    project.file("pyproject.toml", f'[project]\nname = "{package.package}"\n')
    shutil.copytree(package.site / name, project.base / name)
    return str(needed)


def flat(sample: str) -> set[tuple[str, str, str]]:
    """{(group, option, default)}"""
    return {(group, *pair) for group, options in options_of(sample).items() for pair in options.items()}


@pytest.mark.parametrize("package", [KEYSTONE, MESSAGING], ids=str)
def test_modules_tell_what_entry_points_would(project: Project, package: Published) -> None:
    """Keystone's register options when they are imported; oslo.messaging's when somebody calls them."""
    path = tree_without_entry_points(project, package)
    ended = project.generate("--python", sys.executable, env={"PYTHONPATH": path})
    found = flat((project.base / "etc" / f"{package.package}.conf.sample").read_text())
    assert flat(theirs(*package.namespaces)) - found == set()
    assert "warning: " not in ended.stderr


def test_a_group_that_nobody_can_know_is_a_warning(project: Project) -> None:
    """keystoneclient: its users call register_conf_options(conf, group), each with a group of their own."""
    told = generate(project, CLIENT)
    assert sample_of(project, CLIENT) == {"DEFAULT": {"auth_plugin": "<None>", "auth_section": "<None>"}}
    (warning,) = (line for line in told.splitlines() if "warning: keystoneclient.auth.conf " in line)
    assert "listed under [DEFAULT]: auth_plugin, auth_section" in warning


def test_a_package_without_options_has_no_sample(project: Project) -> None:
    told = generate(project, WITHOUT_OPTIONS, status=1)
    assert "no options were found in zaqarclient" in told
    assert not list(project.base.glob("*.sample"))


def test_rst_without_sphinx_says_what_to_install(project: Project) -> None:
    told = generate(project, COLLECTOR, "--format", "rst", status=2)
    assert f"install Sphinx for {COLLECTOR.python}" in told
    assert not list(project.base.glob("*.sample"))
