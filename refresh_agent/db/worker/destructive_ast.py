"""Small questions to the syntax tree of a migration script. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .destructive_sql import CLOSE, OPEN

EXPRESSION_LIMIT = 60
"""Characters of an expression that are shown."""


def is_text(node: ast.AST) -> bool:
    """Whether an expression is seen to make a string."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Mod):
            return is_text(node.left)
        return isinstance(node.op, ast.Add) and (is_text(node.left) or is_text(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "format" and is_text(node.func.value)
    return isinstance(node, ast.JoinedStr)


def parts_of(node: ast.AST) -> Iterator[ast.AST]:
    """The expressions in a text that are not text themselves."""
    for child in ast.iter_child_nodes(node):
        if is_text(child) or isinstance(child, (ast.FormattedValue, ast.Tuple, ast.keyword)):
            yield from parts_of(child)
        elif isinstance(child, ast.Attribute) and is_text(child.value):
            yield from parts_of(child.value)  # "...".format
        else:
            yield child


def targets_of(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """The plain names that are assigned to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def names_in(node: ast.AST) -> list[str]:
    """All plain names in an expression."""
    return [name.id for name in ast.walk(node) if isinstance(name, ast.Name)]


def elements(node: ast.expr) -> list[ast.expr]:
    """Those of a tuple, list, set, of a dict's values; anything else is its own only one."""
    if isinstance(node, ast.Dict):
        return list(node.values)
    return list(node.elts) if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node]


def argument_of(node: ast.Call, position: int, name: str) -> ast.expr | None:
    """The value of an argument that may be given by its position or by its name."""
    return node.args[position] if len(node.args) > position else keyword_of(node, name)


def keyword_of(node: ast.Call, name: str) -> ast.expr | None:
    """The value that is given by that name."""
    return next((keyword.value for keyword in node.keywords if keyword.arg == name), None)


def is_set(node: ast.Call, name: str) -> bool:
    """Whether a flag is given, and not plainly as False."""
    value = keyword_of(node, name)
    return value is not None and not (isinstance(value, ast.Constant) and not value.value)


def bare(node: ast.AST) -> str:
    """Return the expression without what is called or looked up in it: ``indexes["a"]`` is ``indexes``."""
    while isinstance(node, (ast.Call, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return ast.unparse(node)


def expression_text(node: ast.AST) -> str:
    """The source of an expression, on one line and not too long."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= EXPRESSION_LIMIT else text[: EXPRESSION_LIMIT - 1] + "…"


def marked(node: ast.AST) -> str:
    """An expression as a part of a name, as ``destructive_sql`` takes it."""
    return OPEN + expression_text(node) + CLOSE
