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

from .database import MYSQL, POSTGRESQL

_HEAD = 4000
"""Characters in which a statement's first words are."""
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
    OPAQUE = 5
    """May change anything, and may commit in the middle of it: CALL on MariaDB, or a text with a COMMIT."""


_OPENS = re.compile(r"['\"`]|\$\w*\$|/\*(?!!|M!)|--(?=[ \t\n]|$)|\#")
_CLOSES = {
    "'": re.compile(r"\\.|''|(')", re.DOTALL),
    '"': re.compile(r'\\.|""|(")', re.DOTALL),
    "`": re.compile(r"``|(`)"),
}
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
_DATA = frozenset(
    ["INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "WITH", "LOAD", "DO", "COPY", "HANDLER", "PREPARE"]
)
_OPAQUE_ON_MARIADB = ("SET STATEMENT ", "BEGIN NOT ATOMIC")
_ROUTINE = re.compile(
    r"\s*CREATE\s+(OR\s+REPLACE\s+)?(DEFINER\s*=\s*\S+\s+)?(AGGREGATE\s+)?"
    r"(PROCEDURE|FUNCTION|TRIGGER|EVENT|PACKAGE)\b",
    re.IGNORECASE,
)
"""What has statements in it that do not run yet."""
_CALLED = re.compile(r"([\w.\"$]+) \(")
_HARMLESS_CALL = re.compile(
    r"(PG_CATALOG\.)?(PG_GET_\w+|PG_\w+_IS_VISIBLE|FORMAT_TYPE|GENERATE_SUBSCRIPTS|UNNEST|ARRAY_AGG|ARRAY"
    r"|JSON_BUILD_OBJECT|JSON_AGG|STRING_AGG|\w+_DESCRIPTION|CURRENT_SCHEMAS?|CURRENT_SETTING|VERSION"
    r"|TO_REGCLASS|COUNT|SUM|MIN|MAX|AVG|COALESCE|NULLIF|LOWER|UPPER|LENGTH|NOW|CAST|ROW_NUMBER|OVER"
    r"|SELECT|FROM|WHERE|IN|AS|AND|OR|NOT|ON|ANY|ALL|EXISTS|JOIN|UNION|VALUES|WITH|THEN|ELSE|WHEN|CASE"
    r"|HAVING|BY|DISTINCT|LIMIT|LATERAL|USING|VARCHAR|CHAR|NUMERIC|MATERIALIZED)"
)
"""On PostgreSQL; any other function may write."""
_SESSION = re.compile(
    r"\b(LAST_INSERT_ID|ROW_COUNT|FOUND_ROWS|LASTVAL|CURRVAL) ?\(|\b(TEMP|TEMPORARY) (TABLE|SEQUENCE|VIEW)\b"
    r"|\bINTO TEMP|\bPG_TEMP\b"
)
_VARIABLE = re.compile(r"(?<![\w'@<])@(?=[\w'])")
_CONCURRENTLY = re.compile(r"\b(INDEX|REINDEX|VIEW|PARTITION)\b.*\bCONCURRENTLY\b")
_INDEX_CONCURRENTLY = re.compile(
    r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY (?:IF NOT EXISTS )?(?P<name>(?:\"[^\"]+\"|[\w$])+) ON"
    r" (?:ONLY )?(?:(?P<schema>\"[^\"]+\"|[\w$]+)\.)?",
    re.IGNORECASE,
)
_CATALOGS = re.compile(r"INFORMATION_SCHEMA|PG_CATALOG|\bPG_|SQLITE_MASTER|ALEMBIC_VERSION|MIGRATE_VERSION")
_CHANGED = re.compile(
    r"(?:INSERT|REPLACE|UPDATE|DELETE|MERGE)(?: LOW_PRIORITY| IGNORE| DELAYED| QUICK| ONLY)*(?: INTO| FROM)?"
    r" (?P<table>(?:[`\"\w$]|\.)+)",
    re.IGNORECASE,
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


def kind_of(statement: str, backend: str = "") -> Kind:
    """The kind of a statement, the strongest one's if there are several in the text.

    ``backend`` is where it runs, "" if that is all the same.
    """
    bare = _RUN_BY_MARIADB.sub(" ", _bare(statement))
    if _ROUTINE.match(bare):
        return Kind.SCHEMA
    kinds = [_kind_there(part, backend) for part in bare.split(";") if part.strip()]
    strongest = max(kinds, default=Kind.READ)
    commits = strongest is Kind.COMMIT or (strongest is Kind.SCHEMA and backend == MYSQL)
    if commits and len(kinds) > 1 and any(kind in {Kind.DATA, Kind.SCHEMA} for kind in kinds):
        return Kind.OPAQUE
    return strongest


def _bare(statement: str) -> str:
    """Without what is quoted, of which two marks stay, and without comments.

    What is never closed is left as it is. Not one pattern for all: it would need a hundred times the memory
    of a long literal.
    """
    kept: list[str] = []
    start = 0
    while found := _OPENS.search(statement, start):
        end = _end_of(statement, found)
        if end < 0:
            break
        kept += (statement[start : found.start()], " " if found[0][0] in "/-#" else "''")
        start = end
    kept.append(statement[start:])
    return "".join(kept)


def _end_of(statement: str, opened: re.Match[str]) -> int:
    """Where what is quoted there, or the comment, ends; -1 if it does not."""
    mark = opened[0]
    if mark in _CLOSES:
        return next(
            (found.end() for found in _CLOSES[mark].finditer(statement, opened.end()) if found[1]), -1
        )
    if mark in {"--", "#"}:
        end = statement.find("\n", opened.end())
        return end if end >= 0 else len(statement)
    closing = "*/" if mark == "/*" else mark
    end = statement.find(closing, opened.end())
    return end + len(closing) if end >= 0 else -1


def _plain_text(bare: str) -> str:
    """In capitals, with single blanks."""
    return " ".join(bare.replace("(", " ( ").upper().split()).lstrip("( ")


def _kind_there(part: str, backend: str) -> Kind:
    text = _plain_text(part)
    kind = _kind(text)
    word = text.partition(" ")[0]
    if backend == MYSQL and (
        text.startswith(_OPAQUE_ON_MARIADB) or (kind is Kind.DATA and word not in _DATA)
    ):
        return Kind.OPAQUE
    if backend == POSTGRESQL and kind is Kind.READ and _may_write(text, word):
        return Kind.DATA
    return kind


def _may_write(text: str, word: str) -> bool:
    """Whether a statement that reads on PostgreSQL calls what may write."""
    if word == "EXPLAIN":
        return "ANALYZE" in text
    if word not in {"SELECT", "WITH", "VALUES"}:
        return False
    called = (found[1] for found in _CALLED.finditer(text))
    return " INTO " in text or any(_HARMLESS_CALL.fullmatch(name) is None for name in called)


def _kind(text: str) -> Kind:
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
    """Whether a change also answers with rows: INSERT ... RETURNING; or may, as a procedure."""
    text = _plain_text(_bare(statement))
    return bool(_RETURNING.search(text)) or text.startswith(
        ("SELECT", "EXPLAIN", "VALUES", "CALL", "EXECUTE")
    )


def reads_rows(statement: str) -> bool:
    """Whether it reads rows of the tables, not the catalogue."""
    text = _plain_text(_bare(statement))
    return text.startswith(("SELECT", "WITH", "TABLE")) and " FROM " in text and not _CATALOGS.search(text)


def changed_table(statement: str) -> str:
    """The table whose rows a change is of, without its schema; "" if nobody knows."""
    found = _CHANGED.match(" ".join(statement[:_HEAD].split()))
    return found["table"].rpartition(".")[2].strip('`"') if found else ""


def needs_session(statement: str, backend: str) -> bool:
    """Whether it makes or uses what only this session has: temporary tables, variables, the last key."""
    text = _plain_text(_bare(statement))
    return bool(_SESSION.search(text)) or (backend == MYSQL and _VARIABLE.search(text) is not None)


def may_fail_in_part(statement: str) -> bool:
    """Whether something of it may be there although the server has answered with an error."""
    text = _plain_text(_bare(statement))
    return (
        is_several(statement)
        or text.startswith(("CALL", "DO ", "EXECUTE"))
        or _CONCURRENTLY.search(text) is not None
    )


def index_concurrently(statement: str) -> str:
    """The index, as it is written, that a CREATE INDEX CONCURRENTLY makes; "" for every other statement."""
    found = _INDEX_CONCURRENTLY.match(" ".join(statement.split()))
    if found is None:
        return ""
    return f"{found['schema']}.{found['name']}" if found["schema"] else found["name"]


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
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
