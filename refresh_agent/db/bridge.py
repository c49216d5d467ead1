"""One worker process per interpreter, its answers turned into results.

The runner is given, not imported: the layers keep ``db`` and ``phases`` apart, and tests bring their own.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from refresh_agent.db.worker import protocol
from refresh_agent.db.worker.masking import masker
from refresh_agent.db.worker.protocol import Job, Result
from refresh_agent.lines import Lines, Listener
from refresh_agent.model import (
    Command,
    Ending,
    Exit,
    MigrationOutcome,
    MigrationResult,
    Stream,
    Target,
)

WORKER = str(pathlib.Path(__file__).resolve().parent / "worker" / "__main__.py")

_STOPPED = MigrationOutcome.STOPPED.value
_RESULTS = {
    protocol.DONE,
    protocol.UNCHANGED,
    protocol.REFUSED,
    protocol.FAILED,
    protocol.NEEDS_LEGACY,
}


LONGEST_ANSWER = 2**20
"""Bytes; a line of a worker that is longer is taken for output."""

WorkerRunner = Callable[[Command, Listener], Exit]
"""Runs a worker to its end; the listener hears it."""


def upgrade(
    targets: Sequence[Target], run: WorkerRunner, log: Callable[[str], None], env: Mapping[str, str]
) -> tuple[MigrationResult, ...]:
    """Bring every target to its revision; the results are in the order of ``targets``.

    ``log`` gets the progress and whatever the workers print, line by line, each with the target's name
    first; so does the message of a result. One target's failure does not keep the others from being
    migrated; a stop does (``Ending.STOPPED``). ``env`` is the workers' environment as it is.
    """
    mask = masker(target.connection for target in targets)
    bridge = _Bridge(run, lambda line: log(mask(line)), env)
    results: dict[str, Result] = {}
    for python, group in _grouped(targets, lambda target: target.python).items():
        results.update(bridge.upgrade(python, group))
    return tuple(_migration_result(target.name, results[target.name], mask) for target in targets)


def _grouped(targets: Iterable[Target], key: Callable[[Target], str]) -> dict[str, list[Target]]:
    groups: dict[str, list[Target]] = {}
    for target in targets:
        groups.setdefault(key(target), []).append(target)
    return groups


def _migration_result(name: str, result: Result, mask: Callable[[str], str]) -> MigrationResult:
    return MigrationResult(
        target=name,
        outcome=MigrationOutcome(result.result),
        before=result.before,
        after=result.after,
        message=f"{name}: {mask(result.message)}" if result.message else "",
        seconds=result.seconds,
    )


@dataclass(frozen=True)
class _Request:
    """What is asked of an interpreter; ``option`` is the one that names it, for the messages."""

    operation: str
    python: str
    option: str
    versions: Mapping[str, int] = field(default_factory=dict)

    def command(self, targets: Sequence[Target], env: Mapping[str, str]) -> Command:
        jobs = [_job(target, self.versions.get(target.name, 0)).as_json() for target in targets]
        request = {"version": protocol.VERSION, "operation": self.operation, "targets": jobs}
        return Command(
            path=self.python,
            argv=(self.python, WORKER),
            env=env,
            stdin=json.dumps(request).encode(),
            timeout=_timeout(targets),
        )


def _job(target: Target, version: int) -> Job:
    return Job(
        name=target.name,
        connection=target.connection,
        alembic_config=target.alembic_config,
        alembic_location=target.alembic_location,
        migrate_repository=target.migrate_repository,
        legacy_versions=target.legacy_versions,
        python_path=target.python_path,
        revision=target.revision,
        legacy_here=_legacy_python(target) == os.path.normpath(target.python),
        version=version,
    )


def _legacy_python(target: Target) -> str:
    """Not the real path: the interpreters of two environments are links to the same file."""
    return os.path.normpath(target.legacy_python or target.python)


def _timeout(targets: Sequence[Target]) -> float:
    timeouts = [target.timeout for target in targets]
    return sum(timeouts) if all(timeouts) else 0


class _Bridge:
    def __init__(self, run: WorkerRunner, log: Callable[[str], None], env: Mapping[str, str]) -> None:
        self._run = run
        self._log = log
        self._env = env
        self._stopped = False

    def upgrade(self, python: str, targets: Sequence[Target]) -> dict[str, Result]:
        """Ask ``python``, let the legacy interpreters do their part, and ask again about their targets."""
        request = _Request(protocol.UPGRADE, python, "python")
        results = self._ask(request, targets)
        behind = [target for target in targets if results[target.name].result == protocol.NEEDS_LEGACY]
        caught_up = []
        for target, result in self._catch_up(behind, results).items():
            first = results[target.name]
            results[target.name] = _joined(first, result)
            if result.result == protocol.DONE:
                caught_up.append(target)
        for name, result in self._ask(request, caught_up).items():
            results[name] = _joined(results[name], _final(result))
        return results

    def _catch_up(self, targets: Sequence[Target], needs: Mapping[str, Result]) -> dict[Target, Result]:
        results: dict[Target, Result] = {}
        for python, group in _grouped(targets, _legacy_python).items():
            versions = {target.name: needs[target.name].version for target in group}
            request = _Request(protocol.CATCH_UP, python, "legacy_python", versions)
            answers = self._ask(request, group)
            results.update({target: answers[target.name] for target in group})
        return results

    def _ask(self, request: _Request, targets: Sequence[Target]) -> dict[str, Result]:
        """Return a result for every target. A worker that died is followed by one for those behind it."""
        results: dict[str, Result] = {}
        rest = list(targets)
        while rest and not self._stopped:
            talk = _Conversation([target.name for target in rest], self._log)
            command = request.command(rest, self._env)
            ended = self._run(command, Lines(talk.line, LONGEST_ANSWER))
            self._stopped = ended.ending is Ending.STOPPED
            results.update(talk.results)
            lost = talk.lost(ended)
            reason = _why(ended, request, command.timeout, talk.last)
            outcome = _STOPPED if self._stopped else protocol.FAILED
            results.update({name: Result(outcome, message=reason, seconds=ended.seconds) for name in lost})
            rest = [target for target in rest if target.name not in results]
        unasked = Result(_STOPPED, message="not begun, since refresh-agent is stopping")
        results.update({target.name: unasked for target in rest})
        return results


class _Conversation:
    """Reads a worker's answers as they come; what is no answer goes to the log."""

    def __init__(self, names: Sequence[str], log: Callable[[str], None]) -> None:
        self.results: dict[str, Result] = {}
        self.last = ""
        self._names = names
        self._log = log
        self._running = ""

    def line(self, stream: Stream, text: str) -> None:
        if stream is Stream.STDOUT and (answer := _answer(text, self._names)):
            self._take(*answer)
        elif text.strip():
            self.last = text.strip()
            self._log(f"{self._running or ', '.join(self._names)}: {text}")

    def _take(self, name: str, event: str, content: str | Result) -> None:
        if isinstance(content, Result):
            self.results[name] = content
            self._running = ""
        elif event == "begin":
            self._running = name
        else:
            self._log(f"{name}: {content}")

    def lost(self, ended: Exit) -> list[str]:
        """The targets that this worker's end has cost their result: the running one, or all if none began.

        All, too, when it was stopped or never ran: there is no use in asking again.
        """
        open_names = [name for name in self._names if name not in self.results]
        if ended.ending in {Ending.STOPPED, Ending.NOT_STARTED} or not (self._running or self.results):
            return open_names
        return [self._running] if self._running else open_names[:1]


