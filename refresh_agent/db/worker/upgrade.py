"""The operation "upgrade": bring the target to its revision."""

from __future__ import annotations

from . import migration
from .protocol import Result
from .task import Task
from .transition import decide_upgrade


def run(task: Task) -> Result:
    """Upgrade, or say what stands in the way."""
    revision = task.job.revision
    return migration.run(
        task, lambda look, seen: decide_upgrade(seen.found, look.wanted_up(seen.found, revision))
    )
