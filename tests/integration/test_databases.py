"""The servers that the other tests get their databases from: real, apart, guarded, and gone in the end."""

import contextlib
import os
import pathlib
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy

from tests.integration import database_servers, databases
from tests.integration.databases import ADMIN_CONNECTION, Database, DatabasesError, Server
from tests.processes import alive
from tests.waiting import eventually

TOP = pathlib.Path(__file__).resolve().parent.parent.parent

DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg2", "mysql": "pymysql"}
START = {"postgresql": databases.postgresql, "mysql": databases.mariadb}

# The URL comes on standard input: what starts with a password in its arguments shows it to everybody.
CONNECT = "import sqlalchemy, sys; sqlalchemy.create_engine(sys.stdin.read()).connect().close()"

# Tests that are ended while their servers run. Whoever runs us in the background may have SIGINT ignored.
INTERRUPTED = """
import signal, time
from tests.integration import databases
signal.signal(signal.SIGINT, signal.default_int_handler)
with databases.postgresql(private=True) as one, databases.mariadb(private=True) as two:
    print(one.pid, one.admin_url, two.pid, two.admin_url, flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=sorted(START))
def server(request: pytest.FixtureRequest) -> Server:
    """That of the session, of each kind in turn."""
    found = request.getfixturevalue({"mysql": "mariadb"}.get(request.param, request.param))
    assert isinstance(found, Server)
    return found


@pytest.fixture(params=sorted(START))
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One that may be stopped, of each kind in turn."""
    with START[request.param](private=True) as started:
        yield started


@contextlib.contextmanager
def connected(url: str | sqlalchemy.URL) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        yield connection


def url_of(database: Database) -> sqlalchemy.URL:
    return sqlalchemy.make_url(database.url(DRIVERS[database.kind]))


def folder_of(admin_url: str) -> pathlib.Path:
    """Where a private server has its socket, and all else."""
    query = sqlalchemy.make_url(admin_url).query
    path = query["host"] if "host" in query else os.path.dirname(str(query["unix_socket"]))
    return pathlib.Path(str(path))


# --- what a test gets --------------------------------------------------------------------------------------


def test_a_new_database_is_empty_and_serves(database: Database) -> None:
    with connected(url_of(database)) as connection:
        assert not sqlalchemy.inspect(connection).get_table_names()
        connection.execute(sqlalchemy.text("CREATE TABLE shelf (name VARCHAR(20))"))
        connection.commit()
    database.execute("INSERT INTO shelf VALUES (%s)", "100 % oak")
    assert database.execute("SELECT name FROM shelf WHERE name LIKE '%oak'") == [("100 % oak",)]


def test_a_dropped_database_is_gone_even_if_somebody_is_connected(server: Server) -> None:
    database = server.create("shop")
    assert database.name.startswith("shop_")
    engine = sqlalchemy.create_engine(url_of(database))
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        database.drop()
        connection.invalidate()
    engine.dispose()
    database.drop()
    with pytest.raises(server.unreachable):
        database.execute("SELECT 1")


def test_no_other_password_is_let_in(server: Server) -> None:
    database = server.create()
    for password in ("", database.password[:-1], secrets.token_hex(4)):
        with (
            pytest.raises(sqlalchemy.exc.OperationalError, match=r"password|Access denied"),
            connected(url_of(database).set(password=password)),
        ):
            pass
    database.drop()


def test_the_password_has_to_be_quoted(server: Server) -> None:
    database = server.create()
    assert database.password not in database.url()
    assert sqlalchemy.make_url(database.url()).password == database.password
    database.drop()


def test_two_databases_are_apart(server: Server) -> None:
    mine, yours = server.create(), server.create()
    with pytest.raises(sqlalchemy.exc.OperationalError), connected(url_of(mine).set(database=yours.name)):
        pass
    mine.drop()
    assert yours.execute("SELECT 1") == [(1,)]
    yours.drop()


def test_its_user_is_no_administrator(database: Database) -> None:
    if isinstance(database, databases.ServerDatabase):
        for statement in ("CREATE DATABASE more", "CREATE ROLE more"):
            with connected(url_of(database)) as connection, pytest.raises(sqlalchemy.exc.DBAPIError):
                connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(statement)


def test_mariadb_makes_databases_of_another_charset(mariadb: Server) -> None:
    database = mariadb.create(charset="utf8mb3")
    assert database.execute("SELECT @@character_set_database") == [("utf8mb3",)]
    database.drop()


