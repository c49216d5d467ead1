"""Backups of real databases, by SQLite itself and by the servers' own programs; what is left if one fails."""

import contextlib
import json
import os
import pathlib
import shlex
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from refresh_agent.db.worker import backup, backup_command, backup_sqlite
from refresh_agent.db.worker.backup import Occasion
from refresh_agent.db.worker.database import Database
from refresh_agent.db.worker.faults import TargetError
from refresh_agent.db.worker.stopping import Stopped, Stopping
from tests.integration import databases
from tests.integration.conftest import sql
from tests.processes import alive
from tests.waiting import eventually

OCCASION = Occasion("shop", "alembic 5a1e", "20261121T165000Z")

AWKWARD = "p@ss:w\\rd' \"#;%s=$(id)"
"""A password with what libpq's file, option files, URLs and shells treat in ways of their own."""


@pytest.fixture
def stopping() -> Iterator[Stopping]:
    with Stopping() as stopping:
        yield stopping


@pytest.fixture
def shop(new_database: pathlib.Path) -> pathlib.Path:
    sql(
        new_database,
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, price)",
        "INSERT INTO orders VALUES (1, 2)",
    )
    return new_database


@pytest.fixture(autouse=True)
def private_temporary_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is left in there after any test, however the backup has ended."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield
    assert not list(folder.iterdir())


Take = Callable[..., str]


@pytest.fixture
def take(stopping: Stopping) -> Take:
    def take(url: str | pathlib.Path, option: str, occasion: Occasion = OCCASION) -> str:
        connection = f"sqlite:///{url}" if isinstance(url, pathlib.Path) else url
        return backup.take(Database(connection), option, occasion, stopping)

    return take


# --- SQLite's own ----------------------------------------------------------------------------------------


def backups(folder: pathlib.Path) -> list[str]:
    """Whatever lies beside the database, also what should not."""
    return sorted(path.name for path in folder.iterdir() if path.name not in {"new.db", "tmp"})


def test_backup_beside_the_file(take: Take, shop: pathlib.Path) -> None:
    copy = shop.with_name("new.db.backup-alembic-5a1e-20261121T165000Z")
    assert take(shop, "builtin") == f"backup in {copy}"
    assert sql(copy, "SELECT * FROM orders") == [(1, 2)]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert backups(shop.parent) == [copy.name]


def test_backup_in_a_directory(take: Take, shop: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "safe place").mkdir()
    take(shop, f"builtin:{tmp_path}/safe place")
    assert len(list((tmp_path / "safe place").iterdir())) == 1
    assert backups(shop.parent) == ["safe place"]


def test_no_backup_takes_the_place_of_another(take: Take, shop: pathlib.Path) -> None:
    first, second = take(shop, "builtin"), take(shop, "builtin")
    assert second == f"{first}-2"
    assert len(backups(shop.parent)) == 2


@pytest.mark.parametrize(
    ("version", "label"),
    [
        ("migrate 2", "migrate-2"),
        ("alembic a+b", "alembic-a-b"),
        ("empty", "empty"),
        ("alembic ../../x", "alembic-..-..-x"),
        ("…", "unknown"),
        ("x" * 300, "x" * 80),
    ],
)
def test_version_in_the_name(version: str, label: str) -> None:
    assert Occasion("shop", version).label == label


def test_time_in_the_name() -> None:
    assert len(Occasion("shop", "empty").time) == len("20261121T165000Z")


def test_path_with_marks(take: Take, shop: pathlib.Path) -> None:
    strange = shop.rename(shop.with_name("a 100% #1.db"))
    # SQLAlchemy 2 unquotes the path of a URL.
    taken = take(f"sqlite:///{str(strange).replace('%', '%25')}", "builtin")
    assert sql(pathlib.Path(taken.removeprefix("backup in ")), "SELECT * FROM orders") == [(1, 2)]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_others_have_written_but_not_committed_is_not_in_it(
    mode: str, take: Take, shop: pathlib.Path
) -> None:
    with contextlib.closing(sqlite3.connect(shop, isolation_level=None)) as other:
        other.execute(f"PRAGMA journal_mode={mode}")
        other.execute("INSERT INTO orders VALUES (2, 3)")
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO orders VALUES (3, 4)")
        copy = pathlib.Path(take(shop, "builtin").removeprefix("backup in "))
        other.execute("COMMIT")
    assert sql(copy, "SELECT id FROM orders") == [(1,), (2,)]
    assert sql(shop, "SELECT count(*) FROM orders") == [(3,)]
    assert [name for name in backups(shop.parent) if not name.endswith(("-wal", "-shm"))] == [copy.name]


