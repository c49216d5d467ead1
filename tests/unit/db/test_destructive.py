"""What a migration script drops, read from its source."""

import contextlib
import pathlib
import textwrap
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.db.worker.destructive import ALEMBIC, MIGRATE, SQL, findings

SHOP = pathlib.Path(__file__).resolve().parent.parent.parent.parent / "examples" / "shop"


def alembic(*body: str, before: str = "") -> tuple[str, ...]:
    """What the upgrade() of a revision with these lines drops."""
    lines = textwrap.indent("\n".join(body) or "pass", "    ")
    return findings(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"{textwrap.dedent(before)}\ndef upgrade():\n{lines}\n\n"
        "def downgrade():\n    op.drop_table('only_on_the_way_down')\n",
        ALEMBIC,
    )


def migrate(*body: str, before: str = "") -> tuple[str, ...]:
    lines = textwrap.indent("\n".join(body) or "pass", "    ")
    return findings(
        f"from sqlalchemy import *\nfrom migrate import *\nmeta = MetaData()\n{textwrap.dedent(before)}\n"
        f"def upgrade(migrate_engine):\n    t = Table('t', meta, autoload=True)\n{lines}\n",
        MIGRATE,
    )


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("op.drop_table('users')", "drops the table users"),
        ("op.drop_table(table_name='users')", "drops the table users"),
        ("op.drop_table('users', schema='app')", "drops the table app.users"),
        ("op.drop_table('users', schema=None)", "drops the table users"),
        ("op.drop_table(op.f('users'))", "drops the table users"),
        ("op.drop_table(prefix + '_users')", "drops the table {prefix}_users"),
        ("op.drop_table(f'{prefix}_users')", "drops the table {prefix}_users"),
        ("op.drop_table('%s_users' % prefix)", "drops the table {prefix}_users"),
        ("op.drop_table('{}_{what}'.format(prefix, what=name()))", "drops the table {prefix}_{name()}"),
        ("op.drop_table(Users.__tablename__)", "drops the table {Users.__tablename__}"),
        ("op.drop_column('t', 'c')", "drops the column t.c"),
        ("op.drop_column('t', column_name='c', schema='s')", "drops the column s.t.c"),
        ("op.drop_column(table_name='t', column_name='c')", "drops the column t.c"),
        ("op.drop_column(table, column)", "drops the column {table}.{column}"),
        ("op.invoke(ops.DropTableOp('users'))", "drops the table users"),
        ("op.execute(sa.schema.DropTable(sa.table('users')))", "drops the table {sa.table('users')}"),
        ("op.execute('DROP TABLE users')", "drops the table users"),
        ("op.execute(sa.text('drop table if exists \"users\" cascade'))", "drops the table users"),
        ("op.execute(f'DROP TABLE {schema}.users')", "drops the table {schema}.users"),
        ("op.execute('DROP TABLE ' + users)", "drops the table {users}"),
        ("op.execute('DROP TABLE ' 'users')", "drops the table users"),
        ("op.get_bind().exec_driver_sql('DROP TABLE users')", "drops the table users"),
        ("op.execute('ALTER TABLE t DROP c')", "drops the column t.c"),
        (
            "op.execute('ALTER TABLE %s DROP COLUMN %s' % (table, column))",
            "drops the column {table}.{column}",
        ),
        ("op.execute('TRUNCATE users')", "empties the table users"),
        ("sql = 'DROP TABLE users'; op.execute(sql)", "drops the table users"),
        ("sql = 'ALTER TABLE t '; sql += 'DROP COLUMN c'; op.execute(sql)", "drops the column ?.c"),
        ("with op.batch_alter_table('t') as batch_op: batch_op.drop_column('c')", "drops the column t.c"),
        ("with op.batch_alter_table('t', schema='s') as b: b.drop_column('c')", "drops the column s.t.c"),
        ("b = stack.enter_context(op.batch_alter_table('t')); b.drop_column('c')", "drops the column t.c"),
        ("for name in ('a',): op.drop_table(name)", "drops the table a"),
        ("for name in old_tables(): op.drop_table(name)", "drops the table {name}"),
        ("if op.get_bind().dialect.name == 'mysql': op.drop_table('users')", "drops the table users"),
        ("try: pass\nfinally: op.drop_table('users')", "drops the table users"),
        ("map(op.drop_table, names)", "hands on op.drop_table, and nobody knows what that drops"),
        ("Base.metadata.drop_all(op.get_bind())", "drops all tables of {Base.metadata}"),
        ("Users.__table__.drop(op.get_bind())", "drops the table {Users.__table__}"),
        ("sa.Table('users', sa.MetaData()).drop(op.get_bind())", "drops the table users"),
        ("(lambda: op.drop_table('users'))()", "drops the table users"),
        ("def inner():\n    op.drop_table('users')\ninner()", "drops the table users"),
    ],
)
def test_drops_in_an_alembic_revision(line: str, finding: str) -> None:
    assert alembic(line) == (finding,)


