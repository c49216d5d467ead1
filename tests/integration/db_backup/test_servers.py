"""Backups of real servers by the servers' own programs, and what they are worth."""

import pathlib

import pytest

from refresh_agent.db.worker.faults import TargetError
from tests.integration import databases
from tests.integration.db_backup.conftest import AWKWARD, Take


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
