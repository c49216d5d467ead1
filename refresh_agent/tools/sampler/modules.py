"""The options of modules, for projects that do not declare where theirs are."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, Callable

from oslo_config import cfg

from .customs import LIST_OPTS, lister
from .marking import Listing
from .registered import Registrations, in_files, in_place
from .trouble import Trouble, missing, place, reason, trouble
from .written import source, written

Pairs = list[tuple[Any, Any]]
"""[(group, option)]"""


class Modules:
    """Imports modules, and tells what each has to do with options and what it would not tell.

    ``told`` hears the name of each module before it is imported.
    """

    def __init__(self, registrations: Registrations, base: str, told: Callable[[str], None]) -> None:
        self.troubles: list[Trouble] = []
        self._registrations = registrations
        self._base = base
        self._told = told
        self._broken: set[str] = set()
        self._silenced: set[str] = set()
        self._answers: dict[str, Pairs] = {}

    def load(self, names: list[str], fatal: dict[str, str]) -> list[ModuleType]:
        """Import each, but those that are known to end the interpreter: ``fatal`` says how."""
        return [module for name in names for module in self._load(name, fatal.get(name))]

    def _load(self, name: str, fatal: str | None) -> list[ModuleType]:
        why, where = fatal or "", ""
        self._told(name)
        if not why:
            try:
                module: Any = importlib.import_module(name)
                # Some put another object into their place; what they have registered is known all the same.
                return [module] if isinstance(module, ModuleType) and module.__name__ == name else []
            except BaseException as error:  # noqa: BLE001 - a module may do anything, sys.exit() too
                why, where = reason(error), place(error, self._base)
        self._broken.add(name)
        self.troubles.append(trouble(f"cannot import {name}", why, missing("its options"), name, where))
        return []

    def listing(self, modules: list[ModuleType], wanted: Callable[[str], bool]) -> Listing:
        """What these define, and what ``wanted`` others, imported by them, have registered."""
        for module in modules:
            self._have_registered(module)
        self._answers = {module.__name__: self._answered(module) for module in modules}
        others: list[Any] = [sys.modules[name] for name in sorted(sys.modules) if wanted(name)]
        every = {id(module): module for module in [*modules, *others] if isinstance(module, ModuleType)}
        places = _places(every.values())
        listed = {name for name in self._registrations.modules() if wanted(name) and name not in self._broken}
        listed.update(self._answers)
        found = self._fresh(listed)
        told = {id(option) for pairs in self._answers.values() for _, option in pairs}
        for module in modules:
            guessed = self._guessed(module, told, places)
            told.update(id(option) for _, option in guessed)
            found[module.__name__] += guessed
        for module in modules:
            found[module.__name__] += self._registered_for(module, listed)
        for name in listed:
            found[name] = self._registrations.by(name) + found.get(name, [])
        return [(name, [(group, [option]) for group, option in found[name]]) for name in sorted(found)]

    def says_nothing(self, module: ModuleType) -> bool:
        """Has it no options at all, as far as it could be asked?"""
        name = module.__name__
        below = any(f"{each}.".startswith(f"{name}.") for each in self._registrations.modules())
        return not (below or self._answers[name] or _own(module) or name in self._silenced)

    def _have_registered(self, module: ModuleType) -> None:
        """OpenStack's custom: ``register_opts(conf)``, if an import alone registers nothing, or not all."""
        complete = self._registrations.by(module.__name__) and not self._loose(module)
        if not complete and not _takes(module, "list_opts", 0) and _takes(module, "register_opts", 1):
            with self._asking(module, "register_opts"):
                module.register_opts(cfg.ConfigOpts())  # the registrations hear of it

    def _answered(self, module: ModuleType) -> Pairs:
        """What its functions for entry points tell."""
        told: Pairs = []
        for name in _listers(module):
            with self._asking(module, name):
                told += _told_by(name, vars(module)[name]())
        return told

    def _fresh(self, listed: set[str]) -> dict[str, Pairs]:
        """Of the answers, what nobody ``listed`` has registered, and no other one has told the same way."""
        registered = self._registrations.places(listed)
        told: dict[tuple[str, str], list[Any]] = {}
        found: dict[str, Pairs] = {}
        for name, pairs in self._answers.items():
            found[name] = []
            for group, option in pairs:
                alike = told.setdefault(in_place(group, option), [])
                if in_place(group, option) not in registered and option not in alike:
                    alike.append(option)
                    found[name].append((group, option))
        return found

    @contextlib.contextmanager
    def _asking(self, module: ModuleType, name: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - it is the project's code
            self._silenced.add(module.__name__)
            what = f"cannot ask {module.__name__}.{name}() for options"
            lacks = missing("what it would have told")
            self.troubles.append(trouble(what, reason(error), lacks, "", place(error, self._base)))

    def _guessed(self, module: ModuleType, told: set[int], places: dict[int, list[str]]) -> Pairs:
        """Options that nobody has put into a group yet. ``places``: where they will be put, by their id."""
        copies = self._copies(module)
        loose = [each for each in self._loose(module) if id(each) not in told and each not in copies]
        nowhere = [option for option in loose if id(option) not in places]
        if nowhere:
            what = f"{module.__name__} does not register all of its options when it is imported"
            listed = f"listed under [DEFAULT]: {_names(nowhere)}"
            self.troubles.append(trouble(what, "their group cannot be known", listed))
        return [(group, option) for option in loose for group in places.get(id(option), ["DEFAULT"])]

    def _copies(self, module: ModuleType) -> list[Any]:
        """What the module itself has told, and those that import it, as oslo_middleware.opts does."""
        own = module.__name__.rpartition(".")[2]  # the one word of it that every kind of import has
        tellers = [
            name
            for name in self._answers
            if name == module.__name__ or own in _import_words(sys.modules.get(name))
        ]
        return [option for name in tellers for _, option in self._answers[name]]

    def _registered_for(self, module: ModuleType, listed: set[str]) -> Pairs:
        """A module's own options that somebody else has registered, such as a library's helper."""
        by_others = [(self._registrations.of(option), option) for option in _own(module)]
        return [
            (group, option)
            for registrations, option in by_others
            if not listed & {name for name, _ in registrations}
            for _, group in registrations
        ]

    def _loose(self, module: ModuleType) -> list[Any]:
        """A module's own options that nobody has registered."""
        return [option for option in _own(module) if not self._registrations.of(option)]


def _own(module: ModuleType) -> list[Any]:
    """The options that a module defines, by themselves or in a list."""
    imported = _imported(module)
    values = [value for name, value in vars(module).items() if name not in imported]
    return [option for value in values for option in _options(value) if in_files(option)]


def _options(value: Any) -> list[Any]:
    """Of an option itself, or of a list of nothing else."""
    try:
        each = list(value) if isinstance(value, (list, tuple)) else [value]
        return each if all(isinstance(option, cfg.Opt) for option in each) else []
    except BaseException:  # noqa: BLE001 - a project's object may do anything when it is looked at
        return []


def _places(modules: Iterable[ModuleType]) -> dict[int, list[str]]:
    """Id of an option → the groups that a function of one of the modules would register it in."""
    found: dict[int, list[str]] = {}
    for group, what in (each for module in modules for each in written(module)):
        for option in what if isinstance(what, (list, tuple)) else [what]:
            if group not in found.setdefault(id(option), []):
                found[id(option)].append(group)
    return found


def _imported(module: ModuleType) -> set[str]:
    """The names that a module has from elsewhere."""
    return {alias.asname or alias.name for statement in _imports(module) for alias in statement.names}


@functools.cache
def _import_words(module: ModuleType | None) -> set[str]:
    """Every word in the import statements of a module, also of those in its functions."""
    statements = _imports(module) if module is not None else []
    names = [alias.name for statement in statements for alias in statement.names]
    names += [getattr(statement, "module", None) or "" for statement in statements]
    return {word for name in names for word in name.split(".")}


@functools.cache
def _imports(module: ModuleType) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(source(module)) if isinstance(node, (ast.Import, ast.ImportFrom))]


