"""Stops by signals and time limits, in this process; a statement that sits in C is in test_db_locks."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from refresh_agent.db.worker import stopping as stopping_module
from refresh_agent.db.worker.faults import TargetError
from refresh_agent.db.worker.stopping import Stopped, Stopping
from tests.waiting import eventually


@pytest.fixture
def stopping() -> Iterator[Stopping]:
    with Stopping() as found:
        yield found


class Statement:
    """What ``cancel`` interrupts; it waits where Python handles no signals."""

    def __init__(self) -> None:
        self.cancelled = 0
        self._reading, self._writing = os.pipe()

    def run(self) -> None:
        """Wait in C, as a driver does, until it is cancelled."""
        # The read begins anew after a signal without its handler having ended anything.
        assert os.read(self._reading, 1) == b"x"
        raise RuntimeError("the statement was cancelled")

    def cancel(self) -> None:
        self.cancelled += 1
        os.write(self._writing, b"x")

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


@pytest.fixture
def statement() -> Iterator[Statement]:
    found = Statement()
    yield found
    found.close()


def fail() -> None:
    raise AssertionError("nothing asked for this")


def send(number: int, seconds: float = 0.1) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    return timer


# --- signals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_interrupts_what_runs(number: int, stopping: Stopping, statement: Statement) -> None:
    timer = send(number)
    began = time.monotonic()
    with (
        pytest.raises(Stopped, match=r"^refresh-agent is stopping: RuntimeError: the statement was canc"),
        stopping.during(60, statement.cancel),
    ):
        statement.run()
    assert time.monotonic() - began < 0.9
    assert statement.cancelled == 1
    timer.join()


def test_a_signal_that_came_before_lets_nothing_begin(stopping: Stopping) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    assert eventually(lambda: stopping.requested)
    assert stopping.reason == "refresh-agent is stopping"
    with pytest.raises(Stopped, match=r"^refresh-agent is stopping$"):
        stopping.check()
    with pytest.raises(Stopped, match=r"^refresh-agent is stopping$"), stopping.during(0, fail):
        fail()


def test_a_signal_that_comes_after_cancels_nothing(stopping: Stopping) -> None:
    with stopping.during(60, fail):
        pass
    stopping.check()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        stopping.check()


def test_what_ends_well_after_all_has_ended_well(stopping: Stopping) -> None:
    cancelled = threading.Event()
    with stopping.during(0, cancelled.set):
        os.kill(os.getpid(), signal.SIGTERM)
        assert cancelled.wait(10)
    assert stopping.requested


def test_what_is_cancelled_between_two_statements_is_cancelled_again(
    stopping: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping_module, "AGAIN", 0.01)
    calls: list[float] = []
    with stopping.during(0, lambda: calls.append(time.monotonic())):
        os.kill(os.getpid(), signal.SIGTERM)
        eventually(lambda: len(calls) >= 3)
    after = len(calls)
    threading.Event().wait(0.1)
    assert len(calls) == after


def test_other_signals_are_none_of_ours(stopping: Stopping) -> None:
    heard = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.set())
    try:
        with stopping.during(0, fail):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert heard.wait(10)
            threading.Event().wait(0.05)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not stopping.requested


def test_a_signal_to_a_child_of_a_migration_ends_the_child_alone(stopping: Stopping) -> None:
    with stopping.during(0, fail):
        child = os.fork()
        if not child:
            signal.alarm(20)
            signal.pause()
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        threading.Event().wait(0.05)
    assert not stopping.requested


# --- time limits -----------------------------------------------------------------------------------------


def test_a_time_limit_interrupts_what_runs(stopping: Stopping, statement: Statement) -> None:
    with (
        pytest.raises(Stopped, match=r"^not finished within 0\.2 s: RuntimeError: the statement was"),
        stopping.during(0.2, statement.cancel),
    ):
        statement.run()
    assert statement.cancelled == 1


def test_a_time_limit_is_over_with_its_block(stopping: Stopping, statement: Statement) -> None:
    with pytest.raises(Stopped), stopping.during(0.01, statement.cancel):
        statement.run()
    stopping.check()
    with stopping.during(60, fail):
        stopping.check()


def test_a_time_limit_never_fires_after_its_block(stopping: Stopping) -> None:
    with stopping.during(0.05, fail):
        pass
    threading.Event().wait(0.15)
    assert not stopping.requested


def test_no_limit(stopping: Stopping) -> None:
    with stopping.during(0, fail), stopping.during(float("inf"), fail):
        assert not stopping.requested


def test_whoever_leaves_the_block_waits_for_a_cancel_that_runs(stopping: Stopping) -> None:
    begun, ended = threading.Event(), threading.Event()

    def cancel() -> None:
        begun.set()
        threading.Event().wait(0.1)
        ended.set()

    with stopping.during(0.01, cancel):
        assert begun.wait(10)
    assert ended.is_set()


def test_an_outer_limit_ends_the_inner_block_first(stopping: Stopping) -> None:
    calls: list[str] = []

    def cancel(name: str) -> Callable[[], None]:
        return lambda: calls.append(name)

    with stopping.during(0.05, cancel("outer")), stopping.during(60, cancel("inner")):
        eventually(lambda: len(calls) == 2)
        assert stopping.reason == "not finished within 0.05 s"
    assert calls == ["inner", "outer"]


def test_an_inner_limit_leaves_the_outer_block_alone(stopping: Stopping, statement: Statement) -> None:
    with stopping.during(60, fail):
        with pytest.raises(Stopped, match=r"0\.01 s"), stopping.during(0.01, statement.cancel):
            statement.run()
        stopping.check()


def test_limits_of_days_are_told_in_seconds(stopping: Stopping) -> None:
    with stopping.during(86_400 * 365, fail):
        threading.Event().wait(0.05)
    assert f"{86_400 * 365.0:.12g}" == "31536000"


# --- errors ----------------------------------------------------------------------------------------------


def test_an_error_without_a_stop_stays_what_it_is(stopping: Stopping) -> None:
    with pytest.raises(RuntimeError, match=r"^mine$"), stopping.during(60, fail):
        raise RuntimeError("mine")


def test_the_message_of_what_failed_is_kept(stopping: Stopping, statement: Statement) -> None:
    def upgrade() -> None:
        try:
            statement.run()
        except RuntimeError as error:
            raise TargetError("alembic upgrade failed: why") from error

    with (
        pytest.raises(Stopped, match=r"^not finished within 0\.01 s: alembic upgrade failed: why$"),
        stopping.during(0.01, statement.cancel),
    ):
        upgrade()


def test_a_cancel_that_fails_ends_nothing_else(
    stopping: Stopping, caplog: pytest.LogCaptureFixture, statement: Statement
) -> None:
    def cancel() -> None:
        raise OSError("no way to the server")

    with stopping.during(0.01, cancel):
        eventually(lambda: caplog.messages)
    assert [message.partition(" (")[0] for message in caplog.messages] == [
        "what runs could not be interrupted: OSError: no way to the server"
    ]
    with pytest.raises(Stopped), stopping.during(0.01, statement.cancel):
        statement.run()


# --- the process -----------------------------------------------------------------------------------------


def test_what_handled_signals_before_handles_them_again() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handlers = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]
    before = signal.set_wakeup_fd(writing)
    try:
        with Stopping():
            assert signal.getsignal(signal.SIGTERM) not in handlers
        assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)] == handlers
    finally:
        assert signal.set_wakeup_fd(before) == writing
        os.close(reading)
        os.close(writing)


def test_its_thread_and_its_descriptors_end_with_it() -> None:
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    with Stopping():
        assert threading.active_count() == threads + 1
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (descriptors, threads)
