"""One migration of a database at a time: a lock that the database itself keeps, or a file beside it.

A lock is never taken from its holder because of its age. Where the holder's end is certain, it is free.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .database import POSTGRESQL, SQLITE, Database
from .faults import foreign
from .lock_base import Busy, Holder, Lock, Obstacle, Wait
from .lock_mysql import MysqlLock
from .lock_postgresql import PostgresqlLock
from .lock_sqlite import SqliteLock
from .stopping import ASKED, Stopped

__all__ = ["Busy", "Holder", "Lock", "Wait", "held", "holder", "unlock"]

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5
"""Seconds between two attempts."""


@contextmanager
def held(database: Database, mine: Holder, wait: Wait) -> Iterator[Lock]:
    """Hold the lock on the database, for ``mine``.

    Raises Busy if somebody else has held it all the time, Stopped if there is to be no more waiting, and
    TargetError if the database cannot be locked.
    """
    with contextlib.closing(_lock(database)) as lock:
        _take(lock, mine, wait)
        yield lock


def holder(database: Database) -> Holder | None:
    """Who holds the lock now. Writes nothing, and needs no table."""
    with contextlib.closing(_lock(database)) as lock:
        return foreign(lock.holder, database.file)


def unlock(database: Database) -> str:
    """Free the lock of a holder that is gone, and say what was done.

    Raises TargetError if the holder is still there, with what ends it.
    """
    with contextlib.closing(_lock(database)) as lock:
        return foreign(lock.unlock, database.file)


def _lock(database: Database) -> Lock:
    if database.backend == SQLITE:
        return SqliteLock(database)
    if database.backend == POSTGRESQL:
        return foreign(lambda: PostgresqlLock(database))
    return foreign(lambda: MysqlLock(database))


def _take(lock: Lock, mine: Holder, wait: Wait) -> None:
    deadline = time.monotonic() + wait.seconds
    pause = _FIRST_PAUSE
    told = ""
    while obstacle := foreign(lambda: lock.attempt(mine, wait.tell)):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise Busy(_refusal(obstacle, mine, wait.seconds), obstacle.holder)
        if wait.stopped():
            raise Stopped(f"{ASKED}, while waiting: {obstacle.text}")
        if obstacle.text != told:
            told = obstacle.text
            wait.tell(f"waiting: {told}")
        time.sleep(min(pause, remaining))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _refusal(obstacle: Obstacle, mine: Holder, seconds: float) -> str:
    waited = f"; waited {seconds:.12g} s" if seconds else ""
    advice = f"; {obstacle.stuck}: refresh-agent db unlock --target {mine.target}" if obstacle.stuck else ""
    return f"{obstacle.text}{waited}{advice}"
