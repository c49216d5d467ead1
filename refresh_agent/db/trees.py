"""Which files a migration executes, so that somebody can judge who may have written them.

The trees are looked at, not read: thousands of revisions cost a few milliseconds. What is missing or cannot
be parsed is left out here; the worker stumbles over it too, and says so better.
"""

import configparser
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from refresh_agent.db.targets import backup_program
from refresh_agent.model import Target

MOST = 100_000
"""Files and directories of one tree. What has more is no tree of migrations."""

_SECTION = "alembic"
_SEPARATORS = {"space": " ", "newline": "\n", "os": os.pathsep, ":": ":", ";": ";"}
"""alembic's words for what separates paths. Without any, it splits as below."""

_SPACE_OR_COMMA = re.compile(r", *| +")
_SPACE_COMMA_OR_COLON = re.compile(r", *| +|:")

_KIND_AND_WRITERS = 0o170000 | stat.S_IWGRP | stat.S_IWOTH

Locate = Callable[[str], Sequence[str]]
"""The directories of a top-level package, as the target's interpreter finds it."""


class TreeError(Exception):
    """A tree that cannot be looked at. The text is the message."""


class Ini(NamedTuple):
    """What an alembic.ini names, as it stands there."""

    locations: tuple[str, ...] = ()
    import_paths: tuple[str, ...] = ()


def programs(target: Target) -> tuple[str, ...]:
    """What is started as a program."""
    legacy = target.legacy_python if target.migrate_repository else ""
    found = (target.python, legacy, backup_program(target.backup))
    return tuple(dict.fromkeys(filter(None, found)))


def suspects(target: Target, owners: Collection[int], locate: Locate) -> Iterator[str]:
    """The paths that need a closer look, each before anything in it is executed: ``locate`` does that.

    Left out are regular files that belong to ``owners`` and that nobody else may write, in a directory that
    is among the paths: there is nothing to be said against those. Raises TreeError.
    """
    yield from target.python_path
    folder = "/"
    ini = Ini((target.alembic_location,))
    if target.alembic_config:
        yield target.alembic_config
        folder = os.path.dirname(target.alembic_config)
        ini = read_ini(target.alembic_config)
    # The worker's working directory is that of alembic.ini.
    yield from (os.path.join(folder, path) for path in ini.import_paths)
    for location in filter(None, ini.locations):
        if os.path.isabs(location) or ":" not in location:
            yield from _tree(os.path.join(folder, location), owners)
        else:
            yield from _in_package(location, owners, locate)
    if target.migrate_repository:
        yield from _tree(target.migrate_repository, owners)


def read_ini(path: str) -> Ini:
    """As alembic reads it: 1.16 and later knows path_separator, before it was version_path_separator."""
    parser = configparser.ConfigParser({"here": os.path.dirname(os.path.abspath(path))})
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            parser.read_file(file)
        options = dict(parser.items(_SECTION))
    except (OSError, configparser.Error):
        return Ini()
    versions = _split(options, "version_locations", _SPACE_OR_COMMA)
    import_paths = _split(options, "prepend_sys_path", _SPACE_COMMA_OR_COLON)
    return Ini((options.get("script_location", "").strip(), *versions), import_paths)


def _split(options: Mapping[str, str], option: str, otherwise: re.Pattern[str]) -> tuple[str, ...]:
    text = options.get(option, "")
    name = options.get("path_separator", options.get("version_path_separator", ""))
    separator = _SEPARATORS.get(name)
    parts = text.split(separator) if separator else otherwise.split(text)
    return tuple(part.strip() for part in parts if part.strip())


def _in_package(location: str, owners: Collection[int], locate: Locate) -> Iterator[str]:
    """PACKAGE:PATH. The packages on the way are imported, which executes their ``__init__.py``."""
    package, *path = location.split(":")
    top, *inner = package.split(".")
    for directory in locate(top):
        here = directory
        yield os.path.join(here, "__init__.py")
        for name in inner:
            here = os.path.join(here, name)
            yield os.path.join(here, "__init__.py")
        yield from _tree(os.path.join(here, *path), owners)


def _tree(path: str, owners: Collection[int]) -> Iterator[str]:
    """``path`` and all that is in it, ``__pycache__`` too: that is executed in place of the source."""
    todo = [path]
    seen: set[tuple[int, int]] = set()
    count = 0
    while todo:
        here = todo.pop()
        yield here
        directories, others, size = _look(here, owners, seen)
        todo += directories
        count += size
        if count > MOST:
            raise TreeError(f"{path} has more than {MOST} files in it, so it is no tree of migrations")
        yield from others


def _look(
    directory: str, owners: Collection[int], seen: set[tuple[int, int]]
) -> tuple[list[str], list[str], int]:
    """The directories in it, links to some among them; the suspect files; the number of all entries.

    ``seen``: what was looked at, so that links that go in circles end.
    """
    directories: list[str] = []
    others: list[str] = []
    size = 0
    try:
        status = os.stat(directory)
        if (status.st_dev, status.st_ino) in seen:
            return [], [], 0
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(directory) as entries:
            for entry in entries:
                size += 1
                status = entry.stat(follow_symlinks=False)
                if status.st_mode & _KIND_AND_WRITERS == stat.S_IFREG and status.st_uid in owners:
                    continue
                (directories if entry.is_dir() else others).append(entry.path)
    except OSError:
        pass  # it is missing, no directory, or closed to us: the worker says what it is
    return directories, others, size
