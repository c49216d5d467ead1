"""The talk between the agent and a worker: one JSON request on stdin, JSON lines on stdout.

Request: ``{"version": 2, "order": Order, "targets": [Job, ...]}``. Answers, in the order of the targets:
``{"target", "event": "begin"}``, any number of ``{"target", "event": "step", "message"}``, of the same with
the event "warning" and, while a stop has to wait for a statement, with "finishing", and one ``{"target",
"event": "result", ...}`` with the fields of Result. stderr carries whatever migration code prints.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

VERSION = 2

MESSAGE_LIMIT = 4000
"""Characters. A statement in an error can be endless; what an operator is told to do comes behind it."""

UPGRADE = "upgrade"
DOWNGRADE = "downgrade"
STAMP = "stamp"
LEGACY = "legacy"
"""A step of the legacy repository, under the interpreter that owns it; only the bridge asks for it."""
SHOW_VERSION = "version"
STATUS = "status"
HAS_REVISION = "has_revision"
REVISION = "revision"
CHECK = "check"
SQL = "sql"
UNLOCK = "unlock"

DONE = "done"
UNCHANGED = "unchanged"
REFUSED = "refused"
FAILED = "failed"
DEFERRED = "deferred"
"""Somebody else held the lock for the whole of ``lock_timeout``."""
STOPPED = "stopped"
NEEDS_LEGACY = "needs legacy"
"""The legacy repository has to do its part first, under the other interpreter: see ``legacy`` of Result."""

UP = "up"
DOWN = "down"

NO_VERSION = -1


@dataclass(frozen=True)
class Order:
    """What is asked of all targets. ``run``: whose order it is, for whoever waits for it.

    ``message`` and ``autogenerate`` are for a new revision, ``resume`` for a target that is dirty.
    """

    operation: str
    run: str = ""
    message: str = ""
    autogenerate: bool = False
    resume: bool = False


@dataclass(frozen=True)
class LegacyStep:
    """What the legacy repository is to do: go "up" or "down" to ``version``.

    ``control``: put the database under the repository's control at this version first, if it is not.
    ``scope``: the ledger's, which only the alembic tree knows.
    """

    direction: str
    version: int
    control: int = NO_VERSION
    scope: str = ""


@dataclass(frozen=True)
class Job:
    """A target as the worker sees it. ``legacy_here``: this interpreter owns the legacy repository too.

    ``connection_option``: what an operator corrects if the connection is wrong. Times are seconds, 0 for no
    limit. ``legacy`` is for the operation of that name alone.
    """

    name: str
    connection: str = field(repr=False)
    connection_option: str = "connection"
    alembic_config: str = ""
    alembic_location: str = ""
    migrate_repository: str = ""
    legacy_versions: tuple[tuple[int, str], ...] = ()
    python_path: tuple[str, ...] = ()
    revision: str = "head"
    timeout: float = 0.0
    lock_timeout: float = 0.0
    statement_timeout: float = 0.0
    destructive: str = "warn"
    backup: str = ""
    legacy_here: bool = True
    legacy: LegacyStep | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Job:
        mapping = tuple((int(version), str(revision)) for version, revision in fields.pop("legacy_versions"))
        python_path = tuple(fields.pop("python_path"))
        legacy = fields.pop("legacy")
        step = LegacyStep(**legacy) if legacy else None
        return cls(legacy_versions=mapping, python_path=python_path, legacy=step, **fields)


@dataclass(frozen=True)
class Result:
    """What became of a target; ``result`` is one of the constants above.

    ``report`` holds what an operation found out, as plain JSON: status, check, sql, what was applied.
    """

    result: str
    before: str = ""
    after: str = ""
    message: str = ""
    seconds: float = 0.0
    legacy: LegacyStep | None = None
    report: Mapping[str, Any] = field(default_factory=dict)


class Report:
    """Sends what happens to one target; every text goes through ``mask`` first."""

    def __init__(self, target: str, stream: BinaryIO, mask: Callable[[str], str]) -> None:
        self.mask = mask
        self._target = target
        self._stream = stream
        self._one_at_a_time = threading.Lock()

    def begin(self) -> None:
        self._send({"event": "begin"})

    def step(self, message: str) -> None:
        self._send({"event": "step", "message": self._text(message)})

    def warn(self, message: str) -> None:
        """What the operator should look at."""
        self._send({"event": "warning", "message": self._text(message)})

    def finishing(self, message: str) -> None:
        """A stop has been asked for and has to wait. Called from another thread."""
        self._send({"event": "finishing", "message": self._text(message)})

    def result(self, result: Result) -> None:
        fields = {
            **asdict(result),
            "message": self._text(result.message),
            "report": self._masked(result.report),
        }
        self._send({"event": "result", **fields})

    def _text(self, message: str) -> str:
        masked = self.mask(message)
        return masked if len(masked) <= MESSAGE_LIMIT else masked[: MESSAGE_LIMIT - 1] + "…"

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, Mapping):
            return {self.mask(str(key)): self._masked(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._masked(item) for item in value]
        return value

    def _send(self, fields: dict[str, Any]) -> None:
        rest = memoryview((json.dumps({"target": self._target, **fields}) + "\n").encode())
        # The agent may have died. The migration at hand is better finished than torn in the middle.
        with self._one_at_a_time, contextlib.suppress(BrokenPipeError):
            while rest:
                rest = rest[self._stream.write(rest) :]
