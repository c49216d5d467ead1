"""What every connection of a migration gets, on real servers, and legacy scripts in one transaction."""

import pathlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from refresh_agent.db.worker import database as worker_database
from refresh_agent.db.worker.sessions import Rules, Sessions, limits, watched
from refresh_agent.db.worker.stopping import Stopped
from tests.integration import stepwise
from tests.integration.conftest import AlembicTree
from tests.integration.databases import Database, Server, SQLiteDatabase
from tests.integration.test_db_ledger import DRIVERS, World
from tests.waiting import eventually

SLOW = {
    "sqlite": "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000000000)"
    " SELECT count(*) FROM c",
    "postgresql": "SELECT pg_sleep(60)",
}


@pytest.fixture
def opened(database: Database) -> worker_database.Database:
    return worker_database.Database(database.url(DRIVERS[database.kind]))


@pytest.fixture
def engine(opened: worker_database.Database) -> Iterator[sa.Engine]:
    """An engine such as an env.py makes."""
    engine = sa.create_engine(opened.url)
    yield engine
    engine.dispose()


def limits_of(connection: sa.Connection) -> list[str]:
    queries = {
        "sqlite": "SELECT timeout FROM pragma_busy_timeout",
        "postgresql": "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')",
        "mysql": "SELECT @@lock_wait_timeout, @@innodb_lock_wait_timeout, @@max_statement_time",
    }
    return [str(value) for value in connection.exec_driver_sql(queries[connection.dialect.name]).one()]


EXPECTED = {"sqlite": ["7000"], "postgresql": ["7s", "90s"], "mysql": ["7", "7", "90.0"]}


def test_the_limits_are_in_force_and_stay_after_a_rollback(
    opened: worker_database.Database, engine: sa.Engine
) -> None:
    with watched(opened, Rules(lock_timeout=7, statement_timeout=90)), engine.connect() as connection:
        kind = connection.dialect.name
        found = limits_of(connection)
        assert [value.replace("1min30s", "90s") for value in found] == EXPECTED[kind]
        connection.rollback()
        assert limits_of(connection) == found
        connection.invalidate()
        connection.rollback()
        assert limits_of(connection) == found


def test_an_engine_that_is_not_the_targets_is_left_alone(
    opened: worker_database.Database, tmp_path: pathlib.Path
) -> None:
    admitted: list[object] = []
    other = sa.create_engine(f"sqlite:///{tmp_path}/other.db")
    with watched(opened, Rules(lock_timeout=7, admit=admitted.append)), other.connect() as connection:
        assert limits_of(connection) == ["5000"]
    other.dispose()
    assert admitted == []


def test_each_new_connection_is_admitted_once(opened: worker_database.Database, engine: sa.Engine) -> None:
    admitted: list[object] = []
    with watched(opened, Rules(admit=admitted.append)):
        with engine.connect() as first, engine.connect() as second:
            for connection in (first, second):
                connection.exec_driver_sql("SELECT 1")
        with engine.connect() as third:
            third.exec_driver_sql("SELECT 1")
    assert len(admitted) == 2
    with engine.connect():
        assert len(admitted) == 2