def _listers(module: ModuleType) -> list[str]:
    """OpenStack's custom for entry points: ``list_opts()``; in a module called opts, several of that kind."""
    pattern = lister(module.__name__)
    return [name for name in list(vars(module)) if re.fullmatch(pattern, name) and _takes(module, name, 0)]


def _takes(module: ModuleType, name: str, count: int) -> bool:
    """Has it a function of its own that is called with so many arguments?"""
    function = vars(module).get(name)
    if not inspect.isfunction(function) or function.__module__ != module.__name__:
        return False
    try:
        parameters = inspect.signature(function).parameters.values()
    except BaseException:  # noqa: BLE001 - somebody has given it a signature of its own
        return False
    needed = [each for each in parameters if each.default is each.empty and "VAR" not in each.kind.name]
    return len(needed) == count


def _told_by(name: str, listed: Any) -> Pairs:
    """One that is not called ``list_opts`` may be anything: an answer of another kind does not count."""
    try:
        return _pairs(listed)
    except (TypeError, ValueError):
        if re.fullmatch(LIST_OPTS, name):
            raise
        return []


def _pairs(listed: Any) -> Pairs:
    """Of a mapping or of pairs, as both are usual; of nothing, none. Raises TypeError or ValueError."""
    every = listed.items() if hasattr(listed, "items") else listed or ()
    pairs = [(group, option) for group, options in every for option in options]
    for _, option in pairs:
        if not isinstance(option, cfg.Opt):
            raise TypeError(f"it tells of {type(option).__name__}, which is no option")
    return [(group, option) for group, option in pairs if in_files(option)]


def _names(options: list[Any]) -> str:
    return ", ".join(sorted({option.dest for option in options}))
