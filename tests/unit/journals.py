"""What tests of the journal build from: documents, decisions, runs that have got so far."""

import os
import pathlib
import sqlite3

from refresh_agent import journal_schema
from refresh_agent.journal import Boundary, HookRecord, Journal, PhaseEnd, Run
from refresh_agent.model import (
    Ending,
    Exit,
    Failure,
    Fingerprints,
    History,
    HookResult,
    StartedHook,
    Trigger,
)
from refresh_agent.plan import Action, Decision
from tests.unit.support import looping_link

A: Fingerprints = (("heat", "1"), ("local", "2"))
B: Fingerprints = (("heat", "9"),)
FAILURE = Failure("configure", "20-b", 42, "failed with status 42")


def decision(attempt: int = 1) -> Decision:
    """Of the attempts before, all have failed."""
    return Decision(Action.RUN, "changed: heat", Trigger.CHANGE, attempt, ("heat",), attempt - 1)


def reopened(journal: Journal) -> History:
    """What another process sees, and what survives."""
    other = Journal(os.path.dirname(journal.path))
    try:
        return other.history()
    finally:
        other.close()


def rows(journal: Journal, query: str) -> list[tuple[object, ...]]:
    return journal._db.execute(query).fetchall()


def run_to(journal: Journal, *steps: str) -> Run:
    """Begin a run and take it through "phase", "phase/hook" and "phase." for the end of a phase."""
    run = journal.begin(decision(), A)
    for number, step in enumerate(steps):
        phase, _, hook = step.rstrip(".").partition("/")
        if hook:
            started = StartedHook(phase, hook, f"id-{hook}", 77, 4711)
            began = HookRecord(number, 1.0, started)
            journal.record_hooks(run, [began])
            if step.endswith("."):
                result = HookResult(started, Exit(0, Ending.EXITED, 0.1), b"tail\n")
                journal.record_hooks(run, [began._replace(result=result)])
        elif step.endswith("."):
            journal.record_boundary(run, Boundary(PhaseEnd(phase, "done"), ""))
        else:
            journal.record_boundary(run, Boundary(None, phase))
    return run


def corrupt(path: pathlib.Path, kind: str) -> None:
    """Make a journal one that cannot be used."""
    match kind:
        case "no database":
            path.write_bytes(b"This is no database, but long enough to look like one. " * 100)
        case "directory":
            path.unlink()
            path.mkdir()
        case "loop":
            path.unlink()
            looping_link(path)
        case "link":
            path.rename(path.with_name("elsewhere"))
            path.symlink_to("elsewhere")
        case "tables gone":
            with sqlite3.connect(path) as db:
                db.execute("PRAGMA foreign_keys = OFF")
                db.execute("DROP TABLE runs")
            db.close()
        case "pages overwritten":
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xa5" * (size - 4096))
        case "newer":
            with sqlite3.connect(path) as db:
                db.execute("PRAGMA user_version = 99")
                db.execute(f"PRAGMA application_id = {journal_schema.MARK + 99}")
            db.close()
