"""What the ledger makes of SQL: kinds, digests, what may be done again."""

import datetime
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.db.worker.database import MYSQL, POSTGRESQL
from refresh_agent.db.worker.following import Kept
from refresh_agent.db.worker.resume import is_there_already
from refresh_agent.db.worker.statements import (
    Entry,
    Kind,
    added_to,
    digest,
    index_concurrently,
    is_several,
    kind_of,
    may_fail_in_part,
    names,
    needs_session,
    returns_rows,
    shown,
)


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("SELECT 1", Kind.READ),
        ("  -- INSERT\n /* DROP TABLE t */ (select 1)", Kind.READ),
        ("# comment\nSHOW TABLES", Kind.READ),
        ("SET NAMES utf8mb4", Kind.READ),
        ("WITH t AS (SELECT 1) SELECT * FROM t", Kind.READ),
        ("WITH t AS (SELECT 'DELETE') SELECT * FROM t", Kind.READ),
        ("WITH t AS (DELETE FROM a RETURNING id) SELECT * FROM t", Kind.DATA),
        ("insert into t values ('a; DROP TABLE t')", Kind.DATA),
        ("INSERT INTO t VALUES ('it''s', \"x\", 'c:\\\\')", Kind.DATA),
        ("DO $$ BEGIN DROP TABLE t; END $$", Kind.DATA),
        ("CALL rebuild()", Kind.DATA),
        ("something unknown", Kind.DATA),
        ("ROLLBACK", Kind.ROLLBACK),
        ("ROLLBACK TO SAVEPOINT a", Kind.READ),
        ("COMMIT", Kind.COMMIT),
        ("START TRANSACTION", Kind.COMMIT),
        ("LOCK TABLES t WRITE", Kind.COMMIT),
        ("set autocommit = 1", Kind.COMMIT),
        ("SET @@session.autocommit=ON", Kind.COMMIT),
        ("SET autocommit = 0", Kind.READ),
        ("ALTER TABLE t ADD COLUMN c INT", Kind.SCHEMA),
        ("\n\nCREATE TABLE t (id INT)", Kind.SCHEMA),
        ("CREATE TEMPORARY TABLE t (id INT)", Kind.READ),
        ("DROP TEMPORARY TABLE t", Kind.READ),
        ("CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW BEGIN SET NEW.a = 1; END", Kind.SCHEMA),
        ("/*!40101 DROP TABLE t */", Kind.SCHEMA),
        ("/*M!100100 DROP TABLE t */", Kind.SCHEMA),
        ("INSERT INTO t VALUES (1); DROP TABLE t;", Kind.SCHEMA),
        ("", Kind.READ),
        (" ; ", Kind.READ),
    ],
)
def test_kinds(statement: str, kind: Kind) -> None:
    assert kind_of(statement) is kind


@given(st.text())
def test_whatever_text_has_a_kind_and_a_digest(text: str) -> None:
    assert kind_of(text) in Kind
    assert len(digest(text, {"a": text})) == 16
    is_several(text)
    added_to(text)
    returns_rows(text)
    assert names(f"DROP TABLE {text}x", f"{text}x") or not (text + "x").isidentifier()


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("CREATE TABLE b (id INT)", "b"),
        ("\nCREATE TABLE `shop`.`b` (\n\tid INT)", "b"),
        ("create table if not exists b (id INT)", "b"),
        ("CREATE UNIQUE INDEX ix_b ON b (id)", "b"),
        ("ALTER TABLE b ADD COLUMN n NUMERIC(10, 2) NOT NULL", "b"),
        ("ALTER TABLE b ADD CONSTRAINT fk_b FOREIGN KEY(a) REFERENCES a (id)", "b"),
        ("ALTER TABLE b ADD COLUMN n INT, DROP COLUMN m", ""),
        ("ALTER TABLE b ADD CONSTRAINT UNIQUE (n)", ""),
        ("ALTER TABLE b ADD UNIQUE (n)", ""),
        ("ALTER TABLE b ADD INDEX (n)", ""),
        ("CREATE OR REPLACE TABLE b (id INT)", ""),
        ("DROP TABLE b", ""),
        ("TRUNCATE TABLE b", ""),
        ("RENAME TABLE b TO c", ""),
    ],
)
def test_what_only_adds_may_be_done_again(statement: str, table: str) -> None:
    assert added_to(statement) == table


def test_a_digest_is_of_the_statement_and_its_parameters() -> None:
    assert digest("UPDATE t\n SET n = %s", (1,)) == digest("UPDATE t SET n = %s", [1])
    assert digest("q", {"a": 1, "b": 2}) == digest("q", {"b": 2, "a": 1})
    assert digest("q", (1,)) != digest("q", ("1",))
    assert digest("q", (1,)) != digest("r", (1,))
    assert digest("q", (memoryview(b"x"),)) == digest("q", (b"x",))
    day = datetime.date(2026, 11, 21)
    assert digest("q", (day,)) == digest("q", (datetime.date(2026, 11, 21),))
    assert digest("q", (day,)) != digest("q", (datetime.date(2026, 11, 22),))


def test_what_is_kept_can_be_read_again() -> None:
    entries = (Entry("0123456789abcdef", True, "", 41, 1), Entry("fedcba9876543210", False, "my table"))
    kept = Kept(entries, "DROP TABLE t")
    assert Kept.parse(kept.as_text()) == kept
    assert Kept.parse("") == Kept()


def test_a_statement_is_shown_on_one_line_and_cut() -> None:
    assert shown("CREATE TABLE t (\n\tid INT\n)") == "CREATE TABLE t ( id INT )"
    assert len(shown("x" * 5000)) == 4000


