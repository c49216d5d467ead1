"""Backups by SQLite itself, and what is left if one fails."""

import contextlib
import os
import pathlib
import signal
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from refresh_agent.db.worker import backup_sqlite
from refresh_agent.db.worker.backup import Occasion
from refresh_agent.db.worker.faults import TargetError
from refresh_agent.db.worker.stopping import Stopped
from tests.integration.conftest import sql
from tests.integration.db_backup.conftest import Take


def backups(folder: pathlib.Path) -> list[str]:
    """Whatever lies beside the database, also what should not."""
    return sorted(path.name for path in folder.iterdir() if path.name not in {"new.db", "tmp"})


def test_backup_beside_the_file(take: Take, shop: pathlib.Path) -> None:
    copy = shop.with_name("new.db.backup-alembic-5a1e-20261121T165000Z")
    assert take(shop, "builtin") == f"backup in {copy}"
    assert sql(copy, "SELECT * FROM orders") == [(1, 2)]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert backups(shop.parent) == [copy.name]


def test_backup_in_a_directory(take: Take, shop: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "safe place").mkdir()
    take(shop, f"builtin:{tmp_path}/safe place")
    assert len(list((tmp_path / "safe place").iterdir())) == 1
    assert backups(shop.parent) == ["safe place"]


def test_no_backup_takes_the_place_of_another(take: Take, shop: pathlib.Path) -> None:
    first, second = take(shop, "builtin"), take(shop, "builtin")
    assert second == f"{first}-2"
    assert len(backups(shop.parent)) == 2


@pytest.mark.parametrize(
    ("version", "label"),
    [
        ("migrate 2", "migrate-2"),
        ("alembic a+b", "alembic-a-b"),
        ("empty", "empty"),
        ("alembic ../../x", "alembic-..-..-x"),
        ("…", "unknown"),
        ("x" * 300, "x" * 80),
    ],
)
def test_version_in_the_name(version: str, label: str) -> None:
    assert Occasion("shop", version).label == label


def test_time_in_the_name() -> None:
    assert len(Occasion("shop", "empty").time) == len("20261121T165000Z")


def test_path_with_marks(take: Take, shop: pathlib.Path) -> None:
    strange = shop.rename(shop.with_name("a 100% #1.db"))
    # SQLAlchemy 2 unquotes the path of a URL.
    taken = take(f"sqlite:///{str(strange).replace('%', '%25')}", "builtin")
    assert sql(pathlib.Path(taken.removeprefix("backup in ")), "SELECT * FROM orders") == [(1, 2)]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_others_have_written_but_not_committed_is_not_in_it(
    mode: str, take: Take, shop: pathlib.Path
) -> None:
    with contextlib.closing(sqlite3.connect(shop, isolation_level=None)) as other:
        other.execute(f"PRAGMA journal_mode={mode}")
        other.execute("INSERT INTO orders VALUES (2, 3)")
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO orders VALUES (3, 4)")
        copy = pathlib.Path(take(shop, "builtin").removeprefix("backup in "))
        other.execute("COMMIT")
    assert sql(copy, "SELECT id FROM orders") == [(1,), (2,)]
    assert sql(shop, "SELECT count(*) FROM orders") == [(3,)]
    assert [name for name in backups(shop.parent) if not name.endswith(("-wal", "-shm"))] == [copy.name]


def test_a_writer_meanwhile_does_not_keep_it_from_ending(take: Take, shop: pathlib.Path) -> None:
    """Every commit of another process would make SQLite's backup begin anew."""
    sql(
        shop, "PRAGMA journal_mode=wal", "CREATE TABLE big AS SELECT 1 AS number, zeroblob(1) AS data WHERE 0"
    )
    sql(shop, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)"
        " INSERT INTO big SELECT i, randomblob(4000) FROM n")  # fmt: skip
    ended = threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(shop, isolation_level=None, timeout=30)) as other:
            while not ended.is_set():
                other.execute("UPDATE big SET number = number + 1 WHERE number % 500 = 0")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copy = pathlib.Path(take(shop, "builtin").removeprefix("backup in "))
    finally:
        ended.set()
        writer.join()
    assert sql(copy, "SELECT count(*) FROM big") == [(4000,)]


