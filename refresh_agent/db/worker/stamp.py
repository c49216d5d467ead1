"""The operation "stamp": write down, since the operator says so, what the schema equals. Nothing is run."""

from __future__ import annotations

from . import migration
from .protocol import Result
from .task import Task
from .transition import decide_stamp


def run(task: Task) -> Result:
    """Stamp; a target that was dirty is so no more."""
    revision = task.job.revision
    return migration.run(
        task, lambda look, seen: decide_stamp(seen.found, look.wanted_stamp(seen.found, revision))
    )
