"""The threads that ask the polled sources: one each, so that a slow source delays no other."""

import functools
import logging
import os
import random
import select
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from refresh_agent.collectors import Polled
from refresh_agent.errors import StateError
from refresh_agent.model import StopSignal
from refresh_agent.polling import Polling
from refresh_agent.sources import Collected, Source
from refresh_agent.systemd import PULSE
from refresh_agent.wakeup import LONGEST_WAIT, Bell

T = TypeVar("T")

LOG = logging.getLogger("refresh_agent.sources")

Wait = Callable[[Sequence[int], float], Sequence[int]]
"""Waits until one of some descriptors is readable, so many seconds at most; those that are."""


def wait_for(descriptors: Sequence[int], seconds: float) -> Sequence[int]:
    poll = select.poll()  # unlike select, it takes descriptors above 1023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(max(0.0, seconds) * 1000)]


def side_by_side(calls: Sequence[Callable[[], T]], stop: StopSignal) -> list[T]:
    """What all of these give, in their order; a slow one does not delay the others.

    Not longer than until asked to stop; then what has not been answered by then is missing. Raises what the
    first of them raises.
    """
    answers: dict[int, T] = {}
    errors: dict[int, Exception] = {}
    bell = Bell()

    def answer(number: int) -> None:
        try:
            answers[number] = calls[number]()
        except Exception as error:  # noqa: BLE001 - raised again, in the thread of who called
            errors[number] = error
        bell.ring()

    for number in range(len(calls)):
        threading.Thread(target=answer, args=(number,), name=f"poll-{number}", daemon=True).start()
    while len(answers) + len(errors) < len(calls) and not stop.requested:
        wait_for((bell.fileno(), stop.fileno()), LONGEST_WAIT)
        bell.heard()
    bell.close()
    for number in sorted(errors):
        raise errors[number]
    return [answers[number] for number in sorted(answers)]


def collect_once(sources: Iterable[Source], stop: StopSignal, *, confirmed: bool = False) -> None:
    """Ask all of them once, side by side. Raises StateError."""
    side_by_side([functools.partial(source.collect, confirmed=confirmed) for source in sources], stop)


class Poller:
    """Asks one source again and again, from ``start`` to ``close``."""

    def __init__(
        self, source: Source, polling: Polling, changed: Callable[[], None], wait: Wait = wait_for
    ) -> None:
        self._source = source
        self._polling = polling
        self._changed = changed
        self._wait = wait
        self._bell = Bell()
        self._closed = False
        self._hurried = False
        self._asked = self._begun = self._answered = self._excused = 0
        self._told = ""

    def start(self, answered: Callable[[], None]) -> None:
        """Collect now, and from now on. ``answered`` is called after every collection."""
        self._asked += 1
        name = f"poll-{self._source.name}"
        threading.Thread(target=self._live, args=(answered,), name=name, daemon=True).start()

    @property
    def waited_for(self) -> bool:
        """Whether it has yet to answer what it was last asked, and nobody has given that up."""
        return max(self._answered, self._excused) < self._asked

    def excuse(self) -> None:
        """Do not wait for what it was last asked: the others must not be delayed again and again."""
        self._excused = self._asked

    def ask(self) -> None:
        """Collect now; if it has not begun with what it was asked last, that is enough."""
        if self._begun == self._asked:
            self._asked += 1
            self._bell.ring()

    def hurry(self) -> None:
        """Something has changed on the node: likely there will soon be more."""
        self._hurried = True
        self._bell.ring()

    def close(self) -> None:
        """Collect no more. Does not wait for an answer that is on its way; it is not stored."""
        self._source.close()
        self._closed = True
        self._bell.ring()

    def _live(self, answered: Callable[[], None]) -> None:
        while not self._closed:
            self._begun = self._asked
            self._collect()
            self._answered = self._begun
            answered()
            self._rest()
        self._bell.close()
        self._source.let_go()

    def _collect(self) -> None:
        collected = Collected(failed=True)
        problem = ""
        try:
            collected = self._source.collect()
        except StateError as error:
            problem = str(error)
            if problem != self._told:
                LOG.error("%s", problem)  # noqa: TRY400 - the text says it all
        self._told = problem
        if collected.failed:
            self._polling = self._polling.failed(collected.retry_after)
        elif collected.changed:
            self._polling = self._polling.changed()
            self._changed()
        else:
            self._polling = self._polling.unchanged()

    def _rest(self) -> None:
        """Until the next poll is due, or there is a reason not to wait for it."""
        while not self._closed and self._answered == self._asked and self._rung(self._delay()):
            pass

    def _rung(self, seconds: float) -> bool:
        """Wait; whether it was only the bell: then how long to wait is to be thought about again."""
        bell = self._bell.fileno()
        pushes = self._pushes()
        ready = list(self._wait([bell, pushes] if pushes >= 0 else [bell], seconds))
        if bell in ready:
            self._bell.heard()
        return ready == [bell]

    def _pushes(self) -> int:
        """What is readable when the source has something; -1 for nothing that one could wait for."""
        collector = self._source.collector
        # A connection that has failed is readable for ever.
        if self._polling.failures or not isinstance(collector, Polled):
            return -1
        try:
            descriptor = collector.fileno()
            os.fstat(descriptor)
        except Exception:  # noqa: BLE001 - closed, or none; and a collector may be anybody's
            return -1
        return descriptor

    def _delay(self) -> float:
        """Seconds until the next poll."""
        if self._hurried and not self._polling.failures:
            self._polling = self._polling.changed()
        self._hurried = False
        seconds = self._polling.delay(random.random())  # noqa: S311
        return seconds if self._polling.failures else max(seconds, self._least())

    def _least(self) -> float:
        try:
            return min(float(getattr(self._source.collector, "every", 0.0)), LONGEST_WAIT)
        except Exception:  # noqa: BLE001 - a collector may be anybody's
            return 0.0


class Pollers:
    """Those of all polled sources of one configuration. ``changed`` is called in their threads."""

    def __init__(self, sources: Iterable[Source], polling: Polling, changed: Callable[[], None]) -> None:
        self._answers = Bell()
        self._pollers = [Poller(source, polling, changed) for source in sources]

    def start(self) -> None:
        for poller in self._pollers:
            poller.start(self._answers.ring)

    def ask(self) -> None:
        """Collect from all of them now."""
        for poller in self._pollers:
            poller.ask()

    def hurry(self) -> None:
        for poller in self._pollers:
            poller.hurry()

    def wait(self, seconds: float, stop: StopSignal) -> None:
        """Until all have answered what they were last asked; so long at most, and not when asked to stop."""
        until = time.monotonic() + seconds
        while any(poller.waited_for for poller in self._pollers) and not stop.requested:
            left = until - time.monotonic()
            if left > 0:
                if wait_for((self._answers.fileno(), stop.fileno()), min(left, PULSE.beat())):
                    self._answers.heard()
                continue
            for poller in self._pollers:
                poller.excuse()

    def close(self) -> None:
        for poller in self._pollers:
            poller.close()
        self._answers.close()
