"""The operation "unlock": free a target's lock whose holder cannot be known to be gone."""

from __future__ import annotations

from . import locks, protocol
from .database import Database
from .protocol import Result
from .task import Task


def run(task: Task) -> Result:
    """Refused while the holder is known to be there."""
    return Result(protocol.DONE, message=locks.unlock(Database(task.job.connection)))
