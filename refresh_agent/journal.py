"""The durable record of runs, phases, hooks, migrations and commits: one SQLite file.

What must survive a power loss (the beginning of a run, each phase's boundary, the commit) is written with
synchronous=FULL; what happens in between survives a killed process (synchronous=NORMAL), at a hundredth of
the price. Readers do not disturb the writer (WAL).
"""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from refresh_agent import files
from refresh_agent.errors import StateError
from refresh_agent.marks import is_of_run
from refresh_agent.model import (
    Exit,
    Failure,
    Fingerprints,
    History,
    HookResult,
    MigrationResult,
    RunOutcome,
    StartedHook,
    Unfinished,
)
from refresh_agent.plan import Decision

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    trigger TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    reason TEXT NOT NULL,
    changed TEXT NOT NULL,          -- JSON list of document names
    documents TEXT NOT NULL,        -- JSON list of [name, fingerprint]
    boot_id TEXT NOT NULL,
    agent TEXT NOT NULL,            -- the process that made it
    started_at REAL NOT NULL,       -- wall clock, for reports
    ended_at REAL,
    outcome TEXT,                   -- NULL while it runs
    failed_phase TEXT,
    failed_hook TEXT,
    failed_status INTEGER,
    failed_reason TEXT
);
CREATE TABLE phases (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    phase TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    outcome TEXT,
    PRIMARY KEY (run, phase)
) WITHOUT ROWID;
CREATE TABLE hooks (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,      -- in the order in which they began
    phase TEXT NOT NULL,
    hook TEXT NOT NULL,
    hook_id TEXT NOT NULL,          -- marks its processes: REFRESH_AGENT_HOOK_ID
    pid INTEGER NOT NULL,
    started_at REAL NOT NULL,
    seconds REAL,
    status INTEGER,
    outcome TEXT,                   -- NULL while it runs
    tail BLOB,                      -- the end of its output
    PRIMARY KEY (run, position)
) WITHOUT ROWID;
CREATE TABLE migrations (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    message TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (run, target)
) WITHOUT ROWID;
CREATE TABLE workers (              -- processes that migrate databases
    hook_id TEXT PRIMARY KEY,       -- marks them: REFRESH_AGENT_HOOK_ID
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    pid INTEGER NOT NULL,
    started_at REAL NOT NULL,
    timeout REAL NOT NULL,          -- seconds, 0 for none
    outcome TEXT                    -- NULL while it runs
) WITHOUT ROWID;
CREATE TABLE committed (
    position INTEGER PRIMARY KEY,
    document TEXT NOT NULL UNIQUE,
    fingerprint TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (id)
);
"""

AGENT = os.urandom(8).hex()
"""This process, in the journal. What it has not been able to record is not what a dead agent left running."""

KEEP_OUTPUTS = 50
"""Runs of which the hooks' output is kept: it is what makes a journal large."""

BUSY_SECONDS = 10.0
"""How long a writer waits for another command that writes; none holds the file for more than milliseconds."""


class Run(NamedTuple):
    """A run that has begun: its row and the identity that hooks see as REFRESH_AGENT_RUN_ID."""

    row: int
    run_id: str


class PhaseEnd(NamedTuple):
    phase: str
    outcome: str


class OpenRun(NamedTuple):
    """A run without an end, and those of its hooks that had one: what they have left running may go on."""

    run_id: str
    ended_hooks: frozenset[str]

    def may_have_left(self, hook_id: str) -> bool:
        """Whether a process with this mark is one that was interrupted; it need not be recorded yet."""
        return is_of_run(hook_id, self.run_id) and hook_id not in self.ended_hooks


class HookRecord(NamedTuple):
    """What is known of a hook: the ``position``-th of its run; ``result`` once it has ended."""

    position: int
    started_at: float
    started: StartedHook
    result: HookResult | None = None


