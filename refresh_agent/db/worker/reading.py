"""Around operations that only look at a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import sessions
from .database import Database
from .task import Task


@contextmanager
def reading(task: Task, database: Database) -> Iterator[None]:
    """A stop, or the end of the target's time, interrupts what is being asked. Raises Stopped."""
    rules = sessions.Rules(stopping=task.stopping)
    with (
        sessions.watched(database, rules) as watched,
        task.stopping.during(task.job.timeout, watched.cancel),
    ):
        yield
