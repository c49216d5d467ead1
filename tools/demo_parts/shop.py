"""The shop's database: made at a legacy version, and read in a way that does not depend on its version."""

import contextlib
import pathlib
import sqlite3
from dataclasses import dataclass

from demo_parts.programs import run
from demo_parts.tree import Tree

LEGACY_VERSION = 2
"""Of the three that its sqlalchemy-migrate repository has."""


@dataclass(frozen=True)
class Shop:
    """What the database holds. ``rows``: every customer, and every order with its price in cents."""

    version: str
    rows: tuple[tuple[object, ...], ...]


def build(tree: Tree) -> Shop:
    """Make it with the environment that still has sqlalchemy-migrate."""
    python = tree.environments.legacy / "bin" / "python"
    run("making the shop", [python, tree.shop / "make_shop.py", tree.database, str(LEGACY_VERSION)])
    return read(tree.database)


def read(path: pathlib.Path) -> Shop:
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        columns = {name for _, name, *_ in database.execute("PRAGMA table_info(orders)")}
        # A revision of the alembic tree turns prices into whole cents.
        cents = "price_cents" if "price_cents" in columns else "CAST(round(price * 100) AS INTEGER)"
        customers = database.execute("SELECT 'customer', id, name FROM customers ORDER BY id")
        orders = f"SELECT 'order', id, customer_id, item, {cents}, status FROM orders ORDER BY id"
        return Shop(_version(database), (*customers.fetchall(), *database.execute(orders).fetchall()))


def _version(database: sqlite3.Connection) -> str:
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "alembic_version" in tables:
        revisions = database.execute("SELECT version_num FROM alembic_version").fetchall()
        return "alembic " + " ".join(revision for (revision,) in revisions)
    (version,) = database.execute("SELECT version FROM migrate_version").fetchone()
    return f"migrate {version}"


def head(tree: Tree) -> str:
    """The newest revision, as alembic itself tells it."""
    alembic = tree.environments.agent / "bin" / "alembic"
    return run("asking alembic for its head", [alembic, "-c", tree.shop / "alembic.ini", "heads"]).split()[0]
