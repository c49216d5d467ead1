"""What the journal knows, for reports: read-only, beside whoever writes to it. Nothing is repaired here.

A journal that is missing tells that nothing has happened; one that cannot be read, or not to its end, is told
as ``trouble``.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import quote

from refresh_agent import files, journal_file, journal_history, journal_schema
from refresh_agent.errors import StateError
from refresh_agent.model import Quiesced, RunOutcome
from refresh_agent.redact import printable

TRIES = 4
"""Of a look that somebody who writes has disturbed."""

BUSY_SECONDS = 1.0
"""Readers wait for nobody but who repairs the journal's write-ahead log after a crash."""

LINES = 10
TAIL = 16384
"""The last lines of a failed hook's output, and the bytes in which they are looked for."""

LONGEST_LINE = 400
"""Characters."""


class RunSeen(NamedTuple):
    """A run. Times are wall clock. ``phase`` and ``hook``: where it is, or came to a bad end.

    ``outcome``: as RunOutcome; one that nobody works on and that has none was interrupted. ``by_hand``: for
    no metadata, so that nothing follows from it. ``failures``: how often the same has failed in a row, with
    this run. ``output``: the last lines of the hook that failed.
    """

    row: int
    run_id: str
    trigger: str
    attempt: int
    started: float
    ended: float | None
    outcome: str | None
    by_hand: bool
    failures: int
    held: bool
    phase: str
    hook: str
    status: int | None
    reason: str
    output: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return "/".join(filter(None, (self.phase, self.hook)))


class TargetSeen(NamedTuple):
    """A database as the newest run found and left it. ``at``: wall clock, of that run."""

    target: str
    outcome: str
    before: str
    after: str
    message: str
    run_id: str
    at: float


class Standing(NamedTuple):
    """``running``: the run that is worked on. ``newest``: the newest for metadata but for that one, by which
    the node is judged; ``last``: the newest of all but that one.

    ``quiesced``: a run before that one has left the node so, and it has not activated it yet. ``doubt``: why
    nobody knows whether it is quiesced; empty if that is known.
    """

    running: RunSeen | None = None
    newest: RunSeen | None = None
    last: RunSeen | None = None
    success: RunSeen | None = None
    failure: RunSeen | None = None
    quiesced: Quiesced | None = None
    doubt: str = ""
    targets: tuple[TargetSeen, ...] = ()
    trouble: str = ""


def read(state_dir: str, working: Callable[[], str | None]) -> Standing:
    """``working``: the agent that refreshes now, as the journal names it; empty if there is one, but which is
    not known, None if there is none. Raises StateError if the directory may not be read.
    """
    try:
        aside = journal_file.were_set_aside(state_dir)
    except FileNotFoundError:
        return Standing()
    except OSError as error:
        text = f"{state_dir}: cannot be read: {files.reason(error)}; the agent's user can, as a rule root"
        raise StateError(text) from error
    try:
        found = _settled(journal_file.path_in(state_dir), working)
    except StateError as error:
        return Standing(trouble=str(error))
    if found.last is not None or not aside:
        return found
    damaged = f"{journal_file.path_in(state_dir)}.damaged-*"
    return found._replace(doubt=f"the journal was damaged ({damaged}), and no run has ended since")


def _settled(path: str, working: Callable[[], str | None]) -> Standing:
    """A run that begins or ends between two questions is not taken for one that nobody works on."""
    left = None
    for _ in range(TRIES):
        found = _undisturbed(path, working())
        abandoned = found.last.run_id if found.last is not None and found.last.ended is None else None
        if abandoned is None or abandoned == left:
            break
        left = abandoned
    return found


