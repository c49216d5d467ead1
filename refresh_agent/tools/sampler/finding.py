"""Every option that a request asks for, and what is in the way of the others."""

from __future__ import annotations

import operator
from typing import Any, Callable, NamedTuple

from oslo_config import generator

from . import entries
from .marking import Listing
from .modules import Modules
from .registered import Registrations
from .trouble import Trouble, missing, trouble


class Found(NamedTuple):
    """``namespaces``: the project's own, [] if it declares none."""

    namespaces: list[str]
    listing: Listing
    troubles: list[Trouble]


def find(request: dict[str, Any], told: Callable[[str], None]) -> Found:
    own = _own_namespaces(request)
    names = [*request["modules"], *([] if own else request["candidates"])]
    wanted = _wanted(request, names, bool(own))
    registrations = Registrations(wanted, entries.packages())
    registrations.listen()
    libraries, unknown = _libraries(request["libraries"])
    namespaces = entries.Namespaces(request["base"], told)
    listing = namespaces.listing([*own, *libraries], request["fatal"])
    modules = Modules(registrations, request["base"], told)
    loaded = modules.load(list(dict.fromkeys(names)), request["fatal"])
    more = modules.listing(loaded, wanted)
    troubles = [*unknown, *namespaces.troubles, *modules.troubles]
    troubles += [
        trouble(f"no options of {module.__name__}", "it defines and registers none", missing("them"))
        for module in loaded
        if module.__name__ in request["modules"] and modules.says_nothing(module)
    ]
    whole = generator._cleanup_opts([*listing, *more])  # noqa: SLF001 - as its _list_opts does
    # Else it is the order of directories on the disk, which every format but ini shows.
    whole.sort(key=operator.itemgetter(0))
    return Found(own, whole, troubles)


def _own_namespaces(request: dict[str, Any]) -> list[str]:
    """What the tree declares counts; of one that declares nothing, what is installed."""
    if request["entry_points"]:
        entries.declare(request["declared_by"], request["entry_points"])
        return list(request["namespaces"])
    return entries.of_distribution(request["name"]) or entries.of_package(request["package"])


def _libraries(names: list[str]) -> tuple[list[str], list[Trouble]]:
    found = {name: entries.of_library(name) for name in names}
    why = f"nothing that is installed has that name and an entry point of {entries.GROUP}"
    unknown = [name for name in names if not found[name]]
    troubles = [trouble(f"no library {name}", why, missing("its options")) for name in unknown]
    return [namespace for each in found.values() for namespace in each], troubles


def _wanted(request: dict[str, Any], names: list[str], declared: bool) -> Callable[[str], bool]:
    """Whose registrations belong into the sample, beside those of the modules that were asked for?

    Theirs that lie below one of these; and, of a project that declares nothing, those of all its modules.
    """
    above = (*names, *([] if declared else [request["package"]]))
    excluded = set(request["excluded"])

    def wanted(module: str) -> bool:
        below = any(module.startswith(name + ".") or module == name for name in above)
        return below and module not in excluded and ".tests." not in f"{module}."

    return wanted
