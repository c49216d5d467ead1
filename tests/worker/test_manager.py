"""Every case of migration_cli's own tests, with real engines in the place of mocks, and its known bugs."""

import pathlib

import pytest

from refresh_agent.model import MigrationOutcome
from tests.worker.conftest import Manager, Trees

HEAD = "alembic c3d4e5"
LEGACY = {"legacy_1", "legacy_2", "legacy_3"}
ALL = LEGACY | {"alembic_a1b2c3", "alembic_b2c3d4", "alembic_c3d4e5"}


def alembic_alone(manager: Manager) -> Manager:
    return manager.only(migrate_repository="", legacy_versions=())


# --- alembic ---------------------------------------------------------------------------------------------


def test_upgrade_none_is_head(manager: Manager) -> None:
    alone = alembic_alone(manager)
    assert alone.upgrade().ok
    assert alone.version() == HEAD
    assert alone.tables() == ALL - LEGACY


@pytest.mark.parametrize("revision", ["b2c3d4", "b2c", "a1b2c3+1", "+2"])
def test_upgrade_normal_partial_and_relative(manager: Manager, revision: str) -> None:
    """LP 1486790: relative revisions."""
    alone = alembic_alone(manager)
    result = alone.upgrade(revision)
    assert (result.outcome, result.after) == (MigrationOutcome.DONE, "alembic b2c3d4"), result


def test_upgrade_to_a_lower_revision_goes_nowhere(manager: Manager) -> None:
    """migrate's plugin went down when it was told to upgrade to a lower version."""
    assert manager.upgrade().ok
    for lower in ("a1b2c3", "1"):
        result = manager.upgrade(lower)
        assert (result.outcome, result.after) == (MigrationOutcome.UNCHANGED, HEAD)
    assert manager.tables() == ALL


def test_branches(manager: Manager, trees: Trees) -> None:
    trees.revision("d4e5f6", "b2c3d4", "side")
    alone = alembic_alone(manager)
    refused = alone.upgrade("head")
    assert refused.outcome is MigrationOutcome.REFUSED
    assert "Multiple head revisions" in refused.message
    assert alone.upgrade("side@head").after == "alembic d4e5f6"
    assert alone.upgrade("heads").after == "alembic c3d4e5+d4e5f6"


@pytest.mark.parametrize("revision", ["base", "a1b2c3", "-1"])
def test_downgrade_normal(manager: Manager, revision: str) -> None:
    alone = alembic_alone(manager)
    assert alone.upgrade("b2c3d4").ok
    result = alone.downgrade(revision)
    expected = "empty" if revision == "base" else "alembic a1b2c3"
    assert (result.outcome, result.after) == (MigrationOutcome.DONE, expected), result
    assert len(alone.tables()) == (revision != "base")


def test_an_all_digit_identifier_is_alembics_if_the_repository_has_no_such_version(
    manager: Manager, trees: Trees
) -> None:
    """oslo.db's plugin went down to base when it was told "20240101"."""
    trees.revision("20240101", "c3d4e5")
    assert manager.upgrade().after == "alembic 20240101"
    assert manager.downgrade("c3d4e5").after == HEAD
    assert manager.upgrade("20240101").after == "alembic 20240101"


def test_revision_makes_a_file(manager: Manager, trees: Trees) -> None:
    alone = alembic_alone(manager)
    assert alone.upgrade().ok
    result = alone.revision("a fourth thing")
    path = pathlib.Path(result.report["path"])
    assert path.parent == trees.location / "versions"
    assert "a fourth thing" in path.read_text()
    assert alone.has_revision(result.report["revision"])


def test_revision_autogenerate_compares_with_the_models_and_leaves_our_tables_out(
    manager: Manager, trees: Trees
) -> None:
    env = trees.location / "env.py"
    models = (
        "import sqlalchemy\nMODELS = sqlalchemy.MetaData()\n"
        "sqlalchemy.Table('wanted', MODELS, sqlalchemy.Column('id', sqlalchemy.Integer, primary_key=True))\n"
    )
    env.write_text(
        models
        + env.read_text().replace("connection=connection", "connection=connection, target_metadata=MODELS")
    )
    alone = alembic_alone(manager)
    assert alone.upgrade().ok
    text = pathlib.Path(alone.revision("what lacks", autogenerate=True).report["path"]).read_text()
    assert "op.create_table('wanted'" in text
    assert "op.drop_table('alembic_a1b2c3')" in text
    assert "refresh_agent" not in text


def test_stamp_runs_nothing(manager: Manager) -> None:
    alone = alembic_alone(manager)
    result = alone.stamp("b2c3d4")
    assert (result.outcome, result.after) == (MigrationOutcome.DONE, "alembic b2c3d4"), result
    assert not alone.tables()
    unknown = alone.stamp("ffff")
    assert unknown.outcome is MigrationOutcome.REFUSED
    assert "ffff" in unknown.message


