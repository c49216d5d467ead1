"""How the worker is woken and stopped: event descriptors, since signal handlers must be able to set them.

A signal handler that interrupts threading.Event.set in its own thread and calls it again waits for itself for
ever; writing to an event descriptor cannot.
"""

import contextlib
import os
import select
import threading
import time

from refresh_agent.model import Trigger
from refresh_agent.systemd import PULSE

LONGEST_WAIT = 86400.0
"""Seconds; the kernel refuses what is too long, and whoever waits for longer looks again in between."""


class Stop:
    """Asked to stop, once and for all. Safe to request from a signal handler; a poll can wait for it."""

    def __init__(self) -> None:
        self.signal = 0
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def request(self, signal_number: int) -> None:
        self.signal = self.signal or signal_number
        os.eventfd_write(self._event, 1)

    @property
    def requested(self) -> bool:
        return self.signal != 0

    def fileno(self) -> int:
        """Readable from the request on."""
        return self._event

    def close(self) -> None:
        os.close(self._event)


class Bell:
    """Rung by one thread to wake another; may be rung when nobody will ever hear it again."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._mutex = threading.Lock()
        self._open = True

    def ring(self) -> None:
        with self._mutex:
            if self._open:
                os.eventfd_write(self._event, 1)

    def heard(self) -> None:
        """It has been seen to be readable; from now on only a new ring makes it so."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)

    def fileno(self) -> int:
        """Readable once it was rung."""
        return self._event

    def close(self) -> None:
        with self._mutex:
            self._open = False
            os.close(self._event)


class Wakeup:
    """Reasons to look again; many before the worker looks are one."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._reasons: set[Trigger] = set()

    def because(self, reason: Trigger) -> None:
        self._reasons.add(reason)
        os.eventfd_write(self._event, 1)

    def wait(self, seconds: float) -> set[Trigger]:
        """The reasons since the last call; empty when ``seconds`` or a day passed or a stop was requested."""
        until = time.monotonic() + min(max(0.0, seconds), LONGEST_WAIT)
        while True:
            left, beat = until - time.monotonic(), PULSE.beat()
            # select and not poll, which counts in whole milliseconds and rounds up.
            timeout = max(0.0, min(left, beat))
            ready, _, _ = select.select((self._event, self._stop.fileno()), (), (), timeout)
            if ready or left <= beat:
                break
        if not ready or self._stop.requested:
            return set()
        # First the event, then the reasons: one that comes in between only wakes once for nothing.
        os.eventfd_read(self._event)
        reasons = set()
        while self._reasons:
            reasons.add(self._reasons.pop())
        return reasons

    def close(self) -> None:
        os.close(self._event)
