"""The options that entry points of the group ``oslo.config.opts`` give, a namespace each."""

from __future__ import annotations

import importlib.metadata
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any, Callable

from oslo_config import generator

from .marking import Listing
from .trouble import Trouble, missing, place, reason, trouble

GROUP = "oslo.config.opts"


class Declared(importlib.metadata.Distribution):
    """A source tree as if it were installed: what it declares counts, not what an older build has left."""

    def __init__(self, name: str, entry_points: str) -> None:
        self._texts = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n"}
        self._texts["entry_points.txt"] = entry_points

    def read_text(self, filename: str) -> str | None:
        return self._texts.get(filename)

    def locate_file(self, path: Any) -> Any:
        return pathlib.Path(path)


class Finder:
    """Found before every installed distribution; of two with one name importlib.metadata takes the first."""

    def __init__(self, distribution: Declared) -> None:
        self._distribution = distribution

    def find_spec(self, _name: str, _path: Any = None, _target: Any = None) -> None:
        """It has no modules."""

    def find_distributions(self, context: Any) -> Iterator[Declared]:
        if context.name is None or _normal(context.name) == _normal(self._distribution.metadata["Name"]):
            yield self._distribution


def declare(name: str, entry_points: str) -> None:
    sys.meta_path.insert(0, Finder(Declared(name, entry_points)))


def of_distribution(name: str) -> list[str]:
    """The namespaces of the installed distribution of that name; [] if there is none."""
    return sorted(
        {
            entry.name
            for distribution in importlib.metadata.distributions()
            if _normal(distribution.metadata["Name"] or "") == _normal(name)
            for entry in _entries(distribution)
        }
    )


def of_package(package: str) -> list[str]:
    """The namespaces of a package whose distribution has another name, as heat's openstack-heat."""
    every = [entry for each in importlib.metadata.distributions() for entry in _entries(each)]
    return sorted(
        {entry.name for entry in every if f"{entry.value}.".startswith((f"{package}.", f"{package}:"))}
    )


def of_library(name: str) -> list[str]:
    """A library's namespaces: the one of that name, or else all of the distribution of that name."""
    names = {entry.name for each in importlib.metadata.distributions() for entry in _entries(each)}
    return [name] if name in names else of_distribution(name)


def packages() -> set[str]:
    """Those that have such entry points."""
    every = (entry for each in importlib.metadata.distributions() for entry in _entries(each))
    return {re.split(r"[.:]", entry.value, maxsplit=1)[0] for entry in every}


def _entries(distribution: importlib.metadata.Distribution) -> list[importlib.metadata.EntryPoint]:
    return [entry for entry in distribution.entry_points if entry.group == GROUP]


def _normal(name: str) -> str:
    """PEP 503. The same as ``project.normal``, which is not there under the project's interpreter."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Namespaces:
    """Asks oslo.config's own generator, so that defaults that one namespace sets in another one count.

    ``told`` hears the name of each namespace before it is loaded.
    """

    def __init__(self, base: str, told: Callable[[str], None]) -> None:
        self.troubles: list[Trouble] = []
        self._base = base
        self._told = told

    def listing(self, names: list[str], fatal: dict[str, str]) -> Listing:
        """Those that can be loaded; the other ones are ``troubles``.

        oslo-config-generator loads all before it asks any, and one may need what another one brings along, as
        os_brick's does: what fails is tried again when others are there.
        """
        wrong = {name: each for name in names for each in self._trouble(name, fatal.get(name))}
        while mended := [name for name in wrong if name not in fatal and not self._trouble(name, None)]:
            wrong = {name: wrong[name] for name in wrong if name not in mended}
        self.troubles.extend(wrong.values())
        good = [name for name in names if name not in wrong]
        return list(generator._list_opts(good)) if good else []  # noqa: SLF001 - it has no public name

    def _trouble(self, name: str, fatal: str | None) -> list[Trouble]:
        """What is wrong with it, [] if it loads."""
        why, where = fatal or "", ""
        self._told(name)
        if not why:
            try:
                generator._list_opts([name])  # noqa: SLF001
            except BaseException as error:  # noqa: BLE001 - it is the project's code
                why, where = reason(error), place(error, self._base)
        what = f"cannot load the entry point {name} of {GROUP}"
        return [trouble(what, why, missing(f"every option of {name}"), "", where)] if why else []
