"""What an operation is given: one target, what is asked, and whom to tell."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from .database import MYSQL
from .locks import Holder, Wait
from .protocol import Job, Order, Report, Result
from .stopping import Stopping

CANCELS = 2
"""Cancelling statements so often, a second apart, has not ended it: then it is not a statement that runs."""


@dataclass(frozen=True)
class Task:
    """One target of a request. ``stopping`` is the process's: one stop is for all that it has to do."""

    job: Job
    order: Order
    report: Report
    stopping: Stopping

    @property
    def mine(self) -> Holder:
        """How the lock and the ledger name whoever works here."""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return Holder(socket.gethostname(), os.getpid(), self.order.run[:8], self.job.name, since)

    @property
    def wait(self) -> Wait:
        """How long to wait for somebody else's migration; no limit is no limit."""
        seconds = self.job.lock_timeout or float("inf")
        return Wait(seconds, self.report.step, lambda: self.stopping.requested)

    def limited(self, backend: str, cancel: Callable[[], None]) -> AbstractContextManager[None]:
        """Around the work under the lock: a stop and the target's ``timeout`` end it.

        MariaDB cannot take back half a revision, so there the one at hand is finished first.
        """
        calls = itertools.count()

        def finish() -> None:
            self.report.finishing("the revision at hand is finished first, since MariaDB cannot take it back")

        def end() -> None:
            cancel()
            if next(calls) >= CANCELS:
                self.stopping.interrupt()

        return self.stopping.during(self.job.timeout, finish if backend == MYSQL else end)


Operation = Callable[[Task], Result]
