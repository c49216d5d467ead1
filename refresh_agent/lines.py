"""From the bytes that a process writes to lines that can be logged."""

from collections.abc import Callable
from typing import Protocol

from refresh_agent.model import Stream
from refresh_agent.redact import printable

LINE_LIMIT = 8192
"""Bytes after which a line that does not end is passed on in pieces."""


class Listener(Protocol):
    """Is given the masked output of one process, and told when that has ended. More may come even then."""

    def feed(self, stream: Stream, data: bytes) -> None: ...

    def flush(self) -> None: ...


class Lines:
    """A listener that tells line by line, as text that can be logged."""

    def __init__(self, tell: Callable[[Stream, str], None], limit: int = LINE_LIMIT) -> None:
        self._tell = tell
        self._limit = limit
        self._partial: dict[Stream, bytes] = {}

    def feed(self, stream: Stream, data: bytes) -> None:
        *lines, partial = (self._partial.get(stream, b"") + data).split(b"\n")
        for line in lines:
            self._tell(stream, printable(self._beginnings_told(stream, line)))
        self._partial[stream] = self._beginnings_told(stream, partial)

    def flush(self) -> None:
        for stream, partial in self._partial.items():
            if partial:
                self._partial[stream] = b""
                self._tell(stream, printable(partial))

    def _beginnings_told(self, stream: Stream, line: bytes) -> bytes:
        """What is left of a line that is too long after pieces of it have been told."""
        while len(line) > self._limit:
            cut = _before_a_character(line, self._limit)
            self._tell(stream, printable(line[:cut]))
            line = line[cut:]
        return line


def _before_a_character(data: bytes, position: int) -> int:
    """``position``, or a little before it, where no UTF-8 character is cut."""
    for cut in range(position, position - 4, -1):
        if data[cut] & 0xC0 != 0x80:  # not the continuation of one
            return cut
    return position