def test_a_writer_meanwhile_does_not_keep_it_from_ending(take: Take, shop: pathlib.Path) -> None:
    """Every commit of another process would make SQLite's backup begin anew."""
    sql(
        shop, "PRAGMA journal_mode=wal", "CREATE TABLE big AS SELECT 1 AS number, zeroblob(1) AS data WHERE 0"
    )
    sql(shop, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)"
        " INSERT INTO big SELECT i, randomblob(4000) FROM n")  # fmt: skip
    ended = threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(shop, isolation_level=None, timeout=30)) as other:
            while not ended.is_set():
                other.execute("UPDATE big SET number = number + 1 WHERE number % 500 = 0")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copy = pathlib.Path(take(shop, "builtin").removeprefix("backup in "))
    finally:
        ended.set()
        writer.join()
    assert sql(copy, "SELECT count(*) FROM big") == [(4000,)]


def test_damaged_database(take: Take, shop: pathlib.Path) -> None:
    sql(shop, "CREATE INDEX i ON orders (price)", "CREATE TABLE more AS SELECT randomblob(3000) AS a",
        "INSERT INTO more SELECT randomblob(3000) FROM more")  # fmt: skip
    content = bytearray(shop.read_bytes())
    content[4096 + 100 :] = b"\xff" * (len(content) - 4096 - 100)
    shop.write_bytes(content)
    with pytest.raises(TargetError, match=r"damaged|not an SQLite|malformed"):
        take(shop, "builtin")
    assert backups(shop.parent) == []


def test_file_that_is_no_database(take: Take, shop: pathlib.Path) -> None:
    shop.write_text("just some words, more than there are in an SQLite header\n" * 50)
    with pytest.raises(TargetError, match="is not an SQLite database; correct connection"):
        take(shop, "builtin")
    assert backups(shop.parent) == []


def test_empty_file(take: Take, new_database: pathlib.Path) -> None:
    copy = pathlib.Path(take(new_database, "builtin", Occasion("shop", "empty")).removeprefix("backup in "))
    assert sql(copy, "SELECT * FROM sqlite_master") == []


def test_too_little_space(take: Take, shop: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(shop.parent)
    full = os.statvfs_result((*real[:3], 0, 0, *real[5:]))
    monkeypatch.setattr(backup_sqlite.os, "statvfs", lambda _path: full)
    message = rf"0\.0 MiB in {shop.parent}, which has 0\.0 MiB left; nothing was changed; make room, or name"
    with pytest.raises(TargetError, match=message):
        take(shop, "builtin")
    assert backups(shop.parent) == []


def test_disk_that_fills_up_meanwhile(shop: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """On a disk of its own; somebody else has taken the room that was there at the look."""
    sql(shop, "CREATE TABLE big AS SELECT randomblob(3000000) AS data")
    disk = tmp_path / "disk"
    disk.mkdir()
    program = (
        "import os, sys\n"
        "from refresh_agent.db.worker import backup_sqlite, faults, stopping\n"
        "backup_sqlite._check_space = lambda *_: None\n"
        "try:\n"
        "    backup_sqlite.take(sys.argv[1], sys.argv[2], 'backup-x', stopping.Stopping())\n"
        "except faults.TargetError as fault:\n"
        "    print(fault, os.listdir(sys.argv[2]))\n"
    )
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$4" "$1"'
    command = ["unshare", "--mount", *user, "sh", "-c", script, "sh", disk, sys.executable, program, shop]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ended.stdout.startswith(f"backup: {disk} is full now; nothing was changed; make room, or name")
    assert ended.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("builtin:relative", "relative is not an absolute path; write builtin:/absolute/path"),
        ("builtin:/not/there", "the directory /not/there does not exist; create it"),
        ("builtin:/proc", "/proc/.* cannot be written: .*; nothing was changed"),
    ],
)
def test_directory_that_will_not_do(option: str, message: str, take: Take, shop: pathlib.Path) -> None:
    with pytest.raises(TargetError, match=message):
        take(shop, option)


