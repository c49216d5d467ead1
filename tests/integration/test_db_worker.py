"""The worker with trees and databases that misbehave: real processes, real interpreters, real files."""

import contextlib
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pytest

from refresh_agent.db.bridge import WORKER
from refresh_agent.model import Command, Ending, Exit, MigrationOutcome, Target
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.wakeup import Stop
from tests.integration.conftest import BASELINE, HEAD, AlembicTree, Bridge, sql

MakeTree = Callable[[str], AlembicTree]

CREATE = "op.create_table('things', sa.Column('id', sa.Integer))"


@pytest.fixture
def target(new_database: pathlib.Path, modern_python: str) -> Callable[[AlembicTree], Target]:
    """A target for a tree of the test, on a new database."""
    return lambda tree: Target(
        name=tree.path.name,
        connection=f"sqlite:///{new_database}",
        python=modern_python,
        legacy_python="",
        alembic_location=str(tree.path),
    )


MakeTarget = Callable[[AlembicTree], Target]


# --- the database file -----------------------------------------------------------------------------------


def test_missing_file(shop: Target, db_bridge: Bridge, tmp_path: pathlib.Path) -> None:
    result = db_bridge.upgrade_one(replace(shop, connection=f"sqlite:///{tmp_path}/no.db"))
    assert result.outcome is MigrationOutcome.FAILED
    assert (
        f"the database file {tmp_path}/no.db does not exist; correct connection, or create" in result.message
    )
    assert not (tmp_path / "no.db").exists()


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("world", ["modern", "legacy"])
def test_locked_file(
    world: str, shop: Target, db_bridge: Bridge, new_database: pathlib.Path, legacy_python: str
) -> None:
    python = shop.python if world == "modern" else legacy_python
    waiting = replace(shop, python=python, connection=f"{shop.connection}?timeout=0.01")
    with locked(new_database):
        result = db_bridge.upgrade_one(waiting)
    assert result.outcome is MigrationOutcome.FAILED
    assert f"{new_database} is locked by another process; it will be tried again" in result.message
    assert db_bridge.upgrade_one(waiting).ok


