"""What is told before a migration: status, version, has_revision, sql. By real workers."""

import contextlib
import pathlib
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from refresh_agent.db.worker import locks, protocol
from refresh_agent.db.worker.database import Database
from refresh_agent.db.worker.locks import Holder, Wait
from refresh_agent.db.worker.protocol import Job
from tests.integration import databases
from tests.integration.asking import CREATE, MakeTree, Worker, branches, job_of, modelled, modern, shop, world
from tests.integration.conftest import BASELINE, HEAD, SHOP, AlembicTree, sql

__all__ = ["branches", "modelled", "modern", "shop", "world"]  # fixtures

TABLES = {
    "sqlite": "SELECT name FROM sqlite_master",
    "postgresql": "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'",
    "mysql": "SELECT table_name FROM information_schema.tables WHERE table_schema = database()",
}

BASELINE_TITLE = "What the legacy repository had made by its version 3"

TWO_THOUSAND = 2000


# --- status ----------------------------------------------------------------------------------------------


def test_status_of_an_empty_database(world: Worker, shop: Job, new_database: pathlib.Path) -> None:
    report = world.report(protocol.STATUS, shop)
    assert report == {
        "version": "empty",
        "current": [],
        "heads": [HEAD],
        "wanted": "head",
        "pending": [
            {"engine": "alembic", "revision": BASELINE, "title": BASELINE_TITLE},
            {"engine": "alembic", "revision": "8c44d9e6f0b2", "title": "Prices as whole cents"},
            {"engine": "alembic", "revision": HEAD, "title": "Payments of invoices"},
        ],
        "dirty": None,
        "interrupted": "",
        "lock": None,
        "refusal": "",
        "destructive": [
            {"engine": "alembic", "revision": "8c44d9e6f0b2", "finding": "drops the column orders.price"}
        ],
    }  # fmt: skip
    assert new_database.read_bytes() == b""


def test_status_of_a_legacy_database(
    world: Worker, shop: Job, new_database: pathlib.Path, shops: Mapping[str, bytes]
) -> None:
    new_database.write_bytes(shops["migrate 1"])
    report = world.report(protocol.STATUS, shop)
    assert report["version"] == "migrate 1"
    assert [(step["engine"], step["revision"], step["title"]) for step in report["pending"]][:3] == [
        ("migrate", "2", "order status"),
        ("migrate", "3", "invoices"),
        ("alembic", "8c44d9e6f0b2", "Prices as whole cents"),
    ]
    assert new_database.read_bytes() == shops["migrate 1"]


def test_status_of_what_is_up_to_date(modern: Worker, shop: Job) -> None:
    modern.report(protocol.UPGRADE, shop)
    report = modern.report(protocol.STATUS, shop)
    assert (report["current"], report["pending"], report["refusal"]) == ([HEAD], [], "")
    assert report["version"] == f"alembic {HEAD}"


def test_status_says_why_an_upgrade_would_be_refused(
    modern: Worker, shop: Job, new_database: pathlib.Path
) -> None:
    sql(new_database, "CREATE TABLE orders (id INTEGER)")
    report = modern.report(protocol.STATUS, shop)
    assert "it has tables but no version" in report["refusal"]
    assert report["pending"] == []


def test_status_of_a_target_that_wants_no_drops(modern: Worker, shop: Job) -> None:
    report = modern.report(protocol.STATUS, replace(shop, destructive="refuse"))
    assert (
        "alembic 8c44d9e6f0b2 drops the column orders.price, and destructive is refuse;" in report["refusal"]
    )


def test_status_up_to_a_revision(modern: Worker, shop: Job) -> None:
    report = modern.report(protocol.STATUS, replace(shop, revision=BASELINE))
    assert [step["revision"] for step in report["pending"]] == [BASELINE]
    assert report["wanted"] == BASELINE


@pytest.mark.parametrize("operation", [protocol.STATUS, protocol.SHOW_VERSION, protocol.CHECK, protocol.SQL])
def test_looking_makes_no_table(
    operation: str, modern: Worker, database: databases.Database, make_tree: MakeTree
) -> None:
    tree = make_tree("tree")
    tree.revision("a1", None, "op.create_table('things', sa.Column('id', sa.Integer))")
    modern.report(operation, job_of(tree, database))
    assert database.execute(TABLES[database.kind]) == []


def test_status_shows_who_holds_the_lock(
    modern: Worker, database: databases.Database, make_tree: MakeTree
) -> None:
    tree = make_tree("tree")
    tree.revision("a1", None)
    mine = Holder("here", 1, "run", "tree", "2026-11-21T16:50:00Z")
    with locks.held(Database(database.url()), mine, Wait(10, print, lambda: False)):
        lock = modern.report(protocol.STATUS, job_of(tree, database))["lock"]
    assert (lock["host"], lock["run"], lock["since"]) == ("here", "run", "2026-11-21T16:50:00Z")
    assert modern.report(protocol.STATUS, job_of(tree, database))["lock"] is None


