"""An alembic tree, with its env.py, seen through what the bridge needs of it.

``alembic.command`` prints instead of answering, so this uses what it is made of: a ScriptDirectory, and an
EnvironmentContext with a function of our own that returns the steps to run. What env.py configures is added
to (``_Additions``): whatever it says, each revision gets a transaction of its own where the server can do
that, the ledger is written in it, and our own tables are nobody's drift.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import Script, ScriptDirectory
from alembic.util import to_tuple
from sqlalchemy.engine import Connection

from . import alembic_ini
from .database import OWN_TABLES, SQLITE, Database
from .faults import TargetError, foreign
from .ledger import Step
from .protocol import Job
from .sessions import place

Heads = tuple[str, ...]
Steps = Callable[[Heads, MigrationContext], Iterable[MigrationStep]]

BASE = "base"


class Course(Protocol):
    """What goes with the steps of a migration, before, around and right after each of them."""

    def step(self, connection: Connection, step: Step) -> AbstractContextManager[None]:
        """Entered before it runs; raises TargetError if it must not."""

    def applied(self, connection: Connection, step: Step, following: Step | None) -> None:
        """It has run, and alembic has written so, in the transaction that ``connection`` is in."""


class Tree:
    def __init__(self, job: Job, database: Database) -> None:
        self._database = database
        self.config = _config(job, database)
        self.script = foreign(lambda: ScriptDirectory.from_config(self.config))
        self._version_table: dict[str, Any] = {}

    def look(self) -> tuple[Heads, str]:
        """Return the database's heads and the version table with its schema, as env.py has it; never writes.

        env.py is asked, since it may choose another version table: several services can share a database.
        """
        seen: dict[tuple[str, str], Heads] = {}

        def note(heads: Heads, context: MigrationContext) -> Iterable[MigrationStep]:
            self._refuse_another_database(context)
            seen[context.version_table_schema or "", context.version_table] = heads
            self._version_table = {
                "version_table": context.version_table,
                "version_table_schema": context.version_table_schema,
            }
            return ()

        self.run_env(note, dont_mutate=True)
        if not seen:
            raise TargetError("its env.py does not call context.run_migrations()")
        if len(seen) > 1:
            tables = ", ".join(table for _, table in seen)
            raise TargetError(
                f"its env.py has {len(seen)} version tables ({tables}); give each a target of its own, with"
                " an env.py that migrates only that one"
            )
        ((schema, table), found) = next(iter(seen.items()))
        return found, f"{schema}.{table}" if schema else table

    def _refuse_another_database(self, context: MigrationContext) -> None:
        """The lock and the ledger are where ``connection`` leads to; the migration must be there too."""
        if context.connection is None:
            return
        theirs, ours = place(context.connection.engine.url), place(self._database.url)
        if theirs != ours:
            raise TargetError(
                f"its env.py works on {_shown(theirs)}, but connection leads to {_shown(ours)}; let env.py"
                " use sqlalchemy.url, or correct connection"
            )

    def heads(self) -> Heads:
        """The database's heads now, read without env.py; only after ``look``."""
        return foreign(self._heads, self._database.file)

    def _heads(self) -> Heads:
        with self._database.connect() as connection:
            return MigrationContext.configure(connection, opts=self._version_table).get_current_heads()

    def way_up(self, start: Heads, revision: str) -> list[Step]:
        """What alembic would run from ``start`` to ``revision``, in its order. Raises TargetError."""
        return [_step(found) for found in foreign(lambda: self._up(start, revision))]

    def way_down(self, start: Heads, revision: str) -> list[Step]:
        """What alembic would take back from ``start`` to ``revision``, in its order. Raises TargetError."""
        return [_step(found) for found in foreign(lambda: self._down(start, revision))]

    def scripts_up(self, start: Heads, revision: str) -> list[Script]:
        """The scripts of what ``way_up`` gives."""
        return [found.revision for found in foreign(lambda: self._up(start, revision))]

    def obstacle_up(self, start: Heads, revision: str) -> str:
        """Why alembic cannot go up from ``start`` to ``revision``; "" if it can."""
        return _obstacle(lambda: self._up(start, revision), start, revision)

    def obstacle_down(self, start: Heads, revision: str) -> str:
        """Why alembic cannot come down from ``start`` to ``revision``; "" if it can."""
        return _obstacle(lambda: self._down(start, revision), start, revision)

    def obstacle_to_stamp(self, start: Heads, revision: str) -> str:
        """Why ``revision`` cannot be stamped; "" if it can."""
        try:
            foreign(lambda: self.script._stamp_revs(to_tuple(revision), start))  # noqa: SLF001
        except TargetError as fault:
            return f"alembic cannot stamp {revision}: {fault}"
        return ""

    def is_above(self, start: Heads, revision: str) -> bool:
        """Whether alembic has something to run on the way up from ``start`` to ``revision``."""
        return bool(foreign(lambda: self._up(start, revision)))

    def has_id(self, revision: str) -> bool:
        """Whether the tree has a revision of exactly that identifier."""
        try:
            found: Script | None = foreign(lambda: self.script.get_revision(revision))
        except TargetError:
            return False
        return bool(found and found.revision == revision)

    def has_applied(self, heads: Heads, revision: str) -> bool:
        """Whether a database at ``heads`` has had that revision."""

        def find() -> bool:
            known = tuple(head for head in heads if _is_known(self.script, head))
            above = self.script.iterate_revisions(known, BASE, implicit_base=False) if known else ()
            return any(found.revision == revision for found in above)

        return foreign(find)

    def stamp(self, revision: str) -> None:
        def steps(heads: Heads, _context: MigrationContext) -> Iterable[MigrationStep]:
            return self.script._stamp_revs(to_tuple(revision), heads)  # noqa: SLF001 - as alembic.command does

        self.run_env(steps, destination_rev=(revision,))

    def upgrade(self, revision: str, course: Course) -> None:
        self._migrate(lambda heads: self._up(heads, revision), revision, course)

    def downgrade(self, revision: str, course: Course) -> None:
        self._migrate(lambda heads: self._down(heads, revision), revision, course)

    def _migrate(self, find_way: Callable[[Heads], list[Any]], revision: str, course: Course) -> None:
        """Run the way step by step.

        Verified afterwards: if env.py has begun a transaction of its own, nobody commits, and alembic calls
        that a success.
        """
        way: list[Step] = []
        reached: Heads = ()

        def steps(heads: Heads, context: MigrationContext) -> Iterator[MigrationStep]:
            nonlocal reached
            found = find_way(heads)
            way[:] = [_step(step) for step in found]
            for described, step in zip(list(way), found):
                with course.step(context.connection, described):  # type: ignore[arg-type] # online: there is one
                    yield step
            reached = context.get_current_heads()

        def applied(ctx: MigrationContext, **_: object) -> None:
            step = way.pop(0)
            course.applied(ctx.connection, step, way[0] if way else None)  # type: ignore[arg-type] # as above

        self.run_env(steps, applied, destination_rev=revision)
        if set(self.heads()) != set(reached):
            raise TargetError(
                f"alembic ran to {'+'.join(reached) or BASE}, but the database has not kept it; does env.py"
                " commit?"
            )

    def _up(self, start: Heads, revision: str) -> list[Any]:
        return self.script._upgrade_revs(revision, start)  # type: ignore[arg-type]  # noqa: SLF001

    def _down(self, start: Heads, revision: str) -> list[Any]:
        return self.script._downgrade_revs(revision, start)  # type: ignore[arg-type]  # noqa: SLF001

    def run_env(self, steps: Steps, applied: Callable[..., None] | None = None, **options: object) -> None:
        """Run env.py, which then runs ``steps``. Raises TargetError for whatever happens in there."""

        def run() -> None:
            context = EnvironmentContext(self.config, self.script, fn=steps, **options)
            additions = _Additions(self._database.backend, applied)
            # Not a subclass: alembic.context passes its calls on to instances of that very class.
            context.configure = additions.to(context.configure)  # type: ignore[method-assign]
            with context:
                self.script.run_env()

        foreign(run, self._database.file)


