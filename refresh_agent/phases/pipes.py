"""The pipes into which hooks and what they leave behind write, and who reads them."""

import contextlib
import fcntl
import os
import threading

from refresh_agent.model import ByteSink, Command, Stream

CHUNK = 65536

_FOLLOWED: set["Pipe"] = set()
_FOLLOWED_LOCK = threading.Lock()
"""Held while one is closed: its number may be another file's right after."""


def followed() -> list[tuple[int, "Pipe"]]:
    """Those of processes that have outlived their hook, and are listened to in the background; each with
    another descriptor of it, which is the caller's to close.
    """
    with _FOLLOWED_LOCK:
        return [(os.dup(pipe.descriptor), pipe) for pipe in _FOLLOWED]


class Pipe:
    """The reading end of one that a process writes to. ``command``: that process's."""

    def __init__(self, descriptor: int, stream: Stream, sink: ByteSink, command: Command) -> None:
        self.descriptor = descriptor
        self.stream = stream
        self.command = command
        self._sink = sink

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
            with _FOLLOWED_LOCK:
                _FOLLOWED.add(self)
            threading.Thread(target=self._follow, name="background-output", daemon=True).start()

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
        os.set_blocking(self.descriptor, True)
        while self.read():
            pass
        with _FOLLOWED_LOCK:
            _FOLLOWED.discard(self)
            self.close()