@pytest.mark.parametrize(
    "lines",
    [
        "op.drop_index('i', 't')",
        "op.drop_constraint('c', 't', type_='unique')",
        "op.alter_column('t', 'c', nullable=False)",
        "op.execute('ALTER TABLE t DROP CONSTRAINT c, DROP INDEX i, DROP PRIMARY KEY, DROP FOREIGN KEY f')",
        "op.execute('ALTER TABLE t ALTER COLUMN c DROP DEFAULT, ALTER d DROP NOT NULL')",
        "op.execute('DROP INDEX i; DROP VIEW v; DROP TEMPORARY TABLE x')",
        "op.execute('SELECT truncate(price, 2) FROM t')",
        "op.execute('-- DROP TABLE t\\nSELECT 1 /* DROP TABLE t */')",
        "op.execute(\"INSERT INTO notes VALUES ('please DROP TABLE t')\")",
        "op.execute(\"INSERT INTO notes VALUES ('it''s; DROP TABLE t')\")",
        '"""Drop table users."""',
        "print('DROP TABLE users')",
        "LOG.info('Drop table %s', name)",
        "sa.Enum('a', name='kind').drop(op.get_bind())",
        "for index in table.indexes: index.drop()",
        "op.create_table('tmp', sa.Column('c'))\nop.drop_column('tmp', 'c')\nop.drop_table('tmp')",
        "op.create_table('tmp', schema='s')\nop.execute('DROP TABLE s.tmp')",
        "op.execute('CREATE TEMPORARY TABLE tmp (id int)')\nop.execute('drop table TMP')",
        "op.execute('CREATE TABLE tmp AS SELECT 1')\nop.rename_table('tmp', 'tmp2')\nop.drop_table('tmp2')",
        "op.create_table('a')\nop.execute('ALTER TABLE a RENAME TO b')\nop.execute('TRUNCATE TABLE b')",
        "op.create_table('a')\nop.execute('RENAME TABLE a TO b')\nop.drop_table('b')",
        "op.add_column('t', sa.Column('new', sa.Integer))\nop.drop_column('t', 'new')",
        "with op.batch_alter_table('t') as b:\n    b.add_column(sa.Column('n'))\n    b.drop_column('n')",
    ],
)
def test_what_takes_no_data_away(lines: str) -> None:
    assert alembic(lines) == ()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("op.drop_table('t')\nop.create_table('t')\nop.drop_table('t')", "drops the table t"),
        ("op.create_table('t', if_not_exists=True)\nop.drop_table('t')", "drops the table t"),
        ("op.execute('CREATE TABLE IF NOT EXISTS t (i int)')\nop.drop_table('t')", "drops the table t"),
        ("op.execute('CREATE OR REPLACE TABLE t (i int)')\nop.drop_table('t')", "drops the table t"),
        ("op.rename_table('t', 'old')\nop.drop_table('old')", "drops the table old"),
        ("op.create_table('t')\nop.drop_table('t')\nop.drop_table('t')", "drops the table t"),
    ],
)
def test_only_what_the_same_upgrade_has_made_does_not_count(lines: str, expected: str) -> None:
    assert alembic(lines) == (expected,)


def test_they_come_in_their_order_and_once() -> None:
    assert alembic(
        "op.drop_table('b')", "op.drop_column('t', 'c')", "op.drop_table('a')", "op.drop_table('b')"
    ) == (
        "drops the table b",
        "drops the column t.c",
        "drops the table a",
    )


@pytest.mark.parametrize(
    "imports",
    [
        "from alembic import op as o\ndrop = lambda name: o.drop_table(name)\nusers = 'users'",
        "import alembic.op\ndef drop(name):\n    alembic.op.drop_table('users')",
        "from alembic.op import drop_table as old\ndef drop(name):\n    old('users')",
        "SQL = ['DROP TABLE users']\ndef drop(name):\n    for sql in SQL:\n        op.execute(sql)",
        "def drop(name):\n    Old.go()\nclass Old:\n    def go():\n        op.drop_table('users')",
        "try:\n    import x\nexcept ImportError:\n    def drop(name):\n        op.drop_table('users')",
    ],
)
def test_what_upgrade_calls_is_read_too(imports: str) -> None:
    found = alembic("drop('users')", before=imports)
    assert found in {("drops the table users",), ("drops the table {name}",)}


