"""What a migration leaves behind when it fails or is killed in the middle: real servers, both worlds."""

import json
import pathlib
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.integration import stepwise
from tests.integration.conftest import AlembicTree
from tests.integration.databases import Database, Server

ENV = """
from alembic import context
from sqlalchemy import create_engine, pool, event
{before}
engine = create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=pool.{pool})
{opened}
"""

CONNECT = """
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""

ENVS = {
    "connect": CONNECT,
    "no transaction": """
with engine.connect() as connection:
    context.configure(connection=connection)
    context.run_migrations()
""",
    "one around all": """
with engine.begin() as connection:
    context.configure(connection=connection)
    context.run_migrations()
""",
    "begins by itself": """
if engine.dialect.name == "sqlite":
    @event.listens_for(engine, "connect")
    def connect(connection, record):
        connection.isolation_level = None
    @event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")
"""
    + CONNECT,
}

DRIVERS = {"sqlite": "", "postgresql": "psycopg2", "mysql": "pymysql"}

TABLE = "op.create_table({0!r}, sa.Column('id', sa.Integer, primary_key=True), sa.Column('n', sa.Integer))"


class Outcome(NamedTuple):
    error: str
    said: list[str]
    unfinished: dict[str, Any] | None
    checksums: dict[str, str]
    heads: list[str]

    @property
    def kept(self) -> list[str]:
        assert self.unfinished is not None
        kept: list[str] = self.unfinished["kept"]
        return kept


class World:
    """A tree, a database, and an interpreter to migrate with."""

    def __init__(self, python: str, tree: AlembicTree, database: Database) -> None:
        self.tree = tree
        self.database = database
        self.before: list[str] = []
        """The revisions that the next worker upgrades to first."""
        self._python = python
        self.env("connect")

    def env(self, name: str, pool: str = "NullPool", before: str = "") -> None:
        self.tree.env.write_text(ENV.format(opened=ENVS[name], pool=pool, before=before))

    def run(self, **order: Any) -> subprocess.CompletedProcess[str]:
        order["revisions"] = [*self.before, "heads"]
        self.before = []
        order.update(url=self.database.url(DRIVERS[self.database.kind]), tree=str(self.tree.path))
        return subprocess.run(
            [self._python, "-W", "ignore", stepwise.__file__, json.dumps(order)],
            capture_output=True, text=True,
        )  # fmt: skip

    def upgrade(self, **order: Any) -> Outcome:
        done = self.run(**order)
        assert done.returncode == 0, done.stderr
        return Outcome(**json.loads(done.stdout.splitlines()[-1]))

    def tables(self) -> set[str]:
        """Besides ours and alembic's."""
        query = {
            "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
            "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
            "mysql": "SELECT table_name FROM information_schema.tables WHERE table_schema = database()",
        }[self.database.kind]
        ours = {"refresh_agent_ledger", "refresh_agent_lock", "alembic_version"}
        return {row[0] for row in self.database.execute(query)} - ours

    def number(self) -> int:
        return int(self.database.execute("SELECT n FROM counter")[0][0])


@pytest.fixture(params=["newest", "1.4"])
def python(request: pytest.FixtureRequest) -> str:
    name = "modern_python" if request.param == "newest" else "legacy_python"
    found: str = request.getfixturevalue(name)
    return found


@pytest.fixture
def world(python: str, database: Database, make_tree: Callable[[str], AlembicTree]) -> World:
    return World(python, make_tree("tree"), database)


@pytest.fixture
def on_mariadb(python: str, mariadb: Server, make_tree: Callable[[str], AlembicTree]) -> World:
    return World(python, make_tree("tree"), mariadb.create())


def counter(world: World) -> None:
    """A first revision, which comes before the others: one row, whose n is 1."""
    world.tree.revision(
        "a1", None, TABLE.format("counter"), "op.execute('INSERT INTO counter VALUES (1, 1)')"
    )
    world.before = ["a1"]


COUNT = "op.execute('UPDATE counter SET n = n + 1')"


# --- what remains of a failure ----------------------------------------------------------------------------


