"""The threads that ask polled sources: real threads, and a clock of the test's own for a whole day."""

import contextlib
import gc
import os
import pathlib
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence

import pytest

from refresh_agent import pollers
from refresh_agent.collectors import Polled
from refresh_agent.errors import StateError
from refresh_agent.intake import Rules
from refresh_agent.model import Document, Snapshot
from refresh_agent.pollers import Poller, Pollers
from refresh_agent.polling import Polling
from refresh_agent.sources import Source
from refresh_agent.systemd import Pulse
from refresh_agent.wakeup import Stop
from tests.unit.support import LIMITS, open_descriptors
from tests.waiting import eventually

NEVER = Polling.starting(3600, 3600, 3600)
"""So long that only being asked can be the reason for a collection."""


class Shelf(Polled):
    """A polled collector that gives what the test puts on it; ``closed_gate`` keeps it from answering."""

    def __init__(self) -> None:
        self.content = b'{"x": 1}'
        self.error = ""
        self.retry_after = 0.0
        self.asked = 0
        self.stored_calls = 0
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()
        self.pushes = -1

    def collect(self) -> Snapshot:
        self.asked += 1
        assert self.gate.wait(20)
        if self.error:
            return Snapshot("shelf", error=self.error, retry_after=self.retry_after)
        return Snapshot("shelf", (Document("shelf", self.content),))

    def stored(self) -> None:
        self.stored_calls += 1

    def fileno(self) -> int:
        return self.pushes

    def close(self) -> None:
        self.closed = True


class Polls:
    def __init__(self, directory: pathlib.Path) -> None:
        self.shelf = Shelf()
        self.source = Source("shelf", lambda: self.shelf, str(directory / "sources"), Rules(LIMITS))
        self.changes = 0
        self.stop = Stop()
        self.all: list[Pollers] = []

    def changed(self) -> None:
        self.changes += 1

    def start(self, polling: Polling = NEVER) -> Pollers:
        started = Pollers([self.source], polling, self.changed)
        self.all.append(started)
        started.start()
        return started


@pytest.fixture
def polls(tmp_path: pathlib.Path) -> Iterator[Polls]:
    (tmp_path / "sources").mkdir()
    polls = Polls(tmp_path)
    yield polls
    polls.shelf.gate.set()
    for each in polls.all:
        with contextlib.suppress(OSError):
            each.close()
    polls.stop.close()
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("poll-")])


def test_it_collects_at_once_and_wakes_for_what_is_new(polls: Polls) -> None:
    polls.start().wait(10, polls.stop)
    assert polls.changes == 1
    assert [document.name for document in polls.source.documents] == ["shelf"]


def test_only_a_changed_fingerprint_wakes(polls: Polls) -> None:
    threads = polls.start()
    threads.wait(10, polls.stop)
    polls.shelf.content = b'{"x":1 }'
    threads.ask()
    threads.wait(10, polls.stop)
    assert polls.shelf.asked == 2
    assert polls.changes == 1
    polls.shelf.content = b'{"x": 2}'
    threads.ask()
    threads.wait(10, polls.stop)
    assert polls.changes == 2


def test_it_is_asked_again_and_again(polls: Polls) -> None:
    polls.start(Polling.starting(0.01, 0.01, 1))
    eventually(lambda: polls.shelf.asked >= 5)


def test_asking_while_it_has_yet_to_begin_is_asking_once(polls: Polls) -> None:
    polls.shelf.gate.clear()
    threads = polls.start()
    eventually(lambda: polls.shelf.asked == 1)
    threads.ask()
    threads.ask()
    polls.shelf.gate.set()
    threads.wait(10, polls.stop)
    assert polls.shelf.asked == 2


def test_a_slow_answer_is_waited_for_only_so_long(polls: Polls) -> None:
    polls.shelf.gate.clear()
    threads = polls.start()
    threads.wait(0.05, polls.stop)
    assert polls.source.documents == ()
    threads.wait(3600, polls.stop)  # and not again
    polls.shelf.gate.set()
    eventually(lambda: polls.changes == 1)


def test_a_stop_ends_the_wait(polls: Polls) -> None:
    polls.shelf.gate.clear()
    threads = polls.start()
    polls.stop.request(15)
    threads.wait(60, polls.stop)


