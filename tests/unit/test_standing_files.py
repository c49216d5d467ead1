"""What a reader makes of the journal's files: whole, of another version, damaged, on a disk that fails."""

import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from refresh_agent import journal_file, journal_schema, standing
from refresh_agent.errors import ExitCode, StateError
from refresh_agent.standing import Standing
from tests.unit.known_node import Node
from tests.unit.support import looping_link


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Iterator[Node]:
    node = Node(str(tmp_path / "state"))
    yield node
    node.journal.close()


def listed(node: Node) -> set[str]:
    return set(os.listdir(node.state))


def test_a_look_leaves_no_trace(node: Node) -> None:
    node.succeed()
    node.journal.close()
    before, trace = listed(node), journal_file.trace(node.state)
    assert node.read().success is not None
    assert listed(node) == before == {"journal.sqlite"}
    assert journal_file.trace(node.state) == trace


def test_it_reads_while_another_writes(node: Node) -> None:
    node.succeed()
    with node.journal._file.durably("written"):
        assert node.read().success is not None


def test_what_a_killed_agent_has_left_in_the_log_is_read_too(node: Node, tmp_path: pathlib.Path) -> None:
    node.succeed()
    copy = tmp_path / "copy"
    copy.mkdir()
    for suffix in ("", "-wal"):
        copy.joinpath(f"journal.sqlite{suffix}").write_bytes(pathlib.Path(node.path + suffix).read_bytes())
    assert standing.read(str(copy), lambda: None).success is not None


def test_a_journal_of_an_earlier_version_is_read_and_stays_as_it_is(
    tmp_path: pathlib.Path, node: Node
) -> None:
    """As version 1 had it; what it lacks is added to a copy in memory."""
    old = tmp_path / "old"
    old.mkdir()
    path = old / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(
            """
            CREATE TABLE runs (id INTEGER PRIMARY KEY, run_id TEXT, trigger TEXT, attempt INTEGER,
                reason TEXT, changed TEXT, documents TEXT, boot_id TEXT, agent TEXT, started_at REAL,
                ended_at REAL, outcome TEXT, failed_phase TEXT, failed_hook TEXT, failed_status INTEGER,
                failed_reason TEXT);
            CREATE TABLE phases (run INTEGER, phase TEXT, started_at REAL, ended_at REAL, outcome TEXT);
            CREATE TABLE hooks (run INTEGER, position INTEGER, phase TEXT, hook TEXT, hook_id TEXT,
                pid INTEGER, started_at REAL, seconds REAL, status INTEGER, outcome TEXT, tail BLOB);
            CREATE TABLE migrations (run INTEGER, target TEXT, outcome TEXT, before TEXT, after TEXT,
                message TEXT, seconds REAL);
            CREATE TABLE workers (hook_id TEXT, run INTEGER, pid INTEGER, started_at REAL, outcome TEXT);
            INSERT INTO runs VALUES (1, 'abc', 'change', 1, '', '[]', '[["heat", "1"]]', '', '', 5.0, 6.0,
                'hook failed', 'configure', '20-b', 42, 'failed with status 42');
            INSERT INTO phases VALUES (1, 'pre-configure', 5.0, 5.5, 'done');
            INSERT INTO hooks VALUES (1, 1, 'configure', '20-b', 'x', 7, 5.0, 0.1, 42, 'exited', x'6f6f7073');
            PRAGMA user_version = 1;
            """
        )
    content = path.read_bytes()
    known = standing.read(str(old), lambda: None)
    assert known.trouble == ""
    assert known.failure is not None
    assert (known.failure.failures, known.failure.output) == (1, ("oops",))
    assert known.quiesced is not None
    assert path.read_bytes() == content


def set_version(node: Node, version: int) -> None:
    node.journal._db.execute(f"PRAGMA user_version = {version}")
    node.journal.close()


def truncate(node: Node) -> None:
    node.journal.close()
    os.truncate(node.path, os.path.getsize(node.path) // 2)


def overwrite(node: Node) -> None:
    node.journal.close()
    pathlib.Path(node.path).write_bytes(b"garbage" * 1000)


def drop_a_table(node: Node) -> None:
    node.journal._db.execute("DROP TABLE migrations")


def replace_by_a_directory(node: Node) -> None:
    node.journal.close()
    os.unlink(node.path)
    os.mkdir(node.path)


def replace_by_a_fifo(node: Node) -> None:
    node.journal.close()
    os.unlink(node.path)
    os.mkfifo(node.path)


def put_in_a_text(node: Node) -> None:
    node.journal._db.execute("UPDATE runs SET started_at = 'yesterday'")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda node: set_version(node, journal_schema.VERSION + 1), "this agent knows"),
        (lambda node: set_version(node, -1), "it is of version -1"),
        (truncate, "malformed"),
        (overwrite, "not a database"),
        (drop_a_table, "no such table"),
        (replace_by_a_directory, "Is a directory"),
        (replace_by_a_fifo, "not a regular file"),
        (put_in_a_text, "could not convert string to float"),
    ],
)
def test_a_journal_that_cannot_be_read_is_told_in_words(
    node: Node, damage: Callable[[Node], None], words: str
) -> None:
    node.succeed()
    damage(node)
    trouble = node.read().trouble
    assert trouble.startswith(f"{node.path}: the journal cannot be read: ")
    assert words in trouble


def test_one_cut_or_zeroed_anywhere_is_read_or_told(node: Node) -> None:
    node.fail()
    node.journal.close()
    whole = pathlib.Path(node.path).read_bytes()
    for length in range(0, len(whole), 1009):
        for rest in (b"", bytes(len(whole) - length)):
            pathlib.Path(node.path).write_bytes(whole[:length] + rest)
            assert isinstance(node.read(), Standing)


def test_a_directory_that_may_not_be_read_is_an_error(tmp_path: pathlib.Path) -> None:
    looping_link(tmp_path / "state")
    with pytest.raises(StateError, match="cannot be read: Too many levels") as caught:
        standing.read(str(tmp_path / "state"), lambda: None)
    assert caught.value.exit_code is ExitCode.STATE


@pytest.mark.parametrize(
    "code",
    [sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_FULL],
)
def test_on_a_disk_that_is_read_only_or_full_it_is_said_what_is_missing(
    node: Node, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite reads its write-ahead log only beside files of its own, and cannot make them there."""
    node.succeed()
    asked = []

    @contextlib.contextmanager
    def opened(path: str, *, immutable: bool) -> Iterator[sqlite3.Connection]:
        asked.append(immutable)
        if not immutable:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = code
            raise error
        with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as db:
            yield db

    monkeypatch.setattr(standing, "_opened", opened)
    trouble = node.read().trouble
    assert trouble == f"{node.path}: what came last cannot be read: unable to open database file"
    assert asked == [False, True]
    node.journal.close()
    assert node.read().success is not None
    assert node.read().trouble == ""
