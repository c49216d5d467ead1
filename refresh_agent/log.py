"""The log: plain lines for people, fields for systemd's journal if that listens, JSON lines for programs.

Whoever logs tells with ``extra=of(...)`` what a line is about. The run comes by itself with the thread that
works on it.
"""

import contextlib
import contextvars
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from refresh_agent.redact import shown

if TYPE_CHECKING:
    from refresh_agent.journald import Journald
    from refresh_agent.model import LogFormat

NAME = "refresh-agent"
AGENT, STDERR = "agent", "stderr"

_RUN: contextvars.ContextVar[str] = contextvars.ContextVar("run_id", default="")

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


_Extra = dict[str, object]


class _About(NamedTuple):
    """Empty for what it is not about. ``stream``: who speaks, and if that is a hook, where it wrote it."""

    run_id: str = ""
    phase: str = ""
    hook: str = ""
    stream: str = AGENT
    target: str = ""


def of(*, run_id: str = "", phase: str = "", hook: str = "", stream: str = AGENT, target: str = "") -> _Extra:
    """For ``extra=``: what a line is about. It names the run of the thread that asks, also in another one."""
    return {"about": _About(run_id or _RUN.get(), phase, hook, stream, target)}


@contextlib.contextmanager
def about(run_id: str) -> Iterator[None]:
    """Whatever this thread logs meanwhile is about that run."""
    token = _RUN.set(run_id)
    try:
        yield
    finally:
        _RUN.reset(token)


def set_up(level: str) -> None:
    """From the first line on; how it is configured is known only later: ``use``."""
    # Who reads the log may go away; that is no reason for anything else to fail.
    logging.raiseExceptions = False
    # What no line of this log shows need not be found out for each of them (Python's logging HOWTO).
    logging._srcfile = None  # noqa: SLF001 - the documented way
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    _replace(_by_itself())
    logging.getLogger("refresh_agent").setLevel(level)
    # It warns about its own threads when it is stopped.
    logging.getLogger("watchdog").setLevel(logging.CRITICAL)


def use(log_format: "LogFormat") -> None:
    """[DEFAULT] log_format from now on; JSON where the journal listens, too: somebody has asked for it."""
    as_json = log_format == "json"
    if as_json != isinstance(_ours(), _JsonHandler):
        _replace(_JsonHandler() if as_json else _by_itself())


def tells_streams() -> bool:
    """Whether lines tell which stream a hook has written them to; else their order is all that does."""
    return isinstance(_ours(), _JsonHandler | _JournalHandler)


def complain(text: str) -> None:
    """Why the agent ends, whatever the level is: in the way of the log if others read that, else plainly."""
    handler = _ours()
    if isinstance(handler, _JsonHandler | _JournalHandler):
        attributes = {"name": "refresh_agent", "levelno": logging.ERROR, "levelname": "ERROR", "msg": text}
        handler.handle(logging.makeLogRecord(attributes))
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{NAME}: {shown(text)}\n")


class _TextFormatter(logging.Formatter):
    """One line a message, whatever it quotes: nobody else writes lines of this log, or steers a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = shown(record.message)
        return super().formatMessage(record)


class _JsonFormatter(_TextFormatter):
    """An object on one line. A traceback is part of the message."""

    def format(self, record: logging.LogRecord) -> str:
        what = _about(record)
        told = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{told}.{int(record.msecs):03d}Z",
            "level": "error" if what.stream == STDERR else record.levelname.lower(),
            # Half a surrogate pair, of the name of a file, is nothing that every reader of JSON takes.
            "message": super().format(record).encode("utf-8", "backslashreplace").decode(),
        }
        return json.dumps(fields | {name: shown(value) for name, value in what._asdict().items() if value})


class _TextHandler(logging.StreamHandler):  # type: ignore[type-arg] # it takes none when it runs
    def __init__(self) -> None:
        super().__init__()
        line = "%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s"
        self.setFormatter(_TextFormatter(line, "%Y-%m-%dT%H:%M:%S"))


class _JsonHandler(logging.StreamHandler):  # type: ignore[type-arg]
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_JsonFormatter())


class _JournalHandler(logging.Handler):
    """Fields for ``journalctl``; what hooks write to standard error is of the priority of an error there."""

    def __init__(self, journald: "Journald") -> None:
        super().__init__()
        self._journald = journald
        self.setFormatter(_TextFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        from refresh_agent.journald import Entry  # noqa: PLC0415 - as in _by_itself

        try:
            what = _about(record)
            priority = 3 if what.stream == STDERR else _priority(record.levelno)
            named = [(name.upper(), shown(value)) for name, value in what._asdict().items() if value]
            fields = (("SYSLOG_IDENTIFIER", NAME), *named)
            self._journald.tell(Entry(priority, self.format(record), fields))
        except Exception:  # noqa: BLE001 - as all of logging's handlers: a line is not worth the agent's end
            self.handleError(record)

    def flush(self) -> None:
        """Called before the end, too."""
        self._journald.tell_loss((("SYSLOG_IDENTIFIER", NAME),))

    def close(self) -> None:
        super().close()
        self._journald.close()


def _about(record: logging.LogRecord) -> _About:
    known: _About | None = getattr(record, "about", None)
    return known or _About(_RUN.get())


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG)


def _by_itself() -> logging.Handler:
    """What suits whoever has the other end of standard error."""
    if not _journal_listens():
        return _TextHandler()
    # Imported here: its socket costs milliseconds that only a service under systemd needs.
    from refresh_agent import journald  # noqa: PLC0415

    return _JournalHandler(journald.Journald(journald.SOCKET))


def _journal_listens() -> bool:
    """Whether standard error is the stream to the journal that systemd has made for it: systemd.exec(5)."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _ours() -> logging.Handler | None:
    ours = _TextHandler | _JsonHandler | _JournalHandler
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, ours)), None)


def _replace(handler: logging.Handler) -> None:
    """In one step: other threads are logging, and a line is to be told once."""
    root, before = logging.getLogger(), _ours()
    root.handlers = [*(each for each in root.handlers if each is not before), handler]
    if before is not None:
        before.close()
