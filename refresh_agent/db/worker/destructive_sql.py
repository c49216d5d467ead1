"""What SQL text does to tables: a scan for a few statements, not a parser. Pure.

It would rather find too much than too little: a statement counts wherever it stands in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

CREATE = "create"
DROP = "drop"
EMPTY = "empty"
RENAME = "rename"

OPEN, CLOSE = "\ue000", "\ue001"
"""Around an expression in a text that a program puts together; it counts as (a part of) a name."""

TABLE = "table"
COLUMN = "column"
PARTITION = "partition"

_TELLING = re.compile(r"\b(?:drop|truncate|create|rename|replace)\b", re.IGNORECASE)

_FORM = r"""
    (?P<gap>\s+ | --[^\n]* | ^[ \t]*\#[^\n]* | /\*(?!!).*?\*/ | /\*!\d* | \*/)
  | (?P<string>'(?:%s|'')*'(?!'))
  | (?P<quoted>"(?:[^"]|"")+" | `(?:[^`]|``)+` | \[[^\]\n]+\])
  | (?P<word>(?:[\w$]|\ue000[^\ue001]*\ue001)+)
  | (?P<mark>.)
"""
_STANDARD = re.compile(_FORM % r"[^']", re.VERBOSE | re.DOTALL | re.MULTILINE)
_BACKSLASHED = re.compile(_FORM % r"[^'\\]|\\.", re.VERBOSE | re.DOTALL | re.MULTILINE)
"""Whether a backslash protects a quotation mark is the server's affair: for MariaDB it does."""

_NO_COLUMN = frozenset(
    [
        "CHECK",
        "CONSTRAINT",
        "DEFAULT",
        "EXPRESSION",
        "FOREIGN",
        "IDENTITY",
        "INDEX",
        "KEY",
        "NOT",
        "PERIOD",
        "PRIMARY",
        "SYSTEM",
        "UNIQUE",
    ]
)
_NO_TABLE_NAME = frozenset(("COLUMN", "CONSTRAINT", "INDEX", "KEY"))
_BEGINNINGS = frozenset(("", ";", "$", "BEGIN", "DO", "ELSE", "LOOP", "THEN"))
_CONTAINERS = {"DATABASE": "database", "SCHEMA": "schema"}


@dataclass(frozen=True)
class Change:
    """``does`` is a constant above; ``what`` it does it to is a table, column, partition, database or schema.

    ``name`` is of the form schema.table or table.column, "" if the text does not hold it. ``to``: the new
    name of a table that is renamed.
    """

    does: str
    what: str
    name: str
    to: str = ""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str

    @property
    def keyword(self) -> str:
        return self.text.upper() if self.kind != "quoted" else ""

    @property
    def name(self) -> str:
        if self.kind == "quoted":
            return self.text[1:-1]
        return self.text if self.kind == "word" else ""


_END = _Token("mark", "")


def changes(text: str) -> list[Change]:
    """What the statements in ``text`` create, drop, empty and rename, in their order."""
    if not _TELLING.search(text):
        return []
    found = list(_scan(text, _STANDARD))
    if "\\" in text:
        found += [change for change in _scan(text, _BACKSLASHED) if change not in found]
    return found


def _scan(text: str, form: re.Pattern[str]) -> Iterator[Change]:
    tokens = [
        _Token(match.lastgroup or "", match[0]) for match in form.finditer(text) if match.lastgroup != "gap"
    ]
    begin = 0
    for end in [at for at, token in enumerate(tokens) if token.text == ";"] + [len(tokens)]:
        yield from _Statement(tokens[begin:end]).changes()
        begin = end + 1


class _Statement:
    """The tokens between two semicolons, read from left to right; ``_at`` is the next one."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._altered = ""
        self._action = -1
        """Where an action of ALTER TABLE may begin."""

    def changes(self) -> Iterator[Change]:
        # What a procedure is to execute stands in a string.
        executes = any(token.keyword in {"EXECUTE", "PREPARE"} for token in self._tokens)
        while self._at < len(self._tokens):
            at, token = self._at, self._tokens[self._at]
            self._at += 1
            if token.kind == "string" and executes:
                yield from _scan(token.text[1:-1].replace("''", "'"), _STANDARD)
            elif token.keyword == "ALTER" and self._skip("IGNORE", "ONLINE") and self._take("TABLE"):
                self._skip("IF", "EXISTS", "ONLY")
                self._altered = self._name()
                self._action = self._at
            elif token.text == "," and self._altered:
                self._action = self._at
            elif token.keyword == "DROP":
                yield from self._drop(at == self._action)
            elif token.keyword == "TRUNCATE":
                yield from self._truncate(self._tokens[at - 1].keyword if at else "")
            elif token.keyword == "CREATE":
                yield from self._create()
            elif token.keyword == "RENAME":
                yield from self._rename(at == self._action)

    def _drop(self, is_action: bool) -> Iterator[Change]:
        what = self._peek().keyword
        if what in {"TABLE", "TABLES"}:
            self._at += 1
            yield from (Change(DROP, TABLE, name) for name in self._names())
        elif what in _CONTAINERS:
            self._at += 1
            yield from (Change(DROP, _CONTAINERS[what], name) for name in self._names())
        elif what == "PARTITION" and is_action:
            self._at += 1
            yield from (Change(DROP, PARTITION, f"{self._altered}.{name}") for name in self._names())
        elif what == "COLUMN" or (is_action and what not in _NO_COLUMN):
            self._take("COLUMN")
            self._skip("IF", "EXISTS")
            yield Change(DROP, COLUMN, f"{self._altered or '?'}.{self._name() or '?'}")

    def _truncate(self, before: str) -> Iterator[Change]:
        """Not the function TRUNCATE(), nor a trigger's BEFORE TRUNCATE."""
        if self._take("PARTITION"):
            yield from (Change(EMPTY, PARTITION, f"{self._altered}.{name}") for name in self._names())
        elif self._take("TABLE") or (before in _BEGINNINGS and self._peek().name):
            yield from (Change(EMPTY, TABLE, name) for name in self._names())

    def _create(self) -> Iterator[Change]:
        replaces = self._take("OR") and self._take("REPLACE")
        self._skip("GLOBAL", "LOCAL", "TEMP", "TEMPORARY", "UNLOGGED")
        if not self._take("TABLE"):
            return
        is_new = not self._take("IF")
        self._skip("NOT", "EXISTS")
        name = self._name()
        if replaces:
            yield Change(DROP, TABLE, name)
        if is_new:
            yield Change(CREATE, TABLE, name)

    def _rename(self, is_action: bool) -> Iterator[Change]:
        if is_action and self._peek().keyword not in _NO_TABLE_NAME:
            self._skip("TO", "AS")
            yield Change(RENAME, TABLE, self._altered, self._name())
        elif not is_action and self._take("TABLE"):
            self._skip("IF", "EXISTS")
            old = self._name()
            self._skip("TO")
            yield Change(RENAME, TABLE, old, self._name())

    def _names(self) -> Iterator[str]:
        self._skip("IF", "EXISTS", "ONLY")
        yield self._name()
        while self._peek().text == ",":
            self._at += 1
            yield self._name()

    def _name(self) -> str:
        """Read a name with what stands before its dots; "" if there is none."""
        parts = [self._peek().name]
        self._at += bool(parts[0])
        while parts[-1] and self._peek().text == ".":
            self._at += 1
            parts.append(self._peek().name)
            self._at += 1
        return ".".join(parts)

    def _peek(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _take(self, keyword: str) -> bool:
        taken = self._peek().keyword == keyword
        self._at += taken
        return taken

    def _skip(self, *keywords: str) -> bool:
        while self._peek().keyword in keywords:
            self._at += 1
        return True
