"""What comes before the first change: what it would destroy, and a backup."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .database import Database
from .ledger import Ledger
from .protocol import UP, LegacyStep
from .task import Task
from .transition import Plan, Stamp, Upgrade

if TYPE_CHECKING:  # it needs alembic, which the legacy half does without
    from .look import Look

ALEMBIC = "alembic"
MIGRATE = "migrate"

BACKUP_IS_GOOD = datetime.timedelta(days=1)
"""For so long one is not made anew, as long as no step was done since."""

ALLOW, REFUSE = "allow", "refuse"


class Pending(NamedTuple):
    """A revision or legacy version that is to run; ``files``: its scripts."""

    engine: str
    revision: str
    title: str
    files: tuple[str, ...]


class Finding(NamedTuple):
    """What a pending revision destroys; ``finding`` continues its name: "drops the table orders"."""

    engine: str
    revision: str
    finding: str


def pending(look: Look, plan: Plan) -> Iterator[Pending]:
    """What the upgrades of a plan would run, in their order."""
    heads = look.tree.heads()
    version = look.legacy_version()
    for step in plan.steps:
        if isinstance(step, LegacyStep) and step.direction == UP:
            begin = step.control if version is None else version
            for number in range(begin + 1, step.version + 1):
                files = look.repository.files_of(number, look.database.backend)
                yield Pending(MIGRATE, str(number), look.repository.title_of(number), files)
        elif isinstance(step, Stamp):
            heads = (step.revision,)
        elif isinstance(step, Upgrade):
            for script in look.tree.scripts_up(heads, step.revision):
                yield Pending(ALEMBIC, script.revision, script.doc or "", (script.path,))


def findings(steps: Iterable[Pending]) -> list[Finding]:
    """What they would drop, found by reading their scripts."""
    return [finding for step in steps for finding in _findings(step)]


def too_destructive(found: Sequence[Finding], mode: str) -> str:
    """The refusal of what would be dropped; "" if that is not refused."""
    if mode != REFUSE or not found:
        return ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return (
        f"{found[0].engine} {found[0].revision} {found[0].finding}{more}, and destructive is refuse; look at"
        " it, have a backup, and set destructive to warn for this upgrade"
    )


def _findings(step: Pending) -> Iterator[Finding]:
    # Imported here, as backup below: where nothing is to do, they are an eighth of a worker's start.
    from . import destructive  # noqa: PLC0415

    for file in step.files:
        kind = "sql" if file.endswith(".sql") else step.engine
        with open(file, encoding="utf-8", errors="replace") as source:
            for text in destructive.findings(source.read(), kind):
                yield Finding(step.engine, step.revision, text)


def back_up(task: Task, database: Database, ledger: Ledger, version: str) -> None:
    """Before the first change, under the lock: a backup, unless one is still good.

    What fails is tried again every few minutes: a backup each time would fill the disk. Where half a step is
    resumed, a backup of that half would take the place of the good one.
    """
    if task.job.backup and not task.order.resume and not ledger.backup_since(_a_day_ago()):
        from . import backup  # noqa: PLC0415

        occasion = backup.Occasion(task.job.name, version)
        kept = backup.take(database, task.job.backup, occasion, task.stopping)
        task.report.step(kept)
        ledger.backed_up(kept)


def _a_day_ago() -> str:
    return (datetime.datetime.now(datetime.timezone.utc) - BACKUP_IS_GOOD).isoformat()