def test_a_lock_that_is_not_freed_fails_the_statement(mariadb: Server, postgresql: Server) -> None:
    for server in (mariadb, postgresql):
        database = server.create()
        database.execute("CREATE TABLE t (n INTEGER)")
        opened = worker_database.Database(database.url(DRIVERS[database.kind]))
        blocking = sa.create_engine(opened.url)
        with watched(opened, Rules(lock_timeout=1)), blocking.begin() as holder:
            holder.exec_driver_sql("INSERT INTO t VALUES (1)")
            began = time.monotonic()
            with opened.engine.connect() as connection, pytest.raises(sa.exc.OperationalError):
                connection.exec_driver_sql("ALTER TABLE t ADD COLUMN m INTEGER")
            assert time.monotonic() - began < 10
        blocking.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_cancel_ends_what_runs_from_another_thread(
    kind: str, postgresql: Server, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "database.db"
    path.touch()
    url = f"sqlite:///{path}" if kind == "sqlite" else postgresql.create().url("psycopg2")
    opened = worker_database.Database(url)
    engine = sa.create_engine(opened.url)
    errors: list[Exception] = []

    def work(sessions: Sessions) -> None:
        with engine.connect() as connection:
            try:
                connection.exec_driver_sql(SLOW[kind])
            except sa.exc.OperationalError as error:
                errors.append(error)

    with watched(opened, Rules()) as sessions:
        thread = threading.Thread(target=work, args=(sessions,))
        thread.start()

        def cancelled() -> bool:
            sessions.cancel()
            return not thread.is_alive()

        eventually(cancelled, 30)
        thread.join()
        sessions.cancel()
    engine.dispose()
    assert len(errors) == 1


def test_a_stop_comes_before_the_next_statement_but_not_on_mariadb(
    opened: worker_database.Database, engine: sa.Engine
) -> None:
    class Requested:
        def check(self) -> None:
            raise Stopped("refresh-agent is stopping")

    with watched(opened, Rules(stopping=Requested())), engine.connect() as connection:
        if connection.dialect.name == "mysql":
            connection.exec_driver_sql("SELECT 1")
        else:
            with pytest.raises(Stopped):
                connection.exec_driver_sql("SELECT 1")


def test_mysql_has_a_limit_for_select_only() -> None:
    assert list(limits("mysql", 0, 2.5, is_mariadb=False)) == ["SET SESSION max_execution_time = 2500"]
    assert list(limits("mysql", 0.2, 0)) == [
        "SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1"
    ]
    assert list(limits("mysql", 0, 0)) == []


# --- SQLite -----------------------------------------------------------------------------------------------


def test_ddl_is_rolled_back_on_sqlite_also_with_one_connection_for_all(new_database: pathlib.Path) -> None:
    opened = worker_database.Database(f"sqlite:///{new_database}")
    engine = sa.create_engine(opened.url, poolclass=StaticPool)
    with watched(opened, Rules()):
        for _ in range(2):
            with engine.connect() as connection:
                connection.exec_driver_sql("CREATE TABLE t (n INTEGER)")
                connection.rollback()
        with engine.begin() as connection:
            assert sa.inspect(connection).get_table_names() == []
    engine.dispose()


@pytest.fixture(params=["newest", "1.4"])
def family(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, make_tree: Callable[[str], AlembicTree]
) -> World:
    """An SQLite database with a parent, two children, and an env.py that switches foreign keys on."""
    python = request.getfixturevalue("modern_python" if request.param == "newest" else "legacy_python")
    world = World(python, make_tree("tree"), SQLiteDatabase(tmp_path / "family.db"))
    switch = """
from sqlalchemy.engine import Engine
@event.listens_for(Engine, "connect")
def foreign_keys(connection, record):
    connection.execute("PRAGMA foreign_keys=ON")
"""
    world.env("connect", before=switch)
    world.tree.revision(
        "a1", None,
        "op.execute('CREATE TABLE parent (id INTEGER PRIMARY KEY, n INTEGER)')",
        "op.execute('CREATE TABLE child (id INTEGER PRIMARY KEY,"
        " parent INTEGER REFERENCES parent ON DELETE CASCADE)')",
        "op.execute('INSERT INTO parent VALUES (1, 1)')",
        "op.execute('INSERT INTO child VALUES (1, 1), (2, 1)')",
    )  # fmt: skip
    assert world.upgrade().error == ""
    return world


BATCH = "with op.batch_alter_table('parent') as batch: batch.alter_column('n', type_=sa.String(20))"
OFF, ON = "op.execute('PRAGMA foreign_keys=OFF')", "op.execute('PRAGMA foreign_keys=ON')"
SHOW = (
    "print('foreign keys:', op.get_bind().execute(sa.text('PRAGMA foreign_keys')).scalar(), file=sys.stderr)"
)


def test_children_survive_a_batch_migration_that_switches_foreign_keys_off(family: World) -> None:
    family.tree.revision("b2", "a1", OFF, SHOW, BATCH, ON)
    family.tree.revision("c3", "b2", SHOW)

    done = family.run()

    assert "foreign keys: 0\n" in done.stderr
    assert "foreign keys: 1\n" in done.stderr
    assert family.database.execute("SELECT count(*) FROM child") == [(2,)]
    assert family.upgrade().heads == ["c3"]


def test_a_failed_batch_migration_leaves_everything_as_it_was(family: World) -> None:
    family.tree.revision("b2", "a1", OFF, BATCH, ON, "op.execute('nonsense')")

    outcome = family.upgrade()

    assert "nonsense" in outcome.error
    assert family.database.execute("SELECT count(*) FROM child") == [(2,)]
    made = family.database.execute("SELECT sql FROM sqlite_master WHERE name = 'parent'")
    assert "VARCHAR" not in str(made)
    assert outcome.unfinished is not None
    assert not outcome.unfinished["dirty"]


def test_foreign_keys_switched_off_too_late_are_refused_with_advice(family: World) -> None:
    family.tree.revision("b2", "a1", "op.execute('UPDATE parent SET n = 2')", OFF, BATCH, ON)

    outcome = family.upgrade()

    assert "make it the first statement of the revision" in outcome.error
    assert family.database.execute("SELECT n FROM parent") == [(1,)]
    assert family.database.execute("SELECT count(*) FROM child") == [(2,)]


# --- a legacy version in one transaction ------------------------------------------------------------------


@pytest.fixture
def legacy(legacy_python: str, database: Database) -> Callable[..., str]:
    """Runs a script's lines with ``engine`` in one_transaction; returns what it prints, and what failed.

    ``followed``: they are a step of the ledger's, which is printed in the end.
    """

    def run(*lines: str, followed: bool = False) -> str:
        following = "ledger.following(session.engine, step)" if followed else "contextlib.nullcontext()"
        body = "\n            ".join(lines)
        program = f"""
import contextlib, os, runpy
import sqlalchemy as sa
worker = runpy.run_path({stepwise.__file__!r})["load"]()
database = worker("database").Database({database.url(DRIVERS[database.kind])!r})
mine = worker("locks").Holder("web-1", os.getpid(), "3fa1c2d4", "shop", "")
ledger = worker("ledger").Ledger(database, "migrate", mine, str)
step = worker("ledger").Step("migrate", "1", "2", "", "sqlalchemy-migrate upgrade 1 -> 2")
ledger.prepare()
ledger.begin(step)
sessions = worker("sessions")
try:
    with sessions.watched(database, sessions.Rules()), \\
            worker("legacy_session").one_transaction(database) as session:
        engine = session.engine
        with {following}:
            {body}
            ledger.applied(session.connection, step, None)
except Exception as error:
    print(type(error).__name__, " ".join(str(error).split()))
    ledger.failed(step, error)
if {followed}:
    unfinished = ledger.unfinished()
    print(unfinished and (len(unfinished.kept), unfinished.current, unfinished.failed))
"""
        done = subprocess.run(
            [legacy_python, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60
        )
        assert done.returncode in {0, -9}, done.stderr
        return done.stdout

    database.execute("CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER)")
    database.execute("INSERT INTO counter VALUES (1, 1)")
    return run


def rows(database: Database) -> list[tuple[Any, ...]]:
    return database.execute("SELECT id, n FROM counter ORDER BY id")


SCRIPT = (
    "meta = sa.MetaData(bind=engine)",
    "counter = sa.Table('counter', meta, autoload=True)",
    "counter.insert().execute(id=2, n=20)",
    "b = sa.Table('b', meta, sa.Column('id', sa.Integer, primary_key=True)); b.create()",
    "with engine.begin() as connection: connection.execute('UPDATE counter SET n = n + 1')",
    "connection = engine.connect(); connection.execute('INSERT INTO b VALUES (1)'); connection.close()",
)


def test_all_that_a_legacy_script_does_is_kept_in_the_end(
    legacy: Callable[..., str], database: Database
) -> None:
    assert legacy(*SCRIPT) == ""
    assert rows(database) == [(1, 2), (2, 21)]
    assert database.execute("SELECT id FROM b") == [(1,)]


@pytest.mark.parametrize("end", ["engine.execute('nonsense')", "os.kill(os.getpid(), 9)"])
def test_nothing_of_a_failed_legacy_script_remains_but_on_mariadb_all(
    legacy: Callable[..., str], database: Database, end: str
) -> None:
    legacy(*SCRIPT, end)
    if database.kind == "mysql":
        assert rows(database) == [(1, 2), (2, 21)]
    else:
        assert rows(database) == [(1, 1)]
        with pytest.raises(Exception, match=r"no such table|does not exist"):
            database.execute("SELECT id FROM b")


def test_a_legacy_script_may_swallow_the_error_of_a_statement(
    legacy: Callable[..., str], database: Database
) -> None:
    swallowed = (
        "try: engine.execute('DROP TABLE no_such_table')",
        "except sa.exc.DBAPIError: print('swallowed')",
    )
    assert legacy(*SCRIPT, *swallowed, "engine.execute('UPDATE counter SET n = 5')") == "swallowed\n"
    assert rows(database) == [(1, 5), (2, 5)]


def test_a_legacy_script_takes_back_its_own_transaction_and_nothing_else(
    legacy: Callable[..., str], database: Database
) -> None:
    rolled_back = (
        "connection = engine.connect(); transaction = connection.begin()",
        "connection.execute('UPDATE counter SET n = 99')",
        "transaction.rollback()",
    )
    assert legacy("engine.execute('INSERT INTO counter VALUES (2, 2)')", *rolled_back) == ""
    assert rows(database) == [(1, 1), (2, 2)]


def test_a_rollback_that_would_take_back_more_fails_the_whole_step(
    legacy: Callable[..., str], database: Database
) -> None:
    said = legacy(
        "connection = engine.connect(); transaction = connection.begin()",
        "connection.execute('UPDATE counter SET n = 99 WHERE id = 1')",
        "engine.execute('INSERT INTO counter VALUES (2, 2)')",
        "try: transaction.rollback()",
        "except Exception: pass",
    )
    if database.kind == "mysql":
        assert rows(database) == [(1, 1), (2, 2)]
    else:
        assert said.startswith("TargetError the script rolls back a transaction, but has changed something")
        assert rows(database) == [(1, 1)]


def test_a_broken_connection_fails_the_whole_step(legacy: Callable[..., str], database: Database) -> None:
    """What was done on the first one is gone; the second must not commit the rest."""
    said = legacy(
        "connection = engine.connect()",
        "connection.execute('UPDATE counter SET n = 99')",
        "connection.invalidate()",
        "engine.execute('INSERT INTO counter VALUES (2, 2)')",
    )
    if database.kind != "mysql":
        assert said.startswith("TargetError the connection was lost in the middle of the version")
        assert rows(database) == [(1, 1)]


def test_a_sql_script_with_a_transaction_of_its_own_is_part_of_the_whole(
    legacy: Callable[..., str], database: Database
) -> None:
    legacy(
        "engine.execute('BEGIN')",
        "engine.execute('UPDATE counter SET n = 9')",
        "engine.execute('COMMIT')",
        "1/0",
    )
    assert rows(database) == [(1, 9 if database.kind == "mysql" else 1)]


def test_rollback_as_a_statement_is_refused(legacy: Callable[..., str], database: Database) -> None:
    said = legacy("engine.execute('UPDATE counter SET n = 9')", "engine.execute('ROLLBACK')")
    if database.kind != "mysql":
        assert said.startswith("TargetError the script executes ROLLBACK")
        assert rows(database) == [(1, 1)]


def test_a_savepoint_of_the_script_is_its_own(legacy: Callable[..., str], database: Database) -> None:
    said = legacy(
        "connection = engine.connect()",
        "transaction = connection.begin()",
        "connection.execute('UPDATE counter SET n = n + 1')",
        "nested = connection.begin_nested()",
        "connection.execute('UPDATE counter SET n = n + 10')",
        "nested.rollback()",
        "transaction.commit()",
    )
    assert said == ""
    assert rows(database) == [(1, 2)]


def test_what_a_legacy_script_did_on_mariadb_is_noted(legacy: Callable[..., str], database: Database) -> None:
    said = legacy(*SCRIPT, "engine.execute('nonsense')", followed=True)
    kept = 4 if database.kind == "mysql" else 0
    assert said.splitlines()[-1] == f"({kept}, '', 'nonsense')"


def test_a_legacy_step_that_was_applied_is_closed_in_its_transaction(
    legacy: Callable[..., str], database: Database
) -> None:
    assert legacy(*SCRIPT, followed=True) == "None\n"
    assert database.execute("SELECT state FROM refresh_agent_ledger") == [("applied",)]
