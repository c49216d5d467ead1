"""One worker process per interpreter and user, its answers turned into results."""

import json
import os
import pathlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from refresh_agent.db import admission, targets, users
from refresh_agent.db.admission import Admitted, RefusedError
from refresh_agent.db.conversation import Conversation
from refresh_agent.db.surroundings import Surroundings, WorkerRunner
from refresh_agent.db.worker import protocol
from refresh_agent.db.worker.masking import masker
from refresh_agent.db.worker.protocol import Job, LegacyStep, Order, Result
from refresh_agent.lines import Lines
from refresh_agent.model import Command, Ending, Exit, MigrationOutcome, MigrationResult, Target

__all__ = ["LONGEST_ANSWER", "WORKER", "Surroundings", "WorkerRunner", "ask"]

WORKER = str(pathlib.Path(__file__).resolve().parent / "worker" / "__main__.py")

LONGEST_ANSWER = 2**25
"""Bytes; a line of a worker that is longer is taken for output. The SQL of a whole tree is one line."""

ROUNDS = 3
"""How often a target may need its legacy repository in one go. Once is enough, but for others at work."""

SPARE = 60.0
"""Seconds beyond its targets' own, which a worker keeps by itself: this ends one that does not."""

_NOT_BEGUN = Result(protocol.STOPPED, message="not begun, since refresh-agent is stopping")

K = TypeVar("K", bound=Hashable)

Mask = Callable[[str], str]


def ask(order: Order, wanted: Sequence[Target], surroundings: Surroundings) -> tuple[MigrationResult, ...]:
    """Have ``order`` carried out on every target; the results are in the order of ``wanted``.

    What is wrong with one does not keep the others from being asked; a stop does (``Ending.STOPPED``).
    """
    results: dict[str, Result] = {}
    admitted: list[Admitted] = []
    for target in wanted:
        try:
            admitted.append(admission.admit(target, surroundings))
        except RefusedError as error:
            results[target.name] = Result(protocol.REFUSED, message=str(error))
    mask = masker([*(each.target.connection for each in admitted), *(each.connection for each in wanted)])
    bridge = _Bridge(order, surroundings, mask)
    for group in _grouped(admitted, lambda each: (each.target.python, each.user)).values():
        results.update(bridge.carry_out(group))
    if order.operation == protocol.STATUS:
        for each in admitted:
            results[each.name] = _with_missing_programs(each.target, results[each.name])
    return tuple(_migration_result(target.name, results[target.name], mask) for target in wanted)


def _with_missing_programs(target: Target, result: Result) -> Result:
    """Of a status: an upgrade comes to them only when it needs them, which may be late."""
    missing = admission.missing_program(target)
    if result.result != protocol.DONE or result.report.get("refusal") or not missing:
        return result
    return replace(result, report={**result.report, "refusal": missing})


def _grouped(admitted: Iterable[Admitted], key: Callable[[Admitted], K]) -> dict[K, list[Admitted]]:
    groups: dict[K, list[Admitted]] = {}
    for each in admitted:
        groups.setdefault(key(each), []).append(each)
    return groups


def _migration_result(name: str, result: Result, mask: Mask) -> MigrationResult:
    return MigrationResult(
        target=name,
        outcome=MigrationOutcome(result.result),
        before=result.before,
        after=result.after,
        message=f"{name}: {mask(result.message)}" if result.message else "",
        seconds=result.seconds,
        report=_masked(result.report, mask),
    )


