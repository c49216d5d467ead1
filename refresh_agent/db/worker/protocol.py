"""The talk between the agent and a worker: one JSON request on stdin, JSON lines on stdout.

Request: ``{"version": 1, "operation": "upgrade" | "catch_up", "targets": [...]}``, a target as ``Job``.
Answers, in the order of the targets: ``{"target", "event": "begin"}``, any number of ``{"target", "event":
"step", "message"}``, and one ``{"target", "event": "result", "result", "before", "after", "message",
"seconds", "version"}``. stderr carries whatever migration code prints.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

VERSION = 1

MESSAGE_LIMIT = 600
"""Characters. A statement in an error can be endless, and a runner cuts lines of more than 8 KiB; here JSON
needs at most 12 bytes for a character."""

UPGRADE = "upgrade"
CATCH_UP = "catch_up"

DONE = "done"
UNCHANGED = "unchanged"
REFUSED = "refused"
FAILED = "failed"
NEEDS_LEGACY = "needs legacy"
"""The legacy repository has to bring it to ``version`` first, under the other interpreter."""


@dataclass(frozen=True)
class Job:
    """A target as the worker sees it. ``legacy_here``: this interpreter owns the legacy repository too.

    ``version`` is the legacy version to catch up to, for the operation ``catch_up`` alone.
    """

    name: str
    connection: str = field(repr=False)
    alembic_config: str = ""
    alembic_location: str = ""
    migrate_repository: str = ""
    legacy_versions: tuple[tuple[int, str], ...] = ()
    python_path: tuple[str, ...] = ()
    revision: str = "head"
    legacy_here: bool = True
    version: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Job:
        mapping = tuple((int(version), str(revision)) for version, revision in fields.pop("legacy_versions"))
        python_path = tuple(fields.pop("python_path"))
        return cls(legacy_versions=mapping, python_path=python_path, **fields)


@dataclass(frozen=True)
class Result:
    """What became of a target; ``result`` is one of the constants above."""

    result: str
    before: str = ""
    after: str = ""
    message: str = ""
    seconds: float = 0.0
    version: int = 0


class Report:
    """Sends what happens to one target; every message goes through ``mask`` first."""

    def __init__(self, target: str, stream: BinaryIO, mask: Callable[[str], str]) -> None:
        self._target = target
        self._stream = stream
        self._mask = mask

    def begin(self) -> None:
        self._send({"event": "begin"})

    def step(self, message: str) -> None:
        self._send({"event": "step", "message": self._text(message)})

    def result(self, result: Result) -> None:
        self._send({"event": "result", **asdict(result), "message": self._text(result.message)})

    def _text(self, message: str) -> str:
        masked = self._mask(message)
        return masked if len(masked) <= MESSAGE_LIMIT else masked[: MESSAGE_LIMIT - 1] + "…"

    def _send(self, fields: dict[str, Any]) -> None:
        line = json.dumps({"target": self._target, **fields}) + "\n"
        try:
            self._stream.write(line.encode())
            self._stream.flush()
        except BrokenPipeError:
            # The agent has died. The migration at hand is better finished than torn in the middle.
            pass
