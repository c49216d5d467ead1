"""A step that stopped half-way goes on: it is run again from its beginning, without what it has done.

Its changes must come in the same order as the first time. If they do not, it has seen other data than then,
or works with the time of day; nobody can say then what is left to do, and it ends before it changes anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from .faults import TargetError, one_line
from .statements import Entry, changed_table, index_concurrently, names, returns_rows, shown

ADVICE = "undo by hand what it has done, stamp the revision before it, and let it run whole"

_THERE_ALREADY = frozenset({1022, 1050, 1060, 1061, 1826})
"""MariaDB's and MySQL's: duplicate table, column, key or constraint."""
_THERE_ALREADY_STATES = frozenset({"42P07", "42701", "42710", "42P06"})
"""PostgreSQL's."""
_THERE_ALREADY_TEXTS = ("already exists", "duplicate column name")
"""SQLite's."""

_CUT = 120

_TEMPORARY_TABLE = re.compile(r"\s*(CREATE|DROP)\s+(OR\s+REPLACE\s+)?TEMP", re.IGNORECASE)


Execute = Callable[[Any], None]
"""Has SQLAlchemy execute, on the given cursor, the statement that is at hand, with its parameters."""


@dataclass(frozen=True)
class Half:
    """What is known of the step that stopped: see ``following.Kept``. ``unseen``: what else is permanent."""

    done: tuple[Entry, ...]
    current: str = ""
    session: str = ""
    unseen: str = ""

    def check(self) -> None:
        """Raises TargetError if it cannot go on, whatever the script is now."""
        if self.unseen:
            raise TargetError(f"it cannot be resumed: {self.unseen}; {ADVICE}")
        if self.session:
            raise TargetError(
                "it cannot be resumed: what it has done was with what only its session had (a temporary"
                f" table, a variable, the last key): {_cut(self.session)}; {ADVICE}"
            )


