"""A real service's way: openstack-heat's tables from sqlalchemy-migrate to alembic's head, by the bridge.

On MariaDB it is a real failure too: in a utf8mb4 database the legacy tables stay utf8mb3, and the foreign key
of a new one to an old one is refused in the middle of the way.
"""

import pathlib
from collections.abc import Callable

import pytest

from refresh_agent.db.worker import protocol
from refresh_agent.db.worker.protocol import Order
from refresh_agent.model import MigrationOutcome
from tests.integration import heat_tree
from tests.integration.conftest import Bridge
from tests.integration.counted_tree import url
from tests.integration.databases import Database, SQLiteDatabase

BACKENDS = ("sqlite", "postgresql", "mysql")

HALF_WAY = "d2db381e3324"
FAILS = "88be64598c0f"
"""The revision after it: the table resource_snapshot, with a foreign key to the legacy table snapshot."""

MakeDatabase = Callable[..., Database]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> MakeDatabase:
    """Makes an empty database of a backend; on MariaDB of a character set, else that of Heat's tables."""

    def database(backend: str, name: str, charset: str = "utf8mb3") -> Database:
        if backend == "sqlite":
            return SQLiteDatabase(tmp_path / f"{name}.db")
        server = request.getfixturevalue("mariadb" if backend == "mysql" else backend)
        made: Database = server.create(name, charset=charset)
        return made

    return database


def versions(database: Database) -> list[tuple[object, ...]]:
    return database.execute("SELECT version_num FROM alembic_version")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("version", [80, heat_tree.LEGACY_END])
def test_it_gets_from_the_legacy_repository_to_the_schema_of_a_fresh_install(
    version: int, backend: str, make: MakeDatabase, db_bridge: Bridge
) -> None:
    """Whoever stamps 80 as if it were 86 gets to the head too, with two tables that nobody ever drops."""
    old, fresh = make(backend, "old"), make(backend, "fresh")
    heat_tree.make_legacy(url(old), version)
    heat_tree.make_fresh(url(fresh))

    result = db_bridge.upgrade_one(heat_tree.target(url(old)))

    assert result.outcome is MigrationOutcome.DONE, result.message
    assert (result.before, result.after) == (f"migrate {version}", f"alembic {heat_tree.HEAD}")
    assert heat_tree.schema(url(old)) == heat_tree.schema(url(fresh))
    assert old.execute("SELECT version FROM migrate_version") == [(heat_tree.LEGACY_END,)]
    for step in range(version, heat_tree.LEGACY_END):
        assert any(f"sqlalchemy-migrate upgrade {step} -> {step + 1}" in line for line in db_bridge.log)

    again = db_bridge.upgrade_one(heat_tree.target(url(old)))
    assert (again.outcome, again.after) == (MigrationOutcome.UNCHANGED, f"alembic {heat_tree.HEAD}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fresh_install_by_the_bridge_is_that_of_alembic_alone(
    backend: str, make: MakeDatabase, db_bridge: Bridge
) -> None:
    ours, theirs = make(backend, "ours"), make(backend, "theirs")
    heat_tree.make_fresh(url(theirs))
    result = db_bridge.upgrade_one(heat_tree.target(url(ours)))
    assert (result.outcome, result.before) == (MigrationOutcome.DONE, "empty"), result.message
    assert heat_tree.schema(url(ours)) == heat_tree.schema(url(theirs))


@pytest.fixture
def stuck(make: MakeDatabase, db_bridge: Bridge) -> Database:
    """A utf8mb4 database that an upgrade has left half-way."""
    database = make("mysql", "stuck", charset="utf8mb4")
    heat_tree.make_legacy(url(database))
    result = db_bridge.upgrade_one(heat_tree.target(url(database)))
    assert (result.outcome, result.before) == (MigrationOutcome.FAILED, f"migrate {heat_tree.LEGACY_END}")
    assert result.after == f"alembic {HALF_WAY}"
    # Which revision, which statement, and what the server says of it.
    assert f"{HALF_WAY} -> {FAILS}" in result.message
    assert "CREATE TABLE resource_snapshot" in result.message
    assert "errno: 150" in result.message
    assert f"-> {HALF_WAY}" in result.report["applied"][-1]
    # It was the revision's first statement, so there is nothing to be undone.
    assert "nothing of it remains" in result.message
    assert result.report["dirty"] is None
    return database


def test_what_fails_half_way_is_told_exactly_and_nothing_else_is_touched(stuck: Database) -> None:
    assert versions(stuck) == [(HALF_WAY,)]
    tables = heat_tree.schema(url(stuck))
    assert "extra_data" in tables["sync_point"]["columns"]
    assert "resource_snapshot" not in tables
    assert "action" not in tables["snapshot"]["columns"]


@pytest.mark.parametrize("resume", [False, True])
def test_when_its_cause_is_gone_it_gets_to_the_head(
    resume: bool, stuck: Database, make: MakeDatabase, db_bridge: Bridge
) -> None:
    """Tried again by the agent, or by an operator who says ``db upgrade --resume``."""
    fresh = make("mysql", "fresh")
    heat_tree.make_fresh(url(fresh))
    stuck.execute(f"ALTER DATABASE `{stuck.name}` CHARACTER SET utf8mb3")
    order = Order(protocol.UPGRADE, run="the tests", resume=resume)
    (result,) = db_bridge.ask(order, heat_tree.target(url(stuck)))
    assert result.outcome is MigrationOutcome.DONE, result.message
    assert versions(stuck) == [(heat_tree.HEAD,)]
    assert heat_tree.schema(url(stuck)) == heat_tree.schema(url(fresh))
    assert db_bridge.upgrade_one(heat_tree.target(url(stuck))).outcome is MigrationOutcome.UNCHANGED
