"""The ledger's table, and how texts and errors are written into it."""

from __future__ import annotations

import datetime
import re

from sqlalchemy import Column, Integer, MetaData, String, Table, Text

from .faults import one_line
from .statements import may_fail_in_part

TABLE = "refresh_agent_ledger"

_LOST = frozenset({2006, 2013, 2014, 2055})
"""MariaDB's client: the connection broke, so nobody has heard what became of the statement."""


_VALUES = re.compile(r"\b(entry|value:?|near) '.*?'(?= for | at line |$)")
_HIDDEN = r"\1 ..."
"""Where MariaDB's messages hold data, or the statement with its parameters in it."""


def ledger_table(schema: str | None) -> Table:
    # With a length, MariaDB makes of TEXT what holds so much. LONGTEXT would bring its whole dialect along: a
    # tenth of the time of a worker that has nothing to do.
    longest = Text(2**32 - 1)
    long_text = Text().with_variant(longest, "mysql").with_variant(longest, "mariadb")
    texts = ("step", "previous", "kept", "failed", "error")
    names = {"scope": 255, "engine": 16, "direction": 8, "revision": 255, "checksum": 64, "state": 16}
    names |= {"host": 255, "run": 64, "begun_at": 32, "ended_at": 32}
    return Table(
        TABLE,
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        *(Column(name, String(length), nullable=False) for name, length in names.items()),
        *(Column(name, long_text, nullable=False) for name in texts),
        Column("pid", Integer, nullable=False),
        schema=schema,
    )


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


IN_ASCII = ("step", "previous", "revision", "failed", "error")


def kept_text(text: str) -> str:
    """As the ledger has it: in ASCII, which the database of every character set can hold."""
    return text.encode("unicode_escape").decode("ascii")


def read_text(kept: str) -> str:
    try:
        return kept.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError:
        return kept


def cause_of(error: BaseException) -> BaseException:
    """The database's error, if there is one behind this one."""
    found: BaseException | None = error
    while found is not None:
        if getattr(found, "statement", None):
            return found
        found = found.__cause__
    return error


def without_data(error: BaseException) -> str:
    """What went wrong, on one line. Behind its first line PostgreSQL shows the statement and rows."""
    original = getattr(error, "orig", None)
    if original is None:
        return one_line(error)
    lines = str(original).strip().splitlines()
    return f"{type(original).__name__}: {_VALUES.sub(_HIDDEN, lines[0] if lines else '')}"


def has_failed(error: BaseException, statement: str) -> bool:
    """Whether the server itself says that nothing of the statement has happened."""
    original = getattr(error, "orig", None)
    code = original.args[0] if original is not None and original.args else None
    if original is None or getattr(error, "connection_invalidated", False) or may_fail_in_part(statement):
        return False
    return not (isinstance(code, int) and code in _LOST)