def test_damaged_database(take: Take, shop: pathlib.Path) -> None:
    sql(shop, "CREATE INDEX i ON orders (price)", "CREATE TABLE more AS SELECT randomblob(3000) AS a",
        "INSERT INTO more SELECT randomblob(3000) FROM more")  # fmt: skip
    content = bytearray(shop.read_bytes())
    content[4096 + 100 :] = b"\xff" * (len(content) - 4096 - 100)
    shop.write_bytes(content)
    with pytest.raises(TargetError, match=r"damaged|not an SQLite|malformed"):
        take(shop, "builtin")
    assert backups(shop.parent) == []


def test_file_that_is_no_database(take: Take, shop: pathlib.Path) -> None:
    shop.write_text("just some words, more than there are in an SQLite header\n" * 50)
    with pytest.raises(TargetError, match="is not an SQLite database; correct connection"):
        take(shop, "builtin")
    assert backups(shop.parent) == []


def test_empty_file(take: Take, new_database: pathlib.Path) -> None:
    copy = pathlib.Path(take(new_database, "builtin", Occasion("shop", "empty")).removeprefix("backup in "))
    assert sql(copy, "SELECT * FROM sqlite_master") == []


def test_too_little_space(take: Take, shop: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(shop.parent)
    full = os.statvfs_result((*real[:3], 0, 0, *real[5:]))
    monkeypatch.setattr(backup_sqlite.os, "statvfs", lambda _path: full)
    message = rf"0\.0 MiB in {shop.parent}, which has 0\.0 MiB left; nothing was changed; make room, or name"
    with pytest.raises(TargetError, match=message):
        take(shop, "builtin")
    assert backups(shop.parent) == []


def test_disk_that_fills_up_meanwhile(shop: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """On a disk of its own; somebody else has taken the room that was there at the look."""
    sql(shop, "CREATE TABLE big AS SELECT randomblob(3000000) AS data")
    disk = tmp_path / "disk"
    disk.mkdir()
    program = (
        "import os, sys\n"
        "from refresh_agent.db.worker import backup_sqlite, faults, stopping\n"
        "backup_sqlite._check_space = lambda *_: None\n"
        "try:\n"
        "    backup_sqlite.take(sys.argv[1], sys.argv[2], 'backup-x', stopping.Stopping())\n"
        "except faults.TargetError as fault:\n"
        "    print(fault, os.listdir(sys.argv[2]))\n"
    )
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$4" "$1"'
    command = ["unshare", "--mount", *user, "sh", "-c", script, "sh", disk, sys.executable, program, shop]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ended.stdout.startswith(f"backup: {disk} is full now; nothing was changed; make room, or name")
    assert ended.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("builtin:relative", "relative is not an absolute path; write builtin:/absolute/path"),
        ("builtin:/not/there", "the directory /not/there does not exist; create it"),
        ("builtin:/proc", "/proc/.* cannot be written: .*; nothing was changed"),
    ],
)
def test_directory_that_will_not_do(option: str, message: str, take: Take, shop: pathlib.Path) -> None:
    with pytest.raises(TargetError, match=message):
        take(shop, option)


def test_killed_in_the_middle_leaves_nothing_under_the_final_name(shop: pathlib.Path) -> None:
    """The end comes right before the new name."""
    program = (
        "import os, signal, sys\n"
        "from refresh_agent.db.worker import backup_sqlite, stopping\n"
        "backup_sqlite._verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "backup_sqlite.take(sys.argv[1], '', 'backup-x', stopping.Stopping())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, shop], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [name for name in backups(shop.parent) if not name.startswith(".new.db.")] == []


def test_stop_during_a_copy(take: Take, shop: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sql(shop, "CREATE TABLE big AS SELECT randomblob(1000000) AS data")
    monkeypatch.setattr(backup_sqlite, "_PAGES", 1)
    real = backup_sqlite._check_space

    def stop(folder: str, needed: int) -> None:
        real(folder, needed)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(backup_sqlite, "_check_space", stop)
    with pytest.raises(Stopped, match="refresh-agent is stopping"):
        take(shop, "builtin")
    assert backups(shop.parent) == []


# --- real servers ----------------------------------------------------------------------------------------
