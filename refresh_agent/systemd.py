"""What the agent tells systemd: sd_notify, without a library. All of it is a no-op outside a notify unit."""

import contextlib
import os

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


def notify(*assignments: str) -> None:
    """Send ``KEY=value`` lines to the manager, if one listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    import socket  # noqa: PLC0415 - 2 ms that only a notify unit needs

    message = "\n".join(assignments).encode()
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(f"\0{address[1:]}" if address[0] == "@" else address)
        sender.send(message, socket.MSG_DONTWAIT)  # a manager that does not read must not hold us up


def extend(seconds: float) -> None:
    """Ask for so much time from now on until the start or the stop that is under way has to be over."""
    notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def status(text: str) -> None:
    """The line that ``systemctl status`` shows. A second line would be another assignment."""
    notify(f"STATUS={' '.join(text.split())}")
