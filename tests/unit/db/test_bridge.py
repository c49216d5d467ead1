"""The bridge with workers that do not keep to the protocol."""

import json
import pathlib
import socket
from dataclasses import replace
from typing import Any

import pytest

from refresh_agent.db import bridge
from refresh_agent.db.worker.protocol import Order
from refresh_agent.model import (
    Destructive,
    Ending,
    Exit,
    MigrationOutcome,
    MigrationResult,
)
from refresh_agent.redact import shown
from tests.unit.db.played_worker import SHOP, STOCK, begin, exited, play, result


def test_the_command() -> None:
    worker = play(([result("shop"), result("stock")], exited()))
    worker.upgrade(replace(SHOP, destructive=Destructive.REFUSE, backup="/bin/dump", user="root"), STOCK)
    (command,) = worker.commands
    assert command.path == "/new/python"
    assert command.argv == ("/new/python", bridge.WORKER)
    assert command.env == {"HOME": "/root"}
    assert worker.requests()[0]["order"] == {
        "operation": "upgrade",
        "run": "run-1",
        "message": "",
        "autogenerate": False,
        "resume": False,
    }
    assert worker.requests()[0]["targets"][0] == {
        "name": "shop",
        "connection": "postgresql://shop:geheim@db/shop",
        "connection_option": "connection",
        "alembic_config": "/shop/alembic.ini",
        "alembic_location": "",
        "migrate_repository": "/shop/legacy",
        "legacy_versions": [[3, "abcd"]],
        "python_path": [],
        "revision": "head",
        "timeout": 10,
        "lock_timeout": 5,
        "statement_timeout": 0,
        "destructive": "refuse",
        "backup": "/bin/dump",
        "legacy_here": False,
        "legacy": None,
    }


def test_the_worker_keeps_the_time_itself_and_the_runner_ends_one_that_does_not() -> None:
    worker = play(([result("shop"), result("stock")], exited()))
    worker.upgrade(SHOP, STOCK)
    assert worker.commands[0].timeout == 10 + 5 + 20 + 5 + 60


@pytest.mark.parametrize("option", ["timeout", "lock_timeout"])
def test_one_target_without_a_limit_lifts_it_for_all(option: str) -> None:
    worker = play(([result("shop"), result("stock")], exited()))
    worker.upgrade(SHOP, replace(STOCK, **{option: 0}))
    assert worker.commands[0].timeout == 0


@pytest.mark.parametrize(
    ("connections", "grace"),
    [
        (("postgresql://db/shop", "sqlite:////stock.db"), None),
        (("mysql://db/shop", "sqlite:////stock.db"), 10),
        (("mysql+pymysql://db/shop", "mariadb://db/stock"), 20),
    ],
)
def test_a_statement_that_cannot_be_taken_back_may_end(
    connections: tuple[str, str], grace: float | None
) -> None:
    worker = play(([result("shop"), result("stock")], exited()))
    first, second = connections
    worker.upgrade(replace(SHOP, connection=first), replace(STOCK, connection=second))
    assert worker.commands[0].kill_grace == grace


def test_a_statement_that_cannot_be_taken_back_has_no_limit_where_its_target_has_none() -> None:
    worker = play(([result("shop")], exited()))
    worker.upgrade(replace(SHOP, connection="mysql://db/shop", timeout=0))
    assert worker.commands[0].kill_grace == float("inf")


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


def test_what_a_worker_still_says_after_term_counts() -> None:
    worker = play(
        (
            [begin("shop"), result("shop", "stopped", message="rolled back"), result("stock", "done")],
            Exit(143, Ending.STOPPED, 1),
        )
    )
    shop, stock = worker.upgrade(SHOP, STOCK)
    assert (shop.outcome, shop.message) == (MigrationOutcome.STOPPED, "shop: rolled back")
    assert stock.ok


def test_a_statement_that_has_to_end_is_told_once_and_the_stop_waits_for_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = {"target": "shop", "event": "finishing", "message": "ALTER TABLE orders has to end"}
    worker = play(([begin("shop"), again, again, result("shop")], exited()))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        worker.upgrade(SHOP)
        assert [manager.recv(100) for _ in range(2)] == [b"EXTEND_TIMEOUT_USEC=30000000"] * 2
    assert worker.log == ["shop: ALTER TABLE orders has to end"]