def _undisturbed(path: str, agent: str | None) -> Standing:
    error: Exception | None = None
    for attempt in range(TRIES):
        trace = journal_file.trace(os.path.dirname(path))
        # Without a write-ahead log the file is whole, and SQLite need not make its own files beside it: the
        # daemon would take them for a sign that somebody has written.
        whole = not trace[1] and attempt < TRIES // 2
        alone = _needs_to_write(error)
        try:
            found = _look(path, agent, immutable=whole or alone)
        except (sqlite3.Error, OSError, ValueError, TypeError, OverflowError) as caught:
            error = caught
            continue
        if alone and trace[1]:
            return found._replace(trouble=f"{path}: what came last cannot be read: {error}")
        if not whole or trace == journal_file.trace(os.path.dirname(path)):
            return found
    raise StateError(f"{path}: the journal cannot be read: {error or 'somebody writes to it all the time'}")


def _needs_to_write(error: Exception | None) -> bool:
    """Whether SQLite lacks its own files and cannot make them: the disk is read-only or full. Then what is in
    the write-ahead log has to be left out.
    """
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_DISK


_OF_DISK = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
    }
)


def _look(path: str, agent: str | None, *, immutable: bool) -> Standing:
    try:
        files.open_regular(path, os.O_NOFOLLOW).close()  # a fifo would hold us up
    except FileNotFoundError:
        return Standing()
    with _opened(path, immutable=immutable) as db:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version == 0:
            return Standing()  # it is just being made
        if not 0 < version <= journal_schema.VERSION:
            raise ValueError(f"it is of version {version}, this agent knows {journal_schema.VERSION}")
        if version == journal_schema.VERSION:
            return _Reading(db).standing(agent)
        with contextlib.closing(sqlite3.connect(":memory:")) as copy:
            db.backup(copy)
            for statement in journal_schema.bringing_up_to_date(version):
                copy.execute(statement)
            return _Reading(copy).standing(agent)


@contextlib.contextmanager
def _opened(path: str, *, immutable: bool) -> Iterator[sqlite3.Connection]:
    how = "immutable=1" if immutable else "mode=ro"
    location = f"file:{quote(os.path.abspath(path))}?{how}"
    with contextlib.closing(sqlite3.connect(location, uri=True, timeout=BUSY_SECONDS)) as db:
        db.isolation_level = None
        db.execute("BEGIN")  # all that is read is of one moment
        yield db


_RUN = """
SELECT id, run_id, trigger, attempt, started_at, ended_at, outcome, documents = '[]', failures, held,
    failed_phase, failed_hook, failed_status, failed_reason
FROM runs WHERE {} ORDER BY id DESC LIMIT 1
"""

_TARGETS = """
SELECT target, migrations.outcome, before, after, message, run_id, ifnull(ended_at, started_at)
FROM migrations JOIN runs ON runs.id = run
WHERE run = (SELECT max(run) FROM migrations AS other WHERE other.target = migrations.target)
"""


