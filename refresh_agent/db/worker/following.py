"""One step of a migration watched statement by statement: what of it is permanent before its end.

The note is written on the migrating connection itself, right before that which makes something permanent, so
that both happen or neither: before a DDL statement on MariaDB, which commits what comes before it, before a
COMMIT in the middle of the step, and around a statement in AUTOCOMMIT. What is past SQLAlchemy is not seen: a
mark goes into each transaction, and is taken away before a commit that is seen. If it is there when the step
has failed, something else has committed.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from . import sqlite_session
from .beside import Beside, Marks
from .database import MYSQL, POSTGRESQL, SQLITE
from .faults import TargetError
from .resume import Resumption, index_is_valid
from .statements import (
    Entry,
    Kind,
    added_to,
    changed_table,
    digest,
    index_concurrently,
    kind_of,
    needs_session,
    reads_rows,
)

_PENDING = "refresh_agent_pending"

_CHANGES = frozenset({Kind.DATA, Kind.SCHEMA, Kind.OPAQUE})
_SET_TRANSACTION = re.compile(r"\s*SET\s+(LOCAL\s+)?TRANSACTION\b", re.IGNORECASE)
"""Has to be the first of its transaction."""

_MARK = 0
_MARK_OF_TABLE = 1
"""Numbers of marks, besides those of ``beside``."""
_UNSEEN = (
    "something committed in the middle of it that was not seen (past SQLAlchemy, on a cursor of its own?)"
)


@dataclass(frozen=True)
class Kept:
    """What of a step is permanent: the changes, in their order, and the change begun last.

    ``current`` is "" if it is known what became of the last one. Nobody knows as long as it is not.
    ``session``: the first statement that needed what only its session has; "" if none did.
    """

    done: tuple[Entry, ...] = ()
    current: str = ""
    session: str = ""

    def as_text(self) -> str:
        fields = {"done": [str(entry) for entry in self.done], "current": self.current}
        return json.dumps({**fields, "session": self.session})

    @classmethod
    def parse(cls, text: str) -> Kept:
        fields = json.loads(text or "{}")
        done = tuple(Entry.parse(entry) for entry in fields.get("done", ()))
        return cls(done, fields.get("current", ""), fields.get("session", ""))


@dataclass
class _Pending:
    """What a step has changed on a DBAPI connection since its last commit. ``marks``: its length at each
    savepoint.
    """

    owner: Follower
    entries: list[Entry] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)


class Notes(Marks, Protocol):
    """The step's row in the ledger, on the migrating connection and past its listeners."""

    def nothing(self, connection: Connection) -> str:
        """What is executed in the place of a change that was made before."""

    def write(self, connection: Connection, kept: Kept) -> None: ...

    def read(self, connection: Connection) -> Kept: ...

    def unmark(self, connection: Connection, number: int) -> None: ...

    def mark_alone(self, number: int, text: str) -> None:
        """On a connection of its own, so that no rollback takes it away."""

    def without_transactions(self, connection: Connection, table: str) -> str:
        """The storage engine of the table, on MariaDB, if it has no transactions; else ""."""


