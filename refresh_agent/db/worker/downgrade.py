"""The operation "downgrade": take the target back to a revision, or to a version of the legacy repository."""

from __future__ import annotations

from . import migration
from .protocol import Result
from .task import Task
from .transition import decide_downgrade


def run(task: Task) -> Result:
    """Downgrade, or say what stands in the way."""
    revision = task.job.revision
    return migration.run(
        task, lambda look, seen: decide_downgrade(seen.found, look.wanted_down(seen.found, revision))
    )
