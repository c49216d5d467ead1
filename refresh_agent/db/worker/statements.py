"""What an SQL statement is, as far as the ledger has to know: does it change anything, does it commit. Pure.

It is read, not parsed: strings, quoted names and comments are taken out, then the first words decide. What is
unknown counts as a change.
"""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass
from typing import Any

LONGEST = 4000
"""Characters of a statement that are kept for people."""


class Kind(enum.IntEnum):
    """The stronger is the greater: of several statements in one text the strongest counts."""

    READ = 0
    """Changes nothing, or nothing but this session."""
    ROLLBACK = 1
    """Takes back what has not been committed."""
    DATA = 2
    COMMIT = 3
    """Makes permanent what came before, and changes nothing itself."""
    SCHEMA = 4
    """DDL. MariaDB and MySQL commit before and after it."""


_QUOTED = re.compile(
    r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`(?:[^`]|``)*`|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"
    r"|/\*(?!!|M!).*?\*/|--[ \t\n][^\n]*|--$|\#[^\n]*",
    re.DOTALL,
)
_RUN_BY_MARIADB = re.compile(r"/\*M?!\d*|\*/")

_READS = frozenset(
    [
        "SELECT",
        "SHOW",
        "DESCRIBE",
        "DESC",
        "EXPLAIN",
        "PRAGMA",
        "VALUES",
        "TABLE",
        "SET",
        "USE",
        "SAVEPOINT",
        "RELEASE",
        "DECLARE",
        "FETCH",
        "CLOSE",
        "KILL",
        "DEALLOCATE",
        "DISCARD",
        "LISTEN",
        "UNLISTEN",
        "NOTIFY",
        "HELP",
    ]
)
_COMMITS = frozenset(
    [
        "COMMIT",
        "END",
        "BEGIN",
        "START",
        "LOCK",
        "UNLOCK",
        "FLUSH",
        "RESET",
        "ANALYZE",
        "OPTIMIZE",
        "REPAIR",
        "CHECK",
        "CACHE",
    ]
)
_SCHEMA = frozenset(
    ["ALTER", "CREATE", "DROP", "RENAME", "TRUNCATE", "GRANT", "REVOKE", "INSTALL", "UNINSTALL", "COMMENT"]
)
_CHANGES_IN_WITH = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|REPLACE)\b")
_TEMPORARY = re.compile(r"(CREATE( OR REPLACE)?|DROP) (TEMPORARY|TEMP) TABLE\b")
_AUTOCOMMIT_ON = re.compile(r"SET (@@|SESSION |@@SESSION\.)?AUTOCOMMIT ?(=|:=) ?(1|ON|TRUE)")
_RETURNING = re.compile(r"\bRETURNING\b")

_NAME = r"(?P<table>(?:[`\"\w$]|\.)+)"
_ADDS = (
    re.compile(rf"CREATE TABLE (?:IF NOT EXISTS )?{_NAME}", re.IGNORECASE),
    re.compile(rf"CREATE (?:UNIQUE |FULLTEXT |SPATIAL )?INDEX \S+ ON {_NAME}", re.IGNORECASE),
    re.compile(rf"ALTER TABLE {_NAME} ADD COLUMN [^,(]*(?:\([^()]*\)[^,(]*)*$", re.IGNORECASE),
    re.compile(rf"ALTER TABLE {_NAME} ADD CONSTRAINT (?!FOREIGN|UNIQUE|CHECK|PRIMARY)\S+ ", re.IGNORECASE),
)


def kind_of(statement: str) -> Kind:
    """The kind of a statement, the strongest one's if there are several in the text."""
    bare = _RUN_BY_MARIADB.sub(" ", _bare(statement))
    return max((_kind(part) for part in bare.split(";")), default=Kind.READ)


def _bare(statement: str) -> str:
    """Without what is quoted, of which two marks stay, and without comments."""
    return _QUOTED.sub(lambda found: " " if found[0][0] in "/-#" else "''", statement)


def _kind(statement: str) -> Kind:
    text = " ".join(statement.replace("(", " ( ").upper().split()).lstrip("( ")
    word = text.partition(" ")[0]
    if word in _SCHEMA:
        # Only the session sees it, and nothing is committed by it.
        return Kind.READ if _TEMPORARY.match(text) else Kind.SCHEMA
    if word in _COMMITS or _AUTOCOMMIT_ON.match(text) or text.startswith("SET PASSWORD"):
        return Kind.COMMIT
    if word in {"ROLLBACK", "ABORT"}:
        return Kind.READ if " TO " in text else Kind.ROLLBACK
    if word in _READS or not word:
        return Kind.READ
    if word == "WITH" and not _CHANGES_IN_WITH.search(text):
        return Kind.READ
    return Kind.DATA


def returns_rows(statement: str) -> bool:
    """Whether a change also answers with rows: INSERT ... RETURNING."""
    return bool(_RETURNING.search(_bare(statement).upper()))


def is_several(statement: str) -> bool:
    """Whether a part of it may have happened when it fails: several in a text, or one that drops several."""
    bare = " ".join(_bare(statement).split()).rstrip("; ").upper()
    return ";" in bare or (bare.startswith(("DROP TABLE", "DROP VIEW")) and "," in bare)


def added_to(statement: str) -> str:
    """The table to which a DDL statement only adds, by a name that the server refuses to have twice.

    "" for every other statement: run again, it could take away something, or add it a second time.
    """
    text = " ".join(statement.split())
    for pattern in _ADDS:
        if found := pattern.match(text):
            return found["table"].rpartition(".")[2].strip('`"')
    return ""


def names(statement: str, table: str) -> bool:
    """Whether that table's name occurs in the statement."""
    return re.search(rf"(?<![\w$]){re.escape(table)}(?![\w$])", statement, re.IGNORECASE) is not None


def digest(statement: str, parameters: Any) -> str:
    """16 hexadecimal digits that tell one statement with its parameters from another."""
    found = hashlib.sha256(" ".join(statement.split()).encode("utf-8", "surrogatepass"))
    found.update(b"\0" + _plain(parameters).encode("utf-8", "surrogatepass"))
    return found.hexdigest()[:16]


def _plain(value: Any) -> str:
    """The parameters as text that is the same in another process."""
    if isinstance(value, dict):
        pairs = sorted((str(key), _plain(item)) for key, item in value.items())
        return "{" + ",".join(f"{key!r}:{item}" for key, item in pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "(" + ",".join(_plain(item) for item in value) + ")"
    if isinstance(value, memoryview):
        return repr(bytes(value))
    if isinstance(value, (str, bytes, int, float, bool, type(None))):
        return repr(value)
    # What a driver wraps has an address in its repr(), another one each time.
    return f"{type(value).__name__}:{getattr(value, 'adapted', value)!s}"


@dataclass(frozen=True)
class Entry:
    """A change that was made. ``lastrowid`` and ``rowcount``: what the driver said of it; -1 nothing.

    ``adds``: see ``added_to``; ``data``: it changed rows, not the schema.
    """

    digest: str
    data: bool
    adds: str = ""
    lastrowid: int = -1
    rowcount: int = -1

    def __str__(self) -> str:
        kind = "data" if self.data else "schema"
        return f"{self.digest} {kind} {self.lastrowid} {self.rowcount} {self.adds}".rstrip()

    @classmethod
    def parse(cls, text: str) -> Entry:
        found, kind, lastrowid, rowcount, *adds = text.split(" ", 4)
        return cls(found, kind == "data", "".join(adds), int(lastrowid), int(rowcount))


def shown(statement: str) -> str:
    """The statement on one line and cut, for people."""
    text = " ".join(statement.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
