"""The durable record of runs, phases, hooks, migrations and commits: one SQLite file.

What must survive a power loss (the beginning of a run, each phase's boundary, the commit) is written durably;
what happens in between survives a killed process. Readers do not disturb the writer.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from refresh_agent import journal_file, journal_history
from refresh_agent.errors import DamagedError, StateError
from refresh_agent.journal_file import Edge, JournalFile
from refresh_agent.marks import is_of_run
from refresh_agent.model import (
    Ending,
    Exit,
    Failure,
    Fingerprints,
    History,
    HookResult,
    MigrationResult,
    RunOutcome,
    StartedHook,
)
from refresh_agent.plan import Decision

LOG = logging.getLogger("refresh_agent")

KEEP_OUTPUTS = 50
"""Runs of which the hooks' output is kept."""

KEEP_OUTPUT_BYTES = 16 * 2**20
"""So much of it, but for the newest run's: it is what makes a journal large."""

EDGE = Edge()


class Run(NamedTuple):
    """A run that has begun: its row and the identity that hooks see as REFRESH_AGENT_RUN_ID.

    ``phase``: the one that has begun with it, if one has.
    """

    row: int
    run_id: str
    phase: str = ""


class PhaseEnd(NamedTuple):
    phase: str
    outcome: str


class Boundary(NamedTuple):
    """One phase has ended and another begun, or only one of it.

    ``activated``: the run got through post-configure, so the node is not quiesced any more.
    """

    ended: PhaseEnd | None
    begun: str
    activated: bool = False


class Leader(NamedTuple):
    """A hook's process, which leads its process group and session; ``began`` in ticks since boot."""

    pid: int
    began: int


class OpenRun(NamedTuple):
    """A run without an end; those of its hooks that had one: what they have left running may go on; and the
    others, as far as they were recorded.
    """

    run_id: str
    ended_hooks: frozenset[str]
    running: tuple[Leader, ...] = ()

    def may_have_left(self, hook_id: str) -> bool:
        """Whether a process with this mark is one that was interrupted; it need not be recorded yet."""
        return is_of_run(hook_id, self.run_id) and hook_id not in self.ended_hooks


class HandedOver(NamedTuple):
    """A hook that went on without its agent.

    ``where``: its phase and name. ``left``: the seconds that it may still take.
    """

    where: str
    hook_id: str
    leader: Leader
    left: float


class HookRecord(NamedTuple):
    """What is known of a hook: the ``position``-th of its run; ``result`` once it has ended."""

    position: int
    started_at: float
    started: StartedHook
    result: HookResult | None = None


