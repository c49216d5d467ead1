"""A worker that plays what it is told to; what the tests of the bridge start from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from refresh_agent.db import bridge
from refresh_agent.db.worker.protocol import Order
from refresh_agent.lines import Listener
from refresh_agent.model import (
    Command,
    Ending,
    Exit,
    MigrationResult,
    Stream,
    Target,
)

SHOP = Target(
    name="shop",
    connection="postgresql://shop:geheim@db/shop",
    python="/new/python",
    legacy_python="/old/python",
    alembic_config="/shop/alembic.ini",
    migrate_repository="/shop/legacy",
    legacy_versions=((3, "abcd"),),
    timeout=10,
    lock_timeout=5,
)
STOCK = replace(SHOP, name="stock", timeout=20)

STEP = {"direction": "up", "version": 3, "control": -1, "scope": "alembic_version"}
"""What the legacy repository is to do, as the alembic side says it."""


@dataclass
class Worker:
    """Plays one ending per command that it is given: the lines to say, and how it comes to its end."""

    turns: list[tuple[Sequence[str | dict[str, object]], Exit]]
    commands: list[Command] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    learnt: list[str] = field(default_factory=list)

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

    def surroundings(self, **changes: Any) -> bridge.Surroundings:
        plain = bridge.Surroundings(
            run=self.run,
            log=self.log.append,
            env={"HOME": "/root"},
            objection=lambda _path, _owners: "",
            learn=self.learnt.extend,
        )
        return replace(plain, **changes)

    def ask(self, operation: str, *targets: Target, **more: Any) -> tuple[MigrationResult, ...]:
        return bridge.ask(Order(operation, "run-1", **more), targets, self.surroundings())

    def upgrade(self, *targets: Target) -> tuple[MigrationResult, ...]:
        return self.ask("upgrade", *targets)

    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(command.stdin) for command in self.commands]

    def asked(self) -> list[tuple[str, str, list[str]]]:
        """Who was asked for what."""
        return [
            (command.path, request["order"]["operation"], [target["name"] for target in request["targets"]])
            for command, request in zip(self.commands, self.requests(), strict=True)
        ]


def exited(status: int = 0) -> Exit:
    return Exit(status, Ending.EXITED, 1.5)


def begin(name: str) -> dict[str, object]:
    return {"target": name, "event": "begin"}


def result(name: str, kind: str = "done", **more: object) -> dict[str, object]:
    return {"target": name, "event": "result", "result": kind, **more}


def play(*turns: tuple[Sequence[str | dict[str, object]], Exit]) -> Worker:
    return Worker(list(turns))