class _Reading:
    """One look. Runs "before" a row are those that count: all but the one that is worked on."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def standing(self, agent: str | None) -> Standing:
        newest = self._run("id >= ?", 0)
        if newest is None:
            return Standing()
        phase, hook = self._position(newest)
        alive = self._is_worked_on(newest, agent)
        # The hooks of error.d run when the run has its outcome already.
        running = alive and (newest.outcome is None or bool(phase))
        before = newest.row if alive and newest.outcome is None else newest.row + 1
        failed = (RunOutcome.HOOK_FAILED, RunOutcome.MIGRATION_FAILED)
        failure = self._run("id < ? AND outcome IN (?, ?)", before, *failed)
        failure = failure and failure._replace(output=self._output(failure))
        last = self._ended("id < ?", before)
        return Standing(
            running=newest._replace(phase=phase, hook=hook) if running else None,
            newest=self._ended("id < ? AND documents <> '[]'", before),
            last=failure if failure and last and failure.row == last.row else last,
            success=self._run("id < ? AND outcome = ?", before, RunOutcome.SUCCESS),
            failure=failure,
            quiesced=self._quiesced(before),
            targets=self._targets(),
        )

    def _is_worked_on(self, run: RunSeen, agent: str | None) -> bool:
        """Not if another agent has made it: what refreshes now has that one's leftovers to end first."""
        (made_by,) = self._db.execute("SELECT agent FROM runs WHERE id = ?", (run.row,)).fetchone()
        return agent is not None and agent in {"", made_by}

    def _run(self, where: str, *parameters: object) -> RunSeen | None:
        row = self._db.execute(_RUN.format(where), parameters).fetchone()
        if row is None:
            return None
        return RunSeen(
            row=int(row[0]),
            run_id=str(row[1]),
            trigger=str(row[2]),
            attempt=int(row[3]),
            started=float(row[4]),
            ended=None if row[5] is None else float(row[5]),
            outcome=None if row[6] is None else str(row[6]),
            by_hand=bool(row[7]),
            failures=int(row[8]),
            held=bool(row[9]),
            phase=str(row[10] or ""),
            hook=str(row[11] or ""),
            status=None if row[12] is None else int(row[12]),
            reason=str(row[13] or ""),
        )

    def _ended(self, where: str, before: int) -> RunSeen | None:
        """As ``_run``; one that has no end is one that nobody works on any more."""
        run = self._run(where, before)
        if run is None or run.outcome is not None:
            return run
        phase, hook = self._position(run)
        return run._replace(outcome=str(RunOutcome.INTERRUPTED), phase=phase, hook=hook)

    def _position(self, run: RunSeen) -> tuple[str, str]:
        """The phase and the hook, if there is one, where it is."""
        if run.outcome is None:
            return journal_history.position(self._db, run.row)
        # It has ended, but for error.d.
        for table, column in (("hooks", "hook"), ("phases", "''")):
            row = self._db.execute(
                f"SELECT phase, {column} FROM {table} WHERE run = ? AND outcome IS NULL"  # noqa: S608
                " ORDER BY started_at DESC LIMIT 1",
                (run.row,),
            ).fetchone()
            if row is not None:
                return str(row[0]), str(row[1])
        return "", ""

    def _output(self, run: RunSeen) -> tuple[str, ...]:
        row = self._db.execute(
            "SELECT substr(tail, ?), length(tail) FROM outputs JOIN hooks USING (run, position)"
            " WHERE run = ? AND phase = ? AND hook = ? ORDER BY position DESC LIMIT 1",
            (-TAIL, run.row, run.phase, run.hook),
        ).fetchone()
        return () if row is None else last_lines(bytes(row[0]), whole=int(row[1]) <= TAIL)

    def _quiesced(self, before: int) -> Quiesced | None:
        """By a run before that row; not if one since, the one that is worked on too, has activated it."""
        over = "SELECT 1 FROM runs WHERE id >= ? AND activated_at IS NOT NULL"
        if self._db.execute(over, (before,)).fetchone() is not None:
            return None
        where = "id < ? AND (quiesced_since IS NOT NULL OR activated_at IS NOT NULL)"
        run = self._ended(where, before)
        if run is None:
            return None
        query = "SELECT quiesced_since FROM runs WHERE id = ? AND activated_at IS NULL"
        row = self._db.execute(query, (run.row,)).fetchone()
        if row is None:
            return None
        interrupted = run.outcome == RunOutcome.INTERRUPTED
        return Quiesced(float(row[0]), run.run_id, run.attempt, interrupted, run.phase, run.hook)

    def _targets(self) -> tuple[TargetSeen, ...]:
        rows = self._db.execute(_TARGETS).fetchall()
        return tuple(
            TargetSeen(
                str(row[0]), str(row[1]), str(row[2]), str(row[3]), str(row[4]), str(row[5]), float(row[6])
            )
            for row in rows
        )


def last_lines(output: bytes, *, whole: bool = True) -> tuple[str, ...]:
    """The last lines that say something, fit to be shown. Not ``whole``: the first is only the end of one,
    and shown if there is no other.
    """
    said = [line for line in map(printable, output.split(b"\n")) if line.strip()]
    lines = said if whole else said[1:] or said
    return tuple(map(_clipped, lines))[-LINES:]


def _clipped(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."