def test_what_was_applied_is_in_the_ledger_with_its_checksum(world: World) -> None:
    counter(world)
    world.tree.revision("b2", "a1", TABLE.format("b"))
    world.tree.revision("b3", "a1", TABLE.format("c"))
    world.tree.revision("c4", "b2", COUNT)

    outcome = world.upgrade()

    assert outcome.error == ""
    assert outcome.unfinished is None
    assert outcome.heads == ["b3", "c4"]
    assert set(outcome.checksums) == {"a1", "b2", "b3", "c4"}
    states = world.database.execute("SELECT state, kept, failed FROM refresh_agent_ledger")
    assert {state for state, _, _ in states} == {"applied"}
    assert world.number() == 2


@pytest.mark.parametrize("env", list(ENVS))
def test_nothing_remains_of_a_failed_revision_but_on_mariadb_exactly_what_is_noted(
    world: World, env: str
) -> None:
    counter(world)
    world.env(env)
    world.tree.revision("b2", "a1", COUNT, TABLE.format("b"), TABLE.format("counter"), COUNT)

    outcome = world.upgrade()

    assert "counter" in outcome.error
    assert outcome.heads == ["a1"]
    assert outcome.unfinished is not None
    assert "CREATE TABLE counter" in outcome.unfinished["failed"]
    assert "exists" in outcome.unfinished["error"]
    if world.database.kind == "mysql":
        assert outcome.unfinished["dirty"]
        assert outcome.unfinished["current"] == ""
        assert [entry.split()[1] for entry in outcome.kept] == ["data", "schema"]
        assert world.number() == 2
        assert world.tables() == {"counter", "b"}
    else:
        assert not outcome.unfinished["dirty"]
        assert world.number() == 1
        assert world.tables() == {"counter"}


@pytest.mark.parametrize("env", ["connect", "one around all"])
def test_nothing_remains_of_a_killed_revision_but_on_mariadb_what_is_noted(world: World, env: str) -> None:
    counter(world)
    world.env(env)
    world.tree.revision("b2", "a1", COUNT, TABLE.format("b"), "os.kill(os.getpid(), 9)", TABLE.format("c"))

    assert world.run().returncode == -9

    world.tree.revision("b2", "a1", COUNT, TABLE.format("b"), TABLE.format("c"))
    if world.database.kind == "mysql":
        outcome = world.upgrade(resume=True)
        assert any("already done, left out: UPDATE" in line for line in outcome.said)
        assert any("already done, left out: CREATE TABLE b" in line for line in outcome.said)
    else:
        assert world.tables() == {"counter"}
        outcome = world.upgrade()
    assert outcome.error == ""
    assert outcome.heads == ["b2"]
    assert world.number() == 2
    assert world.tables() == {"counter", "b", "c"}


def test_a_failed_first_statement_leaves_nothing_anywhere(world: World) -> None:
    counter(world)
    world.tree.revision("b2", "a1", TABLE.format("counter"))

    outcome = world.upgrade()

    assert outcome.unfinished is not None
    assert not outcome.unfinished["dirty"]


def test_a_transaction_around_all_revisions_takes_all_of_them_back(world: World) -> None:
    counter(world)
    world.env("one around all")
    world.tree.revision("b2", "a1", TABLE.format("b"), COUNT)
    world.tree.revision("c3", "b2", TABLE.format("c"), "op.execute('nonsense')")

    outcome = world.upgrade()

    assert outcome.unfinished is not None
    if world.database.kind == "mysql":
        assert outcome.heads == ["b2"]
        assert outcome.unfinished["step"]["revision"] == "c3"
        assert outcome.unfinished["dirty"]
    else:
        assert outcome.heads == ["a1"]
        assert outcome.unfinished["step"]["revision"] == "b2"
        assert "b2 -> c3" in outcome.unfinished["error"]
        assert not outcome.unfinished["dirty"]
        assert world.tables() == {"counter"}


def test_what_an_autocommit_block_did_is_kept_and_what_came_after_it_is_not(world: World) -> None:
    counter(world)
    block = "with op.get_context().autocommit_block(): op.execute('UPDATE counter SET n = n + 10')"
    world.tree.revision("b2", "a1", COUNT, block, COUNT, "op.execute('nonsense')")

    outcome = world.upgrade()

    assert outcome.unfinished is not None
    assert outcome.unfinished["dirty"]
    assert len(outcome.kept) == 2
    assert outcome.unfinished["current"] == ""
    assert outcome.unfinished["failed"] == "nonsense"
    assert world.number() == 12

    world.tree.revision("b2", "a1", COUNT, block, COUNT)
    assert world.upgrade(resume=True).error == ""
    assert world.number() == 13