def test_version_of_a_fresh_database_is_none_and_nothing_is_written(manager: Manager) -> None:
    """oslo.db's version() made migrate_version."""
    before = manager.database.execute("SELECT 1")
    assert manager.version() == "empty"
    assert not manager.tables()
    assert manager.database.execute("SELECT 1") == before
    assert manager.upgrade("a1b2c3").before == "empty"


@pytest.mark.parametrize("revision", ["a1b2c3", "a1b2", "head", "heads", "base", "+1", "-1", "2", "3", "0"])
def test_has_revision(manager: Manager, revision: str) -> None:
    """oslo.db's never had one of migrate's, on Python 3."""
    assert manager.has_revision(revision)


@pytest.mark.parametrize("revision", ["ffff", "4", "99"])
def test_has_revision_negative(manager: Manager, revision: str) -> None:
    assert not manager.has_revision(revision)


# --- migrate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_upgrade_to_a_version_of_the_repository(manager: Manager, version: str) -> None:
    """oslo.db: "Revision does not exist" for each of them, and a TypeError for integers."""
    result = manager.upgrade(version)
    assert (result.outcome, result.after) == (MigrationOutcome.DONE, f"migrate {version}"), result
    assert manager.tables() == {f"legacy_{number}" for number in range(1, int(version) + 1)}


def test_downgrade_to_a_version_and_to_the_initial_one(manager: Manager) -> None:
    assert manager.upgrade("3").ok
    assert manager.downgrade("2").after == "migrate 2"
    assert manager.tables() == {"legacy_1", "legacy_2"}
    assert manager.downgrade("base").after == "migrate 0"
    assert not manager.tables()


def test_the_initial_version_is_the_one_before_the_first_script(manager: Manager, trees: Trees) -> None:
    """migration_cli had to be told (init_version); heat's repository begins with 73."""
    (trees.repository / "versions" / "001_things.py").unlink()
    assert manager.upgrade("2").after == "migrate 2"
    assert manager.downgrade("base").after == "migrate 1"


def test_migrate_can_be_stamped(manager: Manager) -> None:
    """oslo.db: "Can't locate revision identified by '2'"."""
    assert manager.stamp("2").after == "migrate 2"
    assert not manager.tables()
    assert manager.stamp("3").after == "migrate 3"
    assert manager.stamp("1").after == "migrate 1"


# --- both ------------------------------------------------------------------------------------------------


def test_upgrade_in_the_right_order(manager: Manager) -> None:
    """On Python 3 oslo.db's manager could not even be made with both."""
    result = manager.upgrade()
    assert (result.before, result.after) == ("empty", HEAD), result
    assert manager.tables() == ALL
    steps = [line.partition("trees: ")[2] for line in manager.log if "grade" in line]
    assert [step.split(",")[0] for step in steps] == [
        "sqlalchemy-migrate upgrade 0 -> 1",
        "sqlalchemy-migrate upgrade 1 -> 2",
        "sqlalchemy-migrate upgrade 2 -> 3",
        "alembic upgrade base -> a1b2c3",
        "alembic upgrade a1b2c3 -> b2c3d4",
        "alembic upgrade b2c3d4 -> c3d4e5",
    ]


def test_downgrade_in_the_right_order(manager: Manager) -> None:
    """oslo.db's "base" undid alembic only."""
    assert manager.upgrade().ok
    manager.log.clear()
    result = manager.downgrade("base")
    assert (result.outcome, result.after) == (MigrationOutcome.DONE, "migrate 0"), result
    assert not manager.tables()
    steps = [
        line.partition("trees: ")[2].partition(" downgrade ")[0] for line in manager.log if "grade" in line
    ]
    assert steps == ["alembic"] * 3 + ["sqlalchemy-migrate"] * 3


def test_upgrade_does_not_go_too_far(manager: Manager) -> None:
    assert manager.upgrade("2").after == "migrate 2"
    assert manager.upgrade("b2c3d4").after == "alembic b2c3d4"
    assert manager.tables() == ALL - {"alembic_c3d4e5"}


def test_downgrade_does_not_go_too_far(manager: Manager) -> None:
    assert manager.upgrade().ok
    assert manager.downgrade("a1b2c3").after == "alembic a1b2c3"
    assert manager.tables() == LEGACY | {"alembic_a1b2c3"}
    assert manager.downgrade("2").after == "migrate 2"
    assert manager.tables() == {"legacy_1", "legacy_2"}


@pytest.mark.parametrize("revision", ["ffff", "99"])
def test_the_existence_of_a_revision_is_checked_first(manager: Manager, revision: str) -> None:
    result = manager.upgrade(revision)
    assert result.outcome is MigrationOutcome.REFUSED
    assert revision in result.message
    assert not manager.tables()
    assert manager.upgrade().ok
    result = manager.downgrade(revision)
    assert result.outcome is MigrationOutcome.REFUSED
    assert manager.tables() == ALL


def test_version_is_the_last_engines_that_has_one(manager: Manager) -> None:
    assert manager.upgrade("3").ok
    assert manager.version() == "migrate 3"
    assert manager.upgrade().ok
    assert manager.version() == HEAD
    assert manager.downgrade("3").ok
    assert manager.version() == "migrate 3"