class Journal:
    """Open it only while it is needed; every method raises StateError when the file cannot be used."""

    def __init__(self, state_dir: str) -> None:
        self.path = os.path.join(state_dir, "journal.sqlite")
        with self._explained("opened"):
            files.make_directory(state_dir, 0o700)
            # Made with its mode before SQLite would make it with the umask's; its companions follow it.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            self._identity = _identity(self.path)
            self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def history(self) -> History:
        """What was committed, and the last run if it did not succeed.

        A run by hand is for no documents (``[]``): nothing follows from it for those that there are.
        """
        with self._explained("read"):
            committed = tuple(
                self._db.execute("SELECT document, fingerprint FROM committed ORDER BY position")
            )
            succeeded = self._db.execute(
                "SELECT max(id) FROM runs WHERE outcome = ? AND documents != '[]'", (RunOutcome.SUCCESS,)
            ).fetchone()[0]
            return History(committed or None, self._unfinished(succeeded or 0))

    def open_runs(self) -> tuple[OpenRun, ...]:
        """Those that had not ended when another agent did; their hooks may still run, in this boot."""
        with self._explained("read"):
            rows = self._db.execute(
                "SELECT id, run_id FROM runs WHERE boot_id = ? AND agent <> ? AND (outcome IS NULL"
                # error.d runs when the run has its outcome.
                " OR EXISTS (SELECT 1 FROM phases WHERE run = runs.id AND phases.outcome IS NULL))",
                (boot_id(), AGENT),
            ).fetchall()
            return tuple(OpenRun(run_id, self._ended_hooks(row)) for row, run_id in rows)

    def _ended_hooks(self, row: int) -> frozenset[str]:
        hooks = self._db.execute("SELECT hook_id FROM hooks WHERE run = ? AND outcome IS NOT NULL", (row,))
        return frozenset(hook_id for (hook_id,) in hooks)

    def open_workers(self) -> tuple[tuple[str, float], ...]:
        """As ``open_runs``, for workers that migrate databases; with the wall time until which they may."""
        with self._explained("read"):
            rows = self._db.execute(
                "SELECT hook_id, CASE timeout WHEN 0 THEN 1e999 ELSE workers.started_at + timeout END"
                " FROM workers JOIN runs ON runs.id = workers.run"
                " WHERE workers.outcome IS NULL AND runs.boot_id = ? AND runs.agent <> ?",
                (boot_id(), AGENT),
            )
            return tuple(rows)

    def close_interrupted(self) -> tuple[str, ...]:
        """Mark runs that never ended as interrupted; the lock is held, so no agent works on them."""
        with self._durably("written"):
            rows = self._db.execute("SELECT id, run_id FROM runs WHERE outcome IS NULL").fetchall()
            for row, _ in rows:
                phase, hook = self._position(row)
                self._db.execute(
                    "UPDATE runs SET outcome = ?, ended_at = ?, failed_phase = ?, failed_hook = ?"
                    " WHERE id = ?",
                    (RunOutcome.INTERRUPTED, time.time(), phase, hook, row),
                )
            for table in ("phases", "hooks", "workers"):
                self._db.execute(
                    f"UPDATE {table} SET outcome = ? WHERE outcome IS NULL",  # noqa: S608
                    (RunOutcome.INTERRUPTED,),
                )
        return tuple(run_id for _, run_id in rows)

    def begin(self, decision: Decision, documents: Fingerprints) -> Run:
        """Durable before the first hook starts: with the boundary of its phase, which is."""
        run_id = os.urandom(16).hex()
        with self._explained("written"):
            cursor = self._db.execute(
                "INSERT INTO runs"
                " (run_id, trigger, attempt, reason, changed, documents, boot_id, agent, started_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run_id,
                    decision.trigger,
                    decision.attempt,
                    decision.reason,
                    json.dumps(decision.changed),
                    json.dumps(documents),
                    boot_id(),
                    AGENT,
                    time.time(),
                ),
            )
        return Run(cursor.lastrowid or 0, run_id)

    def forget(self, run: Run) -> None:
        """It began and nothing has happened since."""
        with self._durably("written"):
            self._db.execute("DELETE FROM runs WHERE id = ?", (run.row,))

    def prune(self, keep_runs: int, keep_days: float) -> None:
        """Let go of old runs, never of the newest, by hand or not, nor of the one that is committed; and
        sooner of outputs.
        """
        with self._explained("written"):
            self._db.execute(
                "DELETE FROM runs WHERE outcome IS NOT NULL"
                " AND id NOT IN (SELECT run FROM committed) AND id < (SELECT max(id) FROM runs)"
                " AND id IS NOT (SELECT max(id) FROM runs WHERE documents != '[]')"
                " AND (started_at < ? OR id NOT IN (SELECT id FROM runs ORDER BY id DESC LIMIT ?))",
                (time.time() - keep_days * 86400, keep_runs),
            )
            self._db.execute(
                "UPDATE hooks SET tail = NULL WHERE tail IS NOT NULL"
                " AND run NOT IN (SELECT id FROM runs ORDER BY id DESC LIMIT ?)",
                (KEEP_OUTPUTS,),
            )

    def record_boundary(self, run: Run, ended: PhaseEnd | None, begun: str) -> None:
        """One phase has ended and another begun, or only one of it: a place to which a power loss may go
        back, in one transaction.
        """
        with self._durably("written"):
            if ended is not None:
                self._db.execute(
                    "UPDATE phases SET ended_at = ?, outcome = ? WHERE run = ? AND phase = ?",
                    (time.time(), ended.outcome, run.row, ended.phase),
                )
            if ended is None and not begun:  # a run without phases: its beginning all the same
                self._db.execute("UPDATE runs SET started_at = started_at WHERE id = ?", (run.row,))
            if begun:
                self._db.execute(
                    "INSERT INTO phases (run, phase, started_at) VALUES (?, ?, ?)",
                    (run.row, begun, time.time()),
                )

    def record_hooks(self, run: Run, hooks: Sequence[HookRecord]) -> None:
        """What is known of them by now, in one statement: it is written while the next hook runs."""
        values = [value for hook in hooks for value in (run.row, *_hook_values(hook))]
        with self._explained("written"):
            self._db.execute(
                "INSERT INTO hooks VALUES"
                + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * len(hooks))
                + " ON CONFLICT DO UPDATE SET seconds = excluded.seconds, status = excluded.status,"
                " outcome = excluded.outcome, tail = excluded.tail",
                values,
            )

    def worker_began(self, run: Run, hook_id: str, pid: int, timeout: float) -> None:
        with self._durably("written"):
            self._db.execute(
                "INSERT INTO workers (hook_id, run, pid, started_at, timeout) VALUES (?, ?, ?, ?, ?)",
                (hook_id, run.row, pid, time.time(), timeout),
            )

    def worker_ended(self, hook_id: str, ended: Exit) -> None:
        with self._explained("written"):
            self._db.execute("UPDATE workers SET outcome = ? WHERE hook_id = ?", (ended.ending, hook_id))

    def migrated(self, run: Run, result: MigrationResult) -> None:
        with self._explained("written"):
            self._db.execute(
                "INSERT INTO migrations VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    run.row,
                    result.target,
                    result.outcome,
                    result.before,
                    result.after,
                    result.message,
                    result.seconds,
                ),
            )

    def commit(self, run: Run, documents: Fingerprints) -> None:
        """The run succeeded: its documents are from now on what the node has. One transaction, durable."""
        self._refuse_if_replaced()
        with self._durably("written"):
            self._db.execute("DELETE FROM committed")
            self._db.executemany(
                "INSERT INTO committed VALUES (?, ?, ?, ?)",
                [(position, *document, run.row) for position, document in enumerate(documents)],
            )
            self._end(run, RunOutcome.SUCCESS, "done")

    def succeed(self, run: Run) -> None:
        """The run succeeded; what was committed before stays committed."""
        self._refuse_if_replaced()
        with self._durably("written"):
            self._end(run, RunOutcome.SUCCESS, "done")

    def fail(self, run: Run, outcome: RunOutcome, failure: Failure) -> None:
        """The run did not succeed; what was committed before stays committed."""
        with self._durably("written"):
            of_phase = "stopped" if failure.stopped else "failed"
            self._end(run, outcome, "done" if outcome is RunOutcome.DEFERRED else of_phase)
            self._db.execute(
                "UPDATE runs SET failed_phase = ?, failed_hook = ?, failed_status = ?, failed_reason = ?"
                " WHERE id = ?",
                (failure.phase, _text(failure.hook), failure.status, _text(failure.reason), run.row),
            )

    def _refuse_if_replaced(self) -> None:
        if _identity(self.path) != self._identity:
            raise StateError(f"{self.path}: the journal was removed or replaced during the run")

    def _end(self, run: Run, outcome: RunOutcome, of_phase: str) -> None:
        """With its last phase, which has no boundary of its own."""
        now = time.time()
        self._db.execute("UPDATE runs SET outcome = ?, ended_at = ? WHERE id = ?", (outcome, now, run.row))
        self._db.execute(
            "UPDATE phases SET outcome = ?, ended_at = ? WHERE run = ? AND outcome IS NULL",
            (of_phase, now, run.row),
        )

    def _unfinished(self, succeeded: int) -> Unfinished | None:
        """The newest run, if it is after the last success; attempts count on while the documents stay, but
        for those that were deferred.
        """
        row = self._db.execute(
            "SELECT documents, attempt, outcome, failed_phase, failed_hook FROM runs"
            " WHERE id > ? AND documents != '[]' ORDER BY id DESC LIMIT 1",
            (succeeded,),
        ).fetchone()
        if row is None:
            return None
        documents = tuple((name, fingerprint) for name, fingerprint in json.loads(row[0]))
        failures = self._db.execute(
            "SELECT count(*) FROM runs WHERE outcome IN (?, ?)"
            " AND documents != '[]' AND id > max(?, (SELECT ifnull(max(id), 0) FROM runs"
            " WHERE documents NOT IN (?, '[]')))",
            (RunOutcome.HOOK_FAILED, RunOutcome.MIGRATION_FAILED, succeeded, row[0]),
        ).fetchone()[0]
        interrupted = row[2] in {RunOutcome.INTERRUPTED, None}
        deferred = row[2] == RunOutcome.DEFERRED
        # What was deferred is no attempt: the next run has its number again.
        attempts = row[1] - deferred
        return Unfinished(documents, attempts, failures, interrupted, row[3] or "", row[4] or "", deferred)

    def _position(self, row: int) -> tuple[str, str]:
        """Phase and hook where a run stands, from what was written as they began."""
        hook = self._db.execute(
            "SELECT phase, hook FROM hooks WHERE run = ? "
            "ORDER BY outcome IS NULL DESC, position DESC LIMIT 1",
            (row,),
        ).fetchone()
        phase = self._db.execute(
            "SELECT phase FROM phases WHERE run = ? ORDER BY outcome IS NULL DESC, started_at DESC LIMIT 1",
            (row,),
        ).fetchone()
        if phase is None:
            return "", ""
        return phase[0], hook[1] if hook is not None and hook[0] == phase[0] else ""

    def _prepare(self) -> None:
        with self._explained("used"):
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.execute("PRAGMA synchronous = NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._create()
            elif version != SCHEMA_VERSION:
                raise StateError(
                    f"{self.path}: is of version {version}, this agent knows {SCHEMA_VERSION};"
                    " it was written by a newer one"
                )

    def _create(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        with self._durably("made"):
            # Another command may have made it since.
            if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _durably(self, verb: str) -> Iterator[None]:
        """One transaction that a power loss does not take back."""
        with self._explained(verb):
            self._db.execute("PRAGMA synchronous = FULL")
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._db.execute("PRAGMA synchronous = NORMAL")

    @contextlib.contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            damaged = type(error) is sqlite3.DatabaseError
            advice = "; it is damaged: move it away, and everything is run once" if damaged else ""
            raise StateError(f"{self.path}: the journal cannot be {verb}: {error}{advice}") from error


def _hook_values(record: HookRecord) -> tuple[object, ...]:
    started, result = record.started, record.result
    began = (record.position, started.phase, _text(started.hook), started.hook_id, started.pid)
    if result is None:
        return (*began, record.started_at, None, None, None, None)
    ended = result.exit
    return (*began, record.started_at, ended.seconds, ended.status, ended.ending, result.tail)


def _text(text: str) -> str:
    """As SQLite takes it: what is not UTF-8 in the name of a file is shown as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def boot_id() -> str:
    """Changes at every boot of the node; empty where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
