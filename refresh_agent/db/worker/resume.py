"""A step that stopped half-way goes on: it is run again from its beginning, without what it has done.

Its changes must come in the same order as the first time. If they do not, it has seen other data than then,
or works with the time of day; nobody can say then what is left to do, and it ends before it changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from .faults import TargetError, one_line
from .statements import Entry, names, returns_rows, shown

ADVICE = "undo by hand what it has done, stamp the revision before it, and let it run whole"

_THERE_ALREADY = frozenset({1022, 1050, 1051, 1054, 1060, 1061, 1091, 1826})
"""MariaDB's and MySQL's: duplicate or unknown table, column, key or constraint."""
_NO_SUCH_TABLE = 1146
"""The same, but only for RENAME: everywhere else a table that is missing is a table that is missing."""
_THERE_ALREADY_STATES = frozenset({"42P07", "42701", "42710", "42P01", "42703", "42704", "42P06", "3F000"})
"""PostgreSQL's."""
_THERE_ALREADY_TEXTS = ("already exists", "duplicate column name", "no such table", "no such index")
"""SQLite's."""

_CUT = 120


class Resumption:
    """``done`` and ``current``: see ``following.Kept``. ``mask`` is the one that ``current`` went through.

    ``say`` tells the operator.
    """

    def __init__(
        self, done: tuple[Entry, ...], current: str, mask: Callable[[str], str], say: Callable[[str], None]
    ) -> None:
        self.done = done
        self._current = current
        self._mask = mask
        self._say = say
        self._next = 0
        self._redone: list[str] = []

    def done_before(
        self, dbapi_connection: Any, statement: str, entry: Entry, *, in_savepoint: bool
    ) -> Entry | None:
        """The change as it was made before, or has been made here; None if it is to be made now.

        ``in_savepoint``: an error would end the transaction otherwise. Raises TargetError if this is not what
        was done at this place, and the driver's error if what had been begun cannot be done.
        """
        connection = _Connection(dbapi_connection, in_savepoint)
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
        if entry.data:
            raise TargetError(
                f"it cannot be resumed: nobody knows whether this was executed: {_cut(current)}; {ADVICE}"
            )
        if self._try(connection, statement):
            self._say(f"was begun, but not finished, done now: {_cut(statement)}")

    def _try(self, connection: _Connection, statement: str) -> bool:
        """Execute DDL; False if the server says that its effect is there already, which is said aloud."""
        try:
            connection.execute(statement)
        except Exception as error:
            if not is_there_already(error, statement):
                raise
            self._say(f"already done, left out: {_cut(statement)} ({one_line(error)})")
            return False
        return True


@dataclass(frozen=True)
class _Connection:
    """For DDL past SQLAlchemy, on cursors of its own."""

    dbapi_connection: Any
    in_savepoint: bool

    def execute(self, statement: str) -> None:
        with closing(self.dbapi_connection.cursor()) as cursor:
            if not self.in_savepoint:
                cursor.execute(statement)
                return
            cursor.execute("SAVEPOINT refresh_agent_resume")
            try:
                cursor.execute(statement)
            except Exception:
                cursor.execute("ROLLBACK TO SAVEPOINT refresh_agent_resume")
                raise
            cursor.execute("RELEASE SAVEPOINT refresh_agent_resume")


def is_there_already(error: BaseException, statement: str) -> bool:
    """Whether a driver's error on DDL says that what it is to bring about is so already."""
    code = error.args[0] if error.args else None
    if isinstance(code, int):
        is_rename = statement.lstrip()[:6].upper() == "RENAME" or " RENAME " in " ".join(
            statement.upper().split()
        )
        return code in _THERE_ALREADY or (code == _NO_SUCH_TABLE and is_rename)
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state is not None:
        return state in _THERE_ALREADY_STATES
    return any(text in str(error) for text in _THERE_ALREADY_TEXTS)


def _cut(statement: str) -> str:
    text = " ".join(statement.split())
    return text if len(text) <= _CUT else text[: _CUT - 1] + "…"
