"""What ``refresh-agent db`` has found out, as text for people. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from refresh_agent.db.worker import protocol
from refresh_agent.model import MigrationResult


def lines(operation: str, result: MigrationResult) -> Iterator[str]:
    """Lines for standard output, of one target; none for what failed, since that is told as an error."""
    if operation == protocol.CHECK:
        yield from _check(result)
    elif not result.ok:
        return
    elif operation == protocol.STATUS:
        yield from _status(result)
    elif operation == protocol.SHOW_VERSION:
        yield f"{result.target}: {result.report.get('version') or result.before}"
    elif operation == protocol.REVISION:
        yield str(result.report.get("path", result.message))
    elif operation == protocol.UNLOCK:
        yield result.message or f"{result.target}: {result.outcome}"
    else:
        yield from _change(result)


def sql(results: Sequence[MigrationResult]) -> Iterator[str]:
    """Nothing but SQL, to be piped; of several databases, each behind a comment with its name."""
    for result in results:
        if not result.ok:
            continue
        if len(results) > 1:
            yield f"-- {result.target}"
        yield str(result.report.get("sql", "")).rstrip("\n")


def _change(result: MigrationResult) -> Iterator[str]:
    way = " -> ".join(dict.fromkeys(filter(None, (result.before, result.after))))
    yield f"{result.target}: {way or 'nothing to do'}, {result.outcome} after {result.seconds:.2f} s"
    if result.message:
        yield f"  {_without_name(result)}"


def _check(result: MigrationResult) -> Iterator[str]:
    problems = result.report.get("problems", ())
    for problem in problems:
        yield f"{result.target}: {problem.get('kind', 'problem')}: {problem.get('text', '')}"
    if result.ok and not problems:
        yield f"{result.target}: nothing to object to"
    for skipped in result.report.get("skipped", ()):
        yield f"{result.target}: not looked at: {skipped}"


def _status(result: MigrationResult) -> Iterator[str]:
    report = result.report
    wanted = _listed(report.get("wanted"))
    yield f"{result.target}: {report.get('version') or result.before}; wanted: {wanted or 'nothing'}"
    heads = _listed(report.get("heads"))
    if heads and heads != wanted:
        yield f"  heads: {heads}"
    pending = report.get("pending", ())
    yield f"  pending: {len(pending) or 'nothing'}"
    for step in pending:
        yield f"    {step.get('engine', '')} {step.get('revision', '')}  {step.get('title', '')}".rstrip()
    for finding in report.get("destructive", ()):
        yield f"  destructive: {finding.get('revision', '')} {finding.get('finding', '')}"
    if refusal := report.get("refusal"):
        yield f"  an upgrade would be refused: {refusal}"
    if interrupted := report.get("interrupted"):
        yield f"  interrupted: {interrupted}"
    if lock := report.get("lock"):
        yield f"  locked by {_holder(lock)}"
    if dirty := report.get("dirty"):
        yield from _dirty(result.target, dirty)
    if result.message:
        yield f"  {_without_name(result)}"


def _dirty(target: str, dirty: Mapping[str, Any]) -> Iterator[str]:
    yield f"  dirty: {dirty.get('step', '')} stopped half-way"
    yield f"    begun: {dirty.get('since', '')} by {dirty.get('holder', '')}"
    yield f"    statement: {dirty.get('statement', '')}"
    if error := dirty.get("error"):
        yield f"    error: {error}"
    if kept := dirty.get("kept"):
        count = kept if isinstance(kept, int) else len(kept)
        yield f"    took effect before it: {count} statement{'' if count == 1 else 's'}"
    yield f"    remove the cause, then: refresh-agent db upgrade --target {target} --resume"
    yield f"    or undo its half by hand, then: refresh-agent db stamp --target {target} REVISION"


def _holder(lock: Mapping[str, Any]) -> str:
    return (
        f"host {lock.get('host', '?')}, pid {lock.get('pid', '?')}, run {lock.get('run', '?')}, since"
        f" {lock.get('since', '?')}"
    )


def _listed(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)


def _without_name(result: MigrationResult) -> str:
    return result.message.removeprefix(f"{result.target}: ")