class Follower:
    def __init__(
        self, target: Connection | Engine, notes: Notes, resumption: Resumption | None = None
    ) -> None:
        self.kept = Kept(resumption.done if resumption else ())
        self.written = ""
        """The text of the note that was written last; it counts only if the database has it too."""
        self.last = ""
        """The statement that was begun last, for people."""
        self._target = target
        self._notes = notes
        self._backend = notes.backend
        self._in_doubt = False
        """A note was written before DDL that has failed: nobody knows whether it was committed before."""
        self._reread = False
        self._session = ""
        self._marked = False
        self._untouched = False
        """The mark is all that is in the transaction."""
        self._tables: set[str] = set()
        self._beside = Beside(self._is_migrating, notes)
        self._resumption = resumption
        self._active = False
        self._listeners = (
            ("before_cursor_execute", self._before, True),
            ("after_cursor_execute", self._after, False),
            ("begin", self._begin, False),
            ("commit", self._commit, False),
            ("rollback", self._rollback, False),
            ("savepoint", self._savepoint, False),
            ("rollback_savepoint", self._rollback_savepoint, False),
        )

    def start(self) -> None:
        for name, function, returns in self._listeners:
            event.listen(self._target, name, function, retval=returns)
        self._beside.start()
        self._active = True
        if isinstance(self._target, Connection) and self._target.in_transaction():
            self._mark_early(self._target)

    def finish(self) -> None:
        """The step has come to its end: raises TargetError if a resumed one has not repeated what it did."""
        self.stop()
        if self._resumption is not None:
            self._resumption.finish()

    def stop(self) -> None:
        """Once more does nothing."""
        if self._active:
            self._active = False
            self._beside.stop()
            for name, function, _ in self._listeners:
                event.remove(self._target, name, function)

    def applied(self, connection: Connection) -> None:
        """The step's end is about to be committed."""
        self._unmark(connection)
        if self._tables:
            self._notes.unmark(connection, _MARK_OF_TABLE)

    def _before(
        self, connection: Connection, _cursor: Any, statement: str, parameters: Any, context: Any, _many: bool
    ) -> tuple[str, Any]:
        if not self._active:
            return statement, parameters
        kind = kind_of(statement, self._backend)
        self._look_at(connection, kind, statement)
        if kind is Kind.READ:
            return statement, parameters
        self.last = statement
        context.refresh_agent_resumed = context.refresh_agent_entry = None
        if kind in _CHANGES:
            is_schema = kind is Kind.SCHEMA
            entry = Entry(
                digest(statement, parameters), not is_schema, added_to(statement) if is_schema else ""
            )
            answer = self._resumed(connection, statement, parameters, entry, context)
            if answer is not None:
                context.refresh_agent_resumed = answer
                return self._notes.nothing(connection), type(parameters)()
            context.refresh_agent_entry = entry
            context.refresh_agent_kind = kind
        self._note_before(connection, kind, statement)
        return statement, parameters

    def _look_at(self, connection: Connection, kind: Kind, statement: str) -> None:
        """What matters of a statement besides its change. Raises TargetError if it must not run."""
        if self._untouched and _SET_TRANSACTION.match(statement):
            self._marked = False
            connection.connection.rollback()
        self._untouched = False
        if self._resumption is not None and kind is Kind.READ and reads_rows(statement):
            self._resumption.reads(statement)
        if needs_session(statement, self._backend):
            if self._resumption is not None:
                self._resumption.uses_session(statement)
            self._session = self._session or self._notes.shown(statement)
        index = index_concurrently(statement) if self._backend == POSTGRESQL else ""
        if index and self._resumption is None and index_is_valid(_dbapi(connection), index) is False:
            raise TargetError(
                f"the index {index} is there, but not valid: making it had failed; remove it:"
                f" DROP INDEX {index}"
            )

    def _resumed(
        self, connection: Connection, statement: str, parameters: Any, entry: Entry, context: Any
    ) -> Entry | None:
        """The change as it was made before the step was resumed; None if it is to be made now."""
        if self._resumption is None:
            return None
        in_savepoint = self._backend == POSTGRESQL and not autocommits(connection, self._backend)

        def execute(cursor: Any) -> None:
            if context.no_parameters and not parameters:
                connection.dialect.do_execute_no_params(cursor, statement, context)
            else:
                connection.dialect.do_execute(cursor, statement, parameters, context)

        answer = self._resumption.done_before(
            _dbapi(connection), statement, entry, execute, in_savepoint=in_savepoint
        )
        self.kept = replace(self.kept, done=self._resumption.done) if answer is not None else self.kept
        return answer

    def _note_before(self, connection: Connection, kind: Kind, statement: str) -> None:
        changes = kind in _CHANGES
        if autocommits(connection, self._backend):
            if changes:
                self._note(connection, replace(self.kept, current=self._notes.shown(statement)))
        elif kind is Kind.ROLLBACK:
            self._rollback(connection)
        elif kind in {Kind.COMMIT, Kind.OPAQUE} or (kind is Kind.SCHEMA and self._backend == MYSQL):
            self._keep_pending(connection, self._notes.shown(statement) if changes else "")
            self._in_doubt = changes
        else:
            self._mark(connection)
            if self._backend == MYSQL:
                self._mark_table(connection, statement)

    def _after(
        self,
        connection: Connection,
        cursor: Any,
        _statement: str,
        _parameters: Any,
        context: Any,
        _many: bool,
    ) -> None:
        if resumed := getattr(context, "refresh_agent_resumed", None):
            _pretend(cursor, resumed)
            return
        entry = getattr(context, "refresh_agent_entry", None)
        if not self._active or entry is None:
            return
        context.refresh_agent_entry = None
        entry = replace(entry, lastrowid=_number(cursor, "lastrowid"), rowcount=_number(cursor, "rowcount"))
        if autocommits(connection, self._backend):
            self._note(connection, Kept((*self.kept.done, entry)))
        elif context.refresh_agent_kind is Kind.OPAQUE:
            # Whether it has committed is not known: this note may be taken back, and the one before it not.
            self._note(connection, Kept((*self.kept.done, entry)))
            self._mark(connection)
        elif self._backend == MYSQL and not entry.data:
            self._in_doubt = False
            self._note(connection, Kept((*self.kept.done, entry)))
            # Nothing else is in this transaction: the statement has committed what was.
            connection.connection.commit()
            self._mark(connection)
        else:
            self._pending(connection).entries.append(entry)

    def _begin(self, connection: Connection) -> None:
        if self._active:
            self._mark_early(connection)
            self._untouched = self._marked

    def _mark_early(self, connection: Connection) -> None:
        """Before anything else. On SQLite there is no transaction yet, or it may be begun anew."""
        if self._backend != SQLITE:
            self._mark(connection)

    def _mark(self, connection: Connection) -> None:
        """Not where a script has several connections: nobody knows which of them commits when."""
        if self._marked or not isinstance(self._target, Connection):
            return
        if autocommits(connection, self._backend):
            return
        if self._backend == SQLITE and not sqlite_session.in_transaction(_dbapi(connection)):
            return
        self._notes.mark(connection, _MARK, _UNSEEN)
        self._marked = True

    def _unmark(self, connection: Connection) -> None:
        if self._marked:
            self._marked = False
            self._notes.unmark(connection, _MARK)

    def _mark_table(self, connection: Connection, statement: str) -> None:
        """A rollback does not take back what is changed in a table without transactions."""
        table = changed_table(statement)
        if not table or table in self._tables:
            return
        engine = self._notes.without_transactions(connection, table)
        if engine:
            if not self._tables:
                text = f"the table {table} ({engine}) has no transactions, and it executed: "
                self._notes.mark_alone(_MARK_OF_TABLE, text + self._notes.shown(statement))
            self._tables.add(table)

    def _is_migrating(self, connection: Connection) -> bool:
        target = self._target
        if connection is target:
            return True
        if isinstance(target, Engine):
            return connection.engine.pool is target.pool
        if target.closed or target.invalidated:
            return False
        return _dbapi(connection) is _dbapi(target)

    def _commit(self, connection: Connection) -> None:
        if self._active and not autocommits(connection, self._backend):
            self._keep_pending(connection, "")

    def _keep_pending(self, connection: Connection, current: str) -> None:
        """What is pending becomes permanent with that which comes now."""
        self._unmark(connection)
        pending = self._pending(connection)
        if not pending.entries and not current:
            return
        if self._reread:
            self._reread = False
            self.kept = self._notes.read(connection)
        self._note(connection, Kept((*self.kept.done, *pending.entries), current))
        pending.entries.clear()
        pending.marks.clear()

    def _note(self, connection: Connection, kept: Kept) -> None:
        kept = replace(kept, session=self.kept.session or self._session)
        self._notes.write(connection, kept)
        self.kept = kept
        self.written = kept.as_text()

    def _rollback(self, connection: Connection) -> None:
        self._reread |= self._in_doubt
        self._in_doubt = False
        self._marked = False
        if not connection.invalidated:
            connection.info.pop(_PENDING, None)

    def _pending(self, connection: Connection) -> _Pending:
        """What an earlier step has left there is not ours: it was permanent with that step's end."""
        found: _Pending | None = connection.info.get(_PENDING)
        if found is None or found.owner is not self:
            found = connection.info[_PENDING] = _Pending(self)
        return found

    def _savepoint(self, connection: Connection, name: str) -> None:
        pending = self._pending(connection)
        pending.marks[name] = len(pending.entries)

    def _rollback_savepoint(self, connection: Connection, name: str, _context: None) -> None:
        self._reread |= self._in_doubt
        pending = self._pending(connection)
        del pending.entries[pending.marks.get(name, len(pending.entries)) :]


def _dbapi(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


def _number(cursor: Any, name: str) -> int:
    value = getattr(cursor, name, None)
    return value if isinstance(value, int) else -1


def _pretend(cursor: Any, entry: Entry) -> None:
    """Let the driver's cursor answer as it did when the statement was really executed."""
    for name in ("lastrowid", "rowcount"):
        value = getattr(entry, name)
        if value >= 0 and _number(cursor, name) != value:
            # Where it is read-only, SQLAlchemy does not read it.
            with suppress(AttributeError):
                setattr(cursor, name, value)


def autocommits(connection: Connection, backend: str) -> bool:
    """Whether the next statement is permanent at once."""
    dbapi_connection: Any = connection.connection.dbapi_connection
    if backend == SQLITE:
        # Before the first statement of SQLAlchemy's transaction, ``sqlite_session`` has not begun one yet.
        begins = connection.in_transaction() and not sqlite_session.is_autocommit(connection)
        return not begins and not sqlite_session.in_transaction(dbapi_connection)
    if sqlite_session.is_autocommit(connection):
        return True
    ask = getattr(dbapi_connection, "get_autocommit", None)
    setting = ask() if ask is not None else getattr(dbapi_connection, "autocommit", False)
    return setting is True or setting == 1
