"""What the journal's rows say of the past, for whoever decides or reports. Reads only."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from refresh_agent.model import History, Quiesced, RunOutcome, Unfinished


def read(db: sqlite3.Connection, boot_id: str) -> History:
    """What was committed, the newest run if it did not succeed, whether the node is quiesced, and whether
    that run was in another boot than ``boot_id``.

    A run by hand is for no documents (``[]``): nothing follows from it, but that the node may be quiesced.
    """
    committed = tuple(
        (str(document), str(fingerprint))
        for document, fingerprint in db.execute(
            "SELECT document, fingerprint FROM committed ORDER BY position"
        )
    )
    newest = db.execute(
        "SELECT documents, attempt, failures, outcome, failed_phase, failed_hook, boot_id FROM runs"
        " WHERE documents != '[]' ORDER BY id DESC LIMIT 1"
    ).fetchone()
    booted = newest is not None and newest[6] != boot_id
    return History(committed or None, _unfinished(newest), quiesced(db), booted)


def _unfinished(row: Sequence[Any] | None) -> Unfinished | None:
    """What is left of the newest run, unless it succeeded."""
    if row is None or row[3] == RunOutcome.SUCCESS:
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
