"""The lock on each kind of database: real processes of both worlds, real servers, real deaths."""

import contextlib
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.engine import make_url

from refresh_agent.db.worker import locks
from refresh_agent.db.worker.database import Database as WorkersDatabase
from refresh_agent.db.worker.faults import TargetError
from refresh_agent.db.worker.locks import Busy, Holder, Wait
from refresh_agent.db.worker.stopping import Stopped
from tests.integration import databases
from tests.integration.databases import Database, MariaDB, PostgreSQL, SQLiteDatabase
from tests.integration.lock_parties import Pooler, Worker
from tests.waiting import eventually

MINE = Holder("web-2", 4712, "9b0c11aa", "shop", "2026-11-21T16:51:00Z")
AT_ONCE = Wait(0, str, lambda: False)


@pytest.fixture(scope="module")
def postgresql_server() -> Iterator[PostgreSQL]:
    with databases.postgresql(private=True) as server:
        assert isinstance(server, PostgreSQL)
        yield server


@pytest.fixture(scope="module")
def mariadb_server() -> Iterator[MariaDB]:
    with databases.mariadb(private=True) as server:
        assert isinstance(server, MariaDB)
        yield server


@pytest.fixture
def on_postgresql(postgresql_server: PostgreSQL) -> Database:
    return postgresql_server.create()


@pytest.fixture
def on_mariadb(mariadb_server: MariaDB) -> Database:
    return mariadb_server.create()


@pytest.fixture
def on_sqlite(tmp_path: pathlib.Path) -> SQLiteDatabase:
    return SQLiteDatabase(tmp_path / "shop.db")


@pytest.fixture(params=["on_sqlite", "on_postgresql", "on_mariadb"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["on_postgresql", "on_mariadb"])
def server_database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["modern", "legacy"])
def python(request: pytest.FixtureRequest, legacy_python: str) -> str:
    return sys.executable if request.param == "modern" else legacy_python


MakeWorker = Callable[..., Worker]


@pytest.fixture
def worker() -> Iterator[MakeWorker]:
    """Starts a worker that has taken the lock; with seconds, one that begins to wait."""
    workers: list[Worker] = []

    def start(database: Database, *, seconds: float = -1, name: str = "first", python: str = "") -> Worker:
        found = Worker(python or sys.executable, database.url(), str(max(seconds, 0)), name)
        workers.append(found)
        if seconds < 0:
            assert found.says() == "held"
        return found

    yield start
    for found in workers:
        found.kill()
        assert found.process.stdin is not None
        assert found.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            found.process.stdin.close()
        found.process.stdout.close()


def take(database: Database, seconds: float = 0, told: list[str] | None = None) -> None:
    """Take the lock and give it back."""
    wait = Wait(seconds, [].append if told is None else told.append, lambda: False)
    with locks.held(WorkersDatabase(database.url()), MINE, wait) as lock:
        lock.verify()


def holder(database: Database) -> Holder | None:
    return locks.holder(WorkersDatabase(database.url()))


def unlock(database: Database) -> str:
    return locks.unlock(WorkersDatabase(database.url()))


def sleeps(database: Database) -> bool:
    """Whether the server is at work for a worker."""
    asleep = "SELECT 1 FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(%'"
    if database.kind == "postgresql":
        asleep = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%' AND state = 'active'"
    return bool(database.execute(asleep))


# --- waiting ---------------------------------------------------------------------------------------------


def test_the_second_one_waits_and_is_told_for_whom(
    database: Database, worker: MakeWorker, python: str
) -> None:
    first = worker(database, python=python)
    shown = f"host host-of-first, pid {first.process.pid}, run 3fa1c2d4, since 2026-11-21T16:50:00Z"
    assert str(holder(database)) == shown
    second = worker(database, seconds=30, name="second", python=python)
    assert second.says() == f"waiting: its database is being migrated by {shown}"
    first.end()
    assert second.says() == "held"
    second.end()
    assert holder(database) is None
    assert unlock(database) == "its database is not locked"


def test_the_second_one_gives_up_after_its_seconds(
    database: Database, worker: MakeWorker, python: str
) -> None:
    first = worker(database, python=python)
    began = time.monotonic()
    with pytest.raises(Busy) as caught:
        take(database, 0.4)
    assert 0.4 <= time.monotonic() - began < 5
    assert f"pid {first.process.pid}" in str(caught.value)
    assert "; waited 0.4 s" in str(caught.value)
    assert "unlock" not in str(caught.value)
    assert caught.value.holder == holder(database)


