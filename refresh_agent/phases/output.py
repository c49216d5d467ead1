"""What becomes of a hook's output: secrets are masked, its end is kept, a listener hears the rest."""

from refresh_agent.lines import Listener
from refresh_agent.model import Stream
from refresh_agent.redact import MaskedStream, Masker


class Output:
    """All that one hook writes: masked, its end kept in ``tail``, and passed on to a listener."""

    def __init__(self, mask: Masker, limit: int, listener: Listener) -> None:
        self.tail = Tail(limit)
        self._mask = mask
        self._streams: dict[Stream, MaskedStream] = {}
        self._listener = listener

    def __call__(self, stream: Stream, data: bytes) -> None:
        """A ``model.ByteSink``."""
        if stream not in self._streams:
            self._streams[stream] = MaskedStream(self._mask)
        self._pass_on(stream, self._streams[stream].feed(data))

    def flush(self) -> None:
        """The hook has ended: what was held back, since it could have gone on, is all there is."""
        for stream, masked in self._streams.items():
            self._pass_on(stream, masked.flush())
        self._listener.flush()

    def _pass_on(self, stream: Stream, data: bytes) -> None:
        if data:
            self.tail.add(data)
            self._listener.feed(stream, data)


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
