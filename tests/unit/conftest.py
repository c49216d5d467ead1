"""What all unit tests share: reproducible property tests, and a process as it was found."""

import logging
import os
import pathlib
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from refresh_agent.journal import Journal
from refresh_agent.wakeup import Stop
from tests.unit.caches import Cache

# The same examples each time: a red run can be run again, and a slow machine is no failure.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


@pytest.fixture(autouse=True)
def _as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the caller's environment nor a test before this one decides what it sees."""
    for name in list(os.environ):
        if name.startswith(("OS_", "REFRESH_AGENT_", "RUN_PARTS", "NOTIFY_SOCKET")):
            monkeypatch.delenv(name)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    root, agent = logging.getLogger(), logging.getLogger("refresh_agent")
    log_handlers, level = list(root.handlers), agent.level
    umask = os.umask(0o022)
    yield
    os.umask(umask)
    root.handlers[:] = log_handlers
    agent.setLevel(level)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that the agent logs, debug included."""
    caplog.set_level(logging.DEBUG, logger="refresh_agent")
    return caplog


@pytest.fixture
def stop() -> Iterator[Stop]:
    stop = Stop()
    yield stop
    stop.close()


@pytest.fixture
def state(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state"


@pytest.fixture
def journal(state: pathlib.Path) -> Iterator[Journal]:
    journal = Journal(str(state))
    yield journal
    journal.close()


@pytest.fixture
def kept(tmp_path: pathlib.Path) -> Cache:
    return Cache(tmp_path)
