"""Runs an alembic tree with the worker's ledger and sessions, under the interpreter that it is started with.

``python stepwise.py '{"url", "tree", ...}'`` prints ``{"error", "said", "unfinished", "checksums"}``. It is a
program, since revisions may kill it, and since the other world's SQLAlchemy is not the one of the tests.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

WORKER = pathlib.Path(__file__).resolve().parent.parent.parent / "refresh_agent" / "db" / "worker"


def load() -> Any:
    """Return a function that imports a module of the worker, as the worker's ``__main__`` does."""
    spec = importlib.util.spec_from_file_location(
        "stepwise_worker", WORKER / "__init__.py", submodule_search_locations=[str(WORKER)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["stepwise_worker"] = package
    spec.loader.exec_module(package)
    return lambda name: importlib.import_module(f"stepwise_worker.{name}")


def run(worker: Any, order: dict[str, Any]) -> dict[str, Any]:
    ledger_module = worker("ledger")
    database = worker("database").Database(order["url"])
    mine = worker("locks").Holder("web-1", os.getpid(), "3fa1c2d4", "shop", "2026-11-21T16:50:00Z")
    ledger = ledger_module.Ledger(
        database, "alembic_version", mine, lambda text: text.replace("sesame", "***")
    )
    tree = worker("alembic_tree").Tree(
        worker("protocol").Job("shop", order["url"], alembic_location=order["tree"]), database
    )
    rules = worker("sessions").Rules(order.get("lock_timeout", 0), order.get("statement_timeout", 0))
    error, said = "", []
    with worker("sessions").watched(database, rules):
        tree.look()
        ledger.prepare()
        for revision in order.get("revisions", ["heads"]):
            unfinished = ledger.unfinished()
            resumed = unfinished if order.get("resume") else None
            if unfinished and not resumed:
                ledger.settle(order.get("settle", ledger_module.UNDONE))
            course = Course(ledger, resumed, said)
            way = tree.way_up(tree.heads(), revision)
            if way and not resumed:
                ledger.begin(way[0])
            try:
                tree.upgrade(revision, course)
            except worker("faults").TargetError as fault:
                error = str(fault)
                if course.running is not None:
                    ledger.failed(course.running, fault.__cause__ or fault)
        unfinished = ledger.unfinished()
    return {
        "error": error,
        "said": said,
        "unfinished": unfinished and {**vars(unfinished), "step": vars(unfinished.step), "holder": "",
                                      "dirty": unfinished.dirty},
        "checksums": ledger.checksums(),
        "heads": sorted(tree.heads()),
    }  # fmt: skip


class Course:
    def __init__(self, ledger: Any, resumed: Any, said: list[str]) -> None:
        self.running: Any = None
        self._ledger = ledger
        self._resumed = resumed
        self._said = said

    @contextlib.contextmanager
    def step(self, connection: Any, step: Any) -> Iterator[None]:
        self.running = step
        resumed, self._resumed = self._resumed, None
        with self._ledger.following(connection, step, resumed, self._said.append):
            yield

    def applied(self, connection: Any, step: Any, following: Any) -> None:
        self._ledger.applied(connection, step, following)
        self.running = None


if __name__ == "__main__":
    print(json.dumps(run(load(), json.loads(sys.argv[1]))))
