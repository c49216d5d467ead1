"""What hooks write, handed on as it comes: the bytes that they wrote, but for masked secrets."""

import os
import select

from refresh_agent.model import Stream

_DESCRIPTORS = {Stream.STDOUT: 1, Stream.STDERR: 2}


class PassedOn:
    """A listener: standard output goes to ours, standard error to ours."""

    def feed(self, stream: Stream, data: bytes) -> None:
        write(_DESCRIPTORS[stream], data)

    def flush(self) -> None:
        """Nothing is held back."""


def one_place() -> bool:
    """Whether ours both lead to the same file or terminal: the order of what is written then matters."""
    return os.path.samestat(os.fstat(1), os.fstat(2))


def write(descriptor: int, data: bytes) -> None:
    """All of it. A reader that is gone or a full disk take nothing from what the hooks do."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select((), (descriptor,), ())
        except OSError:
            return
