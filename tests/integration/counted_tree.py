"""An alembic tree whose revisions leave traces that can be counted: whether one ran twice, or not at all.

Its env.py is the one that ``alembic init`` writes: it knows nothing of transactions on SQLite, or of us.
"""

import pathlib
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tests.integration.databases import Database

DRIVERS = {"postgresql": "psycopg2", "mysql": "pymysql"}
"""Those that both worlds of SQLAlchemy have."""

REVISIONS = tuple(f"c0unted{number}" for number in range(1, 7))
HEAD = REVISIONS[-1]

ENV = """\
from alembic import context
from sqlalchemy import engine_from_config, pool

engine = engine_from_config(context.config.get_section("alembic"), "sqlalchemy.", poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
"""

FIRST = """\
    key = sa.Column("id", sa.Integer, primary_key=True)
    op.create_table("log", key, sa.Column("revision", sa.String(32)))
    op.create_table("total", sa.Column("runs", sa.Integer))
    op.execute("INSERT INTO total (runs) VALUES (0)")
    op.create_table("stock", sa.Column("name", sa.String(32)))
"""

# Nothing in here can be done twice without a trace, and the two rows of `stock` are one statement given
# twice: who takes the second for the first one, come again, loses a row.
BODY = """\
    op.create_table("part_{name}", sa.Column("id", sa.Integer), sa.Column("price", sa.Integer))
    op.execute("INSERT INTO log (revision) VALUES ('{name}')")
    op.execute("INSERT INTO stock (name) VALUES ('{name}')")
    op.add_column("part_{name}", sa.Column("cents", sa.Integer))
    op.execute("INSERT INTO stock (name) VALUES ('{name}')")
    op.execute("UPDATE total SET runs = runs + 1")
    op.execute("INSERT INTO part_{name} (id, price, cents) VALUES (1, 7, 0)")
    op.create_index("by_price_{name}", "part_{name}", ["price"])
    op.execute("UPDATE part_{name} SET cents = cents + 100 * price")
"""


@dataclass(frozen=True)
class Counts:
    """What a database holds of the tree's traces. ``tables``: how many, of the tree's own."""

    version: tuple[str, ...]
    log: tuple[str, ...]
    runs: int
    stock: int
    cents: tuple[int, ...]
    tables: int


WHOLE = Counts(
    version=(HEAD,),
    log=REVISIONS,
    runs=len(REVISIONS),
    stock=2 * len(REVISIONS),
    cents=(700,) * len(REVISIONS),
    tables=3 + len(REVISIONS),
)
"""Every revision once."""


def url(database: Database) -> str:
    """One that means the same driver to every interpreter."""
    return database.url(DRIVERS.get(database.kind, ""))


def write(path: pathlib.Path, connection: str) -> pathlib.Path:
    """Write the tree into the new directory ``path``; its alembic.ini."""
    versions = path / "versions"
    versions.mkdir(parents=True)
    (path / "env.py").write_text(ENV)
    for down, name in zip((None, *REVISIONS), REVISIONS, strict=False):
        body = (FIRST if down is None else "") + BODY.format(name=name)
        (versions / f"{name}.py").write_text(
            "import sqlalchemy as sa\nfrom alembic import op\n"
            f"revision = {name!r}\ndown_revision = {down!r}\n\n\ndef upgrade():\n{body}"
        )
    ini = path / "alembic.ini"
    escaped = connection.replace("%", "%%")
    ini.write_text(f"[alembic]\nscript_location = {path}\nsqlalchemy.url = {escaped}\n")
    return ini


def count(connection: str) -> Counts:
    """Of a database at the tree's head; of any other, SQLAlchemy's error about what is not there."""
    engine = sa.create_engine(connection, poolclass=NullPool)
    with engine.connect() as opened:

        def column(statement: str) -> tuple[object, ...]:
            return tuple(opened.execute(sa.text(statement)).scalars())

        names = sa.inspect(opened).get_table_names()
        parts = sorted(name for name in names if name.startswith("part_"))
        return Counts(
            version=tuple(map(str, column("SELECT version_num FROM alembic_version"))),
            log=tuple(map(str, column("SELECT revision FROM log ORDER BY id"))),
            runs=int(str(column("SELECT runs FROM total")[0])),
            stock=len(column("SELECT name FROM stock")),
            cents=tuple(int(str(cents)) for part in parts for cents in column(f"SELECT cents FROM {part}")),
            tables=len({"log", "total", "stock"} & set(names)) + len(parts),
        )