def test_whoever_waits_can_be_stopped(database: Database, worker: MakeWorker) -> None:
    worker(database)
    wait = Wait(60, str, lambda: True)
    stopped = pytest.raises(Stopped, match="refresh-agent is stopping, while waiting: its database is being")
    with stopped, locks.held(WorkersDatabase(database.url()), MINE, wait):
        pass


def test_never_two_at_once(database: Database, legacy_python: str, tmp_path: pathlib.Path) -> None:
    pythons = (sys.executable, legacy_python) * 4
    workers = [
        Worker(python, database.url(), "60", str(number), str(tmp_path))
        for number, python in enumerate(pythons)
    ]
    outputs = [found.process.communicate(timeout=100)[0] for found in workers]
    assert (outputs, [found.process.returncode for found in workers]) == ([""] * 8, [0] * 8)
    assert len((tmp_path / "times").read_text().splitlines()) == 80


# --- the death of a holder -------------------------------------------------------------------------------


def test_a_dead_worker_has_no_lock(database: Database, worker: MakeWorker, python: str) -> None:
    worker(database, python=python).kill()
    eventually(lambda: holder(database) is None)
    told: list[str] = []
    take(database, 10, told)
    if database.kind == "mysql":
        assert "is taken over: that worker's connections have ended" in told[-1]


def test_what_the_server_still_does_for_a_dead_worker_is_waited_for(
    server_database: Database, worker: MakeWorker, python: str
) -> None:
    first = worker(server_database, python=python)
    began = time.monotonic()
    first.tell("sleep 4")
    assert first.says() == "begins"
    eventually(lambda: sleeps(server_database))
    first.kill()
    with pytest.raises(Busy):
        take(server_database, 1)
    with pytest.raises(TargetError, match=r"are alive; end that process, or.*(KILL \d+|terminate_backend\()"):
        unlock(server_database)
    take(server_database, 30)
    assert time.monotonic() - began >= 4


def test_a_restart_of_the_server_frees_the_lock(
    server_database: Database, worker: MakeWorker, postgresql_server: PostgreSQL, mariadb_server: MariaDB
) -> None:
    server = postgresql_server if server_database.kind == "postgresql" else mariadb_server
    first = worker(server_database)
    if server_database.kind == "mysql":
        # As after a boot: the moment of a start has a tolerance of seconds.
        row = json.loads(server_database.execute("SELECT server FROM refresh_agent_lock")[0][0])
        row["started"] -= 60
        server_database.execute("UPDATE refresh_agent_lock SET server = %s", json.dumps(row, sort_keys=True))
    server.kill()
    server.start()
    take(server_database, 10)
    first.tell("verify")
    assert first.says().startswith("the lock on its database was lost (")


def test_a_lost_lock_is_noticed(
    server_database: Database,
    worker: MakeWorker,
    python: str,
    postgresql_server: PostgreSQL,
    mariadb_server: MariaDB,
) -> None:
    server = postgresql_server if server_database.kind == "postgresql" else mariadb_server
    first = worker(server_database, python=python)
    first.tell("verify")
    assert first.says() == "ours"
    server.disconnect(server.connections(server_database)[0])
    first.tell("verify")
    assert first.says().startswith("the lock on its database was lost (")
    take(server_database, 10)


def test_a_connection_that_outlives_the_lock_keeps_nobody_out(server_database: Database) -> None:
    ours = WorkersDatabase(server_database.url())
    with ours.connect() as left:
        with locks.held(ours, MINE, AT_ONCE) as lock:
            lock.admit(left.connection.dbapi_connection)
        take(server_database)


