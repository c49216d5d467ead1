"""What a database holds and what is wanted of it: read from env.py, the tables and the repository.

Nothing here writes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import repository
from .alembic_tree import BASE, Heads, Tree
from .database import OWN_TABLES, Database
from .ledger import Ledger, Unfinished
from .outcome import has_run
from .task import Task
from .transition import Found, Legacy, Mapped, Wanted


@dataclass(frozen=True)
class Seen:
    """``scope``: alembic's version table, under which the ledger keeps its rows for this tree."""

    found: Found
    scope: str
    unfinished: Unfinished | None


class Look:
    """A target's database and trees, to be looked at again and again."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.database = Database(task.job.connection)
        self.tree = Tree(task.job, self.database)
        self.repository = repository.read(task.job.migrate_repository)
        self._scope = ""

    def seen(self) -> Seen:
        """What there is now. Raises TargetError."""
        heads, self._scope = self.tree.look()
        ledger = self.ledger(self._scope)
        found, unfinished = self._found(heads), ledger.unfinished()
        if found.version == "none" and ledger.at_base():
            # Somebody has said so, or it was done here: the tables are another's.
            found = replace(found, tables=False)
        if unfinished is not None and unfinished.dirty and unfinished.step.previous == BASE:
            # The tables are those of the half of the first step: no stranger's.
            found = replace(found, tables=False)
        return Seen(found, self._scope, unfinished)

    def ledger(self, scope: str) -> Ledger:
        return Ledger(self.database, scope, self.task.mine, self.task.report.mask)

    def version(self) -> str:
        """The version for people, read without env.py; only after ``seen``."""
        return self._found(self.tree.heads()).version

    def legacy_version(self) -> int | None:
        """What the legacy version table says of our repository."""
        return self._found(()).legacy

    def _found(self, heads: Heads) -> Found:
        contents = self.database.contents(self.repository.version_table)
        rows = dict(contents.legacy)
        # Without a repository there is no name to look for: the only row is shown, and refused.
        own = self.repository.name or (next(iter(rows)) if len(rows) == 1 else "")
        version_tables = {self._scope.rpartition(".")[2], self.repository.version_table}
        return Found(
            tables=bool(contents.tables - version_tables - OWN_TABLES),
            heads=heads,
            legacy=rows.get(own),
            strangers=() if own in rows else tuple(sorted(rows)),
        )

    def applied(self, unfinished: Unfinished, found: Found) -> bool:
        """Whether the step that was in progress has come to its end after all, by whatever hand."""
        step = unfinished.step
        if step.engine == "migrate":
            return has_run(step, found.legacy)
        return self.tree.has_applied(found.heads, step.revision) != step.down

    def wanted_up(self, found: Found, revision: str) -> Wanted:
        tree = self.tree
        if self._is_legacy(revision):
            return self._wanted(revision, self._mapped(found, ""), behind=True, obstacle="")
        obstacle = tree.obstacle_up(found.heads, revision)
        behind = not obstacle and tree.is_above(found.heads, revision)
        return self._wanted(revision, self._mapped(found, revision), behind, obstacle)

    def wanted_down(self, found: Found, revision: str) -> Wanted:
        tree = self.tree
        is_legacy = self._is_legacy(revision)
        obstacle = "" if is_legacy else tree.obstacle_down(found.heads, revision)
        way = [] if is_legacy or obstacle else tree.way_down(found.heads, revision)
        undone = {step.revision for step in way}
        mapped = tuple(
            Mapped(
                version,
                baseline,
                beyond_reach=tree.obstacle_down(found.heads, baseline),
                undone=any(revision.startswith(baseline) for revision in undone),
            )
            for version, baseline in self.task.job.legacy_versions
        )
        return self._wanted(revision, mapped, bool(way), obstacle)

    def wanted_stamp(self, found: Found, revision: str) -> Wanted:
        obstacle = "" if self._is_legacy(revision) else self.tree.obstacle_to_stamp(found.heads, revision)
        return self._wanted(revision, (), behind=True, obstacle=obstacle)

    def _wanted(self, revision: str, mapped: tuple[Mapped, ...], behind: bool, obstacle: str) -> Wanted:
        return Wanted(
            revision,
            self._legacy(),
            mapped,
            behind,
            obstacle,
            is_an_id=self.tree.has_id(revision),
            stamping=f"refresh-agent db stamp --target {self.task.job.name} REVISION",
        )

    def _is_legacy(self, revision: str) -> bool:
        """Whether a version of the repository is meant; a revision of exactly that name comes first."""
        return self._legacy().knows(revision) is not None and not self.tree.has_id(revision)

    def _legacy(self) -> Legacy:
        return Legacy(self.repository.path, self.repository.scripts, self.repository.defect)

    def _mapped(self, found: Found, revision: str) -> tuple[Mapped, ...]:
        """Whether alembic can go on from each matters only to a database that is not under alembic yet."""
        mapping = self.task.job.legacy_versions
        if found.heads or not revision:
            return tuple(Mapped(version, baseline) for version, baseline in mapping)
        return tuple(
            Mapped(version, baseline, self.tree.obstacle_up(_start(baseline), revision))
            for version, baseline in mapping
        )


def _start(revision: str) -> Heads:
    return () if revision == BASE else (revision,)
