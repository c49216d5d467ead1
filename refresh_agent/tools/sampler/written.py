"""Registrations that stand in functions: nobody calls these while modules are imported, so they are read.

``CONF.register_opts(server.OPTIONS, group="server")`` is looked up as it stands: names and attributes of
modules, texts, and groups that are made in the same module. What else may be said there is nobody's to guess.
"""

from __future__ import annotations

import ast
import functools
import inspect
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

WAYS_IN = {"register_opt", "register_opts", "register_cli_opt", "register_cli_opts"}
"""What a project calls."""


@functools.cache
def source(module: ModuleType) -> ast.AST:
    """Empty if it has none. Every question about a module begins with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its import has told of them
            return ast.parse(inspect.getsource(module))
    except BaseException:  # noqa: BLE001 - a module with a __getattr__ may do anything when it is asked
        return ast.Module([], [])


def written(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """(name of the group, option or list of options) of each call that registers something."""
    tree = source(module)
    names = {**vars(module), **dict.fromkeys(_local(tree)), **_groups(tree)}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in WAYS_IN:
            words = {word.arg: word.value for word in call.keywords}
            what = next(iter([*call.args, *(words[each] for each in ("opt", "opts") if each in words)]), None)
            group = words.get("group", call.args[1] if len(call.args) > 1 else ast.Constant("DEFAULT"))
            name = _value(group, names)
            name = getattr(name, "name", name)
            if isinstance(name, str):
                yield name, _value(what, names)


def _local(tree: ast.AST) -> Iterator[str]:
    """Names that mean something else in some function than in the module."""
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in (node for function in functions for node in ast.walk(function)):
        if isinstance(node, ast.arg):
            yield node.arg
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _groups(tree: ast.AST) -> dict[str, str]:
    """Variable → name of the one group that is made for it: ``group = cfg.OptGroup(name="server")``."""
    made: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            words = [word.value for word in node.value.keywords if word.arg == "name"]
            name = next(iter([*words, *node.value.args]), None)
            if getattr(node.value.func, "attr", "") == "OptGroup" and isinstance(name, ast.Constant):
                for target in node.targets:
                    made.setdefault(ast.unparse(target), set()).add(str(name.value))
    return {variable: names.pop() for variable, names in made.items() if len(names) == 1}


def _value(node: ast.expr | None, names: dict[str, Any]) -> Any:
    """None if it is more than a text, a name or an attribute of one, or cannot be had."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        try:
            return getattr(_value(node.value, names), node.attr, None)
        except Exception:  # noqa: BLE001 - a project's object may do anything when it is asked
            return None
    return None
