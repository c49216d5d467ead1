"""sd_notify, to a real datagram socket."""

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
    systemd.status("running configure: 20-ü")
    assert manager.recv(1000) == "STATUS=running configure: 20-ü".encode()


def test_more_time_is_asked_for_in_microseconds(manager: socket.socket) -> None:
    systemd.extend(30)
    assert manager.recv(1000) == b"EXTEND_TIMEOUT_USEC=30000000"


@pytest.mark.parametrize("text", ["failed\nSTOPPING=1", "failed\rSTOPPING=1", "failed\n\n STOPPING=1"])
def test_a_status_of_several_lines_cannot_smuggle_in_an_assignment(manager: socket.socket, text: str) -> None:
    systemd.status(text)
    assert manager.recv(1000).splitlines() == [b"STATUS=failed STOPPING=1"]


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
