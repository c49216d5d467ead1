"""What a migration script is going to drop, read from its source; nothing of it is run. Pure.

What a function drops that the script imports from another module is not seen, nor what SQL does that is read
from a file at run time.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union

from .destructive_ast import (
    argument_of,
    bare,
    elements,
    expression_text,
    is_set,
    is_text,
    keyword_of,
    marked,
    names_in,
    parts_of,
    targets_of,
)
from .destructive_sql import CLOSE, COLUMN, CREATE, DROP, EMPTY, OPEN, RENAME, TABLE, Change, changes

ALEMBIC = "alembic"
MIGRATE = "migrate"
SQL = "sql"

_EXPRESSION = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
_PLACE = re.compile(r"%(?:\(\w+\))?[sdr]|\{\w*(?:![sr])?\}")

_SPEAKING = frozenset(
    ["critical", "debug", "error", "exception", "info", "log", "print", "print_stdout", "warn", "warning"]
)
"""Functions whose texts are for people."""

_NO_DATA = frozenset(
    [
        "CheckConstraint",
        "DOMAIN",
        "Domain",
        "ENUM",
        "Enum",
        "ForeignKeyConstraint",
        "Index",
        "PrimaryKeyConstraint",
        "Sequence",
        "UniqueConstraint",
    ]
)
_SOUNDS_HARMLESS = re.compile(
    r"(?:^|[_.])(?:idx|index|ix|ck|cons|constraint|enum|fk|fkey|ixs|key|pk|seq|sequence|trigger|type|uc|uix|uq|view)"
    r"\d*$|enum$|index$|constraint$",
    re.IGNORECASE,
)
"""How an object is called that is dropped although nobody can see what it is: `for index in t.indexes`."""


@dataclass(frozen=True)
class _Table:
    name: str


@dataclass(frozen=True)
class _Column:
    """``table`` is "" as long as it belongs to none."""

    table: str
    name: str


@dataclass(frozen=True)
class _Harmless:
    """An index, a constraint, a type: no data goes with it."""


_Thing = Union[_Table, _Column, _Harmless, str]
"""What a variable is known to be; a string is the value itself."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_ASSIGNMENTS = (ast.Assign, ast.AnnAssign)
_LEAVES = (ast.expr_context, ast.operator, ast.alias)


def findings(source: str, kind: str) -> tuple[str, ...]:
    """Say what the upgrade() of a script drops: "drops the table x", "drops the column t.c", "empties ...".

    ``kind`` is ALEMBIC or MIGRATE for Python, or SQL. A name that only the running script knows is shown as
    its expression: "drops the table {prefix}_users". What the same upgrade() has made before does not count.
    """
    effects = _Effects()
    if kind == SQL:
        effects.follow(source)
        return effects.findings()
    try:
        _Script(_parse(source), kind == MIGRATE, effects).read()
    except (SyntaxError, ValueError) as error:
        line = f" (line {error.lineno}: {error.msg})" if isinstance(error, SyntaxError) else f" ({error})"
        return (f"cannot be parsed{line}, so nobody knows what it drops",)
    except RecursionError:
        return ("cannot be parsed (too deeply nested), so nobody knows what it drops",)
    return effects.findings()


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the script's own affairs, such as "\d" in a string
        return ast.parse(source)


class _Effects:
    """Keeps account of what is made and dropped, in its order."""

    def __init__(self) -> None:
        self._findings: dict[str, None] = {}
        self._made: set[str] = set()

    def findings(self) -> tuple[str, ...]:
        return tuple(_EXPRESSION.sub(r"{\1}", finding) for finding in self._findings)

    def note(self, finding: str) -> None:
        self._findings[finding] = None

    def follow(self, sql: str) -> None:
        for change in changes(sql):
            self.add(change)

    def add(self, change: Change) -> None:
        key = change.name.lower()
        if change.does == CREATE:
            self._made.add(key)
        elif change.does == RENAME:
            if key in self._made:
                self._made.remove(key)
                self._made.add(change.to.lower())
        elif not self._is_ours(change.what, key):
            verb = "empties" if change.does == EMPTY else "drops"
            self.note(f"{verb} the {change.what} {change.name or '?'}")
        elif change.does == DROP:
            self._made.discard(key)

    def _is_ours(self, what: str, key: str) -> bool:
        if what == TABLE:
            return key in self._made
        return key in self._made or key.rpartition(".")[0] in self._made


