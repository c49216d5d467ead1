"""What of a failed step is permanent though nobody saw it, and when it must not be resumed: real servers."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.conftest import AlembicTree
from tests.integration.databases import Server
from tests.integration.test_db_ledger import COUNT, TABLE, Outcome, World, counter

NONSENSE = "op.execute('nonsense')"


def sql(statement: str) -> str:
    return f"op.execute({statement!r})"


@pytest.fixture
def mariadb_world(modern_python: str, mariadb: Server, make_tree: Callable[[str], AlembicTree]) -> World:
    return World(modern_python, make_tree("tree"), mariadb.create())


@pytest.fixture
def old_mariadb_world(legacy_python: str, mariadb: Server, make_tree: Callable[[str], AlembicTree]) -> World:
    return World(legacy_python, make_tree("tree"), mariadb.create())


@pytest.fixture
def postgresql_world(
    modern_python: str, postgresql: Server, make_tree: Callable[[str], AlembicTree]
) -> World:
    return World(modern_python, make_tree("tree"), postgresql.create())


@pytest.fixture
def any_world(request: pytest.FixtureRequest) -> World:
    found: World = request.getfixturevalue(request.param)
    return found


both = pytest.mark.parametrize("any_world", ["mariadb_world", "postgresql_world"], indirect=True)
on_mariadb = pytest.mark.parametrize("any_world", ["mariadb_world", "old_mariadb_world"], indirect=True)
everywhere = pytest.mark.parametrize(
    "any_world", ["mariadb_world", "old_mariadb_world", "postgresql_world"], indirect=True
)


def fails(world: World, *body: str) -> Outcome:
    """The revision b2 behind the counter fails."""
    counter(world)
    world.tree.revision("b2", "a1", *body)
    outcome = world.upgrade()
    assert outcome.error
    return outcome


def resumes(world: World, *body: str) -> Outcome:
    world.tree.revision("b2", "a1", *body)
    return world.upgrade(resume=True)


def open_row(outcome: Outcome) -> dict[str, Any]:
    assert outcome.unfinished is not None
    return outcome.unfinished


# --- what was done is known at once -----------------------------------------------------------------------


@on_mariadb
def test_ddl_is_noted_as_done_as_soon_as_it_is(any_world: World) -> None:
    world = any_world
    counter(world)
    drop = sql("DROP TABLE b")
    world.tree.revision("b2", "a1", TABLE.format("b"), drop, "os.kill(os.getpid(), 9)")
    assert world.run().returncode == -9
    world.database.execute("CREATE TABLE b (id INT)")

    outcome = resumes(world, TABLE.format("b"), drop, COUNT)

    assert outcome.error == ""
    assert world.tables() == {"counter", "b"}
    assert world.number() == 2


@on_mariadb
def test_what_takes_away_is_not_tried_if_nobody_knows_whether_it_was_done(any_world: World) -> None:
    world = any_world
    counter(world)
    # The note that it was done does not get through.
    killed = "op.get_bind().connection.dbapi_connection.commit = lambda: os.kill(os.getpid(), 9)"
    world.tree.revision("b2", "a1", COUNT, killed, sql("DROP TABLE counter"))
    assert world.run().returncode == -9

    world.database.execute("CREATE TABLE counter (id INT)")

    outcome = resumes(world, COUNT, sql("DROP TABLE counter"))

    assert "nobody knows whether this was executed: DROP TABLE counter" in outcome.error
    assert world.tables() == {"counter"}


@on_mariadb
def test_a_percent_sign_is_the_same_when_ddl_is_done_again(any_world: World) -> None:
    world = any_world
    body = (sql("CREATE TABLE p (id INT, n VARCHAR(9) DEFAULT '5%') COMMENT '100% : x'"), TABLE.format("q"))
    fails(world, *body, NONSENSE)
    world.database.execute("DROP TABLE p")

    assert resumes(world, *body).error == ""

    assert "'100% : x'" in world.database.execute("SHOW CREATE TABLE p")[0][1]


def test_a_repaired_script_is_in_the_ledger_with_its_new_checksum(mariadb_world: World) -> None:
    world = mariadb_world
    before = open_row(fails(world, TABLE.format("b"), NONSENSE))["step"]["checksum"]

    outcome = resumes(world, TABLE.format("b"), COUNT)

    assert outcome.error == ""
    assert outcome.checksums["b2"] != before


# --- what only the session had, or what was read before ---------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        ["CREATE TEMPORARY TABLE tmp AS SELECT * FROM counter"],
        ["SET @n = (SELECT n FROM counter)"],
        ["INSERT INTO counter VALUES (2, LAST_INSERT_ID())"],
        ["UPDATE counter SET n = 7", "INSERT INTO counter SELECT 3, ROW_COUNT()"],
    ],
)
def test_what_needs_the_session_that_is_gone_is_not_resumed(mariadb_world: World, first: list[str]) -> None:
    world = mariadb_world
    body = (*map(sql, first), TABLE.format("b"))
    fails(world, *body, NONSENSE)
    before = world.database.execute("SELECT * FROM counter")

    outcome = resumes(world, *body, COUNT)

    assert "cannot be resumed: what it has done was with what only its session had" in outcome.error
    assert open_row(outcome)["dirty"]
    assert open_row(outcome)["failed"] == "nonsense"
    assert world.database.execute("SELECT * FROM counter") == before


def test_the_last_key_of_what_was_left_out_is_not_to_be_had(mariadb_world: World) -> None:
    world = mariadb_world
    body = (TABLE.format("b"), sql("INSERT INTO b (n) VALUES (1)"), TABLE.format("c"))
    fails(world, *body, NONSENSE)

    outcome = resumes(world, *body, sql("INSERT INTO c (n) VALUES (LAST_INSERT_ID())"))

    assert "what its session knew of the changes before is lost: INSERT INTO c" in outcome.error
    assert world.database.execute("SELECT * FROM c") == []


def test_rows_that_were_read_before_their_change_are_not_gone_on_with(mariadb_world: World) -> None:
    world = mariadb_world
    read = "n = op.get_bind().execute(sa.text('SELECT n FROM counter')).scalar()"
    body = (TABLE.format("b"), read, sql("UPDATE counter SET n = n * 100"), TABLE.format("c"))
    fails(world, *body, NONSENSE)

    outcome = resumes(world, *body, "op.execute('INSERT INTO b VALUES (1, %d)' % n)")

    assert "it has read rows that its own half has changed since: SELECT n FROM counter" in outcome.error
    assert world.database.execute("SELECT * FROM b") == []


def test_rows_of_another_table_may_have_been_read(mariadb_world: World) -> None:
    world = mariadb_world
    read = "n = op.get_bind().execute(sa.text('SELECT n FROM counter')).scalar()"
    body = (TABLE.format("b"), read, sql("INSERT INTO b VALUES (1, 1)"), TABLE.format("c"))
    fails(world, *body, NONSENSE)

    assert resumes(world, *body, "op.execute('INSERT INTO b VALUES (2, %d)' % n)").error == ""


# --- what commits unseen ----------------------------------------------------------------------------------

ADD = "ALTER TABLE counter ADD COLUMN IF NOT EXISTS c INT"


@pytest.mark.parametrize(
    "hidden",
    [
        [f"SET STATEMENT lock_wait_timeout=5 FOR {ADD}"],
        [f"EXECUTE IMMEDIATE '{ADD}'"],
        [f"PREPARE s FROM '{ADD}'", "EXECUTE s"],
        [f"BEGIN NOT ATOMIC {ADD}; END"],
        ["CREATE PROCEDURE p() " + ADD, "CALL p()"],
    ],
)
def test_what_commits_in_disguise_makes_the_step_dirty(mariadb_world: World, hidden: list[str]) -> None:
    world = mariadb_world

    outcome = fails(world, COUNT, *map(sql, hidden), NONSENSE)

    assert world.number() == 2
    assert open_row(outcome)["dirty"]
    assert world.upgrade(resume=True).error
    assert world.number() == 2


@both
@pytest.mark.parametrize("hidden", ["commit", "ddl"])
def test_what_a_raw_cursor_commits_makes_the_step_dirty(any_world: World, hidden: str) -> None:
    world = any_world
    ends = {"mysql": ["ALTER TABLE counter ADD COLUMN c INT"]}.get(world.database.kind, ["COMMIT"])
    raw = "op.get_bind().connection.cursor().execute({!r})".format
    hide = raw(ends[0]) if hidden == "ddl" else "op.get_bind().connection.commit()"

    outcome = fails(world, raw("UPDATE counter SET n = n + 1"), hide, NONSENSE)

    assert world.number() == 2
    assert "something committed in the middle" in open_row(outcome)["unseen"]
    assert open_row(outcome)["dirty"]
    assert "cannot be resumed: something committed" in world.upgrade(resume=True).error


@everywhere
def test_nothing_remains_of_a_raw_cursor_that_does_not_commit(any_world: World) -> None:
    raw = "op.get_bind().connection.cursor().execute('UPDATE counter SET n = n + 1')"

    outcome = fails(any_world, raw, NONSENSE)

    assert any_world.number() == 1
    assert not open_row(outcome)["dirty"]


OTHERS = {
    "its engine": "engine = op.get_bind().engine",
    "its own engine": "engine = sa.create_engine(op.get_context().config.get_main_option('sqlalchemy.url'))",
}


@everywhere
@pytest.mark.parametrize("other", list(OTHERS))
def test_what_another_connection_commits_makes_the_step_dirty(any_world: World, other: str) -> None:
    write = "with engine.begin() as other: other.execute(sa.text('UPDATE counter SET n = n + 1'))"

    outcome = fails(any_world, OTHERS[other], write, write, NONSENSE)

    assert any_world.number() == 3
    assert "another connection of the step executed: UPDATE counter" in open_row(outcome)["unseen"]
    assert open_row(outcome)["dirty"]


@everywhere
def test_what_another_connection_takes_back_is_nothing(any_world: World) -> None:
    write = (
        "other = op.get_bind().engine.connect()",
        "transaction = other.begin()",
        "other.execute(sa.text('UPDATE counter SET n = n + 1'))",
        "transaction.rollback()",
        "other.close()",
    )

    assert not open_row(fails(any_world, *write, NONSENSE))["dirty"]
    assert any_world.number() == 1


@on_mariadb
def test_a_step_that_succeeds_leaves_no_mark(any_world: World) -> None:
    world = any_world
    counter(world)
    world.tree.revision("b2", "a1", COUNT, TABLE.format("b"), COUNT)

    assert world.upgrade().error == ""

    assert world.database.execute("SELECT id FROM refresh_agent_ledger WHERE id < 0") == []


@on_mariadb
def test_a_table_without_transactions_keeps_what_a_failed_step_did(any_world: World) -> None:
    world = any_world
    counter(world)
    world.upgrade()
    world.before = ["a1"]
    world.database.execute("ALTER TABLE counter ENGINE=MyISAM")
    world.tree.revision("b2", "a1", COUNT, NONSENSE)

    outcome = world.upgrade()

    assert world.number() == 2
    assert open_row(outcome)["dirty"]
    assert "the table counter (MyISAM) has no transactions" in open_row(outcome)["unseen"]


# --- PostgreSQL -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hidden",
    [
        "SELECT more()",
        "EXPLAIN ANALYZE UPDATE counter SET n = n + 1",
        "DO $$ BEGIN UPDATE counter SET n = n + 1; END $$",
    ],
)
def test_what_may_write_in_autocommit_makes_the_step_dirty(postgresql_world: World, hidden: str) -> None:
    world = postgresql_world
    function = sql("CREATE FUNCTION more() RETURNS void LANGUAGE sql AS 'UPDATE counter SET n = n + 1'")
    block = f"with op.get_context().autocommit_block(): {sql(hidden)}"

    outcome = fails(world, function, block, NONSENSE)

    assert world.number() == 2
    assert len(outcome.kept) == 2
    assert world.upgrade(resume=True).error
    assert world.number() == 2


def test_only_reads_in_autocommit_leave_nothing(postgresql_world: World) -> None:
    block = "with op.get_context().autocommit_block(): sa.inspect(op.get_bind()).get_columns('counter')"

    assert not open_row(fails(postgresql_world, block, NONSENSE))["dirty"]


def test_the_isolation_level_can_be_the_first_statement(postgresql_world: World) -> None:
    counter(postgresql_world)
    postgresql_world.before = []
    level = sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    postgresql_world.tree.revision("b2", "a1", level, COUNT)

    assert postgresql_world.upgrade().error == ""


UNIQUE = "CREATE UNIQUE INDEX CONCURRENTLY ix ON counter (n)"


def test_an_index_that_is_not_valid_is_never_there_already(postgresql_world: World) -> None:
    world = postgresql_world
    same = sql("INSERT INTO counter VALUES (2, 1)")
    index = f"with op.get_context().autocommit_block(): {sql(UNIQUE)}"

    outcome = fails(world, same, index)

    assert open_row(outcome)["dirty"]
    assert open_row(outcome)["current"] == UNIQUE
    world.database.execute("UPDATE counter SET n = 5 WHERE id = 2")
    assert "not valid; remove it: DROP INDEX public.ix" in world.upgrade(resume=True).error.replace(
        " ix;", " public.ix;"
    )
    world.database.execute("DROP INDEX ix")
    assert world.upgrade(resume=True).error == ""
    valid = world.database.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix'::regclass")
    assert valid == [(True,)]


# --- the ledger itself ------------------------------------------------------------------------------------


def test_the_ledger_takes_any_text_in_a_narrow_character_set(mariadb_world: World) -> None:
    world = mariadb_world
    counter(world)
    world.upgrade()
    for name in ("step", "failed", "error", "kept"):
        world.database.execute(
            f"ALTER TABLE refresh_agent_ledger MODIFY {name} LONGTEXT CHARACTER SET ascii NOT NULL"
        )
    body = (TABLE.format("b"), sql("SELECT 'Größe ☃' FROM nowhere"))
    world.tree.revision("b2", "a1", *body)

    outcome = world.upgrade()

    assert open_row(outcome)["failed"] == "SELECT 'Größe ☃' FROM nowhere"
    assert len(outcome.kept) == 1
