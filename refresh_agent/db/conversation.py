"""A worker's answers as they come, line by line; what is no answer goes to the log."""

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from refresh_agent import systemd
from refresh_agent.db.worker import protocol
from refresh_agent.db.worker.protocol import LegacyStep, Result
from refresh_agent.model import Ending, Exit, Stream

EXTENSION = 30.0
"""Seconds that systemd gives to a stop from each "finishing" on; a worker that has to wait repeats it."""

_RESULTS = frozenset(
    {
        protocol.DONE,
        protocol.UNCHANGED,
        protocol.REFUSED,
        protocol.FAILED,
        protocol.DEFERRED,
        protocol.STOPPED,
        protocol.NEEDS_LEGACY,
    }
)


class Conversation:
    """``last`` is what the worker said last that was no answer, ``running`` the target that it is at."""

    def __init__(self, names: Sequence[str], log: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self.results: dict[str, Result] = {}
        self.last = ""
        self._names = names
        self._log = log
        self._warn = warn
        self.running = ""
        self._told: set[str] = set()

    def line(self, stream: Stream, text: str) -> None:
        if stream is Stream.STDOUT and (answer := _answer(text, self._names)):
            self._take(*answer)
        elif text.strip():
            self.last = text.strip()
            self._log(f"{self.running or ', '.join(self._names)}: {text}")

    def _take(self, name: str, event: str, content: str | Result) -> None:
        if isinstance(content, Result):
            self.results[name] = content
            self.running = ""
        elif event == "begin":
            self.running = name
        elif event == "warning":
            self._warn(f"{name}: {content}")
        elif event == "finishing":
            self._wait(f"{name}: {content}")
        else:
            self._log(f"{name}: {content}")

    def _wait(self, text: str) -> None:
        """A statement that cannot be taken back runs to its end, and the agent's stop with it."""
        systemd.extend(EXTENSION)
        if text not in self._told:
            self._told.add(text)
            self._log(text)

    @property
    def begun(self) -> bool:
        """Whether the worker has said a word of the protocol."""
        return bool(self.running or self.results)

    def lost(self, ended: Exit) -> list[str]:
        """The targets that this worker's end has cost their result: the running one, or all if none began.

        All, too, when it was stopped or never ran: there is no use in asking again.
        """
        open_names = [name for name in self._names if name not in self.results]
        if ended.ending in {Ending.STOPPED, Ending.NOT_STARTED} or not self.begun:
            return open_names
        return [self.running] if self.running else open_names[:1]


def _answer(text: str, names: Sequence[str]) -> tuple[str, str, str | Result] | None:
    """One line of the protocol as (target, event, message or result); None for anything else."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.get("target") not in names:
        return None
    name, event = fields.pop("target"), fields.pop("event", None)
    if event in {"begin", "step", "warning", "finishing"}:
        return name, event, str(fields.get("message", ""))
    result = _result(fields)
    return (name, event, result) if result else None


def _result(fields: dict[str, Any]) -> Result | None:
    with contextlib.suppress(TypeError):
        legacy = fields.pop("legacy", None)
        result = Result(**fields, legacy=LegacyStep(**legacy) if legacy else None)
        whole = result.result in _RESULTS and isinstance(result.report, dict)
        if whole and (result.legacy is None) == (result.result != protocol.NEEDS_LEGACY):
            return result
    return None
