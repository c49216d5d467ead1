"""What services' env.py files do with their connections, and what becomes of revisions in them."""

import pathlib
from collections.abc import Callable

import pytest

from refresh_agent.db.worker.protocol import Order
from refresh_agent.model import MigrationOutcome, Target
from tests.integration.conftest import AlembicTree, Bridge
from tests.integration.databases import Database

MakeTree = Callable[[str], AlembicTree]
DRIVERS = {"sqlite": "", "postgresql": "psycopg2", "mysql": ""}

AROUND_ALL = """
from alembic import context
from sqlalchemy import create_engine
engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.begin() as connection:
    context.configure(connection=connection)
    context.run_migrations()
"""


def target_of(tree: AlembicTree, database: Database, python: str) -> Target:
    return Target(
        name="depot",
        connection=database.url(DRIVERS[database.kind]),
        python=python,
        legacy_python="",
        alembic_location=str(tree.path),
        lock_timeout=5,
    )


def test_one_transaction_around_all(
    make_tree: MakeTree, database: Database, modern_python: str, db_bridge: Bridge
) -> None:
    """What it takes back is told; on MariaDB it can take back nothing, and each version is kept."""
    tree = make_tree("depot")
    tree.env.write_text(AROUND_ALL)
    tree.revision("aaaa", None, "op.create_table('a', sa.Column('id', sa.Integer))")
    tree.revision("bbbb", "aaaa", "op.create_table('b', sa.Column('id', sa.Integer))")
    tree.revision("cccc", "bbbb", "op.execute('INSERT INTO missing VALUES (1)')")
    target = target_of(tree, database, modern_python)
    failed = db_bridge.upgrade_one(target)
    assert failed.outcome is MigrationOutcome.FAILED
    assert "bbbb -> cccc failed" in failed.message
    assert not failed.report["dirty"]
    if database.kind == "mysql":
        assert failed.after == "alembic bbbb"
        assert len(failed.report["applied"]) == 2
    else:
        assert failed.after == "empty"
        assert failed.report["applied"] == []
        assert "env.py has one transaction around all of them: 2 revisions before it are taken back" in (
            failed.message
        )
    (tree.path / "versions" / "cccc.py").unlink()
    assert db_bridge.upgrade_one(target).after == "alembic bbbb"


@pytest.mark.parametrize("database", ["postgresql", "mysql"], indirect=True)
def test_another_sessions_lock_defers(
    make_tree: MakeTree, database: Database, modern_python: str, db_bridge: Bridge, tmp_path: pathlib.Path
) -> None:
    """Nothing of the revision remained, and nothing is wrong with it."""
    tree = make_tree("depot")
    database.execute("CREATE TABLE busy (id integer)")
    lock = {
        "postgresql": "LOCK TABLE busy IN ACCESS EXCLUSIVE MODE",
        "mysql": "INSERT INTO busy VALUES (1)",
    }[database.kind]
    tree.revision(
        "aaaa",
        None,
        "other = op.get_bind().engine.execution_options(refresh_agent_own=True).connect()",
        "other.begin()",
        f"other.exec_driver_sql({lock!r})",
        "op.execute('ALTER TABLE busy ADD COLUMN x integer')",
    )
    target = target_of(tree, database, modern_python)
    database.execute("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)")
    (result,) = db_bridge.ask(Order("stamp"), target_with(target, revision="base"))
    (result,) = db_bridge.ask(Order("upgrade"), target_with(target, lock_timeout=1.0))
    assert result.outcome is MigrationOutcome.DEFERRED, result
    assert "nothing of it remains" in result.message


def target_with(target: Target, **changed: object) -> Target:
    return Target(**{**{name: getattr(target, name) for name in Target.__slots__}, **changed})  # type: ignore[arg-type]


def test_a_second_service_begins_in_a_database_of_the_first(
    make_tree: MakeTree, database: Database, modern_python: str, db_bridge: Bridge
) -> None:
    """Nobody can know that the tables are another's, so a person says once that none is ours."""
    database.execute("CREATE TABLE of_another_service (id integer)")
    tree = make_tree("depot")
    tree.revision("aaaa", None, "op.create_table('a', sa.Column('id', sa.Integer))")
    target = target_of(tree, database, modern_python)
    refused = db_bridge.upgrade_one(target)
    assert refused.outcome is MigrationOutcome.REFUSED
    assert "it has tables but no version" in refused.message
    (stamped,) = db_bridge.ask(Order("stamp"), target_with(target, revision="base"))
    assert stamped.ok
    assert db_bridge.upgrade_one(target).after == "alembic aaaa"


def test_env_py_that_works_somewhere_else_is_refused(
    make_tree: MakeTree, database: Database, modern_python: str, db_bridge: Bridge, tmp_path: pathlib.Path
) -> None:
    """The lock and the ledger would be in the wrong place."""
    tree = make_tree("depot")
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    tree.env.write_text(
        AROUND_ALL.replace('context.config.get_main_option("sqlalchemy.url")', repr(elsewhere))
    )
    tree.revision("aaaa", None, "op.create_table('a', sa.Column('id', sa.Integer))")
    result = db_bridge.upgrade_one(target_of(tree, database, modern_python))
    assert result.outcome is MigrationOutcome.FAILED
    assert "elsewhere.db" in result.message
    assert "let env.py use sqlalchemy.url, or correct connection" in result.message
