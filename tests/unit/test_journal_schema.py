"""Journals of earlier versions are brought up to date in place, whatever happens meanwhile."""

import contextlib
import itertools
import json
import pathlib
import sqlite3
import threading
from typing import NamedTuple

import pytest

from refresh_agent import journal_schema
from refresh_agent.errors import ExitCode, StateError
from refresh_agent.journal import Journal
from refresh_agent.model import Fingerprints, History, RunOutcome, Unfinished
from tests.reliability.faults import Faults, Killed, Kind
from tests.unit.journals import A, B

VERSION_1 = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    trigger TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    reason TEXT NOT NULL,
    changed TEXT NOT NULL,
    documents TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    agent TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    outcome TEXT,
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
    position INTEGER NOT NULL,
    phase TEXT NOT NULL,
    hook TEXT NOT NULL,
    hook_id TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started_at REAL NOT NULL,
    seconds REAL,
    status INTEGER,
    outcome TEXT,
    tail BLOB,
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
CREATE TABLE workers (
    hook_id TEXT PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    pid INTEGER NOT NULL,
    started_at REAL NOT NULL,
    timeout REAL NOT NULL,
    outcome TEXT
) WITHOUT ROWID;
CREATE TABLE committed (
    position INTEGER PRIMARY KEY,
    document TEXT NOT NULL UNIQUE,
    fingerprint TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (id)
);
"""

STARTED, ENDED = 1000.0, 2000.0


class OldRun(NamedTuple):
    """A run as version 1 had it, with its phases and their outcomes; one hook in each of them."""

    outcome: RunOutcome | None
    phases: tuple[tuple[str, str | None], ...] = ()
    documents: Fingerprints = A
    failed_in: str = ""


def make_old(state: pathlib.Path, *runs: OldRun, committed: Fingerprints = ()) -> pathlib.Path:
    """A file of version 1 with these runs, and something in every table."""
    state.mkdir(mode=0o700)
    path = state / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(VERSION_1)
        for number, run in enumerate(runs, 1):
            _insert(db, number, run)
        for position, (document, fingerprint) in enumerate(committed):
            db.execute("INSERT INTO committed VALUES (?, ?, ?, 1)", (position, document, fingerprint))
        db.execute("INSERT INTO migrations SELECT max(id), 'shop', 'done', 'a', 'b', 'text', 1.5 FROM runs")
        db.execute("INSERT INTO workers SELECT 'mark', max(id), 7, 1.0, 60.0, 'exited' FROM runs")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    return path


def _insert(db: sqlite3.Connection, number: int, run: OldRun) -> None:
    values = (run.outcome, run.failed_in or None, ENDED if run.outcome else None)
    db.execute(
        "INSERT INTO runs (id, run_id, trigger, attempt, reason, changed, documents, boot_id, agent,"
        " started_at, outcome, failed_phase, ended_at)"
        " VALUES (?, ?, 'change', ?, 'why', '[]', ?, 'boot', 'agent', ?, ?, ?, ?)",
        (number, f"run-{number}", number, json.dumps(run.documents), STARTED, *values),
    )
    for position, (phase, outcome) in enumerate(run.phases):
        db.execute("INSERT INTO phases VALUES (?, ?, 1.0, 2.0, ?)", (number, phase, outcome))
        tail = b"" if phase == "configure" else phase.encode()
        db.execute(
            "INSERT INTO hooks VALUES (?, ?, ?, '10-a', 'mark', 77, 1.0, 0.5, 0, 'exited', ?)",
            (number, position, phase, tail),
        )


DONE = (("pre-configure", "done"), ("configure", "done"), ("post-configure", "done"))
SUCCESS = OldRun(RunOutcome.SUCCESS, DONE)
FAILED = OldRun(RunOutcome.HOOK_FAILED, (DONE[0], ("configure", "failed")), failed_in="configure")


def rows(path: pathlib.Path, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def dump(path: pathlib.Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return [*db.iterdump(), str(db.execute("PRAGMA user_version").fetchone())]


def history(state: pathlib.Path) -> History:
    with contextlib.closing(Journal(str(state))) as journal:
        journal.check()
        return journal.history()


@pytest.fixture
def state(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state"


def test_from_1_to_2_every_row_of_every_table_survives(state: pathlib.Path) -> None:
    path = make_old(state, SUCCESS, FAILED, committed=A)
    columns = "run, position, phase, hook, hook_id, pid, started_at, seconds, status, outcome"
    kept = ("phases", "migrations", "committed")
    before = {table: rows(path, f"SELECT * FROM {table}") for table in kept}
    hooks = rows(path, f"SELECT {columns} FROM hooks")
    runs = rows(path, "SELECT * FROM runs")
    Journal(str(state)).close()
    assert {table: rows(path, f"SELECT * FROM {table}") for table in kept} == before
    assert rows(path, f"SELECT {columns} FROM hooks") == hooks
    assert len(hooks) == 5
    assert rows(path, "SELECT DISTINCT began FROM hooks") == [(0,)]
    assert [row[: len(runs[0])] for row in rows(path, "SELECT * FROM runs")] == runs
    assert rows(path, "SELECT * FROM workers") == [("mark", 2, 7, 1.0, None, "exited")]


def test_from_1_to_2_the_output_of_hooks_gets_a_table_of_its_own(state: pathlib.Path) -> None:
    path = make_old(state, SUCCESS)
    Journal(str(state)).close()
    assert rows(path, "SELECT * FROM outputs") == [(1, 0, b"pre-configure"), (1, 2, b"post-configure")]


def test_what_was_upgraded_has_the_tables_that_a_new_one_has(
    state: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = make_old(state, SUCCESS)
    Journal(str(state)).close()
    Journal(str(tmp_path / "new")).close()

    def tables(path: pathlib.Path) -> dict[object, list[tuple[object, ...]]]:
        names = rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")
        found = {name: rows(path, f"PRAGMA table_info({name})") for (name,) in names}
        keys: dict[object, list[tuple[object, ...]]] = {
            f"{name} keys": rows(path, f"PRAGMA foreign_key_list({name})") for (name,) in names
        }
        return {**found, **keys}

    assert tables(path) == tables(tmp_path / "new" / "journal.sqlite")
    for query in ("PRAGMA user_version", "PRAGMA application_id", "PRAGMA journal_mode"):
        assert rows(path, query) == rows(tmp_path / "new" / "journal.sqlite", query)


QUIESCED, ACTIVATED, UNTOUCHED = (STARTED, None), (STARTED, ENDED), (None, None)


@pytest.mark.parametrize(
    ("run", "since"),
    [
        pytest.param(SUCCESS, ACTIVATED, id="success"),
        pytest.param(OldRun(RunOutcome.SUCCESS, DONE[1:]), (None, ENDED), id="success without pre-configure"),
        pytest.param(OldRun(RunOutcome.SUCCESS), (None, ENDED), id="success without a phase"),
        pytest.param(FAILED, QUIESCED, id="failed in configure"),
        pytest.param(
            OldRun(RunOutcome.HOOK_FAILED, (("configure", "failed"),)),
            UNTOUCHED,
            id="failed without pre-configure",
        ),
        pytest.param(
            OldRun(RunOutcome.HOOK_FAILED, (*DONE[:2], ("post-configure", "failed"))),
            QUIESCED,
            id="failed in post-configure",
        ),
        pytest.param(
            OldRun(RunOutcome.HOOK_FAILED, (*DONE, ("migration", "failed"))),
            ACTIVATED,
            id="failed in migration.d",
        ),
        pytest.param(OldRun(RunOutcome.MIGRATION_FAILED, DONE), ACTIVATED, id="a database failed"),
        pytest.param(
            OldRun(RunOutcome.INTERRUPTED, (("pre-configure", "interrupted"),)),
            QUIESCED,
            id="interrupted in pre-configure",
        ),
        pytest.param(OldRun(None, (("pre-configure", None),)), QUIESCED, id="under way"),
        pytest.param(OldRun(None), UNTOUCHED, id="just begun"),
    ],
)
def test_from_1_to_2_it_is_found_out_whether_the_node_is_quiesced(
    state: pathlib.Path, run: OldRun, since: tuple[float | None, float | None]
) -> None:
    path = make_old(state, run)
    told = history(state)
    [(quiesced, activated)] = rows(path, "SELECT quiesced_since, activated_at FROM runs")
    assert (quiesced, activated) == since
    assert (told.quiesced is not None) == (since == QUIESCED)


def test_an_open_run_of_version_1_is_closed_as_any_other(state: pathlib.Path) -> None:
    make_old(state, SUCCESS, OldRun(None, (DONE[0], ("configure", None)), B), committed=A)
    with contextlib.closing(Journal(str(state))) as journal:
        assert journal.close_interrupted() == ("run-2",)
        told = journal.history()
    assert told.committed == A
    assert told.unfinished == Unfinished(B, 2, 0, interrupted=True, phase="configure", hook="10-a")
    assert told.quiesced is not None
    assert told.quiesced.run_id == "run-2"


def run(outcome: RunOutcome, documents: Fingerprints = A) -> OldRun:
    return OldRun(outcome, (), documents)


HOOK_FAILED, INTERRUPTED = RunOutcome.HOOK_FAILED, RunOutcome.INTERRUPTED


@pytest.mark.parametrize(
    ("runs", "failures"),
    [
        ([run(HOOK_FAILED)], 1),
        ([run(HOOK_FAILED), run(RunOutcome.MIGRATION_FAILED), run(HOOK_FAILED)], 3),
        ([run(HOOK_FAILED), run(INTERRUPTED), run(RunOutcome.DEFERRED), run(HOOK_FAILED)], 2),
        ([run(HOOK_FAILED), run(HOOK_FAILED), run(HOOK_FAILED, B), run(HOOK_FAILED)], 1),
        ([run(HOOK_FAILED), run(RunOutcome.SUCCESS), run(HOOK_FAILED)], 1),
        ([run(HOOK_FAILED), run(HOOK_FAILED, ()), run(HOOK_FAILED)], 2),
        ([run(HOOK_FAILED), run(RunOutcome.SUCCESS, ()), run(HOOK_FAILED)], 2),
        ([run(INTERRUPTED)], 0),
    ],
)
def test_from_1_to_2_failures_in_a_row_are_counted(
    state: pathlib.Path, runs: list[OldRun], failures: int
) -> None:
    """Runs by hand, without documents, count for nothing."""
    make_old(state, *runs)
    unfinished = history(state).unfinished
    assert unfinished is not None
    assert (unfinished.attempts, unfinished.failures) == (len(runs), failures)


@pytest.mark.parametrize("kind", [Kind.FULL, Kind.FULL_FROM_THERE, Kind.KILLED_BEFORE, Kind.KILLED_AFTER])
def test_an_upgrade_that_does_not_come_to_its_end_leaves_the_old_version_whole(
    state: pathlib.Path, kind: Kind
) -> None:
    path = make_old(state, SUCCESS, FAILED, committed=A)
    before, content = dump(path), path.read_bytes()
    versions = set()
    for number in itertools.count(1):
        for left in state.iterdir():
            left.unlink()
        path.write_bytes(content)
        faults = Faults(kind, number)
        with contextlib.suppress(Killed, StateError):
            Journal(str(state), faults.edge("an agent", "a boot")).close()
        (version,) = rows(path, "PRAGMA user_version")
        versions.add(version)
        assert version == (journal_schema.VERSION,) or dump(path) == before, faults.hit
        assert history(state).committed == A
        assert rows(path, "SELECT count(*), sum(failures) FROM runs") == [(2, 1)]
        if not faults.hit:
            break
    assert versions == {(1,), (journal_schema.VERSION,)}


def test_of_several_that_upgrade_it_at_once_one_does(state: pathlib.Path) -> None:
    path = make_old(state, SUCCESS, FAILED, committed=A)
    problems: list[Exception] = []
    start = threading.Barrier(8)

    def upgrade() -> None:
        start.wait()
        try:
            Journal(str(state)).close()
        except Exception as error:  # noqa: BLE001
            problems.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert history(state).committed == A
    assert rows(path, "SELECT count(*) FROM outputs") == [(3,)]


def test_that_of_a_newer_agent_is_left_alone(state: pathlib.Path) -> None:
    Journal(str(state)).close()
    path = state / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute(f"PRAGMA application_id = {journal_schema.MARK + 99}")
    before = path.read_bytes()
    with pytest.raises(
        StateError, match="is of version 99, this agent knows 3; it was written by a newer"
    ) as caught:
        Journal(str(state))
    assert caught.value.exit_code is ExitCode.STATE
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
