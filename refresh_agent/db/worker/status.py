"""The operations "status", "version" and "has_revision": what there is, and what an upgrade would do.

Nothing here writes, not even a version table.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from alembic.script import ScriptDirectory

from . import locks, prelude, protocol, repository
from .alembic_tree import Tree
from .database import Database
from .faults import TargetError, foreign
from .ledger import Unfinished
from .locks import Holder
from .look import Look, Seen
from .outcome import dirty_report, dirty_text, interrupted_text
from .prelude import Finding
from .protocol import Result
from .reading import reading
from .task import Task
from .transition import Legacy, Plan, decide_upgrade

_RELATIVE = re.compile(r"(?:(?P<branch>.+?)@)?(?P<symbol>\w+?)?[+-]\d+")
_SYMBOLS = frozenset(("", "base", "head", "heads"))


def run(task: Task) -> Result:
    """Look, and put into the report what was found. Raises TargetError."""
    if task.order.operation == protocol.HAS_REVISION:
        return Result(protocol.DONE, report=_has_revision(task))
    look = Look(task)
    with reading(task, look.database):
        seen = look.seen()
        version = seen.found.version
        shown = {} if task.order.operation == protocol.SHOW_VERSION else _status(look, seen)
    return Result(protocol.DONE, version, version, report={"version": version, **shown})


# --- status ----------------------------------------------------------------------------------------------


def _status(look: Look, seen: Seen) -> dict[str, Any]:
    wanted = look.task.job.revision
    holder = locks.holder(look.database)
    stopped = _stopped_half_way(look, seen, holder)
    plan = decide_upgrade(seen.found, look.wanted_up(seen.found, wanted))
    pending = foreign(lambda: list(prelude.pending(look, plan)))
    findings = foreign(lambda: prelude.findings(pending))
    return {
        "current": sorted(seen.found.heads),
        "heads": sorted(foreign(look.tree.script.get_heads)),
        "wanted": wanted,
        "pending": [
            {"engine": step.engine, "revision": step.revision, "title": step.title} for step in pending
        ],
        "dirty": dirty_report(stopped),
        "interrupted": interrupted_text(stopped) if stopped and not stopped.dirty else "",
        "lock": asdict(holder) if holder else None,
        "refusal": _refusal(look.task, stopped, plan, findings),
        "destructive": [finding._asdict() for finding in findings],
    }


def _stopped_half_way(look: Look, seen: Seen, holder: Holder | None) -> Unfinished | None:
    """The step that its worker will not bring to an end any more: that worker does not hold the lock."""
    unfinished = seen.unfinished
    if unfinished is None or look.applied(unfinished, seen.found):
        return None
    if holder is not None and _who(holder) == _who(unfinished.holder):
        return None
    return unfinished


def _who(holder: Holder) -> tuple[str, int, str]:
    return holder.host, holder.pid, holder.run


def _refusal(task: Task, stopped: Unfinished | None, plan: Plan, findings: list[Finding]) -> str:
    """Why an upgrade would not begin; "" if it would."""
    if stopped is not None and stopped.dirty:
        return dirty_text(task.job.name, stopped)
    return plan.refusal or prelude.too_destructive(findings, task.job.destructive)


# --- has_revision ----------------------------------------------------------------------------------------


def _has_revision(task: Task) -> dict[str, Any]:
    """Whether, and in which of its two halves, the target's code has a revision; no database is asked."""
    legacy = repository.read(task.job.migrate_repository)
    if Legacy(legacy.path, legacy.scripts, legacy.defect).knows(task.job.revision) is not None:
        return {"has_revision": True, "engine": prelude.MIGRATE}
    script = Tree(task.job, Database(task.job.connection)).script
    foreign(script.get_heads)  # a tree that cannot be read is no answer
    known = all(_is_known(script, name) for name in _names_in(task.job.revision))
    return {"has_revision": known, "engine": prelude.ALEMBIC if known else ""}


def _names_in(revision: str) -> list[str]:
    """What has to be known: of "branch@5a1e+2" these are "branch@head" and "5a1e"."""
    match = _RELATIVE.fullmatch(revision)
    if match is None:
        return [revision]
    branch = f"{match['branch']}@head" if match["branch"] else ""
    return [branch, match["symbol"] or ""]


def _is_known(script: ScriptDirectory, name: str) -> bool:
    if name in _SYMBOLS:
        return True
    try:
        return bool(foreign(lambda: script.get_revisions(name)))
    except TargetError:
        return False