def test_no_connection_is_admitted_without_the_lock(
    server_database: Database,
    postgresql_server: PostgreSQL,
    mariadb_server: MariaDB,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = postgresql_server if server_database.kind == "postgresql" else mariadb_server
    ours = WorkersDatabase(server_database.url())
    caplog.clear()
    with locks.held(ours, MINE, AT_ONCE) as lock:
        server.disconnect(server.connections(server_database)[0])
        with ours.connect() as connection:
            raw = connection.connection.dbapi_connection
            with pytest.raises(TargetError, match=r"^the lock on its database was lost"):
                lock.admit(raw)
            with pytest.raises(TargetError, match=r"^the lock on its database was lost"):
                lock.verify()
    assert not caplog.records
    take(server_database, 10)


# --- a row that nobody can judge -------------------------------------------------------------------------


def forge(database: Database, **columns: object) -> None:
    assignments = ", ".join(f"{name} = %s" for name in columns)
    database.execute(f"UPDATE refresh_agent_lock SET {assignments}", *columns.values())


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        ({"server": '{"names": {"hostname": "db-2"}, "started": 1}'}, "through another database server"),
        ({"server": ""}, "through another database server"),
        ({"account": "heat@%"}, r"as another database user, heat@%"),
    ],
)
def test_a_row_of_another_server_or_user_is_never_taken_over(
    forged: dict[str, str], reason: str, on_mariadb: Database, worker: MakeWorker
) -> None:
    worker(on_mariadb).kill()
    forge(on_mariadb, since="2001-01-01T00:00:00Z", **forged)
    with pytest.raises(Busy) as caught:
        take(on_mariadb, 0.3)
    assert "since 2001-01-01T00:00:00Z" in str(caught.value)
    assert reason in str(caught.value)
    assert str(caught.value).endswith("refresh-agent db unlock --target shop")
    eventually(lambda: not unlock(on_mariadb).endswith("is not locked"))
    take(on_mariadb)


def test_the_age_of_a_lock_does_not_matter(on_mariadb: Database, worker: MakeWorker) -> None:
    worker(on_mariadb)
    forge(on_mariadb, since="2001-01-01T00:00:00Z")
    with pytest.raises(Busy, match="since 2001"):
        take(on_mariadb, 0.3)


def test_a_lock_freed_by_hand_is_lost(on_mariadb: Database, worker: MakeWorker) -> None:
    first = worker(on_mariadb)
    forge(on_mariadb, token="")
    first.tell("verify")
    assert first.says().startswith("the lock on its database was lost (somebody has freed it by hand")


def test_unlock_is_refused_while_the_holder_lives(database: Database, worker: MakeWorker) -> None:
    first = worker(database)
    with pytest.raises(TargetError) as caught:
        unlock(database)
    assert f"pid {first.process.pid}" in str(caught.value)
    first.tell("verify")
    assert first.says() == "ours"


# --- looking, and rights ---------------------------------------------------------------------------------


def test_looking_writes_nothing(database: Database, tmp_path: pathlib.Path) -> None:
    before = sorted(os.listdir(tmp_path))
    assert holder(database) is None
    assert unlock(database) == "its database is not locked"
    assert sorted(os.listdir(tmp_path)) == before
    if database.kind != "sqlite":
        tables = "SELECT * FROM information_schema.tables WHERE table_name = 'refresh_agent_lock'"
        if database.kind == "mysql":
            tables += " AND table_schema = DATABASE()"
        assert database.execute(tables) == []


def test_a_user_who_may_not_make_tables(
    server_database: Database, postgresql_server: PostgreSQL, mariadb_server: MariaDB
) -> None:
    if isinstance(server_database, databases.ServerDatabase):
        if server_database.kind == "mysql":
            user = f"`{server_database.user}`@`%`"
            mariadb_server.execute(f"REVOKE ALL, GRANT OPTION FROM {user}")
            pattern = server_database.name.replace("_", "\\_")
            mariadb_server.execute(f"GRANT SELECT ON `{pattern}`.* TO {user}")
        else:
            server_database.execute("DROP SCHEMA public")
            server_database.execute("CREATE SCHEMA public")
            server_database.execute(f'REVOKE ALL ON SCHEMA public FROM PUBLIC, "{server_database.user}"')
    with pytest.raises(
        TargetError, match=r"^the table refresh_agent_lock cannot be made: .*must be allowed to"
    ):
        take(server_database)


# --- a connection pooler ---------------------------------------------------------------------------------


def test_a_connection_pooler_is_refused(on_postgresql: Database, tmp_path: pathlib.Path) -> None:
    url = make_url(on_postgresql.url())
    name = f".s.PGSQL.{url.port or url.query.get('port', 5432)}"
    pooler = Pooler(f"{url.query['host']}/{name}", f"{tmp_path}/{name}")
    pooler.start()
    pooled = url.update_query_dict({"host": str(tmp_path)}).render_as_string(hide_password=False)
    with (
        pytest.raises(
            TargetError, match=r"leads through a connection pooler, .*; give the address of Postgre"
        ),
        locks.held(WorkersDatabase(pooled), MINE, AT_ONCE),
    ):
        pass
    pooler.join()


