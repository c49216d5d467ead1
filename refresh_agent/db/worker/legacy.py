"""The legacy half: sqlalchemy-migrate takes a database up or down, or stamps it."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any, NamedTuple

with warnings.catch_warnings():
    # Our own pin (setuptools<82) is what it warns of.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    from migrate.versioning.schema import ControlledSchema

from . import locks, prelude, protocol, repository, sessions
from .course import Course
from .database import OWN_TABLES, Database
from .faults import TargetError, foreign
from .ledger import GIVEN_UP, Ledger, Step
from .legacy_session import one_transaction
from .outcome import change_report, failed, has_run, settle
from .prelude import MIGRATE
from .protocol import DOWN, NO_VERSION, STAMP, UP, LegacyStep, Result
from .repository import Repository
from .task import Task


def run(task: Task) -> Result:
    """Do the step of the legacy repository that the alembic half has asked for.

    That half has let go of the lock, so everything is looked at anew: if somebody else has come first,
    nothing is left to be done here.
    """
    database = Database(task.job.connection)
    try:
        with locks.held(database, task.mine, task.wait) as lock:
            rules = sessions.Rules(
                lock_timeout=task.job.lock_timeout,
                statement_timeout=task.job.statement_timeout,
                admit=lock.admit,
                stopping=task.stopping,
            )
            with sessions.watched(database, rules) as watched, task.limited(database.backend, watched.cancel):
                return _Half(task, database, lock).run()
    except locks.Busy as busy:
        return Result(protocol.DEFERRED, message=str(busy))


class _Half:
    """One target, under its lock, under an interpreter that knows nothing of its alembic tree."""

    def __init__(self, task: Task, database: Database, lock: locks.Lock) -> None:
        if task.job.legacy is None:
            raise TargetError("nothing is asked of the legacy repository")
        self._task = task
        self._step = task.job.legacy
        self._database = database
        self._repository = repository.read(task.job.migrate_repository)
        self._ledger = Ledger(database, self._step.scope, task.mine, task.report.mask)
        self._course = Course(task, self._ledger, lock)

    def run(self) -> Result:
        before = self._version()
        if refusal := self._settle_unfinished():
            return self._result(protocol.REFUSED, before, refusal)
        try:
            if not self._is_done():
                self._ledger.prepare()
                if self._step.direction != STAMP:
                    prelude.back_up(self._task, self._database, self._ledger, before)
                bring(self._database, self._repository, self._step, self._course, self._ledger)
            if self._step.direction == STAMP:
                self._ledger.settle(GIVEN_UP)
        except TargetError as fault:
            result, message = failed(self._task, self._course, self._ledger, fault)
            return self._result(result, before, message)
        return self._result(protocol.DONE, before)

    def _is_done(self) -> bool:
        """Whether somebody else was here between the alembic half's look and this one's."""
        at = _row(self._database, self._repository)
        if self._step.direction == STAMP:
            return at == self._step.version
        if at is None:
            contents = self._database.contents(self._repository.version_table)
            return self._step.direction == UP and bool(
                contents.tables
                - OWN_TABLES
                - {self._repository.version_table, self._step.scope.rpartition(".")[2]}
            )
        return at >= self._step.version if self._step.direction == UP else at <= self._step.version

    def _settle_unfinished(self) -> str:
        unfinished = self._ledger.unfinished()
        if unfinished is None or unfinished.step.engine != MIGRATE or self._step.direction == STAMP:
            return ""
        ended = has_run(unfinished.step, _row(self._database, self._repository))
        return settle(self._task, self._course, self._ledger, unfinished, ended)

    def _version(self) -> str:
        """The version for people; "" if it cannot be read, which must not hide what has failed."""
        try:
            version = _row(self._database, self._repository)
        except TargetError:
            return ""
        return "" if version is None else f"migrate {version}"

    def _result(self, result: str, before: str, message: str = "") -> Result:
        report = change_report(self._course, self._ledger)
        return Result(result, before, self._version(), message, report=report)


def bring(database: Database, legacy: Repository, step: LegacyStep, course: Course, ledger: Ledger) -> None:
    """Carry out a step of the repository, version by version."""
    if step.direction == STAMP:
        foreign(lambda: _stamp(database, legacy, step.version), database.file)
        ledger.stamped(f"migrate {step.version}")
        return
    if step.control != NO_VERSION and _row(database, legacy) is None:
        foreign(lambda: ControlledSchema.create(database.engine, legacy.path, step.control), database.file)
    changes = foreign(lambda: _changes(database, legacy, step), database.file)
    if changes:
        course.prepare(changes[0].step)
    for change, following in zip(changes, [*changes[1:], None]):
        foreign(lambda: _run(database, legacy.path, change, following, course), database.file)  # noqa: B023 - called at once


class _Change(NamedTuple):
    """One version's script and the way it is run, ``way`` 1 or -1."""

    step: Step
    start: int
    script: Any
    way: int


def _changes(database: Database, legacy: Repository, step: LegacyStep) -> list[_Change]:
    way = -1 if step.direction == DOWN else 1
    schema = ControlledSchema(database.engine, legacy.path)
    return [
        _Change(_described(legacy, start, way, database.backend), start, script, way)
        for start, script in schema.changeset(step.version)
    ]


def _described(legacy: Repository, start: int, way: int, backend: str) -> Step:
    version = start if way < 0 else start + 1
    content = hashlib.sha256()
    for file in legacy.files_of(version, backend):
        with open(file, "rb") as script:
            content.update(script.read())
    return Step(
        engine=MIGRATE,
        previous=str(start),
        revision=str(version),
        checksum=content.hexdigest(),
        text=f"sqlalchemy-migrate {'upgrade' if way > 0 else 'downgrade'} {start} -> {start + way}",
        down=way < 0,
    )


def _run(database: Database, path: str, change: _Change, following: _Change | None, course: Course) -> None:
    """In one transaction where the server can: the script, the version table and the ledger."""
    with one_transaction(database) as session:
        schema = ControlledSchema(session.engine, path)
        with course.step(session.engine, change.step):
            schema.runchange(change.start, change.script, change.way)
            course.applied(session.connection, change.step, following.step if following else None)


def _row(database: Database, legacy: Repository) -> int | None:
    """The version that the legacy version table has for our repository."""
    return dict(database.contents(legacy.version_table).legacy).get(legacy.name)


def _stamp(database: Database, legacy: Repository, version: int) -> None:
    at = _row(database, legacy)
    if at is None:
        ControlledSchema.create(database.engine, legacy.path, version)
    else:
        ControlledSchema(database.engine, legacy.path).update_repository_table(at, version)
