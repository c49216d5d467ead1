"""What becomes of a hook's output: secrets are masked, its end is kept, a listener hears the rest."""

import logging
import threading

from refresh_agent import log
from refresh_agent.lines import Lines, Listener
from refresh_agent.model import Stream
from refresh_agent.redact import MaskedStream, Masker

LOG = logging.getLogger("refresh_agent")

MOST_HELD = 2**20
"""Bytes."""


def line_by_line(run_id: str, phase: str, hook: str) -> Lines:
    """The listener that tells the log what this hook says; in any thread, so that it has to know the run."""
    about = {stream: log.of(run_id=run_id, phase=phase, hook=hook, stream=stream) for stream in Stream}
    return Lines(lambda stream, text: LOG.info("%s/%s| %s", phase, hook, text, extra=about[stream]))


class Output:
    """All that one hook writes: masked, its end kept in ``tail``, and passed on to a listener."""

    def __init__(self, mask: Masker, limit: int, listener: Listener) -> None:
        self.tail = Tail(limit)
        self._mask = mask
        self._streams: dict[Stream, MaskedStream] = {}
        self._listener = listener
        # What a hook has left behind is listened to by a thread, perhaps while its end is told.
        self._one_at_a_time = threading.Lock()

    def __call__(self, stream: Stream, data: bytes) -> None:
        """A ``model.ByteSink``."""
        with self._one_at_a_time:
            if stream not in self._streams:
                self._streams[stream] = MaskedStream(self._mask)
            self._pass_on(stream, self._streams[stream].feed(data))

    def take(self, stream: Stream) -> bytes:
        """What was held back, and is not masked: whoever goes on to listen begins with it."""
        with self._one_at_a_time:
            return self._streams[stream].take() if stream in self._streams else b""

    def flush(self) -> None:
        """The hook has ended: what was held back, since it could have gone on, is all there is."""
        with self._one_at_a_time:
            for stream, masked in self._streams.items():
                self._pass_on(stream, masked.flush())
            self._listener.flush()

    def _pass_on(self, stream: Stream, data: bytes) -> None:
        if data:
            self.tail.add(data)
            self._listener.feed(stream, data)


class HeldBack:
    """Keeps what is written until it is known what is secret in it, as far as it is not too much."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._held: list[tuple[Stream, bytes]] = []
        self._room = MOST_HELD

    def __call__(self, stream: Stream, data: bytes) -> None:
        """A ``model.ByteSink``."""
        self._room -= len(data)
        if self._room < 0:
            self._let_go()
            self._output(stream, data)
        else:
            self._held.append((stream, data))

    def flush(self) -> None:
        self._room = 0
        self._let_go()
        self._output.flush()

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for stream, data in held:
            self._output(stream, data)


class Tail:
    """The end of an output, within a limit of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._whole = True

    def add(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > 2 * self._limit:  # not at every piece: moving a megabyte takes its time
            self._shorten()

    def bytes(self) -> bytes:
        """It begins with a whole character."""
        self._shorten()
        cut = 0
        while not self._whole and cut < min(3, len(self._kept)) and self._kept[cut] & 0xC0 == 0x80:
            cut += 1
        return bytes(self._kept[cut:])

    def _shorten(self) -> None:
        if len(self._kept) > self._limit:
            del self._kept[: len(self._kept) - self._limit]
            self._whole = False