def _answer(text: str, names: Sequence[str]) -> tuple[str, str, str | Result] | None:
    """One line of the protocol as (target, event, message or result); None for anything else."""
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.get("target") not in names:
        return None
    name, event = fields.pop("target"), fields.pop("event", None)
    if event in {"begin", "step"}:
        return name, event, str(fields.get("message", ""))
    with contextlib.suppress(TypeError):
        result = Result(**fields)
        return (name, event, result) if result.result in _RESULTS else None
    return None


def _joined(first: Result, then: Result) -> Result:
    return replace(then, before=first.before or then.before, seconds=round(first.seconds + then.seconds, 3))


def _final(result: Result) -> Result:
    if result.result != protocol.NEEDS_LEGACY:
        return result
    message = f"its legacy repository has done its part, yet it is not at version {result.version}"
    return replace(result, result=protocol.FAILED, message=message)


def _why(ended: Exit, request: _Request, timeout: float, last: str) -> str:
    """Why there is no result, for the operator; ``last`` is what the worker said last."""
    if ended.ending is Ending.NOT_STARTED:
        return f"{request.option} {request.python}: {ended.detail or 'cannot be started'}; correct the option"
    if ended.ending is Ending.TIMEOUT:
        return f"not finished within {timeout:g} s; its worker was ended"
    if ended.ending is Ending.STOPPED:
        return "its worker was ended, since refresh-agent is stopping; it will be tried again"
    how = f"was killed by signal {ended.status - 128}" if ended.status > 128 else f"ended with {ended.status}"
    said = f"; it said last: {last}" if last else ""
    return f"its worker ({request.python}) {how} without a result{said}"
