"""What a step changes on other connections to the target's database than the migrating one.

A script may open a connection of its own. What it changes there is permanent whatever becomes of the step, so
a mark goes into the ledger in the same transaction, past all listeners.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from .statements import Kind, kind_of

_MARKED = "refresh_agent_marked"

_FIRST = 2
_LAST = 999
"""Numbers of marks; those below are the follower's."""


class Marks(Protocol):
    """The marks of a step: rows beside its own, which they do not lock."""

    backend: str

    def concerns(self, connection: Connection) -> bool:
        """Whether it leads to the target's database, and is not the worker's own."""

    def shown(self, statement: str) -> str:
        """The statement as it may be kept."""

    def mark(self, connection: Connection, number: int, text: str) -> None: ...


class Beside:
    """``is_migrating`` tells the connections that are followed anyway."""

    def __init__(self, is_migrating: Callable[[Connection], bool], marks: Marks) -> None:
        self._is_migrating = is_migrating
        self._marks = marks
        self._number = _FIRST
        self._permanent = False
        self._listeners = (
            ("before_cursor_execute", self._before),
            ("commit", self._commit),
            ("rollback", self._rollback),
        )

    def start(self) -> None:
        for name, function in self._listeners:
            event.listen(Engine, name, function)

    def stop(self) -> None:
        for name, function in self._listeners:
            event.remove(Engine, name, function)

    def _before(
        self,
        connection: Connection,
        _cursor: Any,
        statement: str,
        _parameters: Any,
        _context: Any,
        _many: bool,
    ) -> None:
        if self._permanent or self._is_migrating(connection) or not self._marks.concerns(connection):
            return
        if kind_of(statement, self._marks.backend) not in {Kind.DATA, Kind.SCHEMA, Kind.OPAQUE}:
            return
        if connection.info.get(_MARKED) is not self:
            text = f"another connection of the step executed: {self._marks.shown(statement)}"
            self._marks.mark(connection, self._number, text)
            self._number = _FIRST if self._number == _LAST else self._number + 1
            connection.info[_MARKED] = self

    def _commit(self, connection: Connection) -> None:
        self._permanent |= self._forget(connection)

    def _rollback(self, connection: Connection) -> None:
        self._forget(connection)

    def _forget(self, connection: Connection) -> bool:
        """Whether this transaction had a mark. A lost connection has nothing any more."""
        if connection.invalidated or connection.closed:
            return False
        return connection.info.pop(_MARKED, None) is self
