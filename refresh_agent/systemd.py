"""What the agent tells systemd: sd_notify, without a library. All of it is a no-op outside a notify unit."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping

from refresh_agent.redact import shown

ALWAYS_OURS = (
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "CREDENTIALS_DIRECTORY",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "STATE_DIRECTORY",
    "SYSTEMD_EXEC_PID",
)
"""Variables that systemd gives to the agent alone; a hook that inherited them could speak for it."""

TOLD_AGAIN = 1.0
"""Seconds after which the time that something takes is told anew."""

LONGEST_STATUS = 800
"""Characters, of up to 4 bytes."""

MARGIN = 5.0
"""Seconds that a stop is given beyond what the agent itself means to take."""


def notify(*assignments: str) -> None:
    """Send ``KEY=value`` lines to the manager, if one listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    import socket  # noqa: PLC0415 - 2 ms that only a notify unit needs

    message = "\n".join(assignments).encode("utf-8", "backslashreplace")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(f"\0{address[1:]}" if address[0] == "@" else address)
        sender.send(message, socket.MSG_DONTWAIT)  # a manager that does not read must not hold us up


def extend(seconds: float) -> None:
    """Ask for so much time from now on until the start or the stop that is under way has to be over."""
    notify(_extension(seconds))


def _extension(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"


def watchdog_seconds(environment: Mapping[str, str], pid: int) -> float:
    """How long systemd waits for a sign of life of this process; infinity if it does not ask for any."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return math.inf
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 if microseconds.isdecimal() and int(microseconds) else math.inf


class Pulse:
    """The worker's sign of life, and how long it has been at what it does.

    Only the worker beats, and only where it makes progress or waits as it means to: a worker that is stuck
    anywhere else falls silent, and systemd starts the agent anew. A long hook is such a wait.
    """

    def __init__(
        self,
        patience: float,
        tell: Callable[..., None] = notify,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every = patience / 2
        self._tell = tell
        self._clock = clock
        self._next_beat = -math.inf if math.isfinite(patience) else math.inf
        self._activity: tuple[str, float, str] | None = None
        self._next_telling = math.inf

    def doing(self, what: str, more: str = "") -> None:
        """From now on it does this, which takes its time: ``systemctl status`` shows how long already."""
        self._activity = (_one_line(what), self._clock(), _one_line(more))
        self._tell_activity()

    def done(self, text: str) -> None:
        """The line that ``systemctl status`` shows from now on."""
        self._activity = None
        self._next_telling = math.inf
        self._tell(f"STATUS={_one_line(text)}")

    def beat(self) -> float:
        """To be called again within so many seconds; infinity if nobody wants to know."""
        now = self._clock()
        if now >= self._next_beat:
            self._next_beat = now + self._every
            self._tell("WATCHDOG=1")
        if now >= self._next_telling:
            self._tell_activity()
        return max(0.0, min(self._next_beat, self._next_telling) - now)

    def _tell_activity(self) -> None:
        if self._activity is None:
            return
        what, began, more = self._activity
        seconds = int(self._clock() - began)
        self._tell(f"STATUS={what}, {seconds} s{f', {more}' if more else ''}")
        self._next_telling = began + seconds + TOLD_AGAIN if "NOTIFY_SOCKET" in os.environ else math.inf


def _one_line(text: str) -> str:
    """A second line would be another assignment; and systemd drops a message of more than 4 KiB."""
    return shown(" ".join(text.split()))[:LONGEST_STATUS]


PULSE = Pulse(watchdog_seconds(os.environ, os.getpid()))
"""This process's: there is one manager, and one worker."""


def stopping(text: str, seconds: float) -> None:
    """The agent ends, which may take so long."""
    notify("STOPPING=1", _extension(seconds + MARGIN))
    PULSE.doing(f"stopping: {text}")
