"""What the ledger makes of SQL: kinds, digests, what may be done again."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.db.worker.following import Kept
from refresh_agent.db.worker.resume import is_there_already
from refresh_agent.db.worker.statements import (
    Entry,
    Kind,
    added_to,
    digest,
    is_several,
    kind_of,
    names,
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


def test_a_missing_table_is_there_already_only_for_a_rename() -> None:
    missing = Exception(1146, "Table 'a' doesn't exist")
    assert is_there_already(missing, "RENAME TABLE a TO b")
    assert is_there_already(missing, "ALTER TABLE a RENAME b")
    assert not is_there_already(missing, "ALTER TABLE a ADD COLUMN n INT")
    assert is_there_already(Exception(1050, "Table 'a' already exists"), "CREATE TABLE a (id INT)")
    assert not is_there_already(Exception(1005, "errno: 150"), "CREATE TABLE a (id INT)")
    assert not is_there_already(Exception(), "CREATE TABLE a (id INT)")


def test_only_changes_that_return_rows_are_told_from_the_others() -> None:
    assert returns_rows("INSERT INTO t VALUES (1) RETURNING id")
    assert not returns_rows("INSERT INTO t VALUES ('RETURNING')")
