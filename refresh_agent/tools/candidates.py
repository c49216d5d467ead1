"""The modules of a source tree that may define options, found without importing any."""

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence

from refresh_agent.tools.project import Project

MARK = b"Opt("
"""generate_sample.sh: ``grep -l "Opt("``."""

OPTION = re.compile(rb"(?<!Deprecated)(?<!SubCommand)Opt\(\s*(?:name\s*=\s*)?['\"]([\w.-]+)['\"]")


def candidates(project: Project, excluded: Sequence[str]) -> dict[str, str]:
    """Module → file below the base, in the order of the modules' names; without tests and what is excluded.

    ``excluded``: files relative to the base, or patterns of such (``nova/legacy/*.py``).
    """
    found = {}
    for path in _files(project.package_path):
        file = os.path.relpath(path, project.base)
        if not is_excluded(file, excluded) and MARK in _content(path):
            found[module_of(project, path)] = file
    return dict(sorted(found.items()))


def excluded_modules(project: Project, excluded: Sequence[str]) -> list[str]:
    """What is left out must not come in through another module that imports it."""
    files = {path: os.path.relpath(path, project.base) for path in _files(project.package_path)}
    return sorted(module_of(project, path) for path, file in files.items() if is_excluded(file, excluded))


def is_excluded(file: str, excluded: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(file, os.path.normpath(pattern)) for pattern in excluded)


def module_of(project: Project, path: str) -> str:
    name = os.path.relpath(path, project.root).removesuffix(".py").replace(os.sep, ".")
    return name.removesuffix(".__init__")


def options_in(path: str) -> list[str]:
    """The names of the options in a module that cannot be imported, as far as they are written down in it."""
    return list(dict.fromkeys(name.decode().replace("-", "_") for name in OPTION.findall(_content(path))))


def _files(package_path: str | None) -> Iterator[str]:
    """generate_sample.sh: ``find -type f -name "*.py" ! -path "*/tests/*"``."""
    if package_path is None:
        return
    if os.path.isfile(package_path):
        yield package_path
    for directory, below, names in os.walk(package_path):
        below[:] = [name for name in below if name not in {"tests", "__pycache__"}]
        yield from (os.path.join(directory, name) for name in names if name.endswith(".py"))


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # its import says what is wrong with it
        return b""
