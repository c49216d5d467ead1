"""The operation "upgrade": look, decide, carry out, look again."""

from __future__ import annotations

import importlib
import os

from . import protocol, repository
from .alembic_tree import Heads, Tree
from .database import Database
from .faults import TargetError, require_migrate
from .isolation import own_surroundings
from .protocol import Job, Report, Result
from .repository import Repository
from .transition import CatchUp, Found, Mapped, Plan, Stamp, Wanted, decide


def run(job: Job, report: Report) -> Result:
    """Bring the target to its revision, or say what stands in the way."""
    folder = os.path.dirname(job.alembic_config)
    with own_surroundings(folder if os.path.isdir(folder) else os.sep, first=job.python_path):
        return _Migration(job, report).run()


class _Migration:
    def __init__(self, job: Job, report: Report) -> None:
        self._job = job
        self._report = report
        self._database = Database(job.connection)
        self._tree = Tree(job, self._database)
        self._legacy: Repository = repository.read(job.migrate_repository)

    def run(self) -> Result:
        heads, self._alembic_table = self._tree.look()
        found = self._found(heads)
        plan = decide(found, self._wanted())
        if plan.note:
            self._report.step(plan.note)
        before = found.version
        if plan.refusal:
            return Result(protocol.REFUSED, before, before, plan.refusal)
        if not plan.steps:
            return Result(protocol.UNCHANGED, before, before)
        if isinstance(plan.steps[0], CatchUp) and not self._job.legacy_here:
            return Result(protocol.NEEDS_LEGACY, before, before, version=plan.steps[0].version)
        try:
            self._carry_out(plan)
        except TargetError as fault:
            return Result(protocol.FAILED, before, self._version_now(), str(fault))
        return Result(protocol.DONE, before, self._version_now())

    def _found(self, heads: Heads) -> Found:
        contents = self._database.contents(self._legacy.version_table)
        rows = dict(contents.legacy)
        # Without a repository there is no name to look for: the only row is shown, and refused.
        own = self._legacy.name or (next(iter(rows)) if len(rows) == 1 else "")
        obstacle = self._tree.obstacle(heads, self._job.revision)
        return Found(
            tables=bool(contents.tables - {self._alembic_table, self._legacy.version_table}),
            heads=heads,
            legacy=rows.get(own),
            strangers=() if own in rows else tuple(sorted(rows)),
            behind=not obstacle and self._tree.is_behind(heads, self._job.revision),
            obstacle=obstacle,
        )

    def _wanted(self) -> Wanted:
        revision = self._job.revision
        return Wanted(
            revision=revision,
            repository=self._legacy.path,
            mapped=tuple(
                Mapped(version, baseline, self._tree.obstacle((baseline,), revision))
                for version, baseline in self._job.legacy_versions
            ),
            scripts=self._legacy.scripts,
            defect=self._legacy.defect,
            stamping=self._tree.stamping,
        )

    def _carry_out(self, plan: Plan) -> None:
        for step in plan.steps:
            if isinstance(step, CatchUp):
                require_migrate()
                catch_up = importlib.import_module(".catch_up", __package__)
                catch_up.bring(self._database, self._legacy, step.version, self._report)
            elif isinstance(step, Stamp):
                self._report.step(f"alembic stamp {step.revision}")
                self._tree.stamp(step.revision)
            else:
                self._tree.upgrade(step.revision, self._report.step)

    def _version_now(self) -> str:
        """The version after the steps; "" if it cannot be read, which must not hide what has failed."""
        try:
            return self._found(self._tree.heads()).version
        except TargetError:
            return ""
