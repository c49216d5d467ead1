"""Event descriptors that signal handlers can set."""

import os
import select
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from refresh_agent.model import Trigger
from refresh_agent.wakeup import Stop, Wakeup


@pytest.fixture
def wakeup(stop: Stop) -> Iterator[Wakeup]:
    wakeup = Wakeup(stop)
    yield wakeup
    wakeup.close()


def readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_a_stop_can_be_waited_for_and_keeps_its_first_signal(stop: Stop) -> None:
    assert not stop.requested
    assert not readable(stop.fileno())
    stop.request(signal.SIGTERM)
    stop.request(signal.SIGINT)
    assert stop.requested
    assert stop.signal == signal.SIGTERM
    assert readable(stop.fileno())
    assert readable(stop.fileno())


def test_many_reasons_before_a_look_are_one_wake_up(wakeup: Wakeup) -> None:
    for _ in range(1000):
        wakeup.because(Trigger.CHANGE)
    wakeup.because(Trigger.SIGNAL)
    assert wakeup.wait(10) == {Trigger.CHANGE, Trigger.SIGNAL}
    assert wakeup.wait(0) == set()


@pytest.mark.parametrize("seconds", [0, -5, 0.01])
def test_without_a_reason_it_returns_when_the_time_is_over(wakeup: Wakeup, seconds: float) -> None:
    began = time.monotonic()
    assert wakeup.wait(seconds) == set()
    assert time.monotonic() - began < 5


def test_a_stop_ends_the_waiting(wakeup: Wakeup, stop: Stop) -> None:
    timer = threading.Timer(0.05, stop.request, [signal.SIGTERM])
    timer.start()
    assert wakeup.wait(60) == set()
    timer.join()
    assert stop.requested
    wakeup.because(Trigger.CHANGE)
    assert wakeup.wait(60) == set()


@pytest.mark.parametrize("seconds", [30 * 86400.0, 1e9, float("inf")])
def test_it_can_be_asked_to_wait_longer_than_a_poll_can(wakeup: Wakeup, seconds: float) -> None:
    """A poll takes at most 24 days: an interval beyond must not end the daemon."""
    timer = threading.Timer(0.05, wakeup.because, [Trigger.CHANGE])
    timer.start()
    try:
        assert wakeup.wait(seconds) == {Trigger.CHANGE}
    finally:
        timer.join()


def test_a_signal_handler_can_wake_the_thread_that_waits(wakeup: Wakeup) -> None:
    signal.signal(signal.SIGHUP, lambda *_: wakeup.because(Trigger.SIGNAL))
    timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGHUP])
    timer.start()
    assert wakeup.wait(60) == {Trigger.SIGNAL}
    timer.join()


def test_no_reason_is_lost_between_threads(wakeup: Wakeup) -> None:
    rounds = 2000
    seen, asked = threading.Semaphore(0), threading.Semaphore(0)

    def ask() -> None:
        for number in range(rounds):
            wakeup.because(Trigger.CHANGE if number % 2 else Trigger.SIGNAL)
            seen.acquire()
        asked.release()

    asker = threading.Thread(target=ask)
    asker.start()
    found = 0
    while found < rounds:
        reasons = wakeup.wait(10)
        assert len(reasons) == 1
        found += 1
        seen.release()
    asker.join()
    assert asked.acquire(timeout=1)


def test_its_descriptors_are_not_for_hooks(stop: Stop) -> None:
    assert not os.get_inheritable(stop.fileno())
