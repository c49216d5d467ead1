"""The operation "revision": a new revision file in the alembic tree, empty or from what the models lack."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from alembic.autogenerate import RevisionContext
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.util import asbool

from . import protocol, sessions
from .alembic_ini import user_name
from .alembic_tree import Heads, Tree
from .database import Database
from .faults import TargetError, foreign
from .protocol import Result
from .task import Task


def run(task: Task) -> Result:
    """Write the file; the database is read for autogenerate alone, and never changed."""
    database = Database(task.job.connection)
    tree = Tree(task.job, database)
    wanted = RevisionContext(tree.config, tree.script, _arguments(task))
    with sessions.watched(database, sessions.Rules(stopping=task.stopping)):
        if task.order.autogenerate or asbool(tree.config.get_main_option("revision_environment")):
            tree.run_env(
                _look(wanted, autogenerate=task.order.autogenerate), template_args=wanted.template_args
            )
        made = foreign(lambda: _written(wanted))
    (script,) = made
    if script is None:
        raise TargetError("its env.py decided that no revision is wanted")
    path = os.path.realpath(script.path)
    return Result(protocol.DONE, message=path, report={"path": path, "revision": script.revision})


def _written(wanted: RevisionContext) -> list[Any]:
    try:
        return list(wanted.generate_scripts())
    except PermissionError as error:
        folder = os.path.dirname(error.filename or "") or "the tree's versions directory"
        raise TargetError(
            f"user {user_name()} may not write to {folder}, where the new revision belongs: make it where you"
            " develop, or let that user write there"
        ) from error


def _look(wanted: RevisionContext, *, autogenerate: bool) -> Any:
    def steps(heads: Heads, context: MigrationContext) -> Iterable[MigrationStep]:
        (wanted.run_autogenerate if autogenerate else wanted.run_no_autogenerate)(heads, context)
        return ()

    return steps


def _arguments(task: Task) -> dict[str, Any]:
    """As ``alembic revision`` has them by default."""
    return {
        "message": task.order.message,
        "autogenerate": task.order.autogenerate,
        "sql": False,
        "head": "head",
        "splice": False,
        "branch_label": None,
        "version_path": None,
        "rev_id": None,
        "depends_on": None,
    }
