"""What the journal's rows say of the past, for whoever decides or reports. Reads only."""

import json
import sqlite3

from refresh_agent.model import History, Quiesced, RunOutcome, Unfinished


def read(db: sqlite3.Connection) -> History:
    """What was committed, the last run if it did not succeed, and whether the node is quiesced.

    A run by hand is for no documents (``[]``): but for that last point, nothing follows from it.
    """
    committed = tuple(
        (str(document), str(fingerprint))
        for document, fingerprint in db.execute(
            "SELECT document, fingerprint FROM committed ORDER BY position"
        )
    )
    succeeded = db.execute(
        "SELECT max(id) FROM runs WHERE outcome = ? AND documents != '[]'", (RunOutcome.SUCCESS,)
    ).fetchone()[0]
    return History(committed or None, _unfinished(db, succeeded or 0), quiesced(db))


def _unfinished(db: sqlite3.Connection, succeeded: int) -> Unfinished | None:
    """The newest run, if it is after the last success."""
    row = db.execute(
        "SELECT documents, attempt, failures, outcome, failed_phase, failed_hook FROM runs"
        " WHERE id > ? AND documents != '[]' ORDER BY id DESC LIMIT 1",
        (succeeded,),
    ).fetchone()
    if row is None:
        return None
    documents = tuple((str(name), str(fingerprint)) for name, fingerprint in json.loads(row[0]))
    deferred = row[3] == RunOutcome.DEFERRED
    # What was deferred is no attempt: the next run has its number again.
    attempts = int(row[1]) - deferred
    interrupted = row[3] in {RunOutcome.INTERRUPTED, None}
    return Unfinished(documents, attempts, int(row[2]), interrupted, row[4] or "", row[5] or "", deferred)


def quiesced(db: sqlite3.Connection) -> Quiesced | None:
    """What the newest run that says anything about it has left: see ``model.Quiesced``."""
    row = db.execute(
        "SELECT quiesced_since, run_id, attempt, outcome, failed_phase, failed_hook, activated_at"
        " FROM runs WHERE quiesced_since IS NOT NULL OR activated_at IS NOT NULL"
        " ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None or row[6] is not None:
        return None
    interrupted = row[3] in {RunOutcome.INTERRUPTED, None}
    return Quiesced(float(row[0]), str(row[1]), int(row[2]), interrupted, row[4] or "", row[5] or "")


def position(db: sqlite3.Connection, row: int) -> tuple[str, str]:
    """Phase and hook where a run without an end stands, from what was written as they began."""
    (migrates,) = db.execute(
        "SELECT activated_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM phases WHERE run = runs.id"
        " AND phases.outcome IS NULL) FROM runs WHERE id = ?",
        (row,),
    ).fetchone()
    if migrates:
        return "migration", ""  # the last phase is over when the databases' turn comes
    hook = db.execute(
        "SELECT phase, hook FROM hooks WHERE run = ? ORDER BY outcome IS NULL DESC, position DESC LIMIT 1",
        (row,),
    ).fetchone()
    # When all are over, not by their times alone: the clock may have been set back since.
    phase = db.execute(
        "SELECT phase FROM phases WHERE run = ? ORDER BY outcome IS NULL DESC, (SELECT max(position)"
        " FROM hooks WHERE hooks.run = phases.run AND hooks.phase = phases.phase) DESC, started_at DESC"
        " LIMIT 1",
        (row,),
    ).fetchone()
    if phase is None:
        return "", ""
    return str(phase[0]), str(hook[1]) if hook is not None and hook[0] == phase[0] else ""