@pytest.mark.parametrize(
    ("environment", "kind", "driver"),
    [
        ("modern_python", "postgresql", ""),
        ("modern_python", "postgresql", "psycopg2"),
        ("modern_python", "postgresql", "psycopg"),
        ("modern_python", "mysql", "pymysql"),
        ("modern_python", "mysql", "mariadb+pymysql"),
        ("legacy_python", "postgresql", ""),
        ("legacy_python", "mysql", "pymysql"),
    ],
)
def test_both_worlds_have_the_drivers(
    environment: str, kind: str, driver: str, request: pytest.FixtureRequest
) -> None:
    python = request.getfixturevalue(environment)
    database = request.getfixturevalue({"mysql": "mariadb"}.get(kind, kind)).create()
    done = subprocess.run([python, "-c", CONNECT], input=database.url(driver), text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    database.drop()


# --- servers that go away ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Server.stop, Server.kill], ids=["stopped", "killed"])
def test_what_was_committed_outlives_the_server(own_server: Server, end: Callable[[Server], None]) -> None:
    database = own_server.create()
    database.execute("CREATE TABLE shelf (name VARCHAR(20))")
    with connected(url_of(database)) as connection:
        connection.exec_driver_sql("INSERT INTO shelf VALUES ('done')")
        connection.commit()
        connection.exec_driver_sql("INSERT INTO shelf VALUES ('not done')")
        end(own_server)
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            connection.exec_driver_sql("SELECT 1")
        connection.invalidate()
    own_server.start()
    assert database.execute("SELECT name FROM shelf") == [("done",)]


def test_the_connections_to_a_database_are_known_and_can_be_ended(server: Server) -> None:
    mine, yours = server.create(), server.create()
    with connected(url_of(mine)) as one, connected(url_of(yours)) as other:
        (found,) = eventually(lambda: server.connections(mine))
        server.disconnect(found)
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            one.exec_driver_sql("SELECT 1")
        assert other.exec_driver_sql("SELECT 1").scalar() == 1
        eventually(lambda: not server.connections(mine))
    mine.drop()
    yours.drop()


def test_nothing_is_left_of_a_private_server() -> None:
    for start in START.values():
        with start(private=True) as server:
            pid, folder = server.pid, folder_of(server.admin_url)
            server.create()
            assert alive(pid)
            assert folder.is_dir()
        assert not alive(pid)
        assert not folder.exists()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_tests_are_ended_early(ending: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        cwd=TOP,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as tests:
        assert tests.stdout is not None
        try:
            words = tests.stdout.readline().split()
            tests.send_signal(ending)
            tests.wait(30)
        finally:
            tests.kill()
    pids, folders = [int(word) for word in words[::2]], [folder_of(word) for word in words[1::2]]
    assert len(pids) == len(folders) == 2
    eventually(lambda: not any(map(alive, pids)) and not any(folder.exists() for folder in folders))


# --- a server that is given --------------------------------------------------------------------------------


def test_the_server_that_is_given_takes_the_place_of_the_private_one(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADMIN_CONNECTION, own_server.admin_url)
    with START[own_server.kind]() as given:
        assert not given.private
        with pytest.raises(DatabasesError, match=ADMIN_CONNECTION):
            given.stop()
        made = given.create()
        made.execute("CREATE TABLE shelf (name VARCHAR(20))")
        listed = {"postgresql": "SELECT datname FROM pg_database", "mysql": "SHOW DATABASES"}[own_server.kind]
        assert (made.name,) in own_server.execute(listed)
    assert (made.name,) not in own_server.execute(listed)
    users = {"postgresql": "SELECT rolname FROM pg_roles", "mysql": "SELECT user FROM mysql.user"}
    assert (made.user,) not in own_server.execute(users[own_server.kind])


@pytest.mark.parametrize(
    ("url", "kinds"),
    [
        ("", set()),
        ("sqlite://", set()),
        ("mysql://user:password@host/database", {"mysql"}),
        ("mariadb+pymysql://user:password@host/database", {"mysql"}),
        ("mysql+mysqldb://user:password@host/database", {"mysql"}),
        ("postgresql+psycopg://user:password@host/database", {"postgresql"}),
    ],
)
def test_a_given_server_is_used_for_its_kind_only(url: str, kinds: set[str]) -> None:
    assert set(databases.given_admin(url)) == kinds


@pytest.mark.parametrize("url", ["oracle://user:s3cret@host/database", "user:s3cret@host"])
def test_a_given_server_that_is_of_no_use_is_named_without_its_password(url: str) -> None:
    with pytest.raises(DatabasesError, match=ADMIN_CONNECTION) as caught:
        databases.given_admin(url)
    assert "s3cret" not in str(caught.value)


def test_a_given_server_that_refuses_its_administrator_says_so(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sqlalchemy.make_url(server.admin_url).set(password="s3cret")
    monkeypatch.setenv(ADMIN_CONNECTION, url.render_as_string(hide_password=False))
    with (
        pytest.raises(DatabasesError, match=f"{ADMIN_CONNECTION}: .*let us in") as caught,
        START[server.kind](),
    ):
        pass
    assert "s3cret" not in str(caught.value)


# --- programs ----------------------------------------------------------------------------------------------


def test_a_missing_program_is_named_with_what_installs_it() -> None:
    with pytest.raises(
        DatabasesError, match=r"no-such-server .* python3 tools/system_packages\.py installs it"
    ):
        database_servers.program("no-such-server")


def test_the_programs_are_found_where_the_path_does_not_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert database_servers.program("mariadbd").name == "mariadbd"
    if list(pathlib.Path("/usr/lib/postgresql").glob("*/bin")):  # elsewhere it is on everybody's PATH
        assert database_servers.program("initdb").name == "initdb"


def test_a_server_that_cannot_start_shows_its_log() -> None:
    with database_servers.Folder() as folder:
        process, _url = database_servers.mariadb_process(folder)
        for file in folder.data.glob("ibdata*"):
            file.write_bytes(b"")
        with pytest.raises(DatabasesError, match=r"(?s)mariadbd ended at its start.*InnoDB"):
            process.start(lambda: True)
