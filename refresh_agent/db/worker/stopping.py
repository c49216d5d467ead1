"""The end of the work before its time: SIGTERM, SIGINT, and a time limit.

Python runs its signal handlers between two of its own instructions, so not while a driver waits in C for an
hour's statement. Its C part does write the signal's number to a descriptor at once: a thread reads that, and
interrupts the statement.
"""

from __future__ import annotations

import functools
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType, TracebackType

from .faults import TargetError, foreign, one_line

ASKED = "refresh-agent is stopping"

AGAIN = 1.0
"""Seconds. What is cancelled between two statements does not end the second one, so it is done again."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_INTERRUPT = signal.SIGUSR1
"""From the thread to the main thread, where its handler raises Stopped."""
_CHANGED = b"\0"
"""No signal's number: another limit counts now, or the thread is to end."""

_LOG = logging.getLogger(__name__)


class Stopped(TargetError):  # noqa: N818 - not an error, an answer
    """The work was ended before its time."""


@dataclass(eq=False)
class _Watch:
    """What ``during`` watches over. ``ends``, ``again``: moments; the next cancel is not before ``again``."""

    seconds: float
    cancel: Callable[[], None]
    ends: float
    again: float = 0.0


class Stopping:
    """Stops by signals and time limits, in a ``with`` block of the main thread; one for a worker process.

    Whatever handles signals outside comes back after the block.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._closed = False
        self._watches: list[_Watch] = []
        # Held while cancel() runs: whoever leaves ``during`` waits for it.
        self._lock = threading.Lock()

    def __enter__(self) -> Stopping:  # noqa: PYI034 - Self came with Python 3.11
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        self._handlers[_INTERRUPT] = signal.signal(_INTERRUPT, self._raise)
        self._descriptor = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_a_fork
        )
        self._thread = threading.Thread(target=self._run, name="stopping", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        self._wake()
        self._thread.join()
        os.close(self._reading)
        os.close(self._writing)

    @property
    def requested(self) -> bool:
        """For ever after a signal; after a time limit as long as its block lasts."""
        return bool(self.reason)

    @property
    def reason(self) -> str:
        """For people; "" as long as nothing asks for a stop."""
        if self._signalled:
            return ASKED
        now = time.monotonic()
        late = [watch for watch in tuple(self._watches) if watch.ends <= now]
        return f"not finished within {late[0].seconds:.12g} s" if late else ""

    def check(self) -> None:
        """Raise Stopped if a stop is requested."""
        if reason := self.reason:
            raise Stopped(reason)

    @contextmanager
    def during(self, seconds: float, cancel: Callable[[], None]) -> Iterator[None]:
        """Interrupt the block, which may last ``seconds`` (0: without a limit), when a stop is requested.

        ``cancel`` is called from another thread: at once, then every second while the block lasts, never
        after it. It should make the block fail; what the block raises then becomes Stopped, with the reason.
        A block that ends well all the same has ended well. Blocks can be nested; what ends one ends those in
        it, from the innermost one outwards. Raises Stopped, too, if a stop has been requested before.
        """
        self.check()
        watch = _Watch(seconds, cancel, ends=time.monotonic() + seconds if seconds > 0 else float("inf"))
        with self._lock:
            self._watches.append(watch)
        self._wake()
        try:
            yield
        except Stopped:
            raise
        except Exception as error:
            if reason := self.reason:
                text = str(error) if isinstance(error, TargetError) else one_line(error)
                raise Stopped(f"{reason}: {text}") from error
            raise
        finally:
            with self._lock:
                self._watches.remove(watch)

    def _restore(self) -> None:
        self._closed = True
        signal.set_wakeup_fd(self._descriptor)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _before_fork(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def _after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _in_a_fork(self) -> None:
        """A migration's own child has the same pipe: a signal to the child must end it, and not stop us."""
        if not self._closed:
            self._restore()
        self._after_fork()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        """Python writes only those signals down that have a handler. Without a lock: it can interrupt us."""
        self._signalled = True

    def interrupt(self) -> None:
        """Make the main thread raise Stopped; for ``cancel``, since not all that lasts is a statement."""
        signal.pthread_kill(threading.main_thread().ident or 0, _INTERRUPT)

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        """It may come when the block has just ended."""
        if self._watches:
            self.check()

    def _wake(self) -> None:
        # A full pipe wakes up, too.
        with suppress(BlockingIOError):
            os.write(self._writing, _CHANGED)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        while not self._closed:
            if poll.poll(self._pause()):
                self._signalled |= any(number in _SIGNALS for number in os.read(self._reading, 4096))
            with self._lock:
                self._cancel_due()

    def _pause(self) -> int | None:
        """Milliseconds until something is due, or an hour; None if nothing will ever be."""
        with self._lock:
            due = min((due for _, due in self._due()), default=float("inf"))
        if due == float("inf"):
            return None
        return int(min(max(0, due - time.monotonic()), 3600) * 1000) + 1

    def _due(self) -> list[tuple[_Watch, float]]:
        """Each watch, the outermost first, with the moment at which it is cancelled next."""
        found = []
        ends = 0.0 if self._signalled else float("inf")
        for watch in self._watches:
            ends = min(ends, watch.ends)
            found.append((watch, max(ends, watch.again)))
        return found

    def _cancel_due(self) -> None:
        now = time.monotonic()
        for watch, due in reversed(self._due()):
            if due > now:
                continue
            watch.again = now + AGAIN
            try:
                foreign(watch.cancel)
            except TargetError as fault:
                _LOG.warning("what runs could not be interrupted: %s", fault)


@functools.cache
def of_this_process() -> Stopping:
    """The only one of a worker: watches from the first call to the end of the process."""
    return Stopping().__enter__()
