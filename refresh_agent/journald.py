"""systemd's journal in its native protocol: datagrams of named fields to journald's socket.

Without a library: systemd-python has to be compiled against libsystemd's headers, cysystemd carries a copy of
libsystemd for some machines and is compiled on all others, and with both whoever logs waits for as long as
journald does not read.
"""

import contextlib
import errno
import os
import select
import socket
import struct
from typing import NamedTuple

SOCKET = "/run/systemd/journal/socket"

PATIENCE = 1.0
"""Seconds that a line waits for a journald that does not read; the lines behind it do not wait again."""

LARGEST = 8 * 2**20
"""Bytes of a datagram that the kernel is asked to let through; it may allow less."""

CUT_TO = 16 * 2**10
"""Characters of a message for which that was not enough."""

WARNING = 4

_NOT_NOW = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})

Field = tuple[str, str]


class Entry(NamedTuple):
    """``priority``: syslog's number. ``fields``: those beside it and the message; the names are ours."""

    priority: int
    message: str
    fields: tuple[Field, ...] = ()

    def encoded(self) -> bytes:
        own = (("MESSAGE", self.message), ("PRIORITY", str(self.priority)))
        return b"".join(_field(name, value) for name, value in (*own, *self.fields))


def _field(name: str, value: str) -> bytes:
    """With its length in front if it has several lines: the second could pass for a field of its own."""
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)


class Journald:
    """Whatever becomes of journald, the agent neither ends nor hangs: lines are lost, are counted, and that
    is told as soon as somebody listens again. To be used by one thread at a time.
    """

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience
        self._lost = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
        # The kernel's own time-out: poll() does not see that the receiver of an unconnected socket is full.
        # Unconnected, since a socket that has taken the place of journald's is found by its path alone.
        seconds = int(patience)
        bound = struct.pack("@ll", seconds, int((patience - seconds) * 1_000_000))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)

    def tell(self, entry: Entry) -> None:
        """Waits for at most ``patience``, and not at all while lines are being lost."""
        self.tell_loss(entry.fields[:1])
        if self._lost or not self._taken(entry, patient=True):
            self._lost += 1

    def tell_loss(self, fields: tuple[Field, ...] = ()) -> None:
        """How many lines are lost so far, if any and if that can be told by now."""
        if self._lost:
            lines = "1 line of the log was" if self._lost == 1 else f"{self._lost} lines of the log were"
            message = f"{lines} lost: the journal did not take more"
            if self._taken(Entry(WARNING, message, fields), patient=False):
                self._lost = 0

    def close(self) -> None:
        self._socket.close()

    def _taken(self, entry: Entry, *, patient: bool) -> bool:
        """By journald; or, if there is none, by whoever has the other end of standard error."""
        try:
            self._socket.sendto(entry.encoded(), 0 if patient else socket.MSG_DONTWAIT, self._path)
        except OSError as error:
            if error.errno in _NOT_NOW:
                return False
            if error.errno == errno.EMSGSIZE and len(entry.message) > CUT_TO:
                return self._taken(_cut(entry), patient=patient)
            return self._written(entry, patient=patient)
        return True

    def _written(self, entry: Entry, *, patient: bool) -> bool:
        """To standard error, which leads to journald too; with the priority in front, as sd-daemon(3) has it.

        What cannot be written at all counts as taken: nobody will ever be told of it.
        """
        text = "".join(f"<{entry.priority}>{line}\n" for line in entry.message.splitlines())
        with contextlib.suppress(OSError):
            _, ready, _ = select.select((), (2,), (), self._patience if patient else 0)
            if not ready:
                return False
            os.write(2, text.encode("utf-8", "backslashreplace"))
        return True


def _cut(entry: Entry) -> Entry:
    length = len(entry.message)
    message = f"{entry.message[:CUT_TO]} [cut: {length} characters are more than the journal takes]"
    return entry._replace(message=message)