def test_what_was_found_out_is_passed_on_without_its_secrets() -> None:
    report = {"dirty": {"error": "no entry for shop:geheim"}, "pending": [{"title": "geheim"}], "kept": 2}
    worker = play(([result("shop", report=report)], exited()))
    (shop,) = worker.ask("status", replace(SHOP, migrate_repository=""))
    assert shop.report == {
        "dirty": {"error": "no entry for shop:***"},
        "pending": [{"title": "***"}],
        "kept": 2,
    }


def test_a_status_looks_at_the_programs_that_an_upgrade_may_need(tmp_path: pathlib.Path) -> None:
    tool = tmp_path / "tool"
    tool.touch(0o644)

    def refusal(report: dict[str, object] | None = None, **changes: Any) -> object:
        worker = play(([result("shop", report=report or {})], exited()))
        (shop,) = worker.ask("status", replace(SHOP, **changes))
        return shop.report.get("refusal", "")

    assert refusal() == "legacy_python: /old/python does not exist; install it, or correct the option"
    assert refusal(migrate_repository="") == ""
    assert refusal({"refusal": "it is dirty"}) == "it is dirty"
    backup = {"migrate_repository": "", "backup": f"{tool} --all"}
    assert refusal(**backup) == f"backup: {tool} is not executable; make it so, or correct the option"
    tool.chmod(0o755)
    assert refusal(**backup) == ""


def test_a_warning_of_the_worker_is_one_in_the_log() -> None:
    worker = play(
        ([{"target": "shop", "event": "warning", "message": "geheim is dropped"}, result("shop")], exited())
    )
    warnings: list[str] = []
    bridge.ask(Order("upgrade"), [SHOP], worker.surroundings(warn=warnings.append))
    assert (warnings, worker.log) == (["shop: *** is dropped"], [])


def test_the_worker_is_told_which_option_a_connection_comes_from(tmp_path: pathlib.Path) -> None:
    conf = tmp_path / "shop.conf"
    conf.write_text("[database]\nconnection = postgresql://shop:geheim@db/shop\n")
    worker = play(([result("shop")], exited()))
    worker.upgrade(replace(SHOP, connection="", connection_from=str(conf)))
    assert worker.requests()[0]["targets"][0]["connection_option"] == f"connection_from: {conf}"


def test_an_answer_may_be_long() -> None:
    worker = play(([result("shop", report={"sql": "x" * 2**24})], exited()))
    (shop,) = worker.ask("sql", SHOP)
    assert len(shop.report["sql"]) == 2**24


def test_an_order_of_an_operator() -> None:
    worker = play(([result("shop")], exited()))
    worker.ask("revision", SHOP, message="Prices", autogenerate=True)
    order = worker.requests()[0]["order"]
    assert (order["message"], order["autogenerate"], order["resume"]) == ("Prices", True, False)


GARBAGE = [
    "[]",
    "null",
    "{",
    '{"target": "nobody", "event": "begin"}',
    '{"target": "shop"}',
    '{"target": "shop", "event": "result"}',
    '{"target": "shop", "event": "result", "result": "fine"}',
    '{"target": "shop", "event": "result", "result": "done", "extra": 1}',
    '{"target": "shop", "event": "result", "result": "done", "report": []}',
    '{"target": "shop", "event": "result", "result": "needs legacy"}',
    '{"target": "shop", "event": "result", "result": "needs legacy", "legacy": {"version": 1}}',
    '{"target": "shop", "event": "result", "result": "needs legacy", "legacy": [1]}',
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
        (Exit(143, Ending.TIMEOUT, 10), "failed", "not finished within 75 s; its worker was ended"),
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
    assert worker.commands[1].timeout == 75


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
    third = replace(SHOP, name="third")
    worker = play(([begin("shop"), result("shop"), begin("stock")], Exit(143, Ending.STOPPED, 1)))
    results = worker.upgrade(SHOP, STOCK, other, third)
    assert [each.outcome.value for each in results] == ["done", "stopped", "stopped", "stopped"]
    assert results[1].message == "stock: its worker was ended, since refresh-agent is stopping"
    assert results[2].message == "other: not begun, since refresh-agent is stopping"
    assert results[3].message == "third: not begun, since refresh-agent is stopping"
    assert len(worker.commands) == 1
