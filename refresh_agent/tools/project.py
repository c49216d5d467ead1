"""A source tree: what it is called, where its package is, and where its sample belongs."""

import ast
import configparser
import os
import re
import tomllib
import warnings
from dataclasses import dataclass
from typing import Any

from refresh_agent.errors import ConfigError
from refresh_agent.files import read_regular, reason

LARGEST = 2**20
"""Bytes of a project's own metadata."""

NAME = re.compile(r"\w[\w.-]*")

EntryPoints = dict[str, dict[str, str]]
"""Of each group, name → object."""


@dataclass(frozen=True)
class Project:
    """``base`` is the tree, ``root`` what its modules are imported from, both without symbolic links.

    ``name`` is as the caller says it, ``package`` as Python does. ``package_path`` is a directory, or the
    file of a package that is a single module, or None if the tree has none: then it is an installed one.
    """

    base: str
    root: str
    name: str
    own_name: str
    package: str
    package_path: str | None
    entry_points: EntryPoints

    @property
    def snippets(self) -> list[str]:
        """generate_sample.sh: what a project wants to have at the end of its sample. Raises ConfigError."""
        directory = os.path.join(self.base, "tools", "config")
        try:
            names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        except OSError as error:
            raise ConfigError(f"{directory} cannot be read: {reason(error)}") from error
        return [os.path.join(directory, name) for name in names if name.endswith(".conf.sample")]


def read(base: str, name: str | None) -> Project:
    """The project in ``base``; without a name, the one that its metadata give it. Raises ConfigError."""
    if not os.path.isdir(base):
        raise ConfigError(f"{base} is not a directory: -b takes the directory of a project")
    base = os.path.realpath(base)
    own_name, entry_points = _metadata(base)
    name = name or own_name or os.path.basename(base)
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is not the name of a package: -p takes the one of the project in {base}")
    root, package, path = _package(base, name)
    return Project(base, root, name, own_name, package, path, entry_points)


def _package(base: str, name: str) -> tuple[str, str, str | None]:
    """(root, package, its path); a distribution is often called otherwise than its package: oslo.config."""
    spellings = dict.fromkeys((name, re.sub(r"[-.]", "_", name), name.replace(".", os.sep)))
    for root in (base, os.path.join(base, "src")):
        for spelling in spellings:
            path = os.path.join(root, spelling)
            if os.path.isdir(path):
                return root, spelling.replace(os.sep, "."), path
            if os.path.isfile(path + ".py"):
                return root, spelling.replace(os.sep, "."), path + ".py"
    return base, re.sub(r"[-.]", "_", name), None


def destination(project: Project, directory: str | None) -> str:
    """The path of the sample. Raises ConfigError if there is no directory for it.

    generate_sample.sh: DIR/PACKAGE/ if there is one, else DIR. Where only the spelling with "-" or the one
    with "_" exists, both mean that.
    """
    directory = directory or os.path.join(project.base, "etc")
    spellings = [
        project.name,
        project.own_name,
        project.name.replace("_", "-"),
        project.name.replace("-", "_"),
    ]
    same = [each for each in dict.fromkeys(spellings) if each and normal(each) == normal(project.name)]
    for spelling in same:
        below = os.path.join(directory, spelling)
        if os.path.isdir(below):
            kept = _existing(below, same) or _existing(directory, same)
            return kept or os.path.join(below, f"{spelling}.conf.sample")
    if not os.path.isdir(directory):
        raise ConfigError(f"{directory} is not a directory: make it, or give another one with -o")
    return _existing(directory, same) or os.path.join(directory, f"{project.name}.conf.sample")


def _existing(directory: str, names: list[str]) -> str | None:
    paths = [os.path.join(directory, f"{name}.conf.sample") for name in names]
    return next((path for path in paths if os.path.exists(path)), None)


def normal(name: str) -> str:
    """Names that mean the same distribution are equal in this form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _metadata(base: str) -> tuple[str, EntryPoints]:
    """(name, entry points) from whichever of the files has them: "" and {} if none says anything."""
    name, entry_points = "", EntryPoints()
    for file, parse in (("pyproject.toml", _pyproject), ("setup.cfg", _setup_cfg), ("setup.py", _setup_py)):
        path = os.path.join(base, file)
        text = _text(path)
        if text is None:
            continue
        try:
            found, declared = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, configparser.Error) as error:
            raise ConfigError(f"{path} cannot be read: {_first_line(error)}") from error
        name = name or (found if NAME.fullmatch(found) else "")
        entry_points = declared | entry_points
    return name, entry_points


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _text(path: str) -> str | None:
    try:
        content = read_regular(path, LARGEST)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} cannot be read: it is not UTF-8") from error
    if len(content) > LARGEST:
        raise ConfigError(f"{path} cannot be read: it has more than {LARGEST} bytes")
    return text


def _pyproject(text: str) -> tuple[str, EntryPoints]:
    document = tomllib.loads(text)
    project, poetry = _table(document, "project"), _table(_table(document, "tool"), "poetry")
    groups = _table(project, "entry-points") or _table(poetry, "plugins")
    name = project.get("name") or poetry.get("name") or ""
    return str(name), {group: {k: str(v) for k, v in _table(groups, group).items()} for group in groups}


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _setup_cfg(text: str) -> tuple[str, EntryPoints]:
    """Setuptools' [options.entry_points], or pbr's [entry_points]."""
    parser = _ini(text)
    groups: EntryPoints = {}
    for section in ("entry_points", "options.entry_points"):
        if parser.has_section(section):
            groups |= {group: _assignments(lines) for group, lines in parser.items(section)}
    return parser.get("metadata", "name", fallback=""), groups


def _ini(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # as documented: names keep their case
    parser.read_string(text)
    return parser


def _setup_py(text: str) -> tuple[str, EntryPoints]:
    """What is written down literally in the call of setup(): the file is not executed."""
    calls = [node for node in ast.walk(parsed(text)) if isinstance(node, ast.Call)]
    keywords = {
        word.arg: _literal(word.value)
        for call in calls
        if getattr(call.func, "id", getattr(call.func, "attr", "")) == "setup"
        for word in call.keywords
    }
    groups = keywords.get("entry_points")
    name = keywords.get("name")
    if isinstance(groups, str):
        declared = _sections(groups)
    else:
        each = groups.items() if isinstance(groups, dict) else ()
        declared = {str(group): _assignments(lines) for group, lines in each}
    return name if isinstance(name, str) else "", declared


def parsed(source: str | bytes) -> ast.AST:
    """Another project's code; what a compiler warns of is its own concern. Raises SyntaxError, ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _sections(text: str) -> EntryPoints:
    parser = _ini(text)
    return {group: dict(parser.items(group)) for group in parser.sections()}


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):  # it is computed, or no value at all
        return None


def _assignments(lines: object) -> dict[str, str]:
    """``name = module:object``, one a line, as text or as a list."""
    each = lines.splitlines() if isinstance(lines, str) else lines if isinstance(lines, (list, tuple)) else []
    pairs = [str(line).partition("=") for line in each]
    return {
        name.strip(): value.strip()
        for name, equals, value in pairs
        if equals and not name.lstrip().startswith("#")
    }
