"""The modules of a source tree that may define options, found without importing any."""

import ast
import fnmatch
import os
import re
from collections.abc import Iterator, Sequence

from refresh_agent.tools.project import Project, parsed
from refresh_agent.tools.sampler.customs import lister

MARK = b"Opt("
"""generate_sample.sh: ``grep -l "Opt("``."""

OPTION = re.compile(r"(?<!Deprecated)(?<!SubCommand)Opt\(\s*(?:name\s*=\s*)?['\"]([\w.-]+)['\"]")
OPTIONS_CLASS = re.compile(r"(?!.*(Deprecated|SubCommand))\w*Opt")


def candidates(project: Project, excluded: Sequence[str]) -> dict[str, str]:
    """Module → file below the base, in the order of the modules' names; without tests and what is excluded.

    ``excluded``: files relative to the base, or patterns of such (``nova/legacy/*.py``).
    """
    found = {}
    for path in _files(project.package_path):
        file = os.path.relpath(path, project.base)
        module = module_of(project, path)
        if not is_excluded(file, excluded) and _may_tell(module, _content(path)):
            found[module] = file
    return dict(sorted(found.items()))


def _may_tell(module: str, content: bytes) -> bool:
    """Has it options, or a function that puts together what others define?"""
    return MARK in content or bool(re.search(rf"^def {lister(module)}\(".encode(), content, re.MULTILINE))


def excluded_modules(project: Project, excluded: Sequence[str]) -> list[str]:
    """What is left out must not come in through another module that imports it."""
    files = {path: os.path.relpath(path, project.base) for path in _files(project.package_path)}
    return sorted(module_of(project, path) for path, file in files.items() if is_excluded(file, excluded))


def unused(project: Project, excluded: Sequence[str]) -> list[str]:
    """What excludes nothing is a mistake, and leaves something in."""
    files = [os.path.relpath(path, project.base) for path in _files(project.package_path)]
    return [pattern for pattern in excluded if not any(is_excluded(file, [pattern]) for file in files)]


def is_excluded(file: str, excluded: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(file, os.path.normpath(pattern)) for pattern in excluded)


def module_of(project: Project, path: str) -> str:
    name = os.path.relpath(path, project.root).removesuffix(".py").replace(os.sep, ".")
    return name.removesuffix(".__init__")


def options_in(path: str) -> list[str]:
    """The names (with "_") of the options of a module, as far as they are written down in it.

    It may be one that cannot be imported, or that is no Python at all.
    """
    content = _content(path)
    try:
        names = [name for call in ast.walk(parsed(content)) for name in _option(call)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        names = OPTION.findall(content.decode(errors="replace"))
    return list(dict.fromkeys(name.replace("-", "_") for name in names))


def _option(node: ast.AST) -> list[str]:
    """[name] of ``StrOpt("name", …)``; [] of a subcommand, which cannot stand in a file, and of all else."""
    if not isinstance(node, ast.Call):
        return []
    called = getattr(node.func, "attr", getattr(node.func, "id", ""))
    name = next(iter([*node.args, *(word.value for word in node.keywords if word.arg == "name")]), None)
    if not OPTIONS_CLASS.fullmatch(called):
        return []
    return [name.value] if isinstance(name, ast.Constant) and isinstance(name.value, str) else []


def _files(package_path: str | None) -> Iterator[str]:
    """generate_sample.sh: ``find -type f -name "*.py" ! -path "*/tests/*"``."""
    if package_path is None:
        return
    if os.path.isfile(package_path):
        yield package_path
    for directory, below, names in os.walk(package_path):
        below[:] = [name for name in below if name != "tests" and name.isidentifier()]
        modules = (name for name in names if name.endswith(".py") and name[:-3].isidentifier())
        yield from (path for name in modules if os.path.isfile(path := os.path.join(directory, name)))


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # its import says what is wrong with it
        return b""
