"""What ``check`` objects to: by real workers, on real databases."""

import pathlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace

from refresh_agent.db.worker import protocol
from refresh_agent.db.worker.protocol import Job
from tests.integration import databases
from tests.integration.asking import (
    CREATE,
    THINGS,
    MakeTree,
    Worker,
    branches,
    job_of,
    modelled,
    modern,
    shop,
    world,
)
from tests.integration.conftest import SHOP, AlembicTree, sql

__all__ = ["branches", "modelled", "modern", "shop", "world"]  # fixtures


def test_nothing_to_object_to(
    modern: Worker, database: databases.Database, modelled: Callable[..., AlembicTree]
) -> None:
    """Our own two tables are no drift, nor is alembic's."""
    job = job_of(modelled(THINGS.format(nullable=False, last="old")), database)
    modern.report(protocol.UPGRADE, job)
    assert modern.report(protocol.CHECK, job) == {"problems": [], "skipped": []}


def test_drift(modern: Worker, database: databases.Database, modelled: Callable[..., AlembicTree]) -> None:
    models = (
        THINGS.format(nullable=True, last="new"),
        "sa.Table('more', metadata, sa.Column('id', sa.Integer, primary_key=True))",
        "sa.Index('by_name', metadata.tables['things'].c.name)",
    )
    job = job_of(modelled(*models), database)
    modern.report(protocol.UPGRADE, job)
    database.execute("CREATE TABLE stray (id INTEGER)")
    assert sorted(modern.problems(job)) == [
        ("drift", "the column things.name has nullable False in the database, True in the models"),
        ("drift", "the database has the column things.old, the models do not"),
        ("drift", "the database has the table stray, the models do not"),
        ("drift", "the models have the column things.new, the database does not"),
        ("drift", "the models have the index by_name of the table things (name), the database does not"),
        ("drift", "the models have the table more, the database does not"),
    ]


def test_drift_in_the_legacy_world_too(
    world: Worker, new_database: pathlib.Path, modelled: Callable[..., AlembicTree]
) -> None:
    job = job_of(modelled(THINGS.format(nullable=False, last="new")), new_database)
    world.report(protocol.UPGRADE, job)
    assert [kind for kind, _ in world.problems(job)] == ["drift", "drift"]


def test_the_legacy_version_table_is_no_drift(
    modern: Worker, new_database: pathlib.Path, modelled: Callable[..., AlembicTree]
) -> None:
    job = job_of(modelled(THINGS.format(nullable=False, last="old")), new_database)
    modern.report(protocol.UPGRADE, job)
    sql(new_database, "CREATE TABLE migrate_version (repository_id TEXT PRIMARY KEY, version INTEGER)")
    assert modern.problems(job) == []


def test_env_that_takes_empty_revisions_away(
    modern: Worker, new_database: pathlib.Path, modelled: Callable[..., AlembicTree]
) -> None:
    """A widespread recipe: process_revision_directives empties the list."""
    tree = modelled(THINGS.format(nullable=False, last="old"))
    hook = "process_revision_directives=lambda context, revision, scripts: scripts.clear(), "
    tree.env.write_text(tree.env.read_text().replace("target_metadata=", f"{hook}target_metadata="))
    modern.report(protocol.UPGRADE, job_of(tree, new_database))
    assert modern.problems(job_of(tree, new_database)) == []


def test_drift_is_not_compared_before_the_head(
    modern: Worker, new_database: pathlib.Path, modelled: Callable[..., AlembicTree]
) -> None:
    job = job_of(modelled(THINGS.format(nullable=False, last="old")), new_database)
    assert modern.report(protocol.CHECK, job) == {
        "problems": [],
        "skipped": ["drift: the database is not at the tree's head"],
    }
    assert new_database.read_bytes() == b""


def test_several_heads(modern: Worker, branches: AlembicTree, new_database: pathlib.Path) -> None:
    ((kind, text),) = modern.problems(job_of(branches, new_database))
    assert kind == "heads"
    assert "has 2 heads (bb22, cc33), and revision is head; merge them, or set revision to heads" in text
    assert modern.problems(job_of(branches, new_database, revision="heads")) == []


def test_revision_that_the_tree_lacks(
    modern: Worker, branches: AlembicTree, new_database: pathlib.Path
) -> None:
    sql(
        new_database,
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "INSERT INTO alembic_version VALUES ('ffff')",
    )
    ((kind, text),) = modern.problems(job_of(branches, new_database, revision="heads"))
    assert kind == "missing"
    assert "the database is at the alembic revision ffff, which the tree does not have" in text


def test_legacy_version_beyond_the_repository(
    modern: Worker, shop: Job, new_database: pathlib.Path, shops: Mapping[str, bytes]
) -> None:
    new_database.write_bytes(shops["migrate 3"])
    sql(new_database, "UPDATE migrate_version SET version = 9")
    ((kind, text),) = modern.problems(shop)
    assert kind == "missing"
    assert "sqlalchemy-migrate version 9, beyond the newest of" in text


def test_script_that_was_changed_after_it_was_applied(
    modern: Worker, database: databases.Database, make_tree: MakeTree
) -> None:
    tree = make_tree("tree")
    tree.revision("a1", None, CREATE)
    tree.revision("b2", "a1")
    job = job_of(tree, database)
    modern.report(protocol.UPGRADE, job)
    tree.revision("a1", None, CREATE, "op.execute('SELECT 1')")
    ((kind, text),) = modern.problems(job)
    assert kind == "changed"
    assert text.startswith(f"{tree.path}/versions/a1.py (alembic a1) is not what it was when it was applied")


def test_legacy_script_that_was_changed_after_it_was_applied(
    shop: Job,
    new_database: pathlib.Path,
    shops: Mapping[str, bytes],
    legacy_python: str,
    tmp_path: pathlib.Path,
) -> None:
    new_database.write_bytes(shops["migrate 2"])
    repository = pathlib.Path(shutil.copytree(SHOP / "legacy", tmp_path / "legacy"))
    worker, job = Worker(legacy_python), replace(shop, migrate_repository=str(repository), legacy_here=True)
    worker.report(protocol.UPGRADE, job)
    assert worker.problems(job) == []
    script = repository / "versions" / "003_invoices.py"
    script.write_text(script.read_text() + "\n# later\n")
    ((kind, text),) = worker.problems(job)
    assert kind == "changed"
    assert "003_invoices.py (sqlalchemy-migrate 3) is not what it was" in text


def test_revision_files_that_cannot_be_loaded(
    modern: Worker, branches: AlembicTree, new_database: pathlib.Path
) -> None:
    for name, text in (("dd44", "def upgrade(:\n"), ("ee55", "import nothing_of_that_name\n")):
        (branches.path / "versions" / f"{name}.py").write_text(text)
    (first, second) = modern.problems(job_of(branches, new_database))
    assert first[0] == second[0] == "missing"
    assert f"{branches.path}/versions/dd44.py cannot be loaded: SyntaxError" in first[1]
    assert f"{branches.path}/versions/ee55.py cannot be loaded: ModuleNotFoundError" in second[1]


def test_tree_with_a_hole(modern: Worker, branches: AlembicTree, new_database: pathlib.Path) -> None:
    branches.revision("dd44", "gone")
    problems = modern.problems(job_of(branches, new_database))
    assert [kind for kind, _ in problems] == ["missing"]
    assert "gone" in problems[0][1]
