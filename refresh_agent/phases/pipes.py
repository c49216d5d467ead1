"""The pipes into which hooks and what they leave behind write, and who reads them."""

import contextlib
import fcntl
import os
import select
import threading
from collections.abc import Callable

from refresh_agent.model import ByteSink, Command, Stream

CHUNK = 65536

_FOLLOWED: dict["Pipe", threading.Thread] = {}
_ENOUGH = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
"""Readable when nobody is to follow any more."""

LONGEST_LINE = 5.0
"""Seconds that a thread may take to tell what it has read."""


def stop_following() -> list["Pipe"]:
    """The pipes of what has outlived its hook and is listened to in the background; from now on by nobody."""
    os.eventfd_write(_ENOUGH, 1)
    for thread in tuple(_FOLLOWED.values()):
        thread.join(LONGEST_LINE)
    os.eventfd_read(_ENOUGH)
    left = list(_FOLLOWED)
    _FOLLOWED.clear()
    return left


class Pipe:
    """The reading end of one that a process writes to. ``command``: that process's.

    ``sink`` may have a method ``take``, for ``held``.
    """

    def __init__(self, descriptor: int, stream: Stream, sink: ByteSink, command: Command) -> None:
        self.descriptor = descriptor
        self.stream = stream
        self.command = command
        self._sink = sink
        self._take: Callable[[Stream], bytes] = getattr(sink, "take", lambda _stream: b"")

    def read(self) -> bool:
        """Pass on what is there, or wait for it; False at the end of the stream."""
        data = os.read(self.descriptor, CHUNK)
        if data:
            self._sink(self.stream, data)
        return bool(data)

    def let_go(self) -> None:
        """Take what is there. A background process that keeps the pipe open is listened to further on:
        it would die of the next line that it writes if nobody held the other end.
        """
        if self._drained():
            self.close()
        else:
            thread = threading.Thread(target=self._follow, name="background-output", daemon=True)
            _FOLLOWED[self] = thread
            thread.start()

    def held(self) -> bytes:
        """What was read, and is not told yet: the beginning of a line."""
        return self._take(self.stream)

    def close(self) -> None:
        os.close(self.descriptor)

    def _drained(self) -> bool:
        """Pass on what is there now; whether that was all that will ever come.

        At most what a pipe holds: a background process may also write faster than we read.
        """
        left = fcntl.fcntl(self.descriptor, fcntl.F_GETPIPE_SZ)
        os.set_blocking(self.descriptor, False)
        with contextlib.suppress(BlockingIOError):
            while left > 0:
                data = os.read(self.descriptor, min(CHUNK, left))
                if not data:
                    return True
                left -= len(data)
                self._sink(self.stream, data)
        return False

    def _follow(self) -> None:
        poll = select.poll()
        for descriptor in (self.descriptor, _ENOUGH):
            poll.register(descriptor, select.POLLIN)
        while _ENOUGH not in dict(poll.poll()):
            if not self.read():
                _FOLLOWED.pop(self, None)
                self.close()
                return