def test_functions_that_call_each_other() -> None:
    before = "def a():\n    b()\ndef b():\n    a()\n    op.drop_table('t')"
    assert alembic("a()", before=before) == ("drops the table t",)


def test_names_that_are_known() -> None:
    before = "USERS = 'users'\nORDERS: str = 'orders'\nEITHER = 'a'\nif x:\n    EITHER = 'b'"
    body = "op.drop_table(USERS); op.execute(f'DROP TABLE {ORDERS}'); op.drop_table(EITHER)"
    expected = ("drops the table users", "drops the table orders", "drops the table {EITHER}")
    assert alembic(body, before=before) == expected


def test_a_parameter_hides_what_has_its_name() -> None:
    before = "name = 'other'\ndef drop(name):\n    op.drop_table(name)"
    assert alembic("drop(name)", before=before) == ("drops the table {name}",)


def test_upgrades_of_several_databases() -> None:
    before = "def upgrade_app():\n    op.drop_table('a')\ndef upgrade_log():\n    op.drop_table('b')"
    expected = ("drops the table a", "drops the table b")
    assert alembic("globals()['upgrade_%s' % name]()", before=before) == expected


def test_long_expression_is_cut() -> None:
    (found,) = alembic(f"op.drop_table(name_of({', '.join(map(str, range(100)))}))")
    assert found.startswith("drops the table {name_of(0, 1, 2,")
    assert found.endswith("…}")


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("t.drop()", "drops the table t"),
        ("Table('u', meta).drop(migrate_engine)", "drops the table u"),
        ("meta.tables['u'].drop()", "drops the table u"),
        ("t.c.x.drop()", "drops the column t.x"),
        ("t.columns['x'].drop()", "drops the column t.x"),
        ("unknown.c.x.drop()", "drops the column {unknown}.x"),
        ("Column('x', String(1)).drop(t)", "drops the column t.x"),
        ("x = Column('x', String(1))\nx.drop(t)", "drops the column t.x"),
        ("x = t.c.x\nx.drop()", "drops the column t.x"),
        ("drop_column('x', 't')", "drops the column t.x"),
        ("drop_column(t.c.x, t)", "drops the column t.x"),
        ("changeset.drop_column(Column('x'), table=t)", "drops the column t.x"),
        ("t.drop_column('x')", "drops the column t.x"),
        ("meta.drop_all()", "drops all tables of {meta}"),
        ("for old in (t,): old.drop()", "drops the table t"),
        ("for old in reversed(tables): old.drop()", "drops {old}"),
        ("migrate_engine.execute('DROP TABLE t')", "drops the table t"),
    ],
)
def test_drops_in_a_legacy_script(line: str, finding: str) -> None:
    assert migrate(line) == (finding,)


@pytest.mark.parametrize(
    "lines",
    [
        "Index('i', t.c.x).drop()",
        "cons = ForeignKeyConstraint(['x'], ['y'])\ncons.drop()",
        "t.c.x.alter(nullable=True)",
        "new = Table('new', meta)\nnew.create()\nnew.drop()",
        "x = Column('x')\nx.create(t)\nt.c.x.drop()",
        "for fkey in t.foreign_keys: fkey.constraint.drop()",
    ],
)
def test_what_takes_no_data_away_in_a_legacy_script(lines: str) -> None:
    assert migrate(lines) == ()