def _masked(value: Any, mask: Mask) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {key: _masked(item, mask) for key, item in value.items()}
    return [_masked(item, mask) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class _Request:
    """What is asked of an interpreter; ``option`` is the one that names it, for the messages."""

    order: Order
    python: str
    option: str
    user: users.Account | None
    steps: Mapping[str, LegacyStep] = field(default_factory=dict)

    def command(self, admitted: Sequence[Admitted], env: Mapping[str, str]) -> Command:
        wanted = [each.target for each in admitted]
        jobs = [_job(target, self.steps.get(target.name)).as_json() for target in wanted]
        request = {"version": protocol.VERSION, "order": vars(self.order), "targets": jobs}
        argv = (*users.command_line(self.user), self.python, WORKER)
        return Command(
            path=argv[0],
            argv=argv,
            env=users.environment(self.user, env),
            stdin=json.dumps(request).encode(),
            timeout=_backstop(wanted),
            kill_grace=_kill_grace(wanted),
        )


def _job(target: Target, step: LegacyStep | None) -> Job:
    return Job(
        name=target.name,
        connection=target.connection,
        connection_option=_connection_option(target),
        alembic_config=target.alembic_config,
        alembic_location=target.alembic_location,
        migrate_repository=target.migrate_repository,
        legacy_versions=target.legacy_versions,
        python_path=target.python_path,
        revision=target.revision,
        timeout=target.timeout,
        lock_timeout=target.lock_timeout,
        statement_timeout=target.statement_timeout,
        destructive=target.destructive,
        backup=target.backup,
        legacy_here=_legacy_python(target) == os.path.normpath(target.python),
        legacy=step,
    )


def _connection_option(target: Target) -> str:
    return f"connection_from: {target.connection_from}" if target.connection_from else "connection"


def _legacy_python(target: Target) -> str:
    """Not the real path: the interpreters of two environments are links to the same file."""
    return os.path.normpath(target.legacy_python or target.python)


def _backstop(wanted: Sequence[Target]) -> float:
    times = [seconds for target in wanted for seconds in (target.timeout, target.lock_timeout)]
    return sum(times) + SPARE if all(times) else 0


def _kill_grace(wanted: Sequence[Target]) -> float | None:
    """A statement of MariaDB cannot be taken back: torn in the middle, it leaves a database half migrated."""
    times = [target.timeout for target in wanted if targets.is_mysql(target.connection)]
    if not times:
        return None
    return max(times) if all(times) else float("inf")


class _Bridge:
    def __init__(self, order: Order, surroundings: Surroundings, mask: Mask) -> None:
        self._order = order
        self._surroundings = surroundings
        self._mask = mask
        self._stopped = False

    def carry_out(self, group: Sequence[Admitted]) -> dict[str, Result]:
        """Ask the interpreter that all of ``group`` have; the legacy ones do their part in between."""
        request = _Request(self._order, group[0].target.python, "python", group[0].user)
        results = self._ask(request, group)
        for _ in range(ROUNDS):
            behind = [each for each in group if results[each.name].result == protocol.NEEDS_LEGACY]
            caught_up = []
            for each, result in self._legacy(behind, results).items():
                results[each.name] = _joined(results[each.name], result)
                if self._goes_on_after(result):
                    caught_up.append(each)
            for name, result in self._ask(request, caught_up).items():
                results[name] = _joined(results[name], result)
            if not caught_up:
                break
        return {name: _final(result) for name, result in results.items()}

    def _goes_on_after(self, result: Result) -> bool:
        """Downwards the legacy repository is the end of the way; else alembic comes after it."""
        done = result.result in {protocol.DONE, protocol.UNCHANGED}
        return done and self._order.operation != protocol.DOWNGRADE

    def _legacy(self, behind: Sequence[Admitted], needs: Mapping[str, Result]) -> dict[Admitted, Result]:
        order = replace(self._order, operation=protocol.LEGACY)
        results: dict[Admitted, Result] = {}
        for python, group in _grouped(behind, lambda each: _legacy_python(each.target)).items():
            steps = {each.name: step for each in group if (step := needs[each.name].legacy)}
            request = _Request(order, python, "legacy_python", group[0].user, steps)
            answers = self._ask(request, group)
            results.update({each: answers[each.name] for each in group})
        return results

    def _ask(self, request: _Request, admitted: Sequence[Admitted]) -> dict[str, Result]:
        """Return a result for every target. A worker that died is followed by one for those behind it."""
        results: dict[str, Result] = {}
        rest = list(admitted)
        while rest and not self._stopped:
            talk = Conversation([each.name for each in rest], self._log, self._warn)
            command = request.command(rest, self._surroundings.env)
            ended = self._surroundings.run(command, Lines(talk.line, LONGEST_ANSWER))
            self._stopped = ended.ending is Ending.STOPPED
            results.update(talk.results)
            reason = _why(ended, request, command.timeout, talk)
            outcome = protocol.STOPPED if self._stopped else protocol.FAILED
            lost = Result(outcome, message=reason, seconds=ended.seconds)
            for name in talk.lost(ended):
                results[name] = lost if name == talk.running or not self._stopped else _NOT_BEGUN
            rest = [each for each in rest if each.name not in results]
        results.update({each.name: _NOT_BEGUN for each in rest})
        return results

    def _log(self, line: str) -> None:
        self._surroundings.log(self._mask(line))

    def _warn(self, line: str) -> None:
        (self._surroundings.warn or self._surroundings.log)(self._mask(line))


def _joined(first: Result, then: Result) -> Result:
    """Two parts of one way as one: from where it began to where it is now."""
    before = first.before or then.before
    moved = then.result == protocol.UNCHANGED and before != then.after
    return replace(
        then,
        result=protocol.DONE if moved else then.result,
        before=before,
        seconds=round(first.seconds + then.seconds, 3),
        report=_joined_reports(first.report, then.report),
    )


def _joined_reports(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Lists follow each other: what was applied, what is destructive. Of the rest, the later word counts."""
    joined = {**first, **then}
    for key, value in then.items():
        earlier = first.get(key)
        if isinstance(value, list) and isinstance(earlier, list):
            joined[key] = [*earlier, *(item for item in value if item not in earlier)]
    return joined


def _final(result: Result) -> Result:
    if result.result != protocol.NEEDS_LEGACY:
        return result
    message = "its legacy repository has done its part, yet alembic still waits for it; look at its log"
    if result.legacy:
        message = f"its legacy repository has done its part, yet it is not at version {result.legacy.version}"
    return replace(result, result=protocol.FAILED, message=message)


def _why(ended: Exit, request: _Request, timeout: float, talk: Conversation) -> str:
    """Why there is no result, for the operator."""
    if ended.ending is Ending.NOT_STARTED:
        return f"{request.option} {request.python}: {ended.detail or 'cannot be started'}; correct the option"
    if ended.ending is Ending.TIMEOUT:
        return f"not finished within {timeout:g} s; its worker was ended"
    if ended.ending is Ending.STOPPED:
        return "its worker was ended, since refresh-agent is stopping"
    said = f"; it said last: {talk.last}" if talk.last else ""
    killed = ended.status > 128
    if request.user and not talk.begun and not killed and (closed := _closed_to(request.user, request)):
        return closed + said
    how = f"was killed by signal {ended.status - 128}" if killed else f"ended with {ended.status}"
    return f"its worker ({request.python}) {how} without a result{said}"


def _closed_to(user: users.Account, request: _Request) -> str:
    """What most often keeps another user's worker from saying anything: it cannot be read. "" otherwise."""
    if not os.path.exists(request.python):
        return f"{request.option} {request.python}: does not exist; correct the option"
    if part := users.obstacle(user, request.python):
        return (
            f"user {user.name} cannot use {request.option} {request.python}: {part} is closed to it; open it,"
            " or name another interpreter"
        )
    if part := users.obstacle(user, WORKER):
        return (
            f"user {user.name} cannot read refresh-agent's own {WORKER}: {part} is closed to it; install"
            " refresh-agent where everybody may read it"
        )
    return ""