def test_status_of_what_stopped_half_way(
    modern: Worker, mariadb: databases.Server, make_tree: MakeTree
) -> None:
    database, tree = mariadb.create(), make_tree("tree")
    create = "op.create_table('things', sa.Column('id', sa.Integer))"
    tree.revision("a1", None, create, "op.execute('ALTER TABLE nothing ADD x INT')")
    assert modern.ask(protocol.UPGRADE, job_of(tree, database))["result"] == protocol.FAILED
    report = modern.report(protocol.STATUS, job_of(tree, database))
    assert "ALTER TABLE nothing ADD x INT" in report["dirty"]["statement"]
    assert report["dirty"]["kept"] == 1
    assert "it is dirty" in report["refusal"]
    assert (report["interrupted"], report["current"]) == ("", [])
    ((kind, text),) = modern.problems(job_of(tree, database))
    assert kind == "dirty"
    assert "refresh-agent db upgrade --target tree --resume" in text
    database.drop()


def test_status_of_what_was_interrupted(
    modern: Worker, new_database: pathlib.Path, make_tree: MakeTree
) -> None:
    tree = make_tree("tree")
    tree.revision(
        "a1", None, "op.create_table('things', sa.Column('id', sa.Integer))", "os.kill(os.getpid(), 9)"
    )
    job = job_of(tree, new_database)
    with pytest.raises(AssertionError):
        modern.ask(protocol.UPGRADE, job)
    report = modern.report(protocol.STATUS, job)
    assert "did not finish alembic upgrade base -> a1; nothing of it remained" in report["interrupted"]
    assert (report["dirty"], report["refusal"], report["version"]) == (None, "", "empty")


def test_revision_whose_script_reads_as_nothing_python_knows(
    modern: Worker, new_database: pathlib.Path, make_tree: MakeTree
) -> None:
    tree = make_tree("tree")
    (tree.path / "versions" / "a1.py").write_text("def upgrade(:\n")
    result = modern.ask(protocol.STATUS, job_of(tree, new_database))
    assert result["result"] == protocol.FAILED
    assert "SyntaxError" in result["message"]


def test_a_stop_ends_a_status(modern: Worker, new_database: pathlib.Path, make_tree: MakeTree) -> None:
    tree = make_tree("tree")
    tree.env.write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\n" + tree.env.read_text()
    )
    tree.revision("a1", None)
    result = modern.ask(protocol.STATUS, job_of(tree, new_database))
    assert result["result"] == protocol.STOPPED
    assert "refresh-agent is stopping" in result["message"]


def test_two_thousand_revisions(world: Worker, new_database: pathlib.Path, make_tree: MakeTree) -> None:
    """In at most 2 s on a machine that does nothing else; here it may be busy."""
    tree = make_tree("tree")
    for number in range(TWO_THOUSAND):
        down = f"r{number - 1:04}" if number else None
        tree.revision(f"r{number:04}", down, f"op.create_table('t{number}', sa.Column('id', sa.Integer))")
    began = time.monotonic()
    report = world.report(protocol.STATUS, job_of(tree, new_database))
    assert time.monotonic() - began < 10
    assert len(report["pending"]) == TWO_THOUSAND
    assert report["heads"] == [f"r{TWO_THOUSAND - 1:04}"]


# --- version, has_revision -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["empty", "migrate 2", f"alembic {BASELINE}"])
def test_version(
    version: str, world: Worker, shop: Job, new_database: pathlib.Path, shops: Mapping[str, bytes]
) -> None:
    new_database.write_bytes(shops.get(version, b""))
    result = world.ask(protocol.SHOW_VERSION, shop)
    assert (result["before"], result["after"], result["report"]) == (version, version, {"version": version})
    assert new_database.read_bytes() == shops.get(version, b"")


@pytest.mark.parametrize(
    ("revision", "engine"),
    [
        ("head", "alembic"),
        ("heads", "alembic"),
        ("base", "alembic"),
        ("aa11", "alembic"),
        ("bb2", "alembic"),
        ("left@head", "alembic"),
        ("+1", "alembic"),
        ("-2", "alembic"),
        ("aa11+1", "alembic"),
        ("left@bb22-1", "alembic"),
        ("0", "migrate"),
        ("3", "migrate"),
        ("4", ""),
        ("ffff", ""),
        ("ffff+1", ""),
        ("right@head", ""),
    ],
)
def test_has_revision(
    revision: str, engine: str, modern: Worker, branches: AlembicTree, new_database: pathlib.Path
) -> None:
    job = job_of(branches, new_database, migrate_repository=str(SHOP / "legacy"), revision=revision)
    report = modern.report(protocol.HAS_REVISION, job)
    assert report == {"has_revision": bool(engine), "engine": engine}