def test_tables_of_the_module() -> None:
    assert migrate("users.drop()", before="users = Table('users', meta)") == ("drops the table users",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('drop table a, `b`.`c`, "d" , [e f]', "a b.c d e f"),
        ("DROP TABLES a", "a"),
        ("drop/**/table a -- really", "a"),
        ("/*!40000 DROP TABLE a */", "a"),
        ("DO $$ BEGIN IF x THEN DROP TABLE a; END IF; END $$", "a"),
        ("CREATE FUNCTION f() AS $$ BEGIN EXECUTE 'DROP TABLE ' || a; END $$", "?"),
        ("PREPARE s FROM 'DROP TABLE a'", "a"),
        (r"SELECT 'c:\'; DROP TABLE a; SELECT '\''", "a"),
        ("DROP TABLE", "?"),
    ],
)
def test_tables_in_sql(text: str, expected: str) -> None:
    tables = [expected] if expected == "?" else expected.replace("e f", "e_f").split()
    assert findings(text, SQL) == tuple(f"drops the table {name.replace('_', ' ')}" for name in tables)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DROP DATABASE a", ["drops the database a"]),
        ("DROP SCHEMA IF EXISTS a CASCADE", ["drops the schema a"]),
        ("TRUNCATE TABLE ONLY a, b", ["empties the table a", "empties the table b"]),
        ("DO $$ BEGIN TRUNCATE a; END $$", ["empties the table a"]),
        ("ALTER TABLE IF EXISTS ONLY s.t DROP IF EXISTS c, ADD d int", ["drops the column s.t.c"]),
        ("ALTER TABLE t ADD x int, DROP y, DROP KEY z", ["drops the column t.y"]),
        ("ALTER TABLE t DROP `index`", ["drops the column t.index"]),
        ("ALTER TABLE t DROP PARTITION p, q", ["drops the partition t.p", "drops the partition t.q"]),
        ("ALTER TABLE t TRUNCATE PARTITION p", ["empties the partition t.p"]),
        ("ALTER TABLE t RENAME COLUMN a TO b; CREATE TRIGGER x BEFORE TRUNCATE ON t", []),
    ],
)  # fmt: skip
def test_other_statements(text: str, expected: list[str]) -> None:
    assert findings(text, SQL) == tuple(expected)


# --- scripts that are no help ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["def upgrade(:\n", "print 'python 2'\n", "x = '\0'\n", "x = " + "(" * 5000]
)
def test_script_that_cannot_be_parsed(source: str) -> None:
    (found,) = findings(source, ALEMBIC)
    assert found.startswith("cannot be parsed (")
    assert found.endswith("so nobody knows what it drops")


def test_expression_that_is_nested_too_deeply() -> None:
    (found,) = alembic(f"x = {' + '.join(['a'] * 3000)}")
    assert found == "cannot be parsed (too deeply nested), so nobody knows what it drops"


def test_script_without_an_upgrade() -> None:
    assert findings("from elsewhere import upgrade\n", ALEMBIC) == (
        "has no upgrade() of its own, so nobody knows what it drops",
    )


def test_invalid_escapes_warn_nobody() -> None:
    assert alembic(r"op.execute('SELECT \d')") == ()


def test_nothing_of_the_script_is_run(tmp_path: pathlib.Path) -> None:
    alembic(before=f"open({str(tmp_path / 'made')!r}, 'w')")
    assert not (tmp_path / "made").exists()


# --- whatever is written ---------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True).filter(
    lambda name: name not in {"if", "only"}
)
DROPS = [
    lambda name: f"op.drop_table({name!r})",
    lambda name: f"op.execute('DROP TABLE ' {name!r})",
    lambda name: f'op.execute(sa.text(f"drop table if exists {{{name!r}}}"))',
    lambda name: f"op.execute('DELETE FROM t; DROP TABLE %s;' % {name!r})",
]
WRAPPINGS = [
    "if x:\n{}\nelse:\n    pass",
    "with x:\n{}",
    "try:\n    pass\nexcept ValueError:\n{}",
    "def inner():\n{}\ninner()",
    "while x:\n    y = 1\n{}",
    "for x in (1, 2):\n{}",
]


@given(NAMES, st.sampled_from(DROPS), st.lists(st.sampled_from(WRAPPINGS), max_size=4))
def test_a_drop_is_found_wherever_it_stands(
    name: str, drop: Callable[[str], str], wrappings: list[str]
) -> None:
    lines = drop(name)
    for wrapping in wrappings:
        lines = wrapping.format(textwrap.indent(lines, "    "))
    assert alembic(lines) == (f"drops the table {name}",)


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    for kind in (ALEMBIC, MIGRATE, SQL):
        assert isinstance(findings(text, kind), tuple)
    with contextlib.suppress(SyntaxError, ValueError):
        assert isinstance(alembic(f"op.execute({text!r})"), tuple)


def test_the_examples() -> None:
    revisions = sorted((SHOP / "alembic" / "versions").glob("*.py"))
    assert [findings(path.read_text(), ALEMBIC) for path in revisions] == [
        (),
        ("drops the column orders.price",),
        (),
    ]
    scripts = sorted((SHOP / "legacy" / "versions").glob("0*.py"))
    assert [findings(path.read_text(), MIGRATE) for path in scripts] == [(), (), ()]
