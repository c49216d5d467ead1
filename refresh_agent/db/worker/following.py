"""One step of a migration watched statement by statement: what of it is permanent before its end.

The note is written on the migrating connection itself, right before that which makes something permanent, so
that both happen or neither: before a DDL statement on MariaDB, which commits what comes before it, before a
COMMIT in the middle of the step, and around a statement in AUTOCOMMIT.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from . import sqlite_session
from .database import MYSQL, POSTGRESQL, SQLITE
from .resume import Resumption
from .statements import Entry, Kind, added_to, digest, kind_of

_PENDING = "refresh_agent_pending"


@dataclass(frozen=True)
class Kept:
    """What of a step is permanent: the changes, in their order, and the change begun last.

    ``current`` is "" if it is known what became of the last one. Nobody knows as long as it is not.
    """

    done: tuple[Entry, ...] = ()
    current: str = ""

    def as_text(self) -> str:
        return json.dumps({"done": [str(entry) for entry in self.done], "current": self.current})

    @classmethod
    def parse(cls, text: str) -> Kept:
        fields = json.loads(text or "{}")
        done = tuple(Entry.parse(entry) for entry in fields.get("done", ()))
        return cls(done, fields.get("current", ""))


@dataclass
class _Pending:
    """What a step has changed on a DBAPI connection since its last commit. ``marks``: its length at each
    savepoint.
    """

    owner: Follower
    entries: list[Entry] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)


class Notes(Protocol):
    """The step's row in the ledger, on the migrating connection and past its listeners."""

    backend: str

    def shown(self, statement: str) -> str:
        """The statement as it may be kept."""

    def nothing(self, connection: Connection) -> str:
        """What is executed in the place of a change that was made before."""

    def write(self, connection: Connection, kept: Kept) -> None: ...

    def read(self, connection: Connection) -> Kept: ...


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
        self._resumption = resumption
        self._active = False
        self._listeners = (
            ("before_cursor_execute", self._before, True),
            ("after_cursor_execute", self._after, False),
            ("commit", self._commit, False),
            ("rollback", self._rollback, False),
            ("savepoint", self._savepoint, False),
            ("rollback_savepoint", self._rollback_savepoint, False),
        )

    def start(self) -> None:
        for name, function, returns in self._listeners:
            event.listen(self._target, name, function, retval=returns)
        self._active = True

    def finish(self) -> None:
        """The step has come to its end: raises TargetError if a resumed one has not repeated what it did."""
        self.stop()
        if self._resumption is not None:
            self._resumption.finish()

    def stop(self) -> None:
        """Once more does nothing."""
        if self._active:
            self._active = False
            for name, function, _ in self._listeners:
                event.remove(self._target, name, function)

    def _before(
        self, connection: Connection, _cursor: Any, statement: str, parameters: Any, context: Any, _many: bool
    ) -> tuple[str, Any]:
        kind = kind_of(statement)
        if not self._active or kind is Kind.READ:
            return statement, parameters
        self.last = statement
        context.refresh_agent_resumed = context.refresh_agent_entry = None
        if kind in {Kind.DATA, Kind.SCHEMA}:
            is_data = kind is Kind.DATA
            entry = Entry(digest(statement, parameters), is_data, "" if is_data else added_to(statement))
            answer = self._resumed(connection, statement, entry)
            if answer is not None:
                context.refresh_agent_resumed = answer
                return self._notes.nothing(connection), type(parameters)()
            context.refresh_agent_entry = entry
        self._note_before(connection, kind, statement)
        return statement, parameters

    def _resumed(self, connection: Connection, statement: str, entry: Entry) -> Entry | None:
        """The change as it was made before the step was resumed; None if it is to be made now."""
        if self._resumption is None:
            return None
        in_savepoint = self._backend == POSTGRESQL and not autocommits(connection, self._backend)
        answer = self._resumption.done_before(
            connection.connection.dbapi_connection, statement, entry, in_savepoint=in_savepoint
        )
        self.kept = Kept(self._resumption.done) if answer is not None else self.kept
        return answer

    def _note_before(self, connection: Connection, kind: Kind, statement: str) -> None:
        changes = kind in {Kind.DATA, Kind.SCHEMA}
        if autocommits(connection, self._backend):
            if changes:
                self._note(connection, replace(self.kept, current=self._notes.shown(statement)))
        elif kind is Kind.ROLLBACK:
            self._rollback(connection)
        elif kind is Kind.COMMIT or (kind is Kind.SCHEMA and self._backend == MYSQL):
            self._keep_pending(connection, self._notes.shown(statement) if changes else "")
            self._in_doubt = changes

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
        self._in_doubt = False
        entry = replace(entry, lastrowid=_number(cursor, "lastrowid"), rowcount=_number(cursor, "rowcount"))
        if autocommits(connection, self._backend):
            self._note(connection, Kept((*self.kept.done, entry)))
        elif self._backend == MYSQL and not entry.data:
            # Permanent now; written with the next note, and by Ledger.failed.
            self.kept = Kept((*self.kept.done, entry))
        else:
            self._pending(connection).entries.append(entry)

    def _commit(self, connection: Connection) -> None:
        if self._active:
            self._keep_pending(connection, "")

    def _keep_pending(self, connection: Connection, current: str) -> None:
        """What is pending becomes permanent with that which comes now."""
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
        self._notes.write(connection, kept)
        self.kept = kept
        self.written = kept.as_text()

    def _rollback(self, connection: Connection) -> None:
        self._reread |= self._in_doubt
        self._in_doubt = False
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
        pending = self._pending(connection)
        del pending.entries[pending.marks.get(name, len(pending.entries)) :]


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