def test_version_zero_is_a_version(manager: Manager) -> None:
    """LP 1413277."""
    assert manager.stamp("0").ok
    assert manager.version() == "migrate 0"
    assert manager.upgrade().after == HEAD


def test_an_engine_without_its_tree_is_not_active(manager: Manager, tmp_path: pathlib.Path) -> None:
    """migration_cli's "enabled": the path exists. Here a missing one is said."""
    gone = manager.only(alembic_location=str(tmp_path / "gone"))
    result = gone.upgrade()
    assert result.outcome is MigrationOutcome.FAILED
    assert str(tmp_path / "gone") in result.message
    without = manager.only(migrate_repository=str(tmp_path / "gone"))
    result = without.upgrade()
    assert result.outcome is MigrationOutcome.REFUSED
    assert f"migrate_repository {tmp_path / 'gone'} cannot be read" in result.message
    assert not manager.tables()


def test_a_mapped_version_is_stamped_and_not_run(manager: Manager) -> None:
    mapped = manager.only(legacy_versions=((2, "a1b2c3"),))
    assert manager.upgrade("2").ok
    assert mapped.upgrade().after == HEAD
    assert manager.tables() == {"legacy_1", "legacy_2", "alembic_b2c3d4", "alembic_c3d4e5"}
    assert mapped.downgrade("1").after == "migrate 1"
    assert manager.tables() == {"legacy_1"}


def test_what_a_failed_version_of_the_repository_leaves(manager: Manager, trees: Trees) -> None:
    """Nothing, where the server can take schema changes back; on MariaDB half of it, and it says so."""
    script = trees.repository / "versions" / "002_things.py"
    good = script.read_text()
    script.write_text(
        good.replace(".create()", ".create()\n    migrate_engine.execute('DROP TABLE missing')", 1)
    )
    failed = manager.upgrade()
    assert failed.outcome is MigrationOutcome.FAILED
    assert "sqlalchemy-migrate upgrade 1 -> 2 failed" in failed.message
    assert failed.after == "migrate 1"
    half = manager.database.kind == "mysql"
    assert manager.tables() == ({"legacy_1", "legacy_2"} if half else {"legacy_1"})
    assert bool(failed.report["dirty"]) == half
    script.write_text(good)
    again = manager.upgrade()
    if half:
        assert again.outcome is MigrationOutcome.REFUSED
        assert "--resume" in again.message
        assert manager.stamp("1").ok
        manager.database.execute("DROP TABLE legacy_2")
        again = manager.upgrade()
    assert again.after == HEAD, again
    assert manager.tables() == ALL


# --- what an attack found --------------------------------------------------------------------------------


def test_an_alembic_revision_that_looks_like_a_version_comes_first(manager: Manager, trees: Trees) -> None:
    """Else a downgrade to it would go down to that version, and take the repository's tables along."""
    trees.revision("0002", "c3d4e5")
    trees.revision("0003", "0002")
    assert manager.upgrade().after == "alembic 0003"
    assert manager.downgrade("0002").after == "alembic 0002"
    assert manager.tables() >= ALL
    assert manager.downgrade("2").after == "migrate 2"


@pytest.mark.parametrize("revision", ["-3", "a1b2c3", "-2"])
def test_alembic_never_goes_below_what_a_legacy_version_equals(manager: Manager, revision: str) -> None:
    """Its first revision would drop the tables of the repository, whose version table would not know."""
    mapped = manager.only(legacy_versions=((3, "b2c3d4"),))
    assert manager.upgrade("3").ok
    assert mapped.upgrade().after == HEAD
    result = mapped.downgrade(revision)
    assert result.outcome is MigrationOutcome.REFUSED, result
    assert "b2c3d4, which legacy version 3 equals; name a version of the repository" in result.message
    assert mapped.tables() == LEGACY | {"alembic_c3d4e5"}
    assert mapped.downgrade("-1").after == "alembic b2c3d4"


def test_base_goes_through_the_repository_even_without_its_version_table(manager: Manager) -> None:
    assert manager.upgrade().ok
    manager.database.execute("DROP TABLE migrate_version")
    assert manager.downgrade("base").after == "migrate 0"
    assert not manager.tables()


def test_a_stamp_that_cannot_be_written_takes_nothing_back(manager: Manager, tmp_path: pathlib.Path) -> None:
    assert manager.upgrade().ok
    broken = manager.only(legacy_python=str(tmp_path / "nowhere"))
    assert broken.stamp("2").outcome is MigrationOutcome.FAILED
    assert manager.version() == HEAD
    assert manager.stamp("2").after == "migrate 2"


def test_several_version_tables_in_one_env_are_refused(manager: Manager, trees: Trees) -> None:
    env = trees.location / "env.py"
    text = env.read_text()
    again = text.replace("connection=connection", "connection=connection, version_table='second'")
    env.write_text(text + again)
    result = manager.upgrade()
    assert result.outcome is MigrationOutcome.FAILED
    assert "2 version tables (alembic_version, second); give each a target of its own" in result.message
    assert not manager.tables()
