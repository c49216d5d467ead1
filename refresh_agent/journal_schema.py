"""The journal's tables, version by version; docs/journal.rst describes them.

A journal of an earlier version is brought up to date in place, one step after the other.
"""

from collections.abc import Iterator

CURRENT = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    trigger TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    reason TEXT NOT NULL,
    changed TEXT NOT NULL,          -- JSON list of document names
    documents TEXT NOT NULL,        -- JSON list of [name, fingerprint]; [] for a run by hand
    boot_id TEXT NOT NULL,
    agent TEXT NOT NULL,            -- the process that made it
    started_at REAL NOT NULL,       -- wall clock, for reports
    ended_at REAL,
    outcome TEXT,                   -- NULL while it runs
    failed_phase TEXT,
    failed_hook TEXT,
    failed_status INTEGER,
    failed_reason TEXT,
    failures INTEGER NOT NULL DEFAULT 0, -- how often these documents have failed in a row, with this run
    held INTEGER NOT NULL DEFAULT 0, -- 1: it is not tried again by itself
    quiesced_since REAL,            -- wall clock; it entered pre-configure, or one before it had
    activated_at REAL               -- wall clock; it got through post-configure
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
    pid INTEGER NOT NULL,           -- of its process, its process group and its session
    began INTEGER NOT NULL DEFAULT 0, -- when that process began, in the kernel's ticks since boot
    started_at REAL NOT NULL,
    seconds REAL,
    status INTEGER,
    outcome TEXT,                   -- NULL while it runs
    until REAL,                     -- seconds since boot, of one that was handed over; NULL for no end
    PRIMARY KEY (run, position)
) WITHOUT ROWID;
CREATE TABLE outputs (              -- apart from the hooks, so that looking at those is cheap
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,      -- as in hooks
    tail BLOB NOT NULL,             -- the end of what it wrote
    PRIMARY KEY (run, position)
);
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
    until REAL,                     -- seconds since boot; NULL for as long as it likes
    outcome TEXT                    -- NULL while it runs
) WITHOUT ROWID;
CREATE TABLE committed (
    position INTEGER PRIMARY KEY,
    document TEXT NOT NULL UNIQUE,
    fingerprint TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (id)
)
"""

_FROM_1_TO_2 = """
ALTER TABLE runs ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN quiesced_since REAL;
ALTER TABLE runs ADD COLUMN activated_at REAL;
UPDATE runs SET failures = (
    SELECT count(*) FROM runs AS earlier
    WHERE earlier.outcome IN ('hook failed', 'migration failed') AND earlier.documents = runs.documents
    AND earlier.id <= runs.id AND earlier.id > (
        SELECT ifnull(max(other.id), 0) FROM runs AS other
        WHERE other.id < runs.id AND other.documents <> '[]'
        AND (other.outcome = 'success' OR other.documents <> runs.documents)
    )
) WHERE id = (SELECT max(id) FROM runs WHERE documents <> '[]');
UPDATE runs SET quiesced_since = started_at
    WHERE EXISTS (SELECT 1 FROM phases WHERE run = runs.id AND phase = 'pre-configure');
UPDATE runs SET activated_at = ifnull(ended_at, started_at)
    WHERE outcome = 'success' OR EXISTS (SELECT 1 FROM phases WHERE run = runs.id AND (
        phase = 'migration' OR phase = 'post-configure' AND outcome = 'done'
    ));
CREATE TABLE outputs (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    tail BLOB NOT NULL,
    PRIMARY KEY (run, position)
);
INSERT INTO outputs SELECT run, position, tail FROM hooks WHERE length(tail) > 0;
ALTER TABLE hooks RENAME TO hooks_1;
CREATE TABLE hooks (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    phase TEXT NOT NULL,
    hook TEXT NOT NULL,
    hook_id TEXT NOT NULL,
    pid INTEGER NOT NULL,
    began INTEGER NOT NULL DEFAULT 0,
    started_at REAL NOT NULL,
    seconds REAL,
    status INTEGER,
    outcome TEXT,
    PRIMARY KEY (run, position)
) WITHOUT ROWID;
INSERT INTO hooks SELECT run, position, phase, hook, hook_id, pid, 0, started_at, seconds, status, outcome
    FROM hooks_1;
DROP TABLE hooks_1;
ALTER TABLE workers RENAME TO workers_1;
CREATE TABLE workers (
    hook_id TEXT PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    pid INTEGER NOT NULL,
    started_at REAL NOT NULL,
    until REAL,
    outcome TEXT
) WITHOUT ROWID;
INSERT INTO workers SELECT hook_id, run, pid, started_at, NULL, outcome FROM workers_1;
DROP TABLE workers_1
"""

_FROM_2_TO_3 = "ALTER TABLE hooks ADD COLUMN until REAL"

STEPS = (_FROM_1_TO_2, _FROM_2_TO_3)
"""The n-th brings a journal from version n to n + 1."""

VERSION = len(STEPS) + 1

MARK = 0x52664100
"""A journal of version n has the application id ``MARK`` + n, from version 2 on. A file that claims to be of
a later version, and has another, is damaged: nobody wrote it so.
"""

TABLES = ("runs", "phases", "hooks", "migrations", "workers", "committed")
"""What decisions and reports depend on; ``outputs`` is large, and only for people."""


def bringing_up_to_date(version: int) -> Iterator[str]:
    """The statements that make a journal of ``version`` one of ours; of 0, an empty one."""
    for script in STEPS[version - 1 :] if version else (CURRENT,):
        yield from statements(script)


def statements(script: str) -> list[str]:
    """One by one: executescript would end the transaction."""
    return script.split(";\n")
