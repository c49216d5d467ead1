"""A change of a target's schema, up or down: look, lock, look again, carry out, say what became of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace

from . import locks, prelude, protocol, sessions
from .course import Course
from .faults import TargetError, require_migrate
from .ledger import GIVEN_UP
from .locks import Lock
from .look import Look, Seen
from .outcome import change_report, failed, settle
from .prelude import Finding
from .protocol import LegacyStep, Result
from .reading import reading
from .task import Task
from .transition import Downgrade, Plan, Stamp, Upgrade

Decide = Callable[[Look, Seen], Plan]


def run(task: Task, decide: Decide) -> Result:
    """Carry out what ``decide`` makes of what is found. Raises TargetError if it cannot be looked at."""
    look = Look(task)
    with reading(task, look.database):
        seen = look.seen()
        plan = decide(look, seen)
        if early := _without_the_lock(look, seen, plan):
            return early
    try:
        with locks.held(look.database, task.mine, task.wait) as lock:
            return _under_lock(look, decide, lock)
    except locks.Busy as busy:
        return Result(protocol.DEFERRED, seen.found.version, seen.found.version, str(busy))


def _without_the_lock(look: Look, seen: Seen, plan: Plan) -> Result | None:
    """What needs no lock: nothing is to do, or nothing can be done and nobody is about to change that."""
    version = seen.found.version
    if not plan.steps and not plan.refusal and seen.unfinished is None:
        return Result(protocol.UNCHANGED, version, version)
    if plan.refusal and locks.holder(look.database) is None:
        return Result(protocol.REFUSED, version, version, plan.refusal)
    return None


def _under_lock(look: Look, decide: Decide, lock: Lock) -> Result:
    task = look.task
    rules = sessions.Rules(
        lock_timeout=task.job.lock_timeout,
        statement_timeout=task.job.statement_timeout,
        admit=lock.admit,
        stopping=task.stopping,
    )
    with (
        sessions.watched(look.database, rules) as watched,
        task.limited(look.database.backend, watched.cancel),
    ):
        return _Change(look, look.seen(), lock).run(decide)


class _Change:
    """One target, under its lock."""

    def __init__(self, look: Look, seen: Seen, lock: Lock) -> None:
        self._look = look
        self._seen = seen
        self._task = look.task
        self._ledger = look.ledger(seen.scope)
        self._course = Course(self._task, self._ledger, lock)
        self._findings: list[Finding] = []
        self._stamps = self._task.order.operation == protocol.STAMP

    def run(self, decide: Decide) -> Result:
        before = self._seen.found.version
        if refusal := self._settle_unfinished():
            return self._result(protocol.REFUSED, before, refusal)
        plan = decide(self._look, self._seen)
        if plan.note:
            self._task.report.step(plan.note)
        if refusal := plan.refusal or self._too_destructive(plan):
            return self._result(protocol.REFUSED, before, refusal)
        if not plan.steps:
            self._settle_stamped()
            return self._result(protocol.UNCHANGED, before)
        try:
            left = self._carry_out(plan)
        except TargetError as fault:
            return self._failed(fault)
        if left is None:
            self._settle_stamped()
            return self._result(protocol.DONE, self._look.version())
        result = self._result(protocol.NEEDS_LEGACY, self._look.version())
        return replace(result, legacy=replace(left, scope=self._seen.scope))

    def _settle_unfinished(self) -> str:
        """See to the step that a predecessor has not finished; the refusal, if that takes a person."""
        unfinished = self._seen.unfinished
        if unfinished is None or self._stamps:  # what is stamped settles it
            return ""
        ended = self._look.applied(unfinished, self._seen.found)
        return settle(self._task, self._course, self._ledger, unfinished, ended)

    def _settle_stamped(self) -> None:
        """The stamp is written, or was so before: what stopped half-way has been seen to by hand."""
        if self._stamps and self._seen.unfinished is not None:
            self._ledger.settle(GIVEN_UP)

    def _too_destructive(self, plan: Plan) -> str:
        """Tell what the upgrades would drop; the refusal, if that is not wanted."""
        mode = self._task.job.destructive
        if mode != prelude.ALLOW:
            self._findings = prelude.findings(prelude.pending(self._look, plan))
        # What comes after the legacy interpreter's part is told when it comes.
        left = self._left_to_the_legacy_one(plan)
        for finding in self._findings:
            if left is None or finding.engine == prelude.MIGRATE:
                self._task.report.warn(f"{finding.engine} {finding.revision} {finding.finding}")
        return prelude.too_destructive(self._findings, mode)

    def _carry_out(self, plan: Plan) -> LegacyStep | None:
        """The step that the legacy interpreter has to do, if the steps come to one."""
        left = self._left_to_the_legacy_one(plan)
        if left is None and any(isinstance(step, LegacyStep) for step in plan.steps):
            require_migrate()
        for step in plan.steps:
            if step == left:
                return left
            self._ledger.prepare()
            if not self._stamps:
                prelude.back_up(self._task, self._look.database, self._ledger, self._seen.found.version)
            if isinstance(step, LegacyStep):
                legacy = importlib.import_module(".legacy", __package__)
                legacy.bring(self._look.database, self._look.repository, step, self._course, self._ledger)
            elif isinstance(step, Stamp):
                self._stamp(step.revision)
            else:
                self._migrate(step)
        return None

    def _left_to_the_legacy_one(self, plan: Plan) -> LegacyStep | None:
        """The step of the repository, if its interpreter is another one."""
        steps = [step for step in plan.steps if isinstance(step, LegacyStep)]
        return steps[0] if steps and not self._task.job.legacy_here else None

    def _stamp(self, revision: str) -> None:
        self._task.report.step(f"alembic stamp {revision}")
        self._look.tree.stamp(revision)
        self._ledger.stamped(revision)

    def _migrate(self, step: Upgrade | Downgrade) -> None:
        tree = self._look.tree
        up = isinstance(step, Upgrade)
        way = (tree.way_up if up else tree.way_down)(tree.heads(), step.revision)
        if way:
            self._course.prepare(way[0])
            (tree.upgrade if up else tree.downgrade)(step.revision, self._course)

    def _failed(self, fault: TargetError) -> Result:
        result, message = failed(self._task, self._course, self._ledger, fault)
        try:
            after = self._look.version()
        except TargetError:  # what cannot be read now must not hide what has failed
            after = ""
        return self._result(result, after, message)

    def _result(self, result: str, after: str, message: str = "") -> Result:
        destructive = [finding._asdict() for finding in self._findings]
        report = {**change_report(self._course, self._ledger), "destructive": destructive}
        return Result(result, self._seen.found.version, after, message, report=report)