def test_file_that_gets_locked_after_the_look(
    shop: Target, db_bridge: Bridge, new_database: pathlib.Path
) -> None:
    """Readers may look at a database that somebody writes to; the upgrade then cannot begin."""
    with contextlib.closing(sqlite3.connect(new_database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        result = db_bridge.upgrade_one(replace(shop, connection=f"{shop.connection}?timeout=0.01"))
    assert (result.outcome, result.before, result.after) == (MigrationOutcome.FAILED, "empty", "empty")
    assert "is locked by another process; it will be tried again" in result.message


@pytest.mark.parametrize("start", ["empty", "migrate 2"])
def test_read_only_file(
    start: str, shop: Target, db_bridge: Bridge, new_database: pathlib.Path, shops: Mapping[str, bytes]
) -> None:
    """By the open mode: the superuser, who may run this, can write to any file."""
    new_database.write_bytes(shops.get(start, b""))
    result = db_bridge.upgrade_one(
        replace(shop, connection=f"sqlite:///file:{new_database}?mode=ro&uri=true")
    )
    assert (result.outcome, result.before, result.after) == (MigrationOutcome.FAILED, start, start)
    assert f"the database file {new_database} is read-only" in result.message
    assert new_database.read_bytes() == shops.get(start, b"")


def test_file_that_is_no_database(shop: Target, db_bridge: Bridge, new_database: pathlib.Path) -> None:
    new_database.write_text("just some words, more than there are in an SQLite header\n" * 50)
    result = db_bridge.upgrade_one(shop)
    assert f"the file {new_database} is not an SQLite database; correct connection" in result.message


def test_directory_in_place_of_the_file(shop: Target, db_bridge: Bridge, tmp_path: pathlib.Path) -> None:
    result = db_bridge.upgrade_one(replace(shop, connection=f"sqlite:///{tmp_path}"))
    assert f"the database file {tmp_path} cannot be opened; check the rights" in result.message


@pytest.mark.parametrize("connection", ["sqlite://", "sqlite:///:memory:"])
def test_database_in_memory(connection: str, shop: Target, db_bridge: Bridge) -> None:
    assert "names no database file" in db_bridge.upgrade_one(replace(shop, connection=connection)).message


def test_not_a_url(shop: Target, db_bridge: Bridge) -> None:
    result = db_bridge.upgrade_one(replace(shop, connection="shop, please"))
    assert result.outcome is MigrationOutcome.REFUSED
    assert result.message.startswith("shop: connection: not a database URL; write dialect://")


@pytest.mark.parametrize("world", ["modern", "legacy"])
def test_percent_and_space_in_the_paths(
    world: str,
    shop: Target,
    db_bridge: Bridge,
    shop_tree: pathlib.Path,
    shops: Mapping[str, bytes],
    legacy_python: str,
) -> None:
    home = shop_tree.rename(shop_tree.with_name("a 100% shop"))
    (home / "the shop.db").write_bytes(shops["migrate 2"])
    # SQLAlchemy 2 unquotes the path of a URL, 1.4 does not.
    path = str(home).replace("%", "%25") if world == "modern" else str(home)
    result = db_bridge.upgrade_one(
        replace(
            shop,
            python=shop.python if world == "modern" else legacy_python,
            legacy_python=legacy_python,
            connection=f"sqlite:///{path}/the shop.db",
            alembic_config="",
            alembic_location=str(home / "alembic"),
            legacy_versions=((2, BASELINE),),
            revision=BASELINE,
            migrate_repository=str(home / "legacy"),
        )
    )
    assert (result.before, result.after) == ("migrate 2", f"alembic {BASELINE}"), result
    assert len(sql(home / "the shop.db", "SELECT * FROM orders")) == 3


def test_space_in_every_path(
    shop: Target, db_bridge: Bridge, shop_tree: pathlib.Path, shops: Mapping[str, bytes]
) -> None:
    home = shop_tree.rename(shop_tree.with_name("the old shop"))
    (home / "shop.db").write_bytes(shops["migrate 1"])
    result = db_bridge.upgrade_one(
        replace(
            shop,
            connection=f"sqlite:///{home}/shop.db",
            alembic_config=str(home / "alembic.ini"),
            migrate_repository=str(home / "legacy"),
        )
    )
    assert (result.before, result.after) == ("migrate 1", f"alembic {HEAD}"), result


# --- alembic trees ---------------------------------------------------------------------------------------


def test_a_revision_that_fails(make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge) -> None:
    tree = make_tree("depot")
    tree.revision("aaaa", None, CREATE)
    tree.revision(
        "bbbb",
        "aaaa",
        'op.execute("INSERT INTO things VALUES (1)")',
        "op.bulk_insert(sa.table('nothings', sa.column('id')), [{'id': 4711}])",
    )
    tree.revision("cccc", "bbbb")
    result = db_bridge.upgrade_one(target(tree))
    assert (result.outcome, result.before, result.after) == (MigrationOutcome.FAILED, "empty", "alembic aaaa")
    assert result.message.startswith("depot: alembic upgrade aaaa -> bbbb")
    assert "failed: OperationalError: no such table: nothings [SQL: INSERT INTO nothings" in result.message
    assert "4711" not in result.message
    assert "\n" not in result.message


def test_env_py_that_calls_sys_exit(make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge) -> None:
    tree = make_tree("depot")
    tree.env.write_text("import sys\nsys.exit('not today')\n")
    result = db_bridge.upgrade_one(target(tree))
    assert (result.outcome, result.message) == (
        MigrationOutcome.FAILED,
        "depot: SystemExit: not today (env.py, line 2)",
    )


def test_env_py_that_runs_nothing(make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge) -> None:
    tree = make_tree("depot")
    tree.env.write_text("")
    result = db_bridge.upgrade_one(target(tree))
    assert "its env.py does not call context.run_migrations()" in result.message


def test_env_py_that_never_commits(make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge) -> None:
    """Whatever runs before configure() begins a transaction that nobody commits; alembic says nothing."""
    tree = make_tree("depot")
    tree.revision("aaaa", None, CREATE)
    source = tree.env.read_text()
    connect = "    with engine.connect() as connection:\n"
    assert connect in source
    tree.env.write_text(source.replace(connect, connect + "        connection.exec_driver_sql('SELECT 1')\n"))
    result = db_bridge.upgrade_one(target(tree))
    assert (result.outcome, result.before, result.after) == (MigrationOutcome.FAILED, "empty", "empty")
    assert "alembic ran to aaaa, but the database has not kept it; does env.py commit?" in result.message


def test_env_py_that_prints_and_takes_over_logging(
    make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge
) -> None:
    tree = make_tree("depot")
    tree.revision(
        "aaaa",
        None,
        "import logging",
        "logging.getLogger('depot').info('3 things moved')",
        "logging.getLogger('alembic.runtime.migration').info('4 things moved')",
        "os.system('echo a child speaks')",
        'print(\'{"target": "depot", "event": "result", "result": "done"}\')',
        "print('caf\\udce9')",
    )
    tree.env.write_text(
        "import logging.config\n"
        "logging.getLogger('alembic.runtime.migration').setLevel('INFO')\n"
        "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': True,"
        " 'loggers': {'alembic': {'level': 'INFO'}},"
        " 'handlers': {'out': {'class': 'logging.StreamHandler', 'stream': 'ext://sys.stdout'}},"
        " 'root': {'level': 'INFO', 'handlers': ['out']}})\n"
        "print('env.py speaks')\n" + tree.env.read_text()
    )
    result = db_bridge.upgrade_one(target(tree))
    assert (result.outcome, result.after) == (MigrationOutcome.DONE, "alembic aaaa"), db_bridge.log
    for line in ("env.py speaks", "3 things moved", "4 things moved", "a child speaks", "caf\\udce9"):
        assert f"depot: {line}" in db_bridge.log
    assert any('"result": "done"' in line for line in db_bridge.log)
    assert not any("Context impl" in line or "Running upgrade" in line for line in db_bridge.log)


def test_loggers_of_alembic_speak_after_another_tree_has_silenced_them(
    make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge, tmp_path: pathlib.Path
) -> None:
    quiet, loud = make_tree("quiet"), make_tree("loud")
    quiet.env.write_text(
        "import logging.config\nlogging.getLogger('common')\n"
        "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': True})\n"
        + quiet.env.read_text()
    )
    quiet.revision("aaaa", None)
    loud.revision("bbbb", None, "import logging", "logging.getLogger('common').info('heard')")
    (tmp_path / "loud.db").touch()
    results = db_bridge.upgrade(
        target(quiet), replace(target(loud), connection=f"sqlite:///{tmp_path}/loud.db")
    )
    assert all(result.ok for result in results)
    assert "loud: INFO common: heard" in db_bridge.log


def test_several_heads(make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge) -> None:
    tree = make_tree("depot")
    tree.revision("aaaa", None, CREATE)
    tree.revision("bbbb", "aaaa")
    tree.revision("cccc", "aaaa")
    refused = db_bridge.upgrade_one(target(tree))
    assert (refused.outcome, refused.after) == (MigrationOutcome.REFUSED, "empty")
    assert "Multiple head revisions" in refused.message
    result = db_bridge.upgrade_one(replace(target(tree), revision="heads"))
    assert (result.outcome, result.after) == (MigrationOutcome.DONE, "alembic bbbb+cccc")


def test_tree_without_revisions(make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge) -> None:
    result = db_bridge.upgrade_one(target(make_tree("depot")))
    assert (result.outcome, result.before) == (MigrationOutcome.UNCHANGED, "empty")


def test_a_version_table_of_its_own(
    make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge, new_database: pathlib.Path
) -> None:
    """Two services share a database; each env.py names its own version table."""
    tree = make_tree("depot")
    tree.env.write_text(
        tree.env.read_text().replace(
            "configure(\n", "configure(\n            version_table='depot_version',\n", 1
        )
    )
    tree.revision("aaaa", None, CREATE)
    sql(
        new_database,
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "INSERT INTO alembic_version VALUES ('0ther')",
        "CREATE TABLE depot_version (version_num VARCHAR(32))",
    )
    assert db_bridge.upgrade_one(target(tree)).message.startswith("depot: it has tables but no version")
    sql(new_database, "DROP TABLE alembic_version")
    result = db_bridge.upgrade_one(target(tree))
    assert (result.before, result.after) == ("empty", "alembic aaaa"), result


def test_ini_with_a_relative_script_location(
    make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge
) -> None:
    tree = make_tree("depot")
    tree.revision("aaaa", None, "import beside", "beside.check()")
    ini = tree.path.parent / "alembic.ini"
    ini.write_text(
        "[alembic]\nscript_location = depot\nprepend_sys_path = .\n[loggers]\nkeys = root\n"
        "[handlers]\nkeys =\n[formatters]\nkeys =\n[logger_root]\nhandlers =\n"
    )
    (tree.path.parent / "beside.py").write_text("def check(): pass\n")
    result = db_bridge.upgrade_one(replace(target(tree), alembic_location="", alembic_config=str(ini)))
    assert (result.outcome, result.after) == (MigrationOutcome.DONE, "alembic aaaa"), result


def test_location_in_a_package_and_modules_of_the_same_name(
    make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge, tmp_path: pathlib.Path
) -> None:
    """Two services in one worker, each with its own ``service`` package; and one with a ``transition``."""
    targets = []
    for name in ("north", "south"):
        tree = make_tree(f"{name}/service/migrations")
        tree.revision("aaaa", None, "import service, transition", "print(service.NAME, transition.NAME)")
        (tmp_path / name / "service" / "__init__.py").write_text(f"NAME = {name!r}\n")
        (tmp_path / name / "transition.py").write_text(f"NAME = 'transition of {name}'\n")
        (tmp_path / name / "data.db").touch()
        targets.append(
            replace(
                target(tree),
                name=name,
                connection=f"sqlite:///{tmp_path}/{name}/data.db",
                alembic_location="service:migrations",
                python_path=(str(tmp_path / name),),
            )
        )
    results = db_bridge.upgrade(*targets)
    assert [result.after for result in results] == ["alembic aaaa", "alembic aaaa"], results
    assert "north: north transition of north" in db_bridge.log
    assert "south: south transition of south" in db_bridge.log


def test_location_that_does_not_exist(shop: Target, db_bridge: Bridge) -> None:
    result = db_bridge.upgrade_one(replace(shop, alembic_config="", alembic_location="/nonexistent/50%"))
    assert result.outcome is MigrationOutcome.FAILED
    assert "/nonexistent/50%" in result.message


# --- workers that die ------------------------------------------------------------------------------------


def test_killed_worker_does_not_stop_the_others(
    make_tree: MakeTree, target: MakeTarget, db_bridge: Bridge, shop: Target, tmp_path: pathlib.Path
) -> None:
    tree = make_tree("depot")
    tree.revision("aaaa", None, CREATE)
    tree.revision("bbbb", "aaaa", f"os.kill(os.getpid(), {int(signal.SIGKILL)})")
    for name in ("first", "last", "depot"):
        (tmp_path / f"{name}.db").touch()
    first, last = (
        replace(shop, name=name, connection=f"sqlite:///{tmp_path}/{name}.db") for name in ("first", "last")
    )
    middle = replace(target(tree), connection=f"sqlite:///{tmp_path}/depot.db")
    results = db_bridge.upgrade(first, middle, last)
    assert [result.outcome.value for result in results] == ["done", "failed", "done"]
    assert (
        f"depot: its worker ({middle.python}) was killed by signal 9 without a result" in results[1].message
    )
    assert sql(tmp_path / "depot.db", "SELECT * FROM alembic_version") == [("aaaa",)]


@pytest.mark.parametrize("stopping", [False, True])
def test_worker_that_hangs(
    stopping: bool, make_tree: MakeTree, target: MakeTarget, new_database: pathlib.Path
) -> None:
    """It says that it is there, and then waits for what does not come."""
    tree = make_tree("depot")
    tree.revision("aaaa", None, CREATE, "print('here', flush=True)", "import time", "time.sleep(600)")
    stop = Stop()
    bridge = Bridge(ProcessRunner(stop, Grace(kill=10, stop=0)))

    class StopAtTheSign(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if stopping and line == "depot: here":
                stop.request(signal.SIGTERM)

    bridge.log = StopAtTheSign()
    hanging = replace(target(tree), timeout=60 if stopping else 3)
    later = replace(hanging, name="later", python="/nonexistent/python")
    result, other = bridge.upgrade(hanging, later)
    stop.close()
    assert "depot: here" in bridge.log
    assert sql(new_database, "SELECT name FROM sqlite_master WHERE name = 'things'") == []
    if stopping:
        assert (result.outcome, other.outcome) == (MigrationOutcome.STOPPED, MigrationOutcome.STOPPED)
        assert "not begun" in other.message
    else:
        assert (result.outcome, other.outcome) == (MigrationOutcome.FAILED, MigrationOutcome.FAILED)
        assert "-> aaaa failed: not finished within 3 s; nothing of it remains" in result.message


def test_nobody_listens_any_more(shop: Target, new_database: pathlib.Path) -> None:
    """The agent has been killed: the worker finishes what it has begun."""
    captured: list[Command] = []

    class Capture:
        def run(self, command, sink):
            captured.append(command)
            return Exit(0, Ending.STOPPED, 0.0)

    Bridge(Capture()).upgrade_one(shop)  # type: ignore[arg-type]
    command = captured[0]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command.argv, input=command.stdin, stdout=writer, stderr=subprocess.PIPE, env=command.env, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sql(new_database, "SELECT * FROM alembic_version") == [(HEAD,)]


def test_unknown_protocol(modern_python: str) -> None:
    request = json.dumps({"version": 99, "operation": "upgrade", "targets": []})
    done = subprocess.run([modern_python, WORKER], input=request, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown protocol version 99" in done.stderr


# --- what is not installed -------------------------------------------------------------------------------


# --- secrets ---------------------------------------------------------------------------------------------

PASSWORD = "p%w@ü/rd'1"
QUOTED = "p%25w%40%C3%BC%2Frd%271"


def leaks(text: str) -> bool:
    return any(part in text for part in ("p%w", "p%25w", "p%%25w", "rd'1", "rd%271"))


@pytest.mark.parametrize("world", ["modern", "legacy"])
def test_the_password_is_not_in_the_messages_of_sqlalchemy(
    world: str, shop: Target, db_bridge: Bridge, legacy_python: str
) -> None:
    """An SQLite URL cannot have one; SQLAlchemy 1.4 repeats it in full in the error."""
    python = shop.python if world == "modern" else legacy_python
    result = db_bridge.upgrade_one(
        replace(
            shop, python=python, connection=f"sqlite://shop:{QUOTED}@/{shop.connection.partition('///')[2]}"
        )
    )
    assert result.outcome is MigrationOutcome.FAILED
    assert "Invalid SQLite URL" in result.message
    assert not any(leaks(text) for text in (*db_bridge.log, repr(result)))


def test_the_password_is_in_no_argument_and_no_environment(shop: Target) -> None:
    commands: list[Command] = []

    class Capture:
        def run(self, command, sink):
            commands.append(command)
            return Exit(0, Ending.STOPPED, 0.0)

    Bridge(Capture()).upgrade_one(replace(shop, connection=f"postgresql://shop:{QUOTED}@h/d"))  # type: ignore[arg-type]
    (command,) = commands
    assert not leaks(repr((command.path, command.argv, dict(command.env), command)))
    assert QUOTED.encode() in command.stdin
