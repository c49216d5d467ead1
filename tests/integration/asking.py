"""Asking real workers, in both worlds, and small trees to ask them about."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from refresh_agent.db.worker import __main__ as worker
from refresh_agent.db.worker import protocol
from refresh_agent.db.worker.protocol import Job
from tests.integration import databases
from tests.integration.conftest import BASELINE, SHOP, AlembicTree

MakeTree = Callable[[str], AlembicTree]


class Worker:
    """Asks one interpreter's worker."""

    def __init__(self, python: str) -> None:
        self.python = python

    def ask(self, operation: str, job: Job, **order: object) -> dict[str, Any]:
        """The result's fields."""
        request = {
            "version": protocol.VERSION,
            "order": {"operation": operation, "run": "0123456789", **order},
            "targets": [job.as_json()],
        }
        answered = subprocess.run(
            [self.python, str(worker.__file__)],
            input=json.dumps(request).encode(),
            capture_output=True,
            check=False,
        )
        assert answered.returncode == 0, answered.stderr.decode()
        result: dict[str, Any] = json.loads(answered.stdout.splitlines()[-1])
        assert result["event"] == "result"
        return result

    def report(self, operation: str, job: Job, **order: object) -> dict[str, Any]:
        result = self.ask(operation, job, **order)
        assert result["result"] in {protocol.DONE, protocol.UNCHANGED}, result["message"]
        report: dict[str, Any] = result["report"]
        return report

    def problems(self, job: Job) -> list[tuple[str, str]]:
        """What ``check`` objects to."""
        result = self.ask(protocol.CHECK, job)
        problems = [(problem["kind"], problem["text"]) for problem in result["report"]["problems"]]
        assert result["result"] == (protocol.FAILED if problems else protocol.DONE)
        return problems


@pytest.fixture(params=["modern", "legacy"])
def world(request: pytest.FixtureRequest, legacy_python: str) -> Worker:
    return Worker(sys.executable if request.param == "modern" else legacy_python)


@pytest.fixture
def modern() -> Worker:
    return Worker(sys.executable)


@pytest.fixture
def shop(new_database: pathlib.Path) -> Job:
    return Job(
        name="shop",
        connection=f"sqlite:///{new_database}",
        alembic_config=str(SHOP / "alembic.ini"),
        migrate_repository=str(SHOP / "legacy"),
        legacy_versions=((3, BASELINE),),
        legacy_here=False,
    )


def job_of(tree: AlembicTree, connection: pathlib.Path | databases.Database, **fields: Any) -> Job:
    url = f"sqlite:///{connection}" if isinstance(connection, pathlib.Path) else connection.url()
    return Job(name=tree.path.name, connection=url, alembic_location=str(tree.path), **fields)


@pytest.fixture
def branches(make_tree: MakeTree) -> AlembicTree:
    tree = make_tree("tree")
    tree.revision("aa11", None)
    tree.revision("bb22", "aa11", "pass\nbranch_labels = ('left',)")
    tree.revision("cc33", "aa11")
    return tree


MODELS = """
import sqlalchemy as sa
from alembic import context
metadata = sa.MetaData()
MODELS
def run():
    engine = sa.create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=metadata)
        with context.begin_transaction():
            context.run_migrations()
run()
"""

CREATE = (
    "op.create_table('things', sa.Column('id', sa.Integer, primary_key=True),"
    " sa.Column('name', sa.String(20), nullable=False), sa.Column('old', sa.Integer))"
)
THINGS = (
    "sa.Table('things', metadata, sa.Column('id', sa.Integer, primary_key=True),"
    " sa.Column('name', sa.String(20), nullable={nullable}), sa.Column('{last}', sa.Integer))"
)


@pytest.fixture
def modelled(make_tree: MakeTree) -> Callable[..., AlembicTree]:
    """A tree whose first revision makes the table things, with these models."""

    def make(*models: str) -> AlembicTree:
        tree = make_tree("tree")
        tree.env.write_text(MODELS.replace("MODELS", "\n".join(models)))
        tree.revision("a1", None, CREATE)
        return tree

    return make
