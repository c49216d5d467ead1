"""What ``db`` prints for people, from what a worker may report."""

from typing import Any

import pytest

from refresh_agent.cli import db_text
from refresh_agent.model import MigrationOutcome, MigrationResult

DONE = MigrationOutcome.DONE


def printed(operation: str, outcome: MigrationOutcome = DONE, /, **fields: Any) -> list[str]:
    return list(db_text.lines(operation, MigrationResult("shop", outcome, **fields)))


def test_a_status_with_everything_in_it() -> None:
    report = {
        "version": "alembic aaaa",
        "current": ["aaaa"],
        "heads": ["cccc", "dddd"],
        "wanted": "cccc",
        "pending": [
            {"engine": "alembic", "revision": "bbbb", "title": "Prices"},
            {"engine": "alembic", "revision": "cccc", "title": ""},
        ],
        "dirty": {
            "step": "alembic upgrade aaaa -> bbbb, Prices",
            "statement": "ALTER TABLE orders DROP price",
            "error": "OperationalError: no",
            "since": "2026-11-21T16:50:00Z",
            "holder": "host web-1, pid 4711, run 3fa1c2d4, since 2026-11-21T16:50:00Z",
            "kept": 2,
        },
        "interrupted": "host web-1 did not finish alembic upgrade; nothing of it remained",
        "lock": {
            "host": "web-2",
            "pid": 7,
            "run": "by hand",
            "target": "shop",
            "since": "2026-11-21T16:51:00Z",
        },
        "refusal": "it has tables but no version",
        "destructive": [{"revision": "bbbb", "finding": "drops the column orders.price"}],
    }
    assert printed("status", report=report) == [
        "shop: alembic aaaa; wanted: cccc",
        "  heads: cccc, dddd",
        "  pending: 2",
        "    alembic bbbb  Prices",
        "    alembic cccc",
        "  destructive: bbbb drops the column orders.price",
        "  an upgrade would be refused: it has tables but no version",
        "  interrupted: host web-1 did not finish alembic upgrade; nothing of it remained",
        "  locked by host web-2, pid 7, run by hand, since 2026-11-21T16:51:00Z",
        "  dirty: alembic upgrade aaaa -> bbbb, Prices stopped half-way",
        "    begun: 2026-11-21T16:50:00Z by host web-1, pid 4711, run 3fa1c2d4, since 2026-11-21T16:50:00Z",
        "    statement: ALTER TABLE orders DROP price",
        "    error: OperationalError: no",
        "    took effect before it: 2 statements",
        "    remove the cause, then: refresh-agent db upgrade --target shop --resume",
        "    or undo its half by hand, then: refresh-agent db stamp --target shop REVISION",
    ]


def test_a_status_with_nothing_in_it() -> None:
    assert printed("status", before="empty") == ["shop: empty; wanted: nothing", "  pending: nothing"]


@pytest.mark.parametrize("operation", ["upgrade", "downgrade", "stamp"])
def test_a_change(operation: str) -> None:
    ways = {"before": "migrate 2", "after": "alembic b", "seconds": 1.5, "message": "shop: with a note"}
    assert printed(operation, **ways) == ["shop: migrate 2 -> alembic b, done after 1.50 s", "  with a note"]
    unchanged = printed(operation, MigrationOutcome.UNCHANGED, before="empty", after="empty")
    assert unchanged == ["shop: empty, unchanged after 0.00 s"]


def test_the_rest() -> None:
    assert printed("version", report={"version": "empty"}) == ["shop: empty"]
    assert printed("revision", report={"path": "/a/b.py", "revision": "b"}) == ["/a/b.py"]
    assert printed("unlock", message="shop: freed") == ["shop: freed"]
    report = {"problems": [{"kind": "drift", "text": "no table x"}], "skipped": ["models"]}
    assert printed("check", report=report) == ["shop: drift: no table x", "shop: not looked at: models"]
    assert printed("check") == ["shop: nothing to object to"]


@pytest.mark.parametrize("outcome", [MigrationOutcome.FAILED, MigrationOutcome.DEFERRED])
def test_what_failed_is_told_elsewhere(outcome: MigrationOutcome) -> None:
    for operation in ("status", "upgrade", "version", "revision", "unlock", "check"):
        assert printed(operation, outcome, message="shop: no") == []


def test_sql_is_nothing_but_sql() -> None:
    one = MigrationResult("shop", DONE, report={"sql": "SELECT 1;\n"})
    bad = MigrationResult("stock", MigrationOutcome.FAILED)
    assert list(db_text.sql([one])) == ["SELECT 1;"]
    assert list(db_text.sql([bad, one])) == ["-- shop", "SELECT 1;"]
