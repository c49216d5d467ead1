"""The bridge with workers that do not keep to the protocol."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from refresh_agent.db import bridge
from refresh_agent.lines import Listener
from refresh_agent.model import (
    Command,
    Ending,
    Exit,
    MigrationOutcome,
    MigrationResult,
    Stream,
    Target,
)
from refresh_agent.redact import shown

SHOP = Target(
    name="shop",
    connection="postgresql://shop:geheim@db/shop",
    python="/new/python",
    legacy_python="/old/python",
    alembic_config="/shop/alembic.ini",
    migrate_repository="/shop/legacy",
    legacy_versions=((3, "abcd"),),
    timeout=10,
)
STOCK = replace(SHOP, name="stock", timeout=20)


@dataclass
class Worker:
    """Plays one ending per command that it is given: the lines to say, and how it comes to its end."""

    turns: list[tuple[Sequence[str | dict[str, object]], Exit]]
    commands: list[Command] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def run(self, command: Command, listener: Listener) -> Exit:
        self.commands.append(command)
        lines, ended = self.turns.pop(0)
        for line in lines:
            text = json.dumps(line) if isinstance(line, dict) else line.lstrip("!")
            listener.feed(
                Stream.STDERR if text != line and isinstance(line, str) else Stream.STDOUT,
                f"{text}\n".encode(),
            )
        return ended

    def upgrade(self, *targets: Target) -> tuple[MigrationResult, ...]:
        return bridge.upgrade(targets, self.run, self.log.append, {"HOME": "/root"})

    def asked(self) -> list[tuple[str, str, list[str]]]:
        """Who was asked for what."""
        requests = [(command.path, json.loads(command.stdin)) for command in self.commands]
        return [
            (path, request["operation"], [target["name"] for target in request["targets"]])
            for path, request in requests
        ]


def exited(status: int = 0) -> Exit:
    return Exit(status, Ending.EXITED, 1.5)


def begin(name: str) -> dict[str, object]:
    return {"target": name, "event": "begin"}


def result(name: str, kind: str = "done", **more: object) -> dict[str, object]:
    return {"target": name, "event": "result", "result": kind, **more}


def play(*turns: tuple[Sequence[str | dict[str, object]], Exit]) -> Worker:
    return Worker(list(turns))


def test_the_command() -> None:
    worker = play(([result("shop"), result("stock")], exited()))
    worker.upgrade(SHOP, STOCK)
    (command,) = worker.commands
    assert command.path == "/new/python"
    assert command.argv == ("/new/python", bridge.WORKER)
    assert command.env == {"HOME": "/root"}
    assert command.timeout == 30
    assert json.loads(command.stdin)["targets"][0] == {
        "name": "shop",
        "connection": "postgresql://shop:geheim@db/shop",
        "alembic_config": "/shop/alembic.ini",
        "alembic_location": "",
        "migrate_repository": "/shop/legacy",
        "legacy_versions": [[3, "abcd"]],
        "python_path": [],
        "revision": "head",
        "legacy_here": False,
        "version": 0,
    }


def test_one_target_without_a_timeout_lifts_it_for_all() -> None:
    worker = play(([result("shop"), result("stock")], exited()))
    worker.upgrade(SHOP, replace(STOCK, timeout=0))
    assert worker.commands[0].timeout == 0


@pytest.mark.parametrize("legacy_python", ["", "/new/python", "/new/./python"])
def test_the_same_interpreter_for_both(legacy_python: str) -> None:
    worker = play(([result("shop")], exited()))
    worker.upgrade(replace(SHOP, legacy_python=legacy_python))
    assert json.loads(worker.commands[0].stdin)["targets"][0]["legacy_here"] is True


def test_results_in_the_order_of_the_targets() -> None:
    other = replace(SHOP, name="other", python="/third/python")
    worker = play(
        (
            [result("stock", "unchanged"), result("shop", before="empty", after="alembic a", seconds=2)],
            exited(),
        ),
        ([result("other", "refused", message="no")], exited()),
    )
    results = worker.upgrade(SHOP, other, STOCK)
    assert results == (
        MigrationResult("shop", MigrationOutcome.DONE, "empty", "alembic a", "", 2),
        MigrationResult("other", MigrationOutcome.REFUSED, message="other: no"),
        MigrationResult("stock", MigrationOutcome.UNCHANGED),
    )


def test_no_targets() -> None:
    assert play().upgrade() == ()


def test_what_is_passed_on() -> None:
    worker = play(
        (
            [
                "!before any target",
                begin("shop"),
                {"target": "shop", "event": "step", "message": "alembic upgrade a -> b"},
                "!INFO something with geheim",
                "!",
                result("shop"),
                begin("stock"),
                "on the wrong stream",
                result("stock"),
            ],
            exited(),
        )
    )
    worker.upgrade(SHOP, STOCK)
    assert worker.log == [
        "shop, stock: before any target",
        "shop: alembic upgrade a -> b",
        "shop: INFO something with ***",
        "stock: on the wrong stream",
    ]


def test_the_legacy_half() -> None:
    worker = play(
        (
            [
                result("shop", "needs legacy", before="migrate 2", version=3, seconds=1),
                result("stock", "unchanged"),
            ],
            exited(),
        ),
        ([result("shop", before="migrate 2", after="migrate 3", seconds=2)], exited()),
        ([result("shop", before="migrate 3", after="alembic b", seconds=4)], exited()),
    )
    shop, _ = worker.upgrade(SHOP, STOCK)
    assert shop == MigrationResult("shop", MigrationOutcome.DONE, "migrate 2", "alembic b", "", 7)
    assert worker.asked() == [
        ("/new/python", "upgrade", ["shop", "stock"]),
        ("/old/python", "catch_up", ["shop"]),
        ("/new/python", "upgrade", ["shop"]),
    ]
    assert json.loads(worker.commands[1].stdin)["targets"][0]["version"] == 3


def test_the_legacy_half_fails() -> None:
    worker = play(
        ([result("shop", "needs legacy", before="migrate 1", version=3)], exited()),
        ([result("shop", "failed", before="migrate 1", after="migrate 2", message="broken")], exited()),
    )
    (shop,) = worker.upgrade(SHOP)
    assert shop == MigrationResult("shop", MigrationOutcome.FAILED, "migrate 1", "migrate 2", "shop: broken")


def test_stopped_before_the_legacy_half() -> None:
    worker = play(
        ([result("shop", "needs legacy", before="migrate 1", version=3)], Exit(143, Ending.STOPPED, 1)),
    )
    (shop,) = worker.upgrade(SHOP)
    assert (shop.outcome, shop.before) == (MigrationOutcome.STOPPED, "migrate 1")


GARBAGE = [
    "[]",
    "null",
    "{",
    '{"target": "nobody", "event": "begin"}',
    '{"target": "shop"}',
    '{"target": "shop", "event": "result"}',
    '{"target": "shop", "event": "result", "result": "fine"}',
    '{"target": "shop", "event": "result", "result": "done", "extra": 1}',
    "\x00\ufffd",
]


@pytest.mark.parametrize("line", GARBAGE)
def test_garbage_is_no_answer(line: str) -> None:
    (shop,) = play(([begin("shop"), line], exited())).upgrade(SHOP)
    assert shop.outcome is MigrationOutcome.FAILED
    assert shop.message == (
        f"shop: its worker (/new/python) ended with 0 without a result; it said last: {shown(line)}"
    )


def test_garbage_does_not_spoil_an_answer() -> None:
    (shop,) = play((["Welcome to this wrapper", begin("shop"), result("shop")], exited())).upgrade(SHOP)
    assert shop.ok


@pytest.mark.parametrize(
    ("ended", "outcome", "said"),
    [
        (
            exited(1),
            "failed",
            "its worker (/new/python) ended with 1 without a result; it said last: ImportError: x",
        ),
        (exited(137), "failed", "its worker (/new/python) was killed by signal 9 without a result; it said"),
        (Exit(143, Ending.TIMEOUT, 10), "failed", "not finished within 10 s; its worker was ended"),
        (Exit(143, Ending.STOPPED, 10), "stopped", "its worker was ended, since refresh-agent is stopping"),
        (
            Exit(127, Ending.NOT_STARTED, 0, "cannot be started: No such file or directory"),
            "failed",
            "python /new/python: cannot be started: No such file or directory; correct the option",
        ),
    ],
)
def test_a_worker_without_a_result(ended: Exit, outcome: str, said: str) -> None:
    (shop,) = play(([begin("shop"), "!ImportError: x"], ended)).upgrade(SHOP)
    assert shop.outcome.value == outcome
    assert shop.message.startswith(f"shop: {said}")
    assert shop.seconds == ended.seconds


def test_the_last_words_are_masked() -> None:
    (shop,) = play((["!cannot connect as shop:geheim"], exited(1))).upgrade(SHOP)
    assert "geheim" not in shop.message
    assert "shop:***" in shop.message


def test_a_death_costs_only_the_running_target() -> None:
    third = replace(SHOP, name="third")
    worker = play(
        ([begin("shop"), result("shop"), begin("stock")], exited(139)),
        ([begin("third"), result("third")], exited()),
    )
    results = worker.upgrade(SHOP, STOCK, third)
    assert [each.outcome.value for each in results] == ["done", "failed", "done"]
    assert worker.asked()[1] == ("/new/python", "upgrade", ["third"])
    assert worker.commands[1].timeout == 10


def test_a_worker_that_forgets_a_target_is_not_asked_for_ever() -> None:
    third = replace(SHOP, name="third")
    worker = play(([result("shop")], exited()), ([result("third")], exited()))
    results = worker.upgrade(SHOP, STOCK, third)
    assert [each.outcome.value for each in results] == ["done", "failed", "done"]


def test_nobody_is_asked_twice_who_did_not_begin() -> None:
    results = play(([], exited(1))).upgrade(SHOP, STOCK)
    assert {each.outcome for each in results} == {MigrationOutcome.FAILED}


def test_a_stop_keeps_what_is_done_and_ends_the_rest() -> None:
    other = replace(SHOP, name="other", python="/third/python")
    worker = play(([begin("shop"), result("shop"), begin("stock")], Exit(143, Ending.STOPPED, 1)))
    results = worker.upgrade(SHOP, STOCK, other)
    assert [each.outcome.value for each in results] == ["done", "stopped", "stopped"]
    assert results[2].message == "other: not begun, since refresh-agent is stopping"
    assert len(worker.commands) == 1
