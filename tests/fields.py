"""The other end of systemd's native protocol: what journald would take from the agent.

The real one is in tests/e2e/systemd. Here it is a socket of the test's own, since no journald can be told to
stand still, to be gone and to count what it was sent.
"""

import contextlib
import pathlib
import socket
import struct
from collections.abc import Iterator


def fields(datagram: bytes) -> list[tuple[str, str]]:
    """Read as journald does: ``NAME=value``, or a name, the length in 8 bytes, and so many bytes of value."""
    found = []
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, sign, value = line.partition(b"=")
        if not sign:
            (length,) = struct.unpack("<Q", rest[:8])
            value, end, rest = rest[8 : 8 + length], rest[8 + length : 9 + length], rest[9 + length :]
            assert end == b"\n"
        found.append((name.decode(), value.decode()))
        datagram = rest
    return found


class StandIn:
    """Reads nothing until it is asked for what has come."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def entries(self) -> list[dict[str, str]]:
        """All that is there now, in order."""
        return [dict(fields(datagram)) for datagram in self._datagrams()]

    def messages(self) -> list[str]:
        return [entry["MESSAGE"] for entry in self.entries()]

    def _datagrams(self) -> Iterator[bytes]:
        with contextlib.suppress(BlockingIOError):
            while True:
                yield self.socket.recv(2**24)

    def close(self) -> None:
        self.socket.close()