@pytest.mark.parametrize(
    ("statement", "several"),
    [
        ("DROP TABLE a", False),
        ("DROP TABLE a;", False),
        ("DROP TABLE a, b", True),
        ("INSERT INTO t VALUES (1), (2)", False),
        ("INSERT INTO t VALUES (';')", False),
        ("UPDATE t SET n = 1; UPDATE t SET n = 2", True),
    ],
)
def test_what_may_have_happened_in_part(statement: str, several: bool) -> None:
    assert is_several(statement) is several


def test_only_what_is_there_twice_is_there_already() -> None:
    assert is_there_already(Exception(1050, "Table 'a' already exists"))
    assert not is_there_already(Exception(1146, "Table 'a' doesn't exist"))
    assert not is_there_already(Exception(1054, "Unknown column 'n'"))
    assert not is_there_already(Exception(1005, "errno: 150"))
    assert not is_there_already(Exception())


@pytest.mark.parametrize(
    ("statement", "backend", "kind"),
    [
        ("SET STATEMENT max_statement_time=1 FOR ALTER TABLE t ADD c INT", MYSQL, Kind.OPAQUE),
        ("EXECUTE IMMEDIATE 'DROP TABLE t'", MYSQL, Kind.OPAQUE),
        ("PREPARE s FROM 'DROP TABLE t'", MYSQL, Kind.DATA),
        ("EXECUTE s", MYSQL, Kind.OPAQUE),
        ("CALL p()", MYSQL, Kind.OPAQUE),
        ("BEGIN NOT ATOMIC INSERT INTO t VALUES (1); END", MYSQL, Kind.OPAQUE),
        ("INSERT INTO t VALUES (1); COMMIT", MYSQL, Kind.OPAQUE),
        ("INSERT INTO t VALUES (1); COMMIT", POSTGRESQL, Kind.OPAQUE),
        ("INSERT INTO t VALUES (1); DROP TABLE t", MYSQL, Kind.OPAQUE),
        ("INSERT INTO t VALUES (1); DROP TABLE t", POSTGRESQL, Kind.SCHEMA),
        ("CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW BEGIN SET NEW.a = 1; END", MYSQL, Kind.SCHEMA),
        ("something unknown", MYSQL, Kind.OPAQUE),
        ("INSERT INTO t VALUES (1)", MYSQL, Kind.DATA),
        ("SELECT f(1)", MYSQL, Kind.READ),
        ("SELECT f(1)", POSTGRESQL, Kind.DATA),
        ("SELECT s.f(n) FROM t", POSTGRESQL, Kind.DATA),
        ("SELECT * INTO u FROM t", POSTGRESQL, Kind.DATA),
        ("EXPLAIN ANALYZE DELETE FROM t", POSTGRESQL, Kind.DATA),
        ("EXPLAIN DELETE FROM t", POSTGRESQL, Kind.READ),
        ("SELECT count(*) FROM t WHERE id IN (1, 2)", POSTGRESQL, Kind.READ),
        ("SELECT pg_catalog.pg_table_is_visible(oid) FROM pg_class", POSTGRESQL, Kind.READ),
    ],
)
def test_kinds_where_the_server_matters(statement: str, backend: str, kind: Kind) -> None:
    assert kind_of(statement, backend) is kind


def test_a_long_literal_needs_no_more_memory_than_itself() -> None:
    statement = "INSERT INTO t VALUES ('" + "\\'x''é" * 500_000 + "')"
    tracemalloc.start()
    try:
        assert kind_of(statement) is Kind.DATA
        assert tracemalloc.get_traced_memory()[1] < 2 * len(statement)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("unclosed", ["'" * 100_001, "$a" * 100_000, "/*" * 100_000, "`" + "``" * 100_000])
def test_what_is_never_closed_takes_no_longer(unclosed: str) -> None:
    assert kind_of(f"DROP TABLE t {unclosed}") is Kind.SCHEMA


@pytest.mark.parametrize(
    ("statement", "needs"),
    [
        ("CREATE TEMPORARY TABLE t (id INT)", True),
        ("SELECT last_insert_id()", True),
        ("UPDATE t SET n = @n", True),
        ("SET @n := 1", True),
        ("SELECT ROW_COUNT ()", True),
        ("SELECT @@version", False),
        ("INSERT INTO t VALUES ('a@b', 'LAST_INSERT_ID()')", False),
        ("GRANT SELECT ON t TO 'u'@'localhost'", False),
        ("CREATE DEFINER=`root`@`localhost` VIEW v AS SELECT 1", False),
    ],
)
def test_what_only_the_session_has(statement: str, needs: bool) -> None:
    assert needs_session(statement, MYSQL) is needs


def test_an_index_that_is_made_concurrently_has_a_name() -> None:
    assert index_concurrently("create unique index concurrently ix ON shop.t (n)") == "shop.ix"
    assert index_concurrently('CREATE INDEX CONCURRENTLY IF NOT EXISTS "Ix" ON t (n)') == '"Ix"'
    assert index_concurrently("CREATE INDEX ix ON t (n)") == ""
    assert may_fail_in_part("CREATE INDEX CONCURRENTLY ix ON t (n)")
    assert may_fail_in_part("REINDEX TABLE CONCURRENTLY t")
    assert not may_fail_in_part("CREATE INDEX ix ON t (n)")


def test_only_changes_that_return_rows_are_told_from_the_others() -> None:
    assert returns_rows("INSERT INTO t VALUES (1) RETURNING id")
    assert not returns_rows("INSERT INTO t VALUES ('RETURNING')")
