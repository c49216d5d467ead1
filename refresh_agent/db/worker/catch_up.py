"""The legacy half: sqlalchemy-migrate takes a database to a version of its repository."""

from __future__ import annotations

import os
import warnings
from functools import partial

with warnings.catch_warnings():
    # Our own pin (setuptools<82) is what it warns of.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    from migrate.versioning.schema import ControlledSchema

from . import protocol, repository
from .database import Database
from .faults import TargetError, foreign
from .isolation import own_surroundings
from .protocol import Job, Report, Result
from .repository import Repository


def run(job: Job, report: Report) -> Result:
    """Catch up to ``job.version`` under an interpreter that has only this to do.

    ``python_path`` comes last here: it is made for the other interpreter, and the release that this one has
    installed must win.
    """
    with own_surroundings(os.sep, last=job.python_path):
        database = Database(job.connection)
        legacy = repository.read(job.migrate_repository)
        before = _version(database, legacy)
        try:
            bring(database, legacy, job.version, report)
        except TargetError as fault:
            return Result(protocol.FAILED, before, _version(database, legacy), str(fault))
        return Result(protocol.DONE, before, _version(database, legacy))


def bring(database: Database, legacy: Repository, version: int, report: Report) -> None:
    """Run the repository's upgrades, one by one, up to ``version``."""
    schema = foreign(lambda: ControlledSchema(database.engine, legacy.path), database.file)
    changes = foreign(lambda: list(schema.changeset(version)), database.file)
    for start, change in changes:
        step = f"sqlalchemy-migrate upgrade {start} -> {start + 1}"
        report.step(step)
        try:
            foreign(partial(schema.runchange, start, change, 1), database.file)
        except TargetError as fault:
            raise TargetError(f"{step} failed: {fault}") from fault


def _version(database: Database, legacy: Repository) -> str:
    """The version for people; "" if it cannot be read, which must not hide what has failed."""
    try:
        rows = dict(database.contents(legacy.version_table).legacy)
    except TargetError:
        return ""
    return f"migrate {rows[legacy.name]}" if legacy.name in rows else ""