class Resumption:
    """``mask`` is the one that ``half.current`` went through. ``say`` tells the operator."""

    def __init__(self, half: Half, mask: Callable[[str], str], say: Callable[[str], None]) -> None:
        self.done = half.done
        self._current = half.current
        self._mask = mask
        self._say = say
        self._next = 0
        self._redone: list[str] = []
        self._read: list[str] = []
        self._outdated = ""

    def reads(self, statement: str) -> None:
        """The script reads rows."""
        self._read.append(statement)

    def uses_session(self, statement: str) -> None:
        """Raises TargetError if what the session has would be of a change that was left out."""
        if self._next and not _TEMPORARY_TABLE.match(statement):
            raise TargetError(
                "it cannot be resumed: what its session knew of the changes before is lost:"
                f" {_cut(statement)}; {ADVICE}"
            )

    def done_before(
        self, dbapi_connection: Any, statement: str, entry: Entry, execute: Execute, *, in_savepoint: bool
    ) -> Entry | None:
        """The change as it was made before, or has been made here; None if it is to be made now.

        ``in_savepoint``: an error would end the transaction otherwise. Raises TargetError if this is not what
        was done at this place, and the driver's error if what had been begun cannot be done.
        """
        connection = _Connection(dbapi_connection, in_savepoint, execute)
        if self._next < len(self.done):
            before = self.done[self._next]
            self._next += 1
            if entry.digest != before.digest:
                raise TargetError(
                    f"it cannot be resumed: its change number {self._next} is now {_cut(statement)}, which is"
                    f" not what it did there before (or with other values); {ADVICE}"
                )
            self._leave_out(connection, statement, before)
            return before
        if self._outdated:
            raise TargetError(
                "it cannot be resumed: it has read rows that its own half has changed since:"
                f" {_cut(self._outdated)}, and would go on with {_cut(statement)}; {ADVICE}"
            )
        if not self._current:
            return None
        self._do_current(connection, statement, entry)
        self.done += (entry,)
        self._next = len(self.done)
        return entry

    def finish(self) -> None:
        """Raises TargetError if the step has ended before it came to what it had done."""
        if self._next < len(self.done):
            raise TargetError(
                f"it cannot be resumed: it made {self._next} changes, but had made {len(self.done)} before it"
                f" stopped; {ADVICE}"
            )

    def _leave_out(self, connection: _Connection, statement: str, entry: Entry) -> None:
        if entry.data:
            self._check_data(statement)
            self._outdate(statement)
        elif self._may_be_redone(entry):
            # A person may have undone it by hand.
            if self._try(connection, statement):
                self._redone.append(entry.adds)
                self._say(f"was undone by hand, done again: {_cut(statement)}")
            return
        self._say(f"already done, left out: {_cut(statement)}")

    def _check_data(self, statement: str) -> None:
        if returns_rows(statement):
            raise TargetError(
                f"it cannot be resumed: nobody knows any more which rows this returned:"
                f" {_cut(statement)}; {ADVICE}"
            )
        for table in self._redone:
            if names(statement, table):
                raise TargetError(
                    f"it cannot be resumed: the table {table} was undone by hand, and with it:"
                    f" {_cut(statement)}; {ADVICE}"
                )

    def _outdate(self, statement: str) -> None:
        """What was read of that table, the first time was read before this change."""
        table = changed_table(statement)
        for read in self._read:
            if not table or names(read, table):
                self._outdated = self._outdated or read

    def _may_be_redone(self, entry: Entry) -> bool:
        """Only what adds, and only if nothing later may have taken it away again or given it another name."""
        return bool(entry.adds) and all(later.data or later.adds for later in self.done[self._next :])

    def _do_current(self, connection: _Connection, statement: str, entry: Entry) -> None:
        """The change of which nobody knows whether it was finished."""
        current, self._current = self._current, ""
        if shown(self._mask(statement)) != current:
            raise TargetError(
                f"it cannot be resumed: after what it had done it began {_cut(current)}, but now"
                f" {_cut(statement)}; {ADVICE}"
            )
        if index := index_concurrently(statement):
            self._do_index(connection, statement, index)
            return
        if entry.data or not entry.adds:
            raise TargetError(
                f"it cannot be resumed: nobody knows whether this was executed: {_cut(current)}; {ADVICE}"
            )
        if self._try(connection, statement):
            self._say(f"was begun, but not finished, done now: {_cut(statement)}")

    def _do_index(self, connection: _Connection, statement: str, index: str) -> None:
        """CREATE INDEX CONCURRENTLY leaves an index that is not valid when it fails."""
        valid = index_is_valid(connection.dbapi_connection, index)
        if valid is False:
            raise TargetError(
                f"it cannot be resumed: the index {index} is there, but not valid; remove it: DROP INDEX"
                f" {index}; then resume"
            )
        if valid is None:
            connection.execute()
            self._say(f"was begun, but not finished, done now: {_cut(statement)}")
        else:
            self._say(f"already done, left out: {_cut(statement)}")

    def _try(self, connection: _Connection, statement: str) -> bool:
        """Execute DDL; False if the server says that its effect is there already, which is said aloud."""
        try:
            connection.execute()
        except Exception as error:
            if not is_there_already(error):
                raise
            self._say(f"already done, left out: {_cut(statement)} ({one_line(error)})")
            return False
        return True


@dataclass(frozen=True)
class _Connection:
    """For DDL past SQLAlchemy, on cursors of its own."""

    dbapi_connection: Any
    in_savepoint: bool
    statement: Execute

    def execute(self) -> None:
        with closing(self.dbapi_connection.cursor()) as cursor:
            if not self.in_savepoint:
                self.statement(cursor)
                return
            cursor.execute("SAVEPOINT refresh_agent_resume")
            try:
                self.statement(cursor)
            except Exception:
                cursor.execute("ROLLBACK TO SAVEPOINT refresh_agent_resume")
                raise
            cursor.execute("RELEASE SAVEPOINT refresh_agent_resume")


def index_is_valid(dbapi_connection: Any, index: str) -> bool | None:
    """None if PostgreSQL has no such index. ``index`` as it is written in SQL."""
    name = index.replace("'", "''")
    with closing(dbapi_connection.cursor()) as cursor:
        cursor.execute(
            f"SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{name}')"  # noqa: S608 - quoted
        )
        row = cursor.fetchone()
    return bool(row[0]) if row else None


def is_there_already(error: BaseException) -> bool:
    """Whether a driver's error on DDL that adds something says that it is there."""
    code = error.args[0] if error.args else None
    if isinstance(code, int):
        return code in _THERE_ALREADY
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state is not None:
        return state in _THERE_ALREADY_STATES
    return any(text in str(error) for text in _THERE_ALREADY_TEXTS)


def _cut(statement: str) -> str:
    text = " ".join(statement.split())
    return text if len(text) <= _CUT else text[: _CUT - 3] + "..."
