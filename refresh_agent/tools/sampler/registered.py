"""What a project registers while its modules are imported: option, group, and the module that did it."""

from __future__ import annotations

import functools
import sys
from types import FrameType
from typing import Any, Callable, NamedTuple

from oslo_config import cfg

WAYS_OF_ITS_OWN = {"__init__", "__call__", "_pre_setup"}
"""Of ConfigOpts: where it registers what it has itself, such as --config-file."""


class Registration(NamedTuple):
    module: str
    group: Any
    option: Any


class Registrations:
    """Listens, from ``listen`` on, to every ConfigOpts there is.

    ``ours`` tells the modules that are looked at from others; ``libraries`` are packages that have entry
    points for their options: what such a one registers is its own, even if the project asks for that.
    """

    def __init__(self, ours: Callable[[str], bool], libraries: set[str]) -> None:
        self._ours = ours
        self._libraries = libraries
        self._seen: list[Registration] = []
        self._groups: dict[str, Any] = {}
        self._by_identity: dict[int, list[Registration]] = {}

    def listen(self) -> None:
        register_opt, register_group = cfg.ConfigOpts.register_opt, cfg.ConfigOpts.register_group

        @functools.wraps(register_opt)
        def note_option(conf: Any, option: Any, group: Any = None, *rest: Any, **more: Any) -> Any:
            module = self._credited(_callers(sys._getframe(1)))  # noqa: SLF001 - the only way to ask who calls
            answer = register_opt(conf, option, group, *rest, **more)  # which may refuse it
            if module is not None and in_files(option):
                self._note(Registration(module, group, option))
            return answer

        @functools.wraps(register_group)
        def note_group(conf: Any, group: Any) -> Any:
            known = self._groups.get(group.name)
            if known is None or (group.help and not known.help):  # a name alone may have come first
                self._groups[group.name] = group
            return register_group(conf, group)

        cfg.ConfigOpts.register_opt = note_option  # type: ignore[method-assign]
        cfg.ConfigOpts.register_group = note_group  # type: ignore[method-assign, assignment]

    def by(self, module: str) -> list[tuple[Any, Any]]:
        """(group, option) in the order of registration; the group itself where it is known, with its help.

        Of one name in one group there is one, however often the module registers it.
        """
        own = [seen for seen in self._seen if seen.module == module]
        places = {in_place(seen.group, seen.option): (self._group(seen.group), seen.option) for seen in own}
        return list(places.values())

    def modules(self) -> list[str]:
        return sorted({seen.module for seen in self._seen})

    def of(self, option: Any) -> list[tuple[str, Any]]:
        """(module, group): who has registered this very option, and where."""
        return [(seen.module, self._group(seen.group)) for seen in self._by_identity.get(id(option), [])]

    def places(self, modules: set[str]) -> set[tuple[str, str]]:
        """Where these have registered options. A copy of one is another object in the same place."""
        return {in_place(seen.group, seen.option) for seen in self._seen if seen.module in modules}

    def _credited(self, callers: list[str]) -> str | None:
        """The module whose registration it is: of a library that only helps, the one that it helps."""
        if not callers or callers[0].partition(".")[0] in self._libraries:
            return next(iter(callers), None)
        return next((caller for caller in callers if self._ours(caller)), callers[0])

    def _note(self, registration: Registration) -> None:
        self._seen.append(registration)  # which keeps the option, so that no other one gets its id
        self._by_identity.setdefault(id(registration.option), []).append(registration)

    def _group(self, group: Any) -> Any:
        return self._groups.get(_name(group), group)


def in_files(option: Any) -> bool:
    """Can it stand in a configuration file? A subcommand cannot; a positional argument can."""
    return not isinstance(option, cfg.SubCommandOpt)


def in_place(group: Any, option: Any) -> tuple[str, str]:
    """Group and name as a file has them: the case of a group's name does not matter there."""
    return _name(group).lower(), option.dest


def _name(group: Any) -> str:
    return str(getattr(group, "name", group or "DEFAULT"))


def _callers(frame: FrameType | None) -> list[str]:
    """The modules that have called one of the ways in, from the nearest one to that which is imported.

    [] if oslo.config registers something of its own; it may do so through a subclass of ConfigOpts that has
    the ways in over again.
    """
    modules = []
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != "oslo_config.cfg":
            modules.append(name)
        elif frame.f_code.co_name in WAYS_OF_ITS_OWN:
            return []
        frame = None if frame.f_code.co_name == "<module>" else frame.f_back
    return modules