def test_a_commit_in_the_middle_is_noted(world: World) -> None:
    counter(world)
    commit = "op.get_context()._transaction.commit() if sa.__version__ < '2' else op.get_bind().commit()"
    world.tree.revision("b2", "a1", COUNT, commit, COUNT, "raise ValueError('no')")

    outcome = world.upgrade()

    assert outcome.unfinished is not None
    assert len(outcome.kept) == world.number() - 1
    assert outcome.unfinished["dirty"]
    assert "no" in outcome.unfinished["error"]


def test_a_session_of_the_orm_is_followed(world: World) -> None:
    counter(world)
    world.tree.revision(
        "b2", "a1",
        "from sqlalchemy.orm import Session", "session = Session(bind=op.get_bind())",
        "session.execute(sa.text('UPDATE counter SET n = n + 1'))", "session.flush()",
        TABLE.format("b"), "op.execute('nonsense')",
    )  # fmt: skip

    outcome = world.upgrade()

    assert outcome.unfinished is not None
    assert outcome.unfinished["dirty"] == (world.database.kind == "mysql")
    assert world.number() == (2 if world.database.kind == "mysql" else 1)


def test_neither_parameters_nor_secrets_get_into_the_ledger(world: World) -> None:
    counter(world)
    world.tree.revision(
        "b2", "a1",
        TABLE.format("b"),
        "op.get_bind().execute(sa.text('UPDATE counter SET n = :n'), {'n': 424242})",
        TABLE.format("c"),
        "op.get_bind().execute(sa.text('SELECT :p FROM sesame'), {'p': 'private'})",
    )  # fmt: skip

    assert world.upgrade().error

    text = str(world.database.execute("SELECT * FROM refresh_agent_ledger"))
    assert "SELECT" in text
    assert "***" in text
    for secret in ("sesame", "private", "424242"):
        assert secret not in text


# --- going on ---------------------------------------------------------------------------------------------

HALF = (
    "op.execute('INSERT INTO counter VALUES (2, 100)')",
    TABLE.format("b"),
    COUNT,
    TABLE.format("c"),
)
"""On MariaDB all of it is permanent before the next DDL."""


def half_way(world: World, *rest: str) -> None:
    counter(world)
    world.tree.revision("b2", "a1", *HALF, TABLE.format("counter"), *rest)
    outcome = world.upgrade()
    assert len(outcome.kept) == 4


def test_resume_goes_on_after_what_failed_and_does_nothing_twice(on_mariadb: World) -> None:
    world = on_mariadb
    half_way(world)
    world.tree.revision("b2", "a1", *HALF, COUNT)

    outcome = world.upgrade(resume=True)

    assert outcome.error == ""
    assert outcome.heads == ["b2"]
    assert outcome.unfinished is None
    assert world.database.execute("SELECT id, n FROM counter ORDER BY id") == [(1, 3), (2, 102)]
    assert len(outcome.said) == 4


def test_resume_does_again_the_tables_that_were_undone_by_hand(on_mariadb: World) -> None:
    world = on_mariadb
    half_way(world)
    world.database.execute("DROP TABLE b")
    world.tree.revision("b2", "a1", *HALF)

    outcome = world.upgrade(resume=True)

    assert outcome.error == ""
    assert "was undone by hand, done again: CREATE TABLE b" in " ".join(outcome.said)
    assert world.tables() == {"counter", "b", "c"}
    assert world.database.execute("SELECT id, n FROM counter ORDER BY id") == [(1, 2), (2, 101)]


def test_resume_refuses_if_rows_were_undone_with_their_table(on_mariadb: World) -> None:
    world = on_mariadb
    counter(world)
    half = (TABLE.format("b"), "op.execute('INSERT INTO b VALUES (1, 1)')")
    world.tree.revision("b2", "a1", *half, TABLE.format("counter"))
    world.upgrade()
    world.database.execute("DROP TABLE b")

    outcome = world.upgrade(resume=True)

    assert "cannot be resumed: the table b was undone by hand" in outcome.error
    assert outcome.unfinished is not None
    assert outcome.unfinished["dirty"]