# --- sql -------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(make_tree: MakeTree) -> AlembicTree:
    tree = make_tree("tree")
    tree.revision("a1", None, CREATE)
    tree.revision("b2", "a1", "op.execute(\"INSERT INTO things (id, name) VALUES (1, 'one')\")")
    return tree


def test_sql_does_what_the_upgrade_would_do(
    world: Worker, offline: AlembicTree, new_database: pathlib.Path
) -> None:
    job = job_of(offline, new_database)
    text = world.report(protocol.SQL, job)["sql"]
    assert new_database.read_bytes() == b""
    with contextlib.closing(sqlite3.connect(new_database)) as connection:
        connection.executescript(text)
    assert sql(new_database, "SELECT * FROM things") == [(1, "one", None)]
    assert sql(new_database, "SELECT * FROM alembic_version") == [("b2",)]
    assert world.ask(protocol.SQL, job)["result"] == protocol.UNCHANGED


def test_sql_begins_where_the_database_is(
    modern: Worker, offline: AlembicTree, database: databases.Database
) -> None:
    job = job_of(offline, database)
    modern.report(protocol.UPGRADE, replace(job, revision="a1"))
    text = modern.report(protocol.SQL, job)["sql"]
    assert "INSERT INTO things" in text
    assert "CREATE TABLE" not in text
    assert database.execute("SELECT version_num FROM alembic_version") == [("a1",)]
    assert database.execute("SELECT count(*) FROM things") == [(0,)]


def test_sql_of_a_legacy_database(
    modern: Worker, shop: Job, new_database: pathlib.Path, shops: Mapping[str, bytes]
) -> None:
    new_database.write_bytes(shops["migrate 1"])
    text = modern.report(protocol.SQL, replace(shop, revision=BASELINE))["sql"]
    first, second, *rest = text.splitlines()
    assert first == "-- first runs sqlalchemy-migrate 2, order status: it cannot be shown as SQL"
    assert second == "-- first runs sqlalchemy-migrate 3, invoices: it cannot be shown as SQL"
    assert f"INSERT INTO alembic_version (version_num) VALUES ('{BASELINE}')" in "\n".join(rest)
    assert "CREATE TABLE customers" not in text


def test_sql_that_would_be_refused(modern: Worker, shop: Job, new_database: pathlib.Path) -> None:
    sql(new_database, "CREATE TABLE orders (id INTEGER)")
    result = modern.ask(protocol.SQL, shop)
    assert (result["result"], result["report"]) == (protocol.REFUSED, {"sql": ""})


def test_revision_that_needs_a_database(
    modern: Worker, offline: AlembicTree, new_database: pathlib.Path
) -> None:
    offline.revision("c3", "b2", "op.get_bind().execute(sa.text('SELECT 1')).scalar()")
    result = modern.ask(protocol.SQL, job_of(offline, new_database))
    assert result["result"] == protocol.FAILED
    assert "alembic upgrade b2 -> c3 cannot be shown as SQL: AttributeError" in result["message"]
    assert "it needs a database, which alembic's offline mode does not have" in result["message"]


def test_env_without_an_offline_mode(
    modern: Worker, offline: AlembicTree, new_database: pathlib.Path
) -> None:
    offline.env.write_text(
        offline.env.read_text().replace("    run_offline()\n", "    raise NotImplementedError('offline')\n")
    )
    result = modern.ask(protocol.SQL, job_of(offline, new_database))
    assert result["result"] == protocol.FAILED
    assert "its env.py cannot be shown as SQL: NotImplementedError: offline" in result["message"]


def test_env_that_always_connects(
    modern: Worker, new_database: pathlib.Path, modelled: Callable[..., AlembicTree]
) -> None:
    """Many have no branch for the offline mode: alembic writes SQL all the same, and executes nothing."""
    tree = modelled()
    assert "CREATE TABLE things" in modern.report(protocol.SQL, job_of(tree, new_database))["sql"]
    assert sql(new_database, "SELECT * FROM sqlite_master") == []


def test_env_with_an_output_of_its_own(
    modern: Worker, offline: AlembicTree, new_database: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    offline.env.write_text(
        offline.env.read_text().replace(
            "literal_binds=True", f"literal_binds=True, output_buffer=open({str(tmp_path / 'out')!r}, 'w')"
        )
    )
    assert "CREATE TABLE things" in modern.report(protocol.SQL, job_of(offline, new_database))["sql"]
    assert (tmp_path / "out").read_text() == ""
