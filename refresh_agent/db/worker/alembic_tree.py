"""An alembic tree, with its env.py, seen through what the bridge needs of it.

``alembic.command`` prints instead of answering, so this uses what it is made of: a ScriptDirectory, and an
EnvironmentContext with a function of our own that returns the steps to run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory

from .database import Database
from .faults import TargetError, foreign
from .protocol import Job

Heads = tuple[str, ...]
Steps = Callable[[Heads, MigrationContext], Iterable[MigrationStep]]


class Tree:
    def __init__(self, job: Job, database: Database) -> None:
        self._database = database
        self._config = _config(job)
        self._script = foreign(lambda: ScriptDirectory.from_config(self._config))
        self._version_table: dict[str, Any] = {}
        self.stamping = f"{sys.executable} -m alembic{_ini_argument(job)} stamp REVISION"

    def look(self) -> tuple[Heads, str]:
        """Return the database's heads and the version table's name, as env.py has it; writes nothing.

        env.py is asked, since it may choose another version table: several services can share a database.
        """
        seen: list[Heads] = []

        def note(heads: Heads, context: MigrationContext) -> Iterable[MigrationStep]:
            seen.append(heads)
            self._version_table = {
                "version_table": context.version_table,
                "version_table_schema": context.version_table_schema,
            }
            return ()

        self._run_env(note, dont_mutate=True)
        if not seen:
            raise TargetError("its env.py does not call context.run_migrations()")
        return seen[-1], str(self._version_table["version_table"])

    def heads(self) -> Heads:
        """The database's heads now, read without env.py; only after ``look``."""
        return foreign(self._heads, self._database.file)

    def _heads(self) -> Heads:
        with self._database.connect() as connection:
            return MigrationContext.configure(connection, opts=self._version_table).get_current_heads()

    def obstacle(self, start: Heads, revision: str) -> str:
        """Why alembic cannot go from ``start`` to ``revision``; "" if it can."""
        try:
            foreign(lambda: self._way(start, revision))
        except TargetError as fault:
            return f"alembic cannot go from {'+'.join(start) or 'base'} to {revision}: {fault}"
        return ""

    def is_behind(self, start: Heads, revision: str) -> bool:
        return bool(foreign(lambda: self._way(start, revision)))

    def stamp(self, revision: str) -> None:
        def steps(heads: Heads, _context: MigrationContext) -> Iterable[MigrationStep]:
            return self._script._stamp_revs((revision,), heads)  # noqa: SLF001 - as alembic.command does

        self._run_env(steps, destination_rev=(revision,))

    def upgrade(self, revision: str, begun: Callable[[str], None]) -> None:
        """Run what is missing up to ``revision``; ``begun`` hears of each alembic revision before it runs.

        Verified afterwards: if env.py has begun a transaction of its own, nobody commits, and alembic calls
        that a success.
        """
        running = ""
        reached: Heads = ()

        def steps(heads: Heads, context: MigrationContext) -> Iterator[MigrationStep]:
            nonlocal running, reached
            for step in self._way(heads, revision):
                running = str(step).replace("upgrade  ", "upgrade base ")
                begun(f"alembic {running}")
                yield step
            running = ""
            reached = context.get_current_heads()

        try:
            self._run_env(steps, destination_rev=revision)
        except TargetError as fault:
            raise TargetError(f"alembic {running or f'upgrade to {revision}'} failed: {fault}") from fault
        if set(self.heads()) != set(reached):
            raise TargetError(
                f"alembic ran to {'+'.join(reached)}, but the database has not kept it; does env.py commit?"
            )

    def _way(self, start: Heads, revision: str) -> list[Any]:
        return self._script._upgrade_revs(revision, start)  # type: ignore[arg-type]  # noqa: SLF001

    def _run_env(self, steps: Steps, **options: object) -> None:
        def run() -> None:
            with EnvironmentContext(self._config, self._script, fn=steps, **options):
                self._script.run_env()

        foreign(run, self._database.file)


def _config(job: Job) -> Config:
    if job.alembic_config and not os.path.isfile(job.alembic_config):
        raise TargetError(f"alembic_config {job.alembic_config} does not exist")
    config = Config(job.alembic_config or None)
    if job.alembic_location:
        config.set_main_option("script_location", job.alembic_location.replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", job.connection.replace("%", "%%"))
    return config


def _ini_argument(job: Job) -> str:
    return f" -c {job.alembic_config}" if job.alembic_config else ""
