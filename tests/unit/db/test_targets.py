from dataclasses import replace

import pytest

from refresh_agent.db.targets import is_mysql, parse_legacy_versions, problems, problems_of_connection
from refresh_agent.model import Target

SOUND = Target(
    name="shop",
    connection="postgresql+psycopg2://shop:secret@db/shop",
    python="/opt/shop/bin/python",
    legacy_python="/opt/old/bin/python",
    alembic_config="/opt/shop/alembic.ini",
    migrate_repository="/opt/old/repo",
    legacy_versions=((86, "c6214ca60943"), (90, "abcd")),
    python_path=("/opt/shop/lib",),
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"connection": "sqlite:////var/lib/shop.db"},
        {"connection": "sqlite+pysqlite:////var/lib/shop.db?timeout=1"},
        {"connection": "sqlite:///file:/var/lib/shop.db?mode=rw&uri=true"},
        {"connection": "mysql://shop@db/shop"},
        {"migrate_repository": "", "legacy_versions": ()},
        {"alembic_config": "", "alembic_location": "/opt/shop/alembic"},
        {"alembic_config": "", "alembic_location": "shop.db:alembic"},
        {"legacy_python": "", "timeout": 0, "revision": "heads"},
        {"connection": "", "connection_from": "/etc/shop/shop.conf"},
        {"legacy_versions": ((3, "base"),)},
        {"lock_timeout": 0, "statement_timeout": 5.5, "user": "shop"},
        {"backup": "/usr/sbin/dump --to '/a b'"},
        {"backup": "builtin", "connection": "sqlite:////var/lib/shop.db"},
        {"backup": "builtin:/backups", "connection": "sqlite:////var/lib/shop.db"},
        {"backup": "builtin:/backups", "connection": "", "connection_from": "/etc/shop/shop.conf"},
    ],
)
def test_sound(options: dict[str, object]) -> None:
    assert problems(replace(SOUND, **options)) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"connection": ""}, "connection: not set"),
        ({"connection": "shop:secret@db"}, "connection: not a database URL"),
        ({"connection": "postgres://shop:secret@db/shop"}, "connection: there is no dialect postgres; write"),
        ({"connection": "sqlite:///shop.db"}, "connection: an SQLite database needs an absolute path"),
        ({"connection": "sqlite://"}, "connection: an SQLite database needs an absolute path"),
        ({"connection": "sqlite:///:memory:"}, "connection: an SQLite database needs an absolute path"),
        ({"alembic_config": ""}, "alembic_config: not set, and neither is alembic_location"),
        ({"alembic_location": "/x"}, "alembic_location: alembic_config is set too"),
        ({"alembic_config": "", "alembic_location": "alembic"}, "alembic_location: alembic is neither"),
        ({"migrate_repository": ""}, "legacy_versions: migrate_repository is not set"),
        ({"legacy_versions": ()}, "legacy_versions: not set"),
        ({"legacy_versions": ((3, "a"), (3, "b"))}, "legacy_versions: 3 occurs more than once"),
        ({"legacy_versions": ((0, "a"),)}, "legacy_versions: 0 is not a version"),
        ({"legacy_versions": ((3, "head"),)}, "legacy_versions: 3:head does not name"),
        ({"legacy_versions": ((3, "+1"),)}, "legacy_versions: 3:+1 does not name"),
        ({"alembic_config": "alembic.ini"}, "alembic_config: alembic.ini is not an absolute path"),
        ({"migrate_repository": "repo"}, "migrate_repository: repo is not an absolute path"),
        ({"python": "python3"}, "python: python3 is not an absolute path"),
        ({"python": ""}, "python: not set"),
        ({"legacy_python": "python3"}, "legacy_python: python3 is not an absolute path"),
        ({"python_path": ("/a", "b")}, "python_path: b is not an absolute path"),
        ({"revision": ""}, "revision: '' is not an alembic revision"),
        ({"revision": "a b"}, "revision: 'a b' is not an alembic revision"),
        ({"timeout": -1}, "timeout: -1 is not a number of seconds"),
        ({"timeout": float("nan")}, "timeout: nan is not a number of seconds"),
        ({"lock_timeout": -1}, "lock_timeout: -1 is not a number of seconds"),
        ({"statement_timeout": float("inf")}, "statement_timeout: inf is not a number of seconds"),
        ({"connection_from": "/etc/shop.conf"}, "connection_from: connection is set too; remove one"),
        ({"connection": "", "connection_from": "x.conf"}, "connection_from: x.conf is not an absolute path"),
        ({"user": " shop"}, "user: ' shop' is not a user's name"),
        ({"backup": "builtin"}, "backup: builtin is for SQLite alone"),
        ({"backup": "dump --all"}, "backup: 'dump' is not the absolute path of a program, nor builtin"),
        ({"backup": "/bin/dump 'x"}, "backup: no closing quotation"),
        (
            {"backup": "builtin:here", "connection": "sqlite:////shop.db"},
            "backup: builtin:DIRECTORY needs an absolute path",
        ),
    ],
)
def test_problem(options: dict[str, object], said: str) -> None:
    (problem,) = problems(replace(SOUND, **options))
    assert problem.startswith(said)
    assert "secret" not in problem


def test_all_problems_are_told_at_once() -> None:
    worst = Target(name="shop", connection="", python="", legacy_python="", revision="")
    assert [problem.partition(":")[0] for problem in problems(worst)] == [
        "connection",
        "alembic_config",
        "python",
        "revision",
    ]


def test_what_is_judged_once_the_connection_is_known() -> None:
    read = replace(SOUND, connection_from="/etc/shop.conf", backup="builtin")
    assert [problem.partition(";")[0] for problem in problems_of_connection(read)] == [
        "backup: builtin is for SQLite alone"
    ]
    assert problems_of_connection(replace(read, connection="sqlite:////shop.db")) == []


@pytest.mark.parametrize(
    ("connection", "is_one"),
    [
        ("mysql://db/x", True),
        ("mariadb+pymysql://db/x", True),
        ("mysqlish://db/x", False),
        ("sqlite:////x", False),
    ],
)
def test_is_mysql(connection: str, is_one: bool) -> None:
    assert is_mysql(connection) is is_one


def test_parse_legacy_versions() -> None:
    assert parse_legacy_versions([]) == ()
    assert parse_legacy_versions(["86:c6214ca60943", " 90 : abcd "]) == ((86, "c6214ca60943"), (90, "abcd"))


@pytest.mark.parametrize(
    "item", ["86", "86:", ":abcd", "x:abcd", "-1:abcd", "86:ab cd", "86:a:b", "8\u0666:ab", ""]
)
def test_bad_legacy_versions(item: str) -> None:
    with pytest.raises(ValueError, match=r"is not VERSION:REVISION.*as in 86:c6214ca60943"):
        parse_legacy_versions(["3:abcd", item])
