"""The operation "sql": what an upgrade would execute, as text, from where the database is.

alembic's offline mode writes it: env.py's run_migrations_offline. Nothing is executed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationStep

from . import prelude, protocol
from .alembic_tree import Heads, Tree
from .faults import TargetError
from .look import Look
from .outcome import dirty_text
from .protocol import LegacyStep, Result
from .reading import reading
from .task import Task
from .transition import Plan, Stamp, Upgrade, decide_upgrade

Steps = Callable[[Heads], Iterable[Any]]


def run(task: Task) -> Result:
    """The SQL of an upgrade to the target's revision. Raises TargetError if it cannot be had."""
    look = Look(task)
    with reading(task, look.database):
        seen = look.seen()
        found, unfinished = seen.found, seen.unfinished
        if unfinished is not None and unfinished.dirty and not look.applied(unfinished, found):
            task.report.warn(dirty_text(task.job.name, unfinished))
        plan = decide_upgrade(found, look.wanted_up(found, task.job.revision))
        version = found.version
        if plan.refusal:
            return Result(protocol.REFUSED, version, version, plan.refusal, report={"sql": ""})
        text = "".join(_sections(look, plan, found.heads))
    result = protocol.DONE if plan.steps else protocol.UNCHANGED
    return Result(result, version, version, report={"sql": text})


def _sections(look: Look, plan: Plan, heads: Heads) -> Iterator[str]:
    if any(isinstance(step, LegacyStep) for step in plan.steps):
        yield from _legacy(look, plan)
    script = look.tree.script
    for step in plan.steps:
        if isinstance(step, Stamp):
            yield _offline(look.tree, heads, step.revision, partial(script._stamp_revs, step.revision))  # noqa: SLF001
            heads = (step.revision,)
        elif isinstance(step, Upgrade):
            yield _offline(look.tree, heads, step.revision, partial(script._upgrade_revs, step.revision))  # noqa: SLF001


def _legacy(look: Look, plan: Plan) -> Iterator[str]:
    """Scripts in Python, which nobody can know without running them."""
    for step in prelude.pending(look, plan):
        if step.engine == prelude.MIGRATE:
            title = f", {step.title}" if step.title else ""
            yield f"-- first runs sqlalchemy-migrate {step.revision}{title}: it cannot be shown as SQL\n"


def _offline(tree: Tree, start: Heads, goal: str, find: Steps) -> str:
    buffer = io.StringIO()
    tree.config.output_buffer = buffer
    running = ""

    def steps(heads: Heads, context: MigrationContext) -> Iterator[MigrationStep]:
        nonlocal running
        if not context.as_sql:
            raise TargetError("its env.py does not know alembic's offline mode")
        # An env.py may have named a file of its own.
        context.impl.output_buffer = buffer
        for step in find(heads):
            running = str(step)
            yield step
        running = ""

    try:
        tree.run_env(steps, as_sql=True, starting_rev=start or None, destination_rev=goal)
    except TargetError as fault:
        where = f"alembic {running}" if running else "its env.py"
        raise TargetError(
            f"{where} cannot be shown as SQL: {fault}; it needs a database, which alembic's offline mode does"
            " not have"
        ) from fault
    return buffer.getvalue()
