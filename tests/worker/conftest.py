"""Both engines behind one manager, driven as migration_cli was: real repositories, real databases.

The interpreter that runs these tests runs the alembic trees too; that of sqlalchemy-migrate is the same one
in the environment of the extra ``migrate``, and another one (REFRESH_AGENT_TEST_LEGACY_PYTHON) beside the
newest SQLAlchemy. tox.ini has both.
"""

import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from refresh_agent.db import bridge
from refresh_agent.db.worker.protocol import Order
from refresh_agent.lines import Listener
from refresh_agent.model import Command, Exit, MigrationResult, Target
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.wakeup import Stop
from tests.integration.conftest import SHOP, database, mariadb, postgresql  # noqa: F401 - fixtures
from tests.integration.databases import Database

LEGACY_PYTHON = os.environ.get("REFRESH_AGENT_TEST_LEGACY_PYTHON") or sys.executable

TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
    "postgresql": "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'",
    "mysql": "SELECT table_name FROM information_schema.tables WHERE table_schema = database()",
}

DRIVERS = {"sqlite": "", "postgresql": "psycopg2", "mysql": ""}
"""Both worlds have it; for PostgreSQL they differ in what they take by themselves."""

SCRIPT = """from sqlalchemy import Column, Integer, MetaData, Table
def _table(engine):
    return Table("legacy_{0}", MetaData(bind=engine), Column("id", Integer, primary_key=True))
def upgrade(migrate_engine):
    _table(migrate_engine).create()
def downgrade(migrate_engine):
    _table(migrate_engine).drop()
"""
REVISION = """import sqlalchemy as sa
from alembic import op
revision = {0!r}
down_revision = {1!r}
branch_labels = {2!r}
def upgrade():
    op.create_table("alembic_{0}", sa.Column("id", sa.Integer, primary_key=True))
def downgrade():
    op.drop_table("alembic_{0}")
"""


class Trees:
    """A repository of versions 1 to 3 and, on top of it, an alembic tree a1b2c3 - b2c3d4 - c3d4e5."""

    def __init__(self, path: pathlib.Path) -> None:
        self.repository = path / "repository"
        self.location = path / "alembic"
        (self.repository / "versions").mkdir(parents=True)
        (self.location / "versions").mkdir(parents=True)
        (self.repository / "__init__.py").touch()
        (self.repository / "versions" / "__init__.py").touch()
        settings = (
            "[db_settings]\nrepository_id = trees\nversion_table = migrate_version\nrequired_dbs = []\n"
        )
        (self.repository / "migrate.cfg").write_text(settings)
        for version in (1, 2, 3):
            (self.repository / "versions" / f"00{version}_things.py").write_text(SCRIPT.format(version))
        for name in ("env.py", "script.py.mako"):
            (self.location / name).write_text((SHOP / "alembic" / name).read_text())
        self.revision("a1b2c3", None)
        self.revision("b2c3d4", "a1b2c3")
        self.revision("c3d4e5", "b2c3d4")

    def revision(self, name: str, down: str | None, label: str | None = None) -> None:
        (self.location / "versions" / f"{name}.py").write_text(REVISION.format(name, down, label))


class Manager:
    """migration_cli's manager: its methods, asked of real workers. ``log``: the progress."""

    def __init__(self, target: Target, database: Database, run: bridge.WorkerRunner) -> None:
        self.target = target
        self.database = database
        self.log: list[str] = []
        self._run = run

    def upgrade(self, revision: str = "head") -> MigrationResult:
        return self._ask("upgrade", revision)

    def downgrade(self, revision: str) -> MigrationResult:
        return self._ask("downgrade", revision)

    def version(self) -> str:
        return str(self._ask("version").report["version"])

    def stamp(self, revision: str) -> MigrationResult:
        return self._ask("stamp", revision)

    def has_revision(self, revision: str) -> bool:
        return bool(self._ask("has_revision", revision).report["has_revision"])

    def revision(self, message: str, *, autogenerate: bool = False) -> MigrationResult:
        return self._ask("revision", message=message, autogenerate=autogenerate)

    def tables(self) -> set[str]:
        """Those of the two engines' scripts: "legacy_1", "alembic_a1b2c3"."""
        names = (row[0] for row in self.database.execute(TABLES[self.database.kind]))
        return {name for name in names if name.startswith(("legacy_", "alembic_"))} - {"alembic_version"}

    def only(self, **changed: Any) -> "Manager":
        """The same database with another target: with one engine only, for example."""
        return Manager(replace(self.target, **changed), self.database, self._run)

    def _ask(self, operation: str, revision: str = "head", **more: Any) -> MigrationResult:
        surroundings = bridge.Surroundings(
            run=self._run,
            log=self.log.append,
            env=dict(os.environ),
            objection=lambda _path, _owners: "",
            learn=lambda _secrets: None,
        )
        order = Order(operation, run="the tests", **more)
        (result,) = bridge.ask(order, [replace(self.target, revision=revision)], surroundings)
        return result


@pytest.fixture
def trees(tmp_path: pathlib.Path) -> Trees:
    return Trees(tmp_path)


@pytest.fixture(scope="session")
def run_worker() -> Iterator[bridge.WorkerRunner]:
    stop = Stop()
    runner = ProcessRunner(stop, Grace(kill=1, stop=0))

    def run(command: Command, listener: Listener) -> Exit:
        ended = runner.run(command, listener.feed)
        listener.flush()
        return ended

    yield run
    stop.close()


@pytest.fixture
def make_manager(run_worker: bridge.WorkerRunner, trees: Trees) -> Callable[[Database], Manager]:
    def make(database: Database) -> Manager:
        target = Target(
            name="trees",
            connection=database.url(DRIVERS[database.kind]),
            python=sys.executable,
            legacy_python=LEGACY_PYTHON,
            alembic_location=str(trees.location),
            migrate_repository=str(trees.repository),
            legacy_versions=((3, "base"),),
        )
        return Manager(target, database, run_worker)

    return make


@pytest.fixture
def manager(make_manager: Callable[[Database], Manager], database: Database) -> Manager:
    """On each of the three databases."""
    return make_manager(database)
