"""sd_notify, to a real datagram socket."""

import math
import os
import pathlib
import socket
from collections.abc import Iterator

import pytest

from refresh_agent import systemd
from tests.unit.support import open_descriptors


@pytest.fixture
def manager(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


def test_assignments_are_lines_of_one_message(manager: socket.socket) -> None:
    systemd.notify("READY=1", "STATUS=starting")
    assert manager.recv(1000) == b"READY=1\nSTATUS=starting"


def test_status_is_an_assignment(manager: socket.socket) -> None:
    systemd.Pulse(math.inf).done("running configure: 20-ü")
    assert manager.recv(1000) == "STATUS=running configure: 20-ü".encode()


def test_more_time_is_asked_for_in_microseconds(manager: socket.socket) -> None:
    systemd.extend(30)
    assert manager.recv(1000) == b"EXTEND_TIMEOUT_USEC=30000000"


@pytest.mark.parametrize("text", ["failed\nSTOPPING=1", "failed\rSTOPPING=1", "failed\n\n STOPPING=1"])
def test_a_status_of_several_lines_cannot_smuggle_in_an_assignment(manager: socket.socket, text: str) -> None:
    systemd.Pulse(math.inf).done(text)
    assert manager.recv(1000).splitlines() == [b"STATUS=failed STOPPING=1"]
    systemd.Pulse(math.inf).doing(text, text)
    assert manager.recv(1000).splitlines() == [b"STATUS=failed STOPPING=1, 0 s, failed STOPPING=1"]


def test_a_status_that_is_no_text_or_too_long_is_told_all_the_same(manager: socket.socket) -> None:
    """The name of a hook may be any bytes; systemd drops a message of more than 4 KiB."""
    systemd.Pulse(math.inf).doing("running configure: 10-\udcff\x1b[31m" + "\U0001f600" * 2000)
    message = manager.recv(100_000)
    assert message.startswith(b"STATUS=running configure: 10-\\udcff\\x1b[31m")
    assert len(message) < 4096


def test_a_stop_asks_for_the_time_that_it_takes_and_says_why(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "PULSE", systemd.Pulse(math.inf))
    systemd.stopping("10-a may take 60 s to end", 80)
    assert manager.recv(1000) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=85000000"
    assert manager.recv(1000) == b"STATUS=stopping: 10-a may take 60 s to end, 0 s"


def test_an_abstract_socket_is_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"refresh-agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        systemd.notify("READY=1")
        assert receiver.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    "address", [None, "", "relative", "vsock:2:1234", "/missing/socket", "/" + "x" * 200]
)
def test_where_nobody_listens_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    before = open_descriptors()
    systemd.notify("READY=1")
    assert open_descriptors() == before


# --- the pulse ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, math.inf),
        ({"WATCHDOG_USEC": "180000000"}, 180),
        ({"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "77"}, 5),
        ({"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "78"}, math.inf),  # another process of the unit
        ({"WATCHDOG_USEC": "0"}, math.inf),
        ({"WATCHDOG_USEC": "soon"}, math.inf),
    ],
)
def test_the_watchdog_is_this_processs(environment: dict[str, str], seconds: float) -> None:
    assert systemd.watchdog_seconds(environment, 77) == seconds


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[str] = []

    def pulse(self, patience: float = math.inf) -> systemd.Pulse:
        return systemd.Pulse(patience, lambda *lines: self.told.extend(lines), lambda: self.now)


def test_it_beats_twice_in_the_time_that_systemd_waits() -> None:
    clock = Clock()
    pulse = clock.pulse(6)
    assert pulse.beat() == 3
    clock.now += 2.9
    assert pulse.beat() == pytest.approx(0.1)
    assert clock.told == ["WATCHDOG=1"]
    clock.now += 0.2
    assert pulse.beat() == 3
    assert clock.told == ["WATCHDOG=1"] * 2


def test_without_a_watchdog_and_an_activity_nobody_has_to_be_woken() -> None:
    clock = Clock()
    pulse = clock.pulse()
    assert pulse.beat() == math.inf
    pulse.done("waiting for a change")
    assert pulse.beat() == math.inf
    assert clock.told == ["STATUS=waiting for a change"]


def test_how_long_it_takes_is_told_anew_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/somebody/listens")
    clock = Clock()
    pulse = clock.pulse()
    pulse.doing("running configure: 55-heat-config", "attempt 2")
    clock.now += 0.5
    assert pulse.beat() == 0.5
    clock.now += 11.75
    assert pulse.beat() == 0.75
    assert clock.told == [
        "STATUS=running configure: 55-heat-config, 0 s, attempt 2",
        "STATUS=running configure: 55-heat-config, 12 s, attempt 2",
    ]
    pulse.done("waiting for a change")
    assert pulse.beat() == math.inf


def test_where_nobody_listens_nothing_is_told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    clock = Clock()
    pulse = clock.pulse()
    pulse.doing("running configure: 55-heat-config")
    assert pulse.beat() == math.inf