def test_who_waits_for_an_answer_gives_signs_of_life(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[str] = []
    monkeypatch.setattr(pollers, "PULSE", Pulse(0.02, beats.append))
    polls.shelf.gate.clear()
    polls.start().wait(0.2, polls.stop)
    assert len(beats) >= 2
    assert set(beats) == {"WATCHDOG=1"}


def test_hurrying_brings_it_back_to_the_minimum(polls: Polls) -> None:
    threads = polls.start(Polling(3600, 0.02, 3600, 3600))
    polls.shelf.content = b'{"x": 1}'
    threads.wait(10, polls.stop)
    polls.shelf.error = "down"  # so that what follows is no change
    threads.ask()
    threads.wait(10, polls.stop)
    polls.shelf.error = ""
    threads.ask()
    threads.wait(10, polls.stop)
    asked = polls.shelf.asked
    threads.hurry()
    eventually(lambda: polls.shelf.asked > asked)


def test_a_push_is_collected_at_once(polls: Polls) -> None:
    readable, writable = os.pipe()
    polls.shelf.pushes = readable
    threads = polls.start()
    threads.wait(10, polls.stop)
    polls.shelf.content = b'{"x": 2}'
    os.write(writable, b"!")
    eventually(lambda: polls.changes == 2)
    polls.shelf.pushes = -1
    threads.ask()
    os.close(readable)
    os.close(writable)


def test_a_connection_that_broke_is_not_listened_to_while_it_backs_off(polls: Polls) -> None:
    """A closed connection is readable for ever: it would be asked as fast as the processor can."""
    readable, writable = os.pipe()
    os.close(writable)
    polls.shelf.pushes = readable
    polls.shelf.error = "connection lost"
    polls.shelf.retry_after = 3600
    threads = polls.start()
    threads.wait(10, polls.stop)
    threads.ask()
    threads.wait(10, polls.stop)
    assert polls.shelf.asked == 2
    os.close(readable)


def test_what_is_stored_is_told_to_the_collector_and_only_then(polls: Polls) -> None:
    """os-collect-config defect 12: a message is popped before anything came of it."""
    threads = polls.start()
    threads.wait(10, polls.stop)
    assert polls.shelf.stored_calls == 1
    os.chmod(polls.source.documents[0].stored, 0o600)
    polls.shelf.content = b'{"x": 2}'
    threads.ask()
    threads.wait(10, polls.stop)
    assert polls.shelf.stored_calls == 2


def test_an_answer_after_the_close_is_not_stored(polls: Polls) -> None:
    polls.shelf.gate.clear()
    threads = polls.start()
    eventually(lambda: polls.shelf.asked == 1)
    threads.close()
    polls.shelf.gate.set()
    eventually(lambda: polls.shelf.closed)
    assert polls.source.documents == ()
    assert polls.shelf.stored_calls == 0
    assert polls.changes == 0


def test_a_collector_that_cannot_be_closed_is_told_without_a_traceback(
    polls: Polls, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def close() -> None:
        polls.shelf.closed = True
        raise ValueError("geheim")

    monkeypatch.setattr(polls.shelf, "close", close)
    threads = polls.start()
    threads.wait(10, polls.stop)
    threads.close()
    eventually(lambda: "source shelf: its collector failed: ValueError at" in log.text)
    assert "geheim" not in log.text


def test_a_store_that_cannot_be_written_is_told_once_and_tried_again(
    polls: Polls, tmp_path: pathlib.Path, log: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sources" / "shelf").write_text("in the way")
    polls.start(Polling.starting(0.01, 0.01, 0.01))
    eventually(lambda: polls.shelf.asked >= 4)
    told = [record for record in log.records if "cannot be written" in record.getMessage()]
    assert len(told) == 1
    assert polls.shelf.stored_calls == 0
    (tmp_path / "sources" / "shelf").unlink()
    eventually(lambda: polls.changes == 1)


def test_once_asks_all_side_by_side(tmp_path: pathlib.Path) -> None:
    shelves = [Shelf() for _ in range(3)]
    meeting = threading.Barrier(3, timeout=20)
    for shelf in shelves:
        shelf.stored = meeting.wait  # type: ignore[assignment, method-assign]
    sources = [
        Source(str(number), lambda shelf=shelf: shelf, str(tmp_path), Rules(LIMITS))  # type: ignore[misc]
        for number, shelf in enumerate(shelves)
    ]
    pollers.collect_once(sources, Stop())
    assert all(source.documents for source in sources)


def test_once_does_not_wait_for_an_answer_when_it_is_to_end(polls: Polls) -> None:
    polls.shelf.gate.clear()
    polls.stop.request(15)
    pollers.collect_once([polls.source], polls.stop)
    assert polls.source.documents == ()


def test_once_tells_that_the_store_cannot_be_written(polls: Polls, tmp_path: pathlib.Path) -> None:
    (tmp_path / "sources" / "shelf").write_text("in the way")
    with pytest.raises(StateError, match="cannot be written"):
        pollers.collect_once([polls.source], polls.stop)


# --- a day -------------------------------------------------------------------------------------------------


def memory() -> int:
    """Bytes that are really in use: without what waits for the garbage collector."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


class Day:
    """A clock that goes on only by waiting: 24 hours of it."""

    def __init__(self, poller: Callable[[], Poller], shelf: Shelf) -> None:
        self.seconds = 0.0
        self.polls = 0
        self._poller = poller
        self._shelf = shelf
        self.after_an_hour = 0

    def wait(self, _descriptors: Sequence[int], seconds: float) -> Sequence[int]:
        self.seconds += seconds
        self.polls += 1
        if self.polls % 100 == 0:
            self._shelf.content = b'{"x": %d}' % self.polls
        self._shelf.error = "down" if self.polls % 50 == 0 else ""
        if self.seconds >= 3600 and not self.after_an_hour:
            self.after_an_hour = memory()
        if self.seconds >= 24 * 3600:
            self._poller().close()
        return ()


def test_a_day_of_polling_leaves_nothing_behind(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 hours on a clock of the test: memory, descriptors and threads are at its end what they were."""
    monkeypatch.setattr("refresh_agent.sources.LOG.disabled", True)  # pytest keeps every line
    shelf = Shelf()
    source = Source("shelf", lambda: shelf, str(tmp_path), Rules(LIMITS))
    day = Day(lambda: poller, shelf)
    poller = Poller(source, Polling.starting(30, 1, 300), source.take, day.wait)
    threads, descriptors = threading.active_count(), open_descriptors()
    tracemalloc.start()
    poller.start(lambda: source.sweep(()))
    eventually(lambda: shelf.closed, 100)
    grown = memory() - day.after_an_hour
    tracemalloc.stop()
    eventually(lambda: threading.active_count() == threads)
    assert day.polls > 2500
    assert grown < 50_000
    assert open_descriptors() <= descriptors
    assert len(list((tmp_path / "shelf").iterdir())) == 1


def test_what_was_not_good_is_not_told_to_be_stored(polls: Polls) -> None:
    """A queue must not forget it, and a server not be told that we have it."""
    polls.shelf.content = b"<html>"
    polls.source.collect()
    polls.shelf.error = "down"
    polls.source.collect()
    assert polls.shelf.stored_calls == 0