class _Script:
    """One script, read in the order in which upgrade() would run it, except that every branch is taken."""

    def __init__(self, module: ast.Module, is_migrate: bool, effects: _Effects) -> None:
        self._is_migrate = is_migrate
        self._effects = effects
        self._definitions: dict[str, list[ast.stmt]] = {}
        self._imported: dict[str, str] = {}
        self._entered: set[str] = set()
        self._globals: dict[str, _Thing | None] = {}
        self._known = ChainMap(self._globals)
        self._visitors: dict[type[ast.AST], Callable[[Any], None]] = {
            ast.AnnAssign: self._visit_assignment,
            ast.Assign: self._visit_assignment,
            ast.AsyncFunctionDef: self._visit_function,
            ast.Attribute: self._visit_attribute,
            ast.Call: self._visit_call,
            ast.Expr: self._visit_expression_statement,
            ast.For: self._visit_for,
            ast.FunctionDef: self._visit_function,
            ast.Name: self._visit_name,
            ast.withitem: self._visit_with_item,
        }
        self._calls: dict[str, Callable[[ast.Call], None]] = {
            "DropColumnOp": self._drop_column,
            "DropTable": self._drop_table_object,
            "DropTableOp": self._drop_table,
            "add_column": self._add_column,
            "create": self._create,
            "create_table": self._create_table,
            "drop": self._drop,
            "drop_all": self._drop_all,
            "drop_column": self._drop_column,
            "drop_table": self._drop_table,
            "rename_table": self._rename_table,
        }
        self._collect(module.body)

    def read(self) -> None:
        # alembic's template for several databases calls upgrade_NAME() by way of globals().
        entries = [name for name in self._definitions if name == "upgrade" or name.startswith("upgrade_")]
        if "upgrade" not in entries:
            self._effects.note("has no upgrade() of its own, so nobody knows what it drops")
        for name in entries:
            self._enter(name)

    def _collect(self, body: list[ast.stmt]) -> None:
        """Note what the module defines, also below an ``if`` or ``try``."""
        for node in body:
            if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
                self._definitions.setdefault(node.name, []).append(node)
                continue
            if isinstance(node, _ASSIGNMENTS):
                for name in targets_of(node):
                    self._definitions.setdefault(name, []).append(node)
            elif isinstance(node, ast.ImportFrom):
                self._imported.update({alias.asname or alias.name: alias.name for alias in node.names})
            for part in (node, *getattr(node, "handlers", ())):
                for field in ("body", "orelse", "finalbody"):
                    self._collect(getattr(part, field, []))

    def _enter(self, name: str) -> None:
        if name in self._entered or name not in self._definitions:
            return
        self._entered.add(name)
        outer, self._known = self._known, ChainMap(self._globals)
        self._visit_all(self._definitions[name])
        self._known = outer

    # --- the walk ----------------------------------------------------------------------------------------

    def _visit(self, node: ast.AST) -> None:
        visitor = self._visitors.get(type(node))
        if visitor:
            visitor(node)
        elif is_text(node):
            self._visit_text(node)
        else:
            self._visit_parts(node)

    def _visit_parts(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, _LEAVES):
                self._visit(child)

    def _visit_expression_statement(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self._visit(node.value)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = node.args
        parameters = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        self._known = self._known.new_child({parameter.arg: None for parameter in parameters})
        self._visit_parts(node)
        self._known = self._known.parents

    def _visit_name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id not in self._known:
            self._enter(node.id)

    def _visit_attribute(self, node: ast.Attribute) -> None:
        """A function that drops, handed on: ``map(op.drop_table, names)``."""
        if node.attr in {"drop_table", "drop_column", "drop_all"}:
            self._effects.note(f"hands on {expression_text(node)}, and nobody knows what that drops")
        self._visit(node.value)

    def _visit_assignment(self, node: ast.Assign | ast.AnnAssign) -> None:
        if node.value is not None:
            self._visit(node.value)
            for name in targets_of(node):
                self._bind(name, self._thing(node.value))

    def _visit_with_item(self, node: ast.withitem) -> None:
        self._visit(node.context_expr)
        if isinstance(node.optional_vars, ast.Name):
            self._known[node.optional_vars.id] = self._thing(node.context_expr)

    def _visit_for(self, node: ast.For) -> None:
        """``for table in ("a", "b")`` is read once for each of them."""
        self._visit(node.iter)
        for name in names_in(node.target):
            self._known[name] = None
        items = elements(node.iter) if isinstance(node.iter, (ast.Tuple, ast.List, ast.Set)) else []
        if not (isinstance(node.target, ast.Name) and items):
            self._visit_all(node.body)
        else:
            for item in items:
                self._known[node.target.id] = self._thing(item)
                self._visit_all(node.body)
        self._visit_all(node.orelse)

    def _visit_all(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self._visit(statement)

    def _bind(self, name: str, thing: _Thing | None) -> None:
        """A name that can be one text or another is neither."""
        was = self._known.get(name)
        self._known[name] = None if isinstance(was, str) and was != thing else thing

    def _visit_text(self, node: ast.AST) -> None:
        self._effects.follow(self._text(node))
        for part in parts_of(node):
            self._visit(part)

    # --- calls -------------------------------------------------------------------------------------------

    def _visit_call(self, node: ast.Call) -> None:
        name = self._called(node.func)
        if name in _SPEAKING:
            return
        if is_text(node):
            self._visit_text(node)
            return
        if name in self._calls:
            self._calls[name](node)
        # The function's own name has been dealt with.
        self._visit(node.func.value if isinstance(node.func, ast.Attribute) else node.func)
        for child in (*node.args, *node.keywords):
            self._visit(child)

    def _called(self, function: ast.expr) -> str:
        """Return the name under which a library has it; "" if it is the script's own."""
        if isinstance(function, ast.Attribute):
            return function.attr
        if isinstance(function, ast.Name) and function.id not in self._definitions:
            return self._imported.get(function.id, function.id)
        return ""

    def _drop_table(self, node: ast.Call) -> None:
        self._effects.add(Change(DROP, TABLE, self._table_argument(node)))

    def _drop_table_object(self, node: ast.Call) -> None:
        self._effects.add(Change(DROP, TABLE, self._owner(argument_of(node, 0, "element"))))

    def _create_table(self, node: ast.Call) -> None:
        if not is_set(node, "if_not_exists"):
            self._effects.add(Change(CREATE, TABLE, self._table_argument(node)))

    def _rename_table(self, node: ast.Call) -> None:
        new = self._schema(node) + self._text(argument_of(node, 1, "new_table_name"))
        old = self._schema(node) + self._text(argument_of(node, 0, "old_table_name"))
        self._effects.add(Change(RENAME, TABLE, old, new))

    def _add_column(self, node: ast.Call) -> None:
        """Both ``op.add_column(table, column)`` and ``batch_op.add_column(column)``."""
        for argument in node.args[:2]:
            column = self._thing(argument)
            if isinstance(column, _Column) and not is_set(node, "if_not_exists"):
                table = self._table_argument(node) if argument is not node.args[0] else self._receiver(node)
                self._effects.add(Change(CREATE, COLUMN, f"{table}.{column.name}"))

    def _drop_column(self, node: ast.Call) -> None:
        """Alembic's takes (table, column), a batch's and a Table's (column), migrate's (column, table)."""
        names = ("column", "table") if self._is_migrate else ("table_name", "column_name")
        first, second = argument_of(node, 0, names[0]), argument_of(node, 1, names[1])
        if second is None:
            table, column = self._receiver(node), first
        elif self._is_migrate:
            table, column = self._owner(second), first
        else:
            table, column = self._table_argument(node), second
        self._effects.add(Change(DROP, COLUMN, f"{table}.{self._column_name(column)}"))

    def _drop_all(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            self._effects.note(f"drops all tables of {marked(node.func.value)}")

    def _create(self, node: ast.Call) -> None:
        """A Table's, or a Column's of sqlalchemy-migrate."""
        thing = self._thing(node.func.value) if isinstance(node.func, ast.Attribute) else None
        if isinstance(thing, _Table) and not is_set(node, "checkfirst"):
            self._effects.add(Change(CREATE, TABLE, thing.name))
        elif isinstance(thing, _Column) and node.args:
            self._effects.add(Change(CREATE, COLUMN, f"{self._owner(node.args[0])}.{thing.name}"))

    def _drop(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Attribute):
            return
        thing = self._thing(node.func.value)
        if isinstance(thing, _Table):
            self._effects.add(Change(DROP, TABLE, thing.name))
        elif isinstance(thing, _Column):
            table = thing.table or self._owner(argument_of(node, 0, "table"))
            self._effects.add(Change(DROP, COLUMN, f"{table}.{thing.name}"))
        elif thing is None and not _SOUNDS_HARMLESS.search(bare(node.func.value)):
            self._effects.note(f"drops {marked(node.func.value)}")

    # --- what an expression stands for -------------------------------------------------------------------

    def _thing(self, node: ast.AST | None) -> _Thing | None:
        if isinstance(node, ast.Name):
            self._visit_name(node)
            return self._known.get(node.id)
        if isinstance(node, ast.Call):
            return self._made_by(node)
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            return self._part_of(node)
        return self._text(node) if node is not None and is_text(node) else None

    def _made_by(self, call: ast.Call) -> _Thing | None:
        name = self._called(call.func)
        if name in {"Table", "batch_alter_table"}:
            return _Table(self._table_argument(call))
        if name == "Column":
            return _Column("", self._text(argument_of(call, 0, "name")))
        if name in _NO_DATA:
            return _Harmless()
        if name in {"f", "enter_context", "quoted_name", "text"} and call.args:
            return self._thing(call.args[0])
        return self._text(call) if is_text(call) else None

    def _part_of(self, node: ast.Attribute | ast.Subscript) -> _Thing | None:
        """``meta.tables["x"]``, ``Model.__table__``, ``table.c.x``, ``table.columns["x"]``."""
        if isinstance(node, ast.Attribute):
            if node.attr == "__table__":
                return _Table(marked(node))
            last = node.attr
        else:
            last = self._text(node.slice)
        if not isinstance(node.value, ast.Attribute):
            return None
        if node.value.attr in {"c", "columns"}:
            return _Column(self._owner(node.value.value), last)
        return _Table(last) if node.value.attr == "tables" and isinstance(node, ast.Subscript) else None

    def _owner(self, node: ast.AST | None) -> str:
        """Return the name of the table that an expression stands for."""
        thing = self._thing(node)
        if isinstance(thing, _Table):
            return thing.name
        return self._text(node)

    def _receiver(self, node: ast.Call) -> str:
        return self._owner(node.func.value if isinstance(node.func, ast.Attribute) else None)

    def _column_name(self, node: ast.AST | None) -> str:
        thing = self._thing(node)
        return thing.name if isinstance(thing, _Column) else self._text(node)

    def _table_argument(self, node: ast.Call) -> str:
        name = argument_of(node, 0, "table_name") or keyword_of(node, "name")
        return self._schema(node) + self._text(name)

    def _schema(self, node: ast.Call) -> str:
        schema = keyword_of(node, "schema")
        if schema is None or (isinstance(schema, ast.Constant) and schema.value is None):
            return ""
        return self._text(schema) + "."

    def _text(self, node: ast.AST | None) -> str:
        """Return the text that an expression makes, with a marked expression where it cannot be known."""
        if node is None:
            return "?"
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.FormattedValue):
            return self._text(node.value)
        if is_text(node):
            return self._put_together(node)
        thing = self._thing(node) if isinstance(node, (ast.Name, ast.Call)) else None
        return thing if isinstance(thing, str) else marked(node)

    def _put_together(self, node: ast.AST) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(map(self._text, node.values))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._text(node.left) + self._text(node.right)
        if isinstance(node, ast.BinOp):
            return self._filled(node.left, elements(node.right))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            return self._filled(node.func.value, [*node.args, *(word.value for word in node.keywords)])
        return marked(node)

    def _filled(self, template: ast.AST, values: list[ast.expr]) -> str:
        """Fill %s and {} in their order, which need not be that of the names in them: it is for people."""
        remaining = iter(values)
        return _PLACE.sub(lambda _place: self._text(next(remaining, None)), self._text(template))