def test_killed_in_the_middle_leaves_nothing_under_the_final_name(shop: pathlib.Path) -> None:
    """The end comes right before the new name."""
    program = (
        "import os, signal, sys\n"
        "from refresh_agent.db.worker import backup_sqlite, stopping\n"
        "backup_sqlite._verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "backup_sqlite.take(sys.argv[1], '', 'backup-x', stopping.Stopping())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, shop], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [name for name in backups(shop.parent) if not name.startswith(".new.db.")] == []


def test_stop_during_a_copy(take: Take, shop: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sql(shop, "CREATE TABLE big AS SELECT randomblob(1000000) AS data")
    monkeypatch.setattr(backup_sqlite, "_PAGES", 1)
    real = backup_sqlite._check_space

    def stop(folder: str, needed: int) -> None:
        real(folder, needed)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(backup_sqlite, "_check_space", stop)
    with pytest.raises(Stopped, match="refresh-agent is stopping"):
        take(shop, "builtin")
    assert backups(shop.parent) == []


# --- commands --------------------------------------------------------------------------------------------

WITNESS = """
import json, os, pathlib, stat, sys
files = [os.environ.get("PGPASSFILE", ""), *(word.partition("=")[2] for word in sys.argv)]
seen = {"argv": sys.argv, "environment": dict(os.environ), "files": {}}
for path in filter(os.path.isfile, files):
    modes = [stat.S_IMODE(os.stat(name).st_mode) for name in (path, os.path.dirname(path))]
    seen["files"][path] = [pathlib.Path(path).read_text(), *modes]
pathlib.Path(sys.argv[1]).write_text(json.dumps(seen))
"""


@pytest.fixture
def witness(tmp_path: pathlib.Path) -> "Witness":
    """A command line, and what the command has seen."""
    program, seen = tmp_path / "witness.py", tmp_path / "seen"
    program.write_text(WITNESS)
    command = shlex.join([sys.executable, str(program), str(seen)])
    return command, lambda: json.loads(seen.read_text())


Witness = tuple[str, Callable[[], dict[str, Any]]]


def test_words_of_a_command(take: Take, shop: pathlib.Path, witness: Witness) -> None:
    command, seen = witness
    assert take(
        shop, f"{command} {{target}} '{{version}} {{time}}' {{file}} {{database}} '{{{{x}}}}' '$(id); *'"
    ) == (f"backup by {sys.executable}")
    words = ["shop", "alembic-5a1e 20261121T165000Z", str(shop), str(shop), "{x}", "$(id); *"]
    assert seen()["argv"][2:] == words


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("dump {password}", r"backup: \{password\} cannot be had for this database; there is \{database\}, "),
        ("dump {defaults_file}", r"backup: \{defaults_file\} cannot be had for this database"),
        ("dump 'x", "backup cannot be split into words"),
        (" ", "backup names no command"),
        ("/not/there {file}", "backup: /not/there cannot be run: No such file or directory"),
        ("sh -c 'echo 1; echo full >&2; echo; exit 3'", "sh exited with status 3: full; nothing was changed"),
        ("sh -c 'kill -9 $$'", "sh was ended by SIGKILL and said nothing; nothing was changed"),
    ],
)  # fmt: skip
def test_command_that_fails(option: str, message: str, take: Take, shop: pathlib.Path) -> None:
    with pytest.raises(TargetError, match=message):
        take(shop, option)


def test_what_a_command_makes_is_for_its_user_alone(take: Take, shop: pathlib.Path) -> None:
    take(f"sqlite:///{shop}", "/bin/cp --no-preserve=mode {file} {file}.copy")
    assert pathlib.Path(f"{shop}.copy").stat().st_mode & 0o777 == 0o600


def test_builtin_is_for_sqlite_only(take: Take) -> None:
    with pytest.raises(
        TargetError, match="backup = builtin of the target shop is for SQLite only; name a command"
    ):
        take("postgresql+psycopg2://u:secret@h/d", "builtin")