# --- SQLite ----------------------------------------------------------------------------------------------


def test_one_lock_however_the_file_is_called(on_sqlite: SQLiteDatabase, worker: MakeWorker) -> None:
    link = on_sqlite.path.with_name("link.db")
    link.symlink_to(on_sqlite.path)
    worker(on_sqlite)
    with pytest.raises(Busy):
        take(SQLiteDatabase(link))
    assert not link.with_name("link.db.refresh-agent.lock").exists()


def lock_file(database: SQLiteDatabase) -> pathlib.Path:
    return database.path.with_name("shop.db.refresh-agent.lock")


@pytest.mark.parametrize("plant", ["symlink_to", "hardlink_to"])
def test_a_planted_lock_file_is_refused(plant: str, on_sqlite: SQLiteDatabase) -> None:
    precious = on_sqlite.path.with_name("precious")
    precious.write_text("precious")
    getattr(lock_file(on_sqlite), plant)(precious)
    for look in (take, holder):
        with pytest.raises(TargetError, match="so it was not touched; remove it"):
            look(on_sqlite)
    assert precious.read_text() == "precious"


def test_a_pipe_in_the_place_of_the_lock_file_is_refused(on_sqlite: SQLiteDatabase) -> None:
    os.mkfifo(lock_file(on_sqlite))
    with pytest.raises(TargetError, match="is not a file of ours"):
        take(on_sqlite)


def test_whoever_opens_and_closes_the_database_does_not_matter(
    on_sqlite: SQLiteDatabase, worker: MakeWorker
) -> None:
    first = worker(on_sqlite)
    for _ in range(3):
        on_sqlite.execute("SELECT 1 FROM sqlite_master")
        on_sqlite.path.read_bytes()
    with pytest.raises(Busy):
        take(on_sqlite)
    first.tell("verify")
    assert first.says() == "ours"


def test_the_lock_file_is_for_its_owner_alone(on_sqlite: SQLiteDatabase) -> None:
    if os.geteuid() == 0:
        os.chown(on_sqlite.path, 65534, 65534)
    take(on_sqlite)
    found = lock_file(on_sqlite).stat()
    assert found.st_mode & 0o777 == 0o600
    assert found.st_uid == on_sqlite.path.stat().st_uid
    assert found.st_size == 0


def test_a_lock_file_that_was_removed(on_sqlite: SQLiteDatabase, worker: MakeWorker) -> None:
    first = worker(on_sqlite)
    lock_file(on_sqlite).unlink()
    first.tell("verify")
    assert first.says().endswith("was removed or replaced); nothing more is begun, it will be tried again")


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """As somebody who is not root; rights on directories do not count for root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_directory_that_is_not_writable() -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = SQLiteDatabase(pathlib.Path(folder, "shop.db"))
        os.chmod(folder, 0o555)
        with unprivileged(), pytest.raises(TargetError) as caught:
            take(database)
        os.chmod(folder, 0o755)
    message = (
        f"the lock file {database.path}.refresh-agent.lock cannot be opened: Permission denied; the user"
    )
    assert str(caught.value).startswith(message)


# --- a statement that sits in C --------------------------------------------------------------------------


def test_a_signal_cancels_a_statement_at_once(
    on_postgresql: Database, worker: MakeWorker, python: str
) -> None:
    first = worker(on_postgresql, python=python)
    first.tell("stop 0")
    assert (first.says(), first.says()) == ("begins", "watches")
    eventually(lambda: sleeps(on_postgresql))
    began = time.monotonic()
    first.process.send_signal(signal.SIGTERM)
    assert first.says().startswith("refresh-agent is stopping: QueryCanceled: canceling statement")
    assert time.monotonic() - began < 1


def test_a_time_limit_cancels_a_statement(on_postgresql: Database, worker: MakeWorker, python: str) -> None:
    first = worker(on_postgresql, python=python)
    first.tell("stop 0.5")
    assert (first.says(), first.says()) == ("begins", "watches")
    assert first.says().startswith("not finished within 0.5 s: QueryCanceled: ")
