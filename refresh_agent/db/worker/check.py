"""The operation "check": what does not go together of models, scripts and database. Nothing is changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from alembic.autogenerate import RevisionContext
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from alembic.util import load_python_file

from . import drift, prelude, protocol
from .alembic_tree import Heads, checksum
from .database import OWN_TABLES
from .faults import TargetError, foreign
from .look import Look, Seen
from .outcome import dirty_text
from .protocol import Result
from .reading import reading
from .task import Task

DRIFT = "drift"
HEADS = "heads"
MISSING = "missing"
CHANGED = "changed"
DIRTY = "dirty"


class Problem(NamedTuple):
    """``kind`` is a constant above."""

    kind: str
    text: str


def run(task: Task) -> Result:
    """Done if there is nothing to object to, else failed; the report has it all. Raises TargetError."""
    look = Look(task)
    with reading(task, look.database):
        seen = look.seen()
        problems, skipped = _checked(look, seen)
    version = seen.found.version
    report = {"problems": [problem._asdict() for problem in problems], "skipped": skipped}
    if not problems:
        return Result(protocol.DONE, version, version, report=report)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Result(protocol.FAILED, version, version, f"{problems[0].text}{more}", report=report)


def _checked(look: Look, seen: Seen) -> tuple[list[Problem], list[str]]:
    """The problems, and what could not be compared."""
    problems = list(_dirty(look, seen))
    unloadable = list(_unloadable(look.tree.script))
    if unloadable:
        return [*problems, *unloadable], ["everything that takes the whole tree"]
    problems += [*_heads(look), *_missing(look, seen), *_changed(look, seen)]
    heads = set(foreign(look.tree.script.get_heads))
    if set(seen.found.heads) != heads:
        return problems, ["drift: the database is not at the tree's head"]
    found = _drift(look)
    if found is None:
        return problems, ["drift: its env.py offers no target_metadata"]
    return problems + [Problem(DRIFT, text) for text in found], []


def _dirty(look: Look, seen: Seen) -> Iterator[Problem]:
    unfinished = seen.unfinished
    if unfinished is not None and unfinished.dirty and not look.applied(unfinished, seen.found):
        yield Problem(DIRTY, dirty_text(look.task.job.name, unfinished))


def _unloadable(script: ScriptDirectory) -> Iterator[Problem]:
    """The files because of which alembic cannot read the tree, or alembic's own words."""
    if fault := _fault(script.get_heads):
        files = list(_broken_files(script))
        yield from files or [Problem(MISSING, f"the alembic tree cannot be read: {fault}")]


def _broken_files(script: ScriptDirectory) -> Iterator[Problem]:
    for location in script.version_locations or [os.path.join(script.dir, "versions")]:
        for folder, _, names in os.walk(location):
            for name in sorted(name for name in names if name.endswith(".py")):
                if fault := _fault(partial(load_python_file, folder, name)):
                    path = os.path.join(folder, name)
                    yield Problem(MISSING, f"the revision file {path} cannot be loaded: {fault}; correct it")


def _fault(action: Callable[[], object]) -> str:
    """Why code that is not ours fails; "" if it does not."""
    try:
        foreign(action)
    except TargetError as fault:
        return str(fault)
    return ""


def _heads(look: Look) -> Iterator[Problem]:
    heads = sorted(foreign(look.tree.script.get_heads))
    if len(heads) > 1 and look.task.job.revision == "head":
        yield Problem(
            HEADS,
            f"the alembic tree has {len(heads)} heads ({', '.join(heads)}), and revision is head; merge them,"
            " or set revision to heads or to one of them",
        )


def _missing(look: Look, seen: Seen) -> Iterator[Problem]:
    for head in seen.found.heads:
        if _fault(partial(look.tree.script.get_revisions, head)):
            yield Problem(
                MISSING,
                f"the database is at the alembic revision {head}, which the tree does not have: the code is"
                " older than the database; install the release that has it",
            )
    newest = max(look.repository.scripts, default=None)
    legacy = seen.found.legacy
    if not seen.found.heads and legacy is not None and newest is not None and legacy > newest:
        yield Problem(
            MISSING,
            f"the database is at sqlalchemy-migrate version {legacy}, beyond the newest of"
            f" {look.repository.path}, {newest}; install the release that has it",
        )


def _changed(look: Look, seen: Seen) -> Iterator[Problem]:
    """By the ledger, of the scripts that are still there: those that were squashed are no problem."""
    ledger = look.ledger(seen.scope)
    paths = {
        script.revision: script.path for script in foreign(lambda: list(look.tree.script.walk_revisions()))
    }
    for revision, applied in ledger.checksums().items():
        if revision in paths and foreign(partial(checksum, paths[revision])) != applied:
            yield _has_changed(f"{paths[revision]} (alembic {revision})")
    for version, applied in ledger.checksums(prelude.MIGRATE).items():
        files = look.repository.files_of(int(version), look.database.backend)
        if files and _digest(files) != applied:
            yield _has_changed(f"{', '.join(files)} (sqlalchemy-migrate {version})")


def _has_changed(script: str) -> Problem:
    return Problem(
        CHANGED,
        f"{script} is not what it was when it was applied; a database that is made anew will differ from this"
        " one: take the change back, and make it in a new revision",
    )


def _digest(files: Iterable[str]) -> str:
    content = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            content.update(file.read())
    return content.hexdigest()


def _drift(look: Look) -> list[str] | None:
    """What models and database do not agree on; None if env.py offers no models."""
    tree = look.tree
    wanted = RevisionContext(tree.config, tree.script, dict(drift.ARGUMENTS))
    compared: list[bool] = []

    def compare(heads: Heads, context: MigrationContext) -> Iterable[MigrationStep]:
        if context.opts.get("target_metadata") is not None:
            wanted.run_autogenerate(heads, context)
            compared.append(True)
        return ()

    tree.run_env(compare, dont_mutate=True, template_args=wanted.template_args)
    if not compared:
        return None
    ignored = OWN_TABLES | {look.repository.version_table}
    return [
        text
        for script in wanted.generated_revisions
        for operations in script.upgrade_ops_list
        for text in drift.texts(operations.as_diffs(), ignored)
    ]