def test_output_goes_to_stderr_line_by_line(
    take: Take, shop: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    take(shop, "sh -c 'echo one; echo two >&2; printf three'")
    assert capfd.readouterr() == ("", "one\ntwo\nthree\n")


def test_bytes_that_are_no_text_and_an_endless_line(
    take: Take, shop: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    take(shop, shlex.join([sys.executable, "-c", "import os; os.write(1, b'\\xff\\n' + b'x' * 10000)"]))
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "\\xff"
    assert [len(line) for line in lines[1:]] == [4096, 4096, 10000 - 2 * 4096]


def test_password_is_masked_in_what_it_prints(take: Take, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TargetError) as raised:
        take("postgresql+psycopg2://u:hunter2xyz@h/d", "sh -c 'cat $PGPASSFILE; exit 1'")
    assert "hunter2xyz" not in capfd.readouterr().err + str(raised.value)
    assert "***" in str(raised.value)


def test_what_the_command_leaves_running_is_ended(
    take: Take, shop: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    take(shop, f"sh -c 'sleep 1000 & echo $! > {tmp_path}/pid'")
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not alive(pid))


def test_stop_ends_a_command_with_all_that_it_has_started(
    take: Take, shop: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what does not listen to TERM."""
    monkeypatch.setattr(backup_command, "GRACE", 0.2)
    script = tmp_path / "dump"
    script.write_text("trap '' TERM; sleep 1000 & echo $! > $1.new; mv $1.new $1; wait")

    def stop() -> None:
        eventually((tmp_path / "pid").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Stopped, match="refresh-agent is stopping: backup: sh was ended by SIGKILL"):
        take(shop, f"sh {script} {tmp_path}/pid")
    thread.join()
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not alive(pid))


def test_time_that_is_up(shop: pathlib.Path, stopping: Stopping) -> None:
    with pytest.raises(Stopped, match=r"not finished within 0\.2 s"), stopping.during(0.2, lambda: None):
        backup.take(Database(f"sqlite:///{shop}"), "sleep 1000", OCCASION, stopping)


# --- where the password is -------------------------------------------------------------------------------


def url(dialect: str, password: str, place: str) -> str:
    return str(databases.URL.create(dialect, "u:1", password).render_as_string(hide_password=False)) + place


@pytest.mark.parametrize("dialect", ["postgresql+psycopg2", "mysql+pymysql"])
@pytest.mark.parametrize("place", ["@h:1/d", "@/d?host=/run/x"])
def test_password_is_in_a_private_file_alone(
    dialect: str, place: str, take: Take, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "another")
    monkeypatch.setenv("PGSERVICE", "another")
    monkeypatch.setenv("MYSQL_PWD", "another")
    command, seen = witness
    option = "" if dialect.startswith("postgresql") else "--defaults-extra-file={defaults_file}"
    take(url(dialect, AWKWARD, place), f"{command} {option}")
    found = seen()
    for text in (json.dumps(found["argv"]), json.dumps(found["environment"])):
        assert "ss:w" not in text
        assert "another" not in text
    ((content, *modes),) = found["files"].values()
    assert modes == [0o600, 0o700]
    assert "ss" in content


def test_environment_of_a_postgresql_command(take: Take, witness: Witness) -> None:
    command, seen = witness
    take(
        "postgresql+psycopg2://u:secret@h:5433/d?sslmode=require&sslrootcert=/ca.pem&application_name=x",
        f"{command} {{host}} {{port}} {{user}} {{database}}",
    )
    named = {name: value for name, value in seen()["environment"].items() if name.startswith("PG")}
    assert named.pop("PGPASSFILE").endswith("/pgpass")
    assert named == {
        "PGHOST": "h", "PGPORT": "5433", "PGUSER": "u", "PGDATABASE": "d", "PGSSLMODE": "require",
        "PGSSLROOTCERT": "/ca.pem", "PGAPPNAME": "x",
    }  # fmt: skip
    assert seen()["argv"][2:] == ["h", "5433", "u", "d"]


@pytest.mark.parametrize(
    ("place", "hosts", "ports"),
    [
        ("?host=a:1&host=b:2", "a,b", "1,2"),
        ("?host=/run/postgresql", "/run/postgresql", ""),
        ("?host=/run/postgresql&port=5433", "/run/postgresql", "5433"),
        ("", "", ""),
    ],
)
def test_hosts_in_the_query(place: str, hosts: str, ports: str, take: Take, witness: Witness) -> None:
    command, seen = witness
    take(f"postgresql+psycopg2://u@/d{place}", f"{command} {{host}} {{port}}")
    assert seen()["argv"][2:] == [hosts, ports]
    assert "PGPASSFILE" not in seen()["environment"]


def test_password_that_no_file_of_libpq_can_hold(take: Take) -> None:
    with pytest.raises(TargetError, match="cannot hold a password with a line break"):
        take("postgresql+psycopg2://u:a%0Ab@h/d", "true")


# --- real servers ----------------------------------------------------------------------------------------


def fill(database: databases.Database) -> None:
    database.execute("CREATE TABLE orders (id integer PRIMARY KEY, note varchar(50))")
    database.execute("INSERT INTO orders VALUES (1, %s)", "Grüße")


def with_password(database: databases.Database, server: databases.Server) -> str:
    """The URL with the awkward password, which the server has been told."""
    assert isinstance(database, databases.ServerDatabase)
    user = f'"{database.user}"' if server.kind == "postgresql" else f"`{database.user}`@`%%`"
    verb = "PASSWORD" if server.kind == "postgresql" else "IDENTIFIED BY"
    server.execute(f"ALTER USER {user} {verb} %s", AWKWARD)
    parsed = databases.make_url(database.url()).set(password=AWKWARD)
    return parsed.render_as_string(hide_password=False)


def test_pg_dump_and_restore(take: Take, postgresql: databases.Server, tmp_path: pathlib.Path) -> None:
    source, copy = postgresql.create(), postgresql.create()
    fill(source)
    dump = tmp_path / "shop-alembic-5a1e.dump"
    take(with_password(source, postgresql), f"pg_dump -Fc -f '{tmp_path}/{{target}}-{{version}}.dump'")
    take(with_password(copy, postgresql), f"pg_restore --no-owner --exit-on-error -d {{database}} {dump}")
    assert postgresql.run(databases.make_url(copy.url()).set(password=AWKWARD), "SELECT * FROM orders") == [
        (1, "Grüße")
    ]


@pytest.fixture
def servers(postgresql: databases.Server, mariadb: databases.Server) -> dict[str, databases.Server]:
    """Both, so that they are started before a test's own temporary directory is the default."""
    return {"postgresql": postgresql, "mariadb": mariadb}


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("postgresql", "pg_dump"),
        ("postgresql", "pg_dump -Fc"),
        ("mariadb", "mariadb-dump --defaults-file={defaults_file} {database}"),
    ],
)
def test_a_dump_that_is_printed_is_no_backup_and_not_in_the_log(
    kind: str,
    command: str,
    take: Take,
    servers: dict[str, databases.Server],
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = servers[kind]
    source = server.create()
    fill(source)
    with pytest.raises(TargetError, match="prints its dump, which is kept nowhere; have it write a file"):
        take(with_password(source, server), command)
    assert "orders" not in capfd.readouterr().err


@pytest.mark.parametrize("option", ["--defaults-extra-file", "--defaults-file"])
def test_mariadb_dump_and_restore(
    option: str, take: Take, mariadb: databases.Server, tmp_path: pathlib.Path
) -> None:
    source, copy = mariadb.create(), mariadb.create()
    fill(source)
    dump = tmp_path / "shop.sql"
    file = f"{option}={{defaults_file}}"
    take(
        with_password(source, mariadb),
        f"mariadb-dump {file} --single-transaction -r {dump} {{database}}",
    )
    take(with_password(copy, mariadb), f"mariadb {file} -e 'source {dump}' {{database}}")
    assert mariadb.run(databases.make_url(copy.url()).set(password=AWKWARD), "SELECT * FROM orders") == [
        (1, "Grüße")
    ]


def test_refused_password(take: Take, postgresql: databases.Server) -> None:
    database = postgresql.create()
    wrong = databases.make_url(database.url()).set(password="wrong-one").render_as_string(hide_password=False)
    with pytest.raises(TargetError, match=r"pg_dump exited with status 1: .*password authentication failed"):
        take(wrong, "pg_dump -f /dev/null")