class _Additions:
    """What is added to that which an env.py configures."""

    def __init__(self, backend: str, applied: Callable[..., None] | None) -> None:
        self._backend = backend
        self._applied = applied

    def to(self, configure: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(configure)

        def configured(*arguments: Any, **options: Any) -> None:
            given = signature.bind(*arguments, **options).arguments
            given.update(given.pop("kw", {}))
            configure(**{**given, **self._of(given)})

        return configured

    def _of(self, given: Mapping[str, Any]) -> dict[str, Any]:
        added: dict[str, Any] = {
            "transaction_per_migration": True,
            "include_name": _without_our_tables(given.get("include_name")),
            "on_version_apply": to_tuple(given.get("on_version_apply"), default=()),
        }
        if self._applied is not None:
            added["on_version_apply"] += (self._applied,)
        if self._backend == SQLITE:
            # It can, in the transactions that ``sessions`` sees to; alembic does not count on it.
            added["transactional_ddl"] = True
        return added


def _without_our_tables(theirs: Callable[..., bool] | None) -> Callable[..., bool]:
    def include(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
        if kind == "table" and name in OWN_TABLES:
            return False
        return theirs is None or theirs(name, kind, parents)

    return include


def _shown(place: tuple[str, str, str, str]) -> str:
    backend, host, port, name = place
    return (
        f"the database {name!r} ({backend}{f' on {host}' if host else ''}{f', port {port}' if port else ''})"
    )


def _step(step: Any) -> Step:
    """Alembic's step as the ledger and the log have it."""
    text = str(step).replace("upgrade  ->", f"upgrade {BASE} ->")
    if not step.is_upgrade and not step.to_revisions:
        text = text.replace(" -> ", f" -> {BASE}", 1)
    return Step(
        engine="alembic",
        previous="+".join(step.from_revisions) or BASE,
        revision=step.revision.revision,
        checksum=checksum(step.revision.path),
        text=f"alembic {text}",
        down=not step.is_upgrade,
    )


def checksum(path: str) -> str:
    """sha256 of a migration script."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _is_known(script: ScriptDirectory, revision: str) -> bool:
    try:
        foreign(lambda: script.get_revision(revision))
    except TargetError:
        return False
    return True


def _obstacle(find_way: Callable[[], object], start: Heads, revision: str) -> str:
    try:
        foreign(find_way)
    except TargetError as fault:
        return f"alembic cannot go from {'+'.join(start) or BASE} to {revision}: {fault}"
    return ""


def _config(job: Job, database: Database) -> Config:
    config = alembic_ini.read(job.alembic_config)
    if job.alembic_location:
        config.set_main_option("script_location", job.alembic_location.replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", database.connection.replace("%", "%%"))
    return config
