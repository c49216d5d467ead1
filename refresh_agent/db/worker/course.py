"""What goes with every step of a migration: may it begin, who is told, what the ledger says of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection, Engine

from .faults import TargetError
from .ledger import Ledger, Step, Unfinished
from .locks import Lock
from .task import Task


class Course:
    """``done``: the steps that have run; ``running``: the one that is to come to its end now."""

    def __init__(self, task: Task, ledger: Ledger, lock: Lock) -> None:
        self.done: list[Step] = []
        self.running: Step | None = None
        self._task = task
        self._ledger = ledger
        self._lock = lock
        self._resumed: Unfinished | None = None

    def resume(self, unfinished: Unfinished) -> None:
        """The first step goes on where it stopped."""
        self._resumed = unfinished

    def prepare(self, first: Step) -> None:
        """Write down what is about to begin, before any connection of the migration is open."""
        if self._resumed is None:
            self._ledger.begin(first)
        elif _which(self._resumed.step) != _which(first):
            raise TargetError(
                f"what stopped half-way is {self._resumed.step.text}, but what would run now is {first.text};"
                " resume with the revision that was wanted then"
            )

    @contextmanager
    def step(self, migrating: Connection | Engine, step: Step) -> Iterator[None]:
        """Around one step that runs on ``migrating``; raises TargetError if it must not begin."""
        self._task.stopping.check()
        self._lock.verify()
        resumed, self._resumed = self._resumed, None
        self._task.report.step(f"{step.text}{', going on where it stopped' if resumed else ''}")
        self.running = step
        with self._ledger.following(migrating, step, resumed, self._task.report.step):
            yield

    def applied(self, connection: Connection, step: Step, following: Step | None) -> None:
        """It has run: the ledger says so in the same transaction."""
        self._ledger.applied(connection, step, following)
        if connection.dialect.name in {"mysql", "mariadb"}:
            # Its DDL has committed all along. Now the version is kept too, whatever transaction env.py is in.
            connection.connection.commit()
        self.done.append(step)
        self.running = None

    def take_back(self, unfinished: Unfinished | None) -> int:
        """A failure takes back more than one step if env.py has a transaction around all; how many more."""
        before = len(self.done)
        texts = [step.text for step in self.done]
        if unfinished is not None and unfinished.step.text in texts:
            del self.done[texts.index(unfinished.step.text) :]
        return before - len(self.done)


def _which(step: Step) -> tuple[str, str, bool]:
    """What makes it the same step: its title may have been corrected since."""
    return step.engine, step.revision, step.down
