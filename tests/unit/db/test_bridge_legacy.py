"""The bridge, where a target needs both of its interpreters."""

from refresh_agent.db import bridge
from refresh_agent.model import (
    Ending,
    Exit,
    MigrationOutcome,
    MigrationResult,
)
from tests.unit.db.played_worker import SHOP, STEP, STOCK, exited, play, result


def test_the_legacy_half() -> None:
    worker = play(
        (
            [
                result("shop", "needs legacy", before="migrate 2", legacy=STEP, seconds=1),
                result("stock", "unchanged"),
            ],
            exited(),
        ),
        (
            [result("shop", before="migrate 2", after="migrate 3", seconds=2, report={"applied": ["3"]})],
            exited(),
        ),
        (
            [result("shop", before="migrate 3", after="alembic b", seconds=4, report={"applied": ["b"]})],
            exited(),
        ),
    )
    shop, _ = worker.upgrade(SHOP, STOCK)
    whole = {"applied": ["3", "b"]}
    assert shop == MigrationResult("shop", MigrationOutcome.DONE, "migrate 2", "alembic b", "", 7, whole)
    assert worker.asked() == [
        ("/new/python", "upgrade", ["shop", "stock"]),
        ("/old/python", "legacy", ["shop"]),
        ("/new/python", "upgrade", ["shop"]),
    ]
    assert worker.requests()[1]["targets"][0]["legacy"] == STEP


def test_what_only_the_legacy_half_has_changed_is_no_unchanged_database() -> None:
    worker = play(
        ([result("shop", "needs legacy", before="migrate 2", legacy=STEP)], exited()),
        ([result("shop", before="migrate 2", after="migrate 3")], exited()),
        ([result("shop", "unchanged", before="migrate 3", after="migrate 3")], exited()),
    )
    (shop,) = worker.upgrade(SHOP)
    assert (shop.outcome, shop.before, shop.after) == (MigrationOutcome.DONE, "migrate 2", "migrate 3")


def test_on_the_way_down_the_legacy_half_is_the_end() -> None:
    worker = play(
        ([result("shop", "needs legacy", before="alembic b", legacy=STEP)], exited()),
        ([result("shop", before="migrate 3", after="migrate 1")], exited()),
    )
    (shop,) = worker.ask("downgrade", SHOP)
    assert (shop.outcome, shop.before, shop.after) == (MigrationOutcome.DONE, "alembic b", "migrate 1")
    assert [asked for _, asked, _ in worker.asked()] == ["downgrade", "legacy"]


def test_after_the_legacy_half_of_a_stamp_alembics_word_is_taken_back() -> None:
    worker = play(
        ([result("shop", "needs legacy", before="alembic b", legacy=STEP)], exited()),
        ([result("shop", before="migrate 3", after="migrate 1")], exited()),
        ([result("shop", before="alembic b", after="migrate 1")], exited()),
    )
    (shop,) = worker.ask("stamp", SHOP)
    assert (shop.outcome, shop.before, shop.after) == (MigrationOutcome.DONE, "alembic b", "migrate 1")
    assert [asked for _, asked, _ in worker.asked()] == ["stamp", "legacy", "stamp"]


def test_the_legacy_half_fails() -> None:
    worker = play(
        ([result("shop", "needs legacy", before="migrate 1", legacy=STEP)], exited()),
        ([result("shop", "failed", before="migrate 1", after="migrate 2", message="broken")], exited()),
    )
    (shop,) = worker.upgrade(SHOP)
    assert shop == MigrationResult("shop", MigrationOutcome.FAILED, "migrate 1", "migrate 2", "shop: broken")


def test_a_legacy_half_that_is_never_enough_is_not_asked_for_ever() -> None:
    needs = ([result("shop", "needs legacy", before="migrate 1", legacy=STEP)], exited())
    worker = play(needs, *([([result("shop")], exited()), needs] * bridge.ROUNDS))
    (shop,) = worker.upgrade(SHOP)
    assert (shop.outcome, worker.turns) == (MigrationOutcome.FAILED, [])
    assert shop.message == "shop: its legacy repository has done its part, yet it is not at version 3"


def test_somebody_else_at_work_on_the_legacy_half_defers_it() -> None:
    worker = play(
        ([result("shop", "needs legacy", before="migrate 1", legacy=STEP)], exited()),
        ([result("shop", "deferred", message="locked by host web-2, pid 7")], exited()),
    )
    (shop,) = worker.upgrade(SHOP)
    assert (shop.outcome, shop.ok) == (MigrationOutcome.DEFERRED, False)
    assert shop.message == "shop: locked by host web-2, pid 7"


def test_stopped_before_the_legacy_half() -> None:
    worker = play(
        (
            [result("shop", "needs legacy", before="migrate 1", legacy=STEP)],
            Exit(143, Ending.STOPPED, 1),
        ),
    )
    (shop,) = worker.upgrade(SHOP)
    assert (shop.outcome, shop.before) == (MigrationOutcome.STOPPED, "migrate 1")