def test_resume_refuses_what_does_not_repeat_itself(on_mariadb: World) -> None:
    world = on_mariadb
    counter(world)
    prices = (
        "for row in op.get_bind().execute(sa.text('SELECT id, n FROM counter')).fetchall():"
        " op.get_bind().execute(sa.text('UPDATE counter SET n = :n WHERE id = :id'),"
        " {'n': row[1] * 100, 'id': row[0]})"
    )
    world.tree.revision("b2", "a1", prices, TABLE.format("b"), TABLE.format("counter"))
    world.upgrade()
    assert world.number() == 100

    outcome = world.upgrade(resume=True)

    assert "cannot be resumed: its change number 1 is now UPDATE counter" in outcome.error
    assert world.number() == 100


def test_resume_gives_an_insert_the_key_that_it_had(on_mariadb: World) -> None:
    world = on_mariadb
    counter(world)
    world.tree.revision("b2", "a1", TABLE.format("b"))
    world.upgrade()
    insert = (
        "b = sa.Table('b', sa.MetaData(), autoload_with=op.get_bind())",
        "op.get_bind().execute(b.insert().values(id=41, n=1))",
        "key = op.get_bind().execute(b.insert().values(n=2)).inserted_primary_key[0]",
        TABLE.format("c"),
    )
    world.tree.revision("c3", "b2", *insert, "op.execute('nonsense')")
    assert world.upgrade().error
    world.tree.revision("c3", "b2", *insert, "op.execute('UPDATE counter SET n = %d' % key)")

    assert world.upgrade(resume=True).error == ""

    assert world.number() == 42
    assert world.database.execute("SELECT id FROM b ORDER BY id") == [(41,), (42,)]


def test_a_table_that_was_there_before_is_not_taken_for_done(on_mariadb: World) -> None:
    """It failed because of it, which is known; only what nobody knows is taken for done."""
    world = on_mariadb
    half_way(world)

    outcome = world.upgrade(resume=True)

    assert "1050" in outcome.error
    assert outcome.unfinished is not None
    assert len(outcome.kept) == 4
    assert outcome.unfinished["dirty"]


def test_what_was_running_when_the_worker_was_killed_is_tried(on_mariadb: World) -> None:
    world = on_mariadb
    counter(world)
    killed = "event.listen(op.get_bind(), 'after_cursor_execute', lambda *_: os.kill(os.getpid(), 9))"
    world.tree.revision("b2", "a1", COUNT, "from sqlalchemy import event", killed, TABLE.format("b"))
    assert world.run().returncode == -9
    world.tree.revision("b2", "a1", COUNT, TABLE.format("b"), TABLE.format("c"))

    outcome = world.upgrade(resume=True)

    assert outcome.error == ""
    assert world.number() == 2
    assert world.tables() == {"counter", "b", "c"}


def test_what_was_given_up_by_hand_runs_whole(world: World) -> None:
    counter(world)
    world.tree.revision("b2", "a1", TABLE.format("b"), "op.execute('nonsense')")
    world.upgrade()
    if world.database.kind == "mysql":
        world.database.execute("DROP TABLE b")
    world.tree.revision("b2", "a1", TABLE.format("b"), COUNT)

    outcome = world.upgrade(settle="given up")

    assert outcome.error == ""
    assert outcome.said == []
    assert world.tables() == {"counter", "b"}
    states = world.database.execute("SELECT state FROM refresh_agent_ledger ORDER BY id")
    assert states == [("applied",), ("given up",), ("applied",)]


def test_reading_an_absent_ledger_writes_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new.db"
    path.touch()
    worker = stepwise.load()
    database = worker("database").Database(f"sqlite:///{path}")
    mine = worker("locks").Holder("web-1", 1, "3fa1c2d4", "shop", "")
    ledger = worker("ledger").Ledger(database, "alembic_version", mine, str)

    assert ledger.unfinished() is None
    assert ledger.checksums() == {}
    assert ledger.backup_since("") == ""
    assert path.stat().st_size == 0

    ledger.prepare()
    ledger.prepare()
    ledger.backed_up("/var/backups/shop.db")
    ledger.stamped("a1")
    assert ledger.backup_since("") == "/var/backups/shop.db"
    assert ledger.unfinished() is None
