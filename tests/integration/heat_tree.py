"""The real migrations of openstack-heat: 20.0.1's by sqlalchemy-migrate, and 27.0.1's by alembic.

Each in an environment of its own, which ``tools/environments.py`` builds when it is not there.
"""

import functools
import json
import pathlib
import subprocess
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from refresh_agent.model import Target
from tools import environments

BASELINE = "c6214ca60943"
HEAD = "97b2a986f922"
LEGACY_END = 86

OURS = {"refresh_agent_lock", "refresh_agent_ledger"}
BOOKKEEPING = {"migrate_version", *OURS}
"""Tables that a database of Heat's may hold or not hold."""

MAKE_LEGACY = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
from migrate.versioning import api
url, repository, version = json.load(sys.stdin)
api.version_control(url, repository, 72)
api.upgrade(url, repository, version)
"""

MAKE_FRESH = """
import json, sys
from alembic import command, config
url, ini = json.load(sys.stdin)
tree = config.Config(ini)
tree.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
command.upgrade(tree, "head")
"""


@functools.cache
def python(environment: str) -> str:
    """The interpreter of "heat" or "heat-legacy"."""
    return str(environments.ensure(environment) / "bin" / "python")


@functools.cache
def _package(environment: str) -> pathlib.Path:
    """Where Heat lies in there."""
    (path,) = (environments.ensure(environment) / "lib").glob("python3*/site-packages/heat")
    return path


def repository() -> str:
    return str(_package("heat-legacy") / "db" / "sqlalchemy" / "migrate_repo")


def alembic_ini() -> str:
    return str(_package("heat") / "db" / "alembic.ini")


def target(url: str) -> Target:
    """As an operator writes it down for Heat."""
    return Target(
        name="heat",
        connection=url,
        python=python("heat"),
        legacy_python=python("heat-legacy"),
        alembic_config=alembic_ini(),
        migrate_repository=repository(),
        legacy_versions=((LEGACY_END, BASELINE),),
    )


def make_legacy(url: str, version: int = LEGACY_END) -> None:
    """What Heat 20.0.1 makes of an empty database, up to a version of its repository."""
    _run(python("heat-legacy"), MAKE_LEGACY, [url, repository(), version])


def make_fresh(url: str) -> None:
    """What Heat 27.0.1 makes of an empty database, by alembic alone."""
    _run(python("heat"), MAKE_FRESH, [url, alembic_ini()])


def _run(interpreter: str, program: str, arguments: list[Any]) -> None:
    """The URL goes in by standard input, as everywhere: it holds a password."""
    done = subprocess.run(
        [interpreter, "-c", program], input=json.dumps(arguments), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def schema(url: str) -> dict[str, Any]:
    """What SQLAlchemy's inspector sees, by table: columns, primary key, indexes, foreign keys, uniques."""
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        names = sorted(set(inspector.get_table_names()) - BOOKKEEPING)
        return {name: _table(inspector, name) for name in names}


def _table(inspector: sa.Inspector, name: str) -> dict[str, Any]:
    keys = inspector.get_foreign_keys(name)
    by_itself = {tuple(key["constrained_columns"]) for key in keys if inspector.dialect.name == "mysql"}
    return {
        "columns": {
            column["name"]: (_type(column["type"]), column["nullable"])
            for column in inspector.get_columns(name)
        },
        "primary key": inspector.get_pk_constraint(name)["constrained_columns"],
        "indexes": sorted(_index(index, by_itself) for index in inspector.get_indexes(name)),
        "foreign keys": sorted(
            (tuple(key["constrained_columns"]), key["referred_table"], tuple(key["referred_columns"]))
            for key in keys
        ),
        "uniques": sorted(tuple(unique["column_names"]) for unique in inspector.get_unique_constraints(name)),
    }


def _index(index: Any, by_itself: set[tuple[str, ...]]) -> tuple[str, tuple[str, ...], bool]:
    """Without its name if MariaDB makes it by itself for a foreign key, and calls it after that.

    Heat's two trees name one key of sync_point differently.
    """
    columns = tuple(index["column_names"])
    return ("" if columns in by_itself else index["name"], columns, bool(index["unique"]))


def _type(column: Any) -> str:
    """Without the character set, which is the database's, not the schema's."""
    return f"{type(column).__name__} {getattr(column, 'length', None)}"