class Journal:
    """Open it only while it is needed. Every method raises StateError when the file cannot be used, and of
    that DamagedError when its content is not what it should be.
    """

    def __init__(self, state_dir: str, edge: Edge = EDGE) -> None:
        self._edge = edge
        self._file = JournalFile(state_dir, edge)
        self._db = self._file.db

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def damaged(self) -> bool:
        """Whether anything was found that should not be."""
        return self._file.damaged

    @property
    def is_new(self) -> bool:
        """Whether there was none, or an empty file."""
        return self._file.is_new

    def close(self) -> None:
        self._file.close()

    def check(self) -> None:
        """Read whatever a refresh will depend on, so that damage shows before it matters."""
        self._file.check()
        self.history()
        self.open_runs()
        self.open_workers()
        self.handed_over()

    def history(self) -> History:
        """What a refresh has to go on from: see ``journal_history.read``."""
        with self._file.explained("read"):
            return journal_history.read(self._db, self._edge.boot_id())

    def open_runs(self) -> tuple[OpenRun, ...]:
        """Those that had not ended when another agent did; their hooks may still run, in this boot."""
        with self._file.explained("read"):
            rows = self._db.execute(
                "SELECT id, run_id FROM runs WHERE boot_id = ? AND agent <> ? AND (outcome IS NULL"
                # error.d runs when the run has its outcome.
                " OR EXISTS (SELECT 1 FROM phases WHERE run = runs.id AND phases.outcome IS NULL))",
                (self._edge.boot_id(), self._edge.agent),
            ).fetchall()
            return tuple(self._open_run(row, str(run_id)) for row, run_id in rows)

    def _open_run(self, row: int, run_id: str) -> OpenRun:
        hooks = self._db.execute("SELECT hook_id, pid, began, outcome FROM hooks WHERE run = ?", (row,))
        ended, running = set(), []
        for hook_id, pid, began, outcome in hooks:
            if outcome is not None:
                ended.add(str(hook_id))
            elif pid and began:
                running.append(Leader(int(pid), int(began)))
        return OpenRun(run_id, frozenset(ended), tuple(running))

    def open_workers(self) -> tuple[tuple[str, float], ...]:
        """As ``open_runs``, for workers that migrate databases; with the seconds that they may still take."""
        with self._file.explained("read"):
            rows = self._db.execute(
                "SELECT hook_id, ifnull(until, 1e999) FROM workers JOIN runs ON runs.id = workers.run"
                " WHERE workers.outcome IS NULL AND runs.boot_id = ? AND runs.agent <> ?",
                (self._edge.boot_id(), self._edge.agent),
            ).fetchall()
            now = self._edge.since_boot()
            return tuple((str(hook_id), float(until) - now) for hook_id, until in rows)

    def handed_over(self) -> tuple[HandedOver, ...]:
        """Hooks of this boot that an agent has left to the next one, and of which no end was seen."""
        with self._file.explained("read"):
            rows = self._db.execute(
                "SELECT phase || '/' || hook, hook_id, pid, began, ifnull(until, 1e999) FROM hooks"
                " JOIN runs ON runs.id = hooks.run WHERE hooks.outcome = ? AND boot_id = ?",
                (Ending.HANDED_OVER, self._edge.boot_id()),
            ).fetchall()
            now = self._edge.since_boot()
            return tuple(
                HandedOver(str(where), str(hook_id), Leader(int(pid), int(began)), float(until) - now)
                for where, hook_id, pid, began, until in rows
            )

    def handed_over_has_ended(self, hook: HandedOver) -> None:
        """How is not known to anybody."""
        with self._file.durably("written"):
            self._db.execute(
                "UPDATE hooks SET outcome = ? WHERE hook_id = ?", (RunOutcome.INTERRUPTED, hook.hook_id)
            )

    def close_interrupted(self) -> tuple[str, ...]:
        """Mark runs that never ended as interrupted; the lock is held, so no agent works on them."""
        with self._file.durably("written"):
            rows = self._db.execute("SELECT id, run_id FROM runs WHERE outcome IS NULL").fetchall()
            for row, _ in rows:
                phase, hook = journal_history.position(self._db, row)
                self._db.execute(
                    "UPDATE runs SET outcome = ?, ended_at = ?, failed_phase = ?, failed_hook = ?"
                    " WHERE id = ?",
                    (RunOutcome.INTERRUPTED, self._edge.wall(), phase, hook, row),
                )
            for table in ("phases", "hooks", "workers"):
                self._db.execute(
                    f"UPDATE {table} SET outcome = ? WHERE outcome IS NULL",  # noqa: S608
                    (RunOutcome.INTERRUPTED,),
                )
        return tuple(run_id for _, run_id in rows)

    def begin(self, decision: Decision, documents: Fingerprints, *, quiesces: str = "") -> Run:
        """Durable before the first hook starts.

        ``quiesces``: the phase that quiesces the node, if the run has it. It begins with the run, in the same
        transaction: one wait for the disk instead of two.
        """
        run_id = os.urandom(16).hex()
        now = self._edge.wall()
        with self._file.durably("written"):
            quiesced = journal_history.quiesced(self._db)
            cursor = self._db.execute(
                "INSERT INTO runs (run_id, trigger, attempt, reason, changed, documents, boot_id, agent,"
                " started_at, failures, quiesced_since) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run_id,
                    decision.trigger,
                    decision.attempt,
                    decision.reason,
                    json.dumps(decision.changed),
                    json.dumps(documents),
                    self._edge.boot_id(),
                    self._edge.agent,
                    now,
                    decision.failures,
                    quiesced.since if quiesced else now if quiesces else None,
                ),
            )
            run = Run(cursor.lastrowid or 0, run_id, quiesces)
            if quiesces:
                self._phase_begins(run, quiesces, now)
        return run

    def forget(self, run: Run) -> None:
        """It began and nothing has happened since."""
        with self._file.durably("written"):
            self._db.execute("DELETE FROM runs WHERE id = ?", (run.row,))

    def prune(self, keep_runs: int, keep_days: float) -> None:
        """Let go of old runs, never of the newest, by hand or not, nor of those that tell what is committed
        and whether the node is quiesced; and sooner of outputs.
        """
        with self._file.explained("written"):
            oldest = self._edge.wall() - keep_days * 86400
            self._db.execute(_DELETE_RUNS, (RunOutcome.SUCCESS, oldest, keep_runs))
            self._db.execute(_DELETE_OUTPUTS, (KEEP_OUTPUTS, KEEP_OUTPUT_BYTES))

    def record_boundary(self, run: Run, boundary: Boundary) -> None:
        """A place to which a power loss may go back, in one transaction."""
        now = self._edge.wall()
        with self._file.durably("written"):
            if boundary.ended is not None:
                self._db.execute(
                    "UPDATE phases SET ended_at = ?, outcome = ? WHERE run = ? AND phase = ?",
                    (now, boundary.ended.outcome, run.row, boundary.ended.phase),
                )
            if boundary.activated:
                self._activate(run, now)
            if boundary.begun:
                self._phase_begins(run, boundary.begun, now)

    def _phase_begins(self, run: Run, phase: str, now: float) -> None:
        """It may have done so already, in a transaction of which the disk has said that it failed."""
        self._db.execute(
            "INSERT INTO phases (run, phase, started_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (run.row, phase, now),
        )

    def record_hooks(self, run: Run, hooks: Sequence[HookRecord]) -> None:
        """What is known of them by now, in one go: it is written while the next hook runs."""
        now = self._edge.since_boot()
        values = [value for hook in hooks for value in (run.row, *_hook_values(hook, now))]
        outputs = [
            value
            for hook in hooks
            if hook.result is not None and hook.result.tail
            for value in (run.row, hook.position, hook.result.tail)
        ]
        with self._file.together("written"):
            self._db.execute(
                "INSERT INTO hooks VALUES"
                + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * len(hooks))
                + " ON CONFLICT DO UPDATE SET seconds = excluded.seconds, status = excluded.status,"
                " outcome = excluded.outcome, until = excluded.until",
                values,
            )
            if outputs:
                rows = ", ".join(["(?, ?, ?)"] * (len(outputs) // 3))
                self._db.execute(f"INSERT OR REPLACE INTO outputs VALUES {rows}", outputs)  # noqa: S608

    def worker_began(self, run: Run, hook_id: str, pid: int, timeout: float) -> None:
        """``timeout``: the seconds that it may take, 0 for as long as it likes."""
        until = self._edge.since_boot() + timeout if timeout else None
        with self._file.durably("written"):
            self._db.execute(
                "INSERT INTO workers (hook_id, run, pid, started_at, until) VALUES (?, ?, ?, ?, ?)",
                (hook_id, run.row, pid, self._edge.wall(), until),
            )

    def worker_ended(self, hook_id: str, ended: Exit) -> None:
        with self._file.explained("written"):
            self._db.execute("UPDATE workers SET outcome = ? WHERE hook_id = ?", (ended.ending, hook_id))

    def migrated(self, run: Run, result: MigrationResult) -> None:
        way = (result.outcome, result.before, result.after, result.message, result.seconds)
        with self._file.explained("written"):
            self._db.execute(
                "INSERT INTO migrations VALUES (?, ?, ?, ?, ?, ?, ?)", (run.row, result.target, *way)
            )

    def commit(self, run: Run, documents: Fingerprints) -> None:
        """The run succeeded: its documents are from now on what the node has. One transaction, durable."""
        self._file.refuse_if_replaced()
        with self._file.durably_at_last("written"):
            self._db.execute("DELETE FROM committed")
            self._db.executemany(
                "INSERT INTO committed VALUES (?, ?, ?, ?)",
                [(position, *document, run.row) for position, document in enumerate(documents)],
            )
            self._end(run, RunOutcome.SUCCESS, "done")

    def succeed(self, run: Run) -> None:
        """The run succeeded; what was committed before stays committed."""
        self._file.refuse_if_replaced()
        with self._file.durably_at_last("written"):
            self._end(run, RunOutcome.SUCCESS, "done")

    def fail(
        self, run: Run, outcome: RunOutcome, failure: Failure, *, held: bool = False, begun: str = ""
    ) -> None:
        """The run did not succeed; what was committed before stays committed.

        ``held``: it has failed so often that it is not tried again by itself. ``begun``: the phase of what
        runs because of that. It begins in the same transaction: were the run over without it, the next agent
        would not look for hooks of it that still run.
        """
        self._file.refuse_if_replaced()
        with self._file.durably("written"):
            of_phase = "stopped" if failure.stopped else "failed"
            self._end(run, outcome, "done" if outcome is RunOutcome.DEFERRED else of_phase)
            self._db.execute(
                "UPDATE runs SET failed_phase = ?, failed_hook = ?, failed_status = ?, failed_reason = ?,"
                " failures = failures + ?, held = ? WHERE id = ?",
                (
                    failure.phase,
                    _text(failure.hook),
                    failure.status,
                    _text(failure.reason),
                    outcome.is_failure,
                    held,
                    run.row,
                ),
            )
            if begun:
                self._phase_begins(run, begun, self._edge.wall())

    def _end(self, run: Run, outcome: RunOutcome, of_phase: str) -> None:
        """With its last phase, which has no boundary of its own."""
        now = self._edge.wall()
        if outcome is RunOutcome.SUCCESS:
            self._activate(run, now)
        self._db.execute("UPDATE runs SET outcome = ?, ended_at = ? WHERE id = ?", (outcome, now, run.row))
        self._db.execute(
            "UPDATE phases SET outcome = ?, ended_at = ? WHERE run = ? AND outcome IS NULL",
            (of_phase, now, run.row),
        )

    def _activate(self, run: Run, now: float) -> None:
        self._db.execute(
            "UPDATE runs SET activated_at = ifnull(activated_at, ?) WHERE id = ?", (now, run.row)
        )


_DELETE_RUNS = """
DELETE FROM runs WHERE outcome IS NOT NULL AND id NOT IN (SELECT run FROM committed)
AND id < (SELECT max(id) FROM runs)
AND id IS NOT (SELECT max(id) FROM runs WHERE documents <> '[]')
AND id IS NOT (SELECT max(id) FROM runs WHERE documents <> '[]' AND outcome = ?)
AND id IS NOT (SELECT max(id) FROM runs WHERE quiesced_since IS NOT NULL OR activated_at IS NOT NULL)
AND (started_at < ? OR id NOT IN (SELECT id FROM runs ORDER BY id DESC LIMIT ?))
"""

_DELETE_OUTPUTS = """
DELETE FROM outputs WHERE run NOT IN (SELECT id FROM runs ORDER BY id DESC LIMIT ?)
OR run < (SELECT max(run) FROM outputs) AND run IN (
    SELECT run FROM (
        SELECT run, sum(sum(length(tail))) OVER (ORDER BY run DESC) AS size FROM outputs GROUP BY run
    ) WHERE size > ?
)
"""


@contextlib.contextmanager
def sound(state_dir: str, edge: Edge = EDGE) -> Iterator[Journal]:
    """The journal; a damaged one is set aside, and a new one takes its place. Raises StateError.

    Only for who holds the run lock. Running once too often is right, forgetting is not.
    """
    journal = _checked(state_dir, edge)
    if journal is None:
        journal = Journal(state_dir, edge)
    try:
        yield journal
    finally:
        try:
            journal.close()
        finally:
            if journal.damaged:
                _set_aside(state_dir, edge, f"{journal.path}: the journal is damaged")


def _checked(state_dir: str, edge: Edge) -> Journal | None:
    """None if it was damaged and is out of the way now."""
    journal = None
    try:
        journal = Journal(state_dir, edge)
        journal.check()
    except DamagedError as error:
        if journal is not None:
            with contextlib.suppress(StateError):
                journal.close()
        _set_aside(state_dir, edge, str(error))
        return None
    except BaseException:
        if journal is not None:
            journal.close()
        raise
    return journal


def _set_aside(state_dir: str, edge: Edge, why: str) -> None:
    aside = journal_file.set_aside(state_dir, edge.wall())
    LOG.error("%s; it is set aside as %s, and everything is run once more", why, aside)


def _hook_values(record: HookRecord, now: float) -> tuple[object, ...]:
    started, result = record.started, record.result
    began = (record.position, started.phase, _text(started.hook), started.hook_id, started.pid, started.began)
    if result is None:
        return (*began, record.started_at, None, None, None, None)
    ended = result.exit
    goes_on = ended.ending is Ending.HANDED_OVER and ended.left != float("inf")
    until = now + ended.left if goes_on else None
    return (*began, record.started_at, ended.seconds, ended.status, ended.ending, until)


def _text(text: str) -> str:
    """As SQLite takes it: what is not UTF-8 in the name of a file is shown as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()
