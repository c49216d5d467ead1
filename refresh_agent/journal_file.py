"""The journal's file: opened, brought up to date and checked; set aside if it is damaged.

It uses SQLite in WAL mode. What must survive a power loss is written with synchronous=FULL, what happens in
between with NORMAL: that survives a killed process, at a hundredth of the price.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from refresh_agent import files, journal_schema
from refresh_agent.errors import DamagedError, StateError

BUSY_SECONDS = 10.0
"""How long a writer waits for another command that writes; none holds the file for more than milliseconds."""

COMPANIONS = ("-wal", "-shm")
"""SQLite's own files beside it. They hold what is not in the file yet."""

SETS_KEPT = 3
"""Damaged journals that are kept for whoever wants to look into them."""

ROOM = 65536
"""Bytes. With less, a disk counts as full: SQLite's own files do not fit."""

_OF_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        # In a journal that is whole, our statements find their tables and break no constraint.
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
    }
)


_OF_VALUES = (ValueError, TypeError, OverflowError, RecursionError)
"""What comes of reading a value that no agent writes."""


def connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)


def since_boot() -> float:
    """Seconds, the time of suspension included: not stretched or cut by a clock that is set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Changes at every boot of the node; empty where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


class Edge(NamedTuple):
    """Where the journal meets what it does not control: the file, the clocks, the boot. Tests give others.

    ``agent``: this process, in the journal. What it has not been able to record is not what a dead agent left
    running.
    """

    connect: Callable[[str], sqlite3.Connection] = connect
    wall: Callable[[], float] = time.time
    since_boot: Callable[[], float] = since_boot
    boot_id: Callable[[], str] = boot_id
    agent: str = os.urandom(8).hex()


class JournalFile:
    """The open file. Everything raises StateError; DamagedError if the content is not what it should be."""

    def __init__(self, state_dir: str, edge: Edge) -> None:
        self.path = path_in(state_dir)
        self.damaged = False
        with self.explained("opened"):
            files.make_directory(state_dir, 0o700)
            # Made with its mode before SQLite would make it with the umask's; its companions follow it.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            self._identity = _identity(self.path)
            self.db = edge.connect(self.path)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with self.explained("closed"):
            self.db.close()

    def check(self) -> None:
        """Whether SQLite finds everything in its place, indexes too, but for the hooks' output."""
        with self.explained("used"):
            for table in journal_schema.TABLES:
                (found,) = self.db.execute(f"PRAGMA integrity_check({table})").fetchone()
                if found != "ok":
                    raise sqlite3.DatabaseError(found)

    def refuse_if_replaced(self) -> None:
        if _identity(self.path) != self._identity:
            raise StateError(f"{self.path}: the journal was removed or replaced during the run")

    @contextlib.contextmanager
    def durably(self, verb: str) -> Iterator[None]:
        """One transaction that a power loss does not take back."""
        with self.explained(verb):
            self.db.execute("PRAGMA synchronous = FULL")
            try:
                with self._transaction():
                    yield
            finally:
                self.db.execute("PRAGMA synchronous = NORMAL")

    @contextlib.contextmanager
    def durably_at_last(self, verb: str) -> Iterator[None]:
        """As ``durably``, for what is written shortly before the file is closed.

        To close it, SQLite brings into the file itself what it has written beside it, and waits for the disk
        twice: for what it reads then, and for what it writes. Done here, the first makes this durable.
        """
        with self.together(verb):
            yield
        if not self._brought_in():
            with self.durably(verb):  # it need not say anything new: what is before it becomes durable too
                self.db.execute(f"PRAGMA user_version = {journal_schema.VERSION}")

    def _brought_in(self) -> bool:
        """Whether all that was written is durable in the file itself; not if another process still reads."""
        try:
            busy, written, brought_in = self.db.execute("PRAGMA wal_checkpoint").fetchone()
        except sqlite3.Error:
            return False
        return not busy and brought_in == written

    @contextlib.contextmanager
    def together(self, verb: str) -> Iterator[None]:
        """One transaction that survives a killed process."""
        with self.explained(verb), self._transaction():
            yield

    @contextlib.contextmanager
    def explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, *_OF_VALUES) as error:
            text = f"{self.path}: the journal cannot be {verb}: {error}{_of_disk(error, self.path)}"
            if _tells_of_damage(error):
                self.damaged = True
                raise DamagedError(f"{text}; it is damaged") from error
            raise StateError(text) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self.db.execute("BEGIN IMMEDIATE")
            yield
            self.db.execute("COMMIT")
        except BaseException:
            # A transaction that SQLite itself took back is over; what hinders this one hinders that too.
            with contextlib.suppress(sqlite3.Error):
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
            raise

    def _prepare(self) -> None:
        with self.explained("used"):
            self.db.execute("PRAGMA foreign_keys = ON")
            self.db.execute("PRAGMA synchronous = NORMAL")
            version = self._version()
            self.is_new = version == 0
            if self.is_new:
                self.db.execute("PRAGMA journal_mode = WAL")
            if not 0 <= version <= journal_schema.VERSION:
                self._refuse_damaged(version)
                raise StateError(
                    f"{self.path}: is of version {version}, this agent knows {journal_schema.VERSION};"
                    " it was written by a newer one"
                )
        if version < journal_schema.VERSION:
            with self.durably("brought up to date" if version else "made"):
                self._upgrade(self._version())  # another command may have done it since

    def _version(self) -> int:
        return int(self.db.execute("PRAGMA user_version").fetchone()[0])

    def _upgrade(self, version: int) -> None:
        for statement in journal_schema.bringing_up_to_date(version):
            self.db.execute(statement)
        self.db.execute(f"PRAGMA application_id = {journal_schema.MARK + journal_schema.VERSION}")
        self.db.execute(f"PRAGMA user_version = {journal_schema.VERSION}")

    def _refuse_damaged(self, version: int) -> None:
        (mark,) = self.db.execute("PRAGMA application_id").fetchone()
        if mark != journal_schema.MARK + version:
            raise sqlite3.DatabaseError(f"it claims to be of version {version}")


def path_in(state_dir: str) -> str:
    return os.path.join(state_dir, "journal.sqlite")


def trace(state_dir: str) -> tuple[object, ...]:
    """How the files look from outside; whoever writes to the journal changes that."""
    path = path_in(state_dir)
    return tuple(_look(path + suffix) for suffix in ("", COMPANIONS[0]))


def _look(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def set_aside(state_dir: str, now: float) -> str:
    """Rename a damaged journal, so that the next is a new one; its new path. ``now``: wall clock.

    Only for who holds the run lock. Raises StateError.
    """
    path = path_in(state_dir)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.localtime(now))
    aside = f"{path}.damaged-{stamp}-{os.urandom(2).hex()}"
    try:
        # Its companions last: without them it may look whole, and lack what came last. SQLite does not take
        # them for those of a new file, which begins empty.
        for suffix in ("", *COMPANIONS):
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + suffix, aside + suffix)
        files.sync_directory(state_dir)
        _let_go_of_old(state_dir, os.path.basename(aside))
    except OSError as error:
        raise StateError(f"{path}: cannot be set aside: {files.reason(error)}") from error
    return aside


def were_set_aside(state_dir: str) -> list[str]:
    """The names of damaged journals that are kept, and of their companions, by their age."""
    prefix = f"{os.path.basename(path_in(state_dir))}.damaged-"
    return sorted(name for name in os.listdir(state_dir) if name.startswith(prefix))


def _let_go_of_old(state_dir: str, newest: str) -> None:
    """``newest`` stays in any case: its age is the clock's, which may have been set back."""
    entries = were_set_aside(state_dir)
    sets = [name for name in entries if not name.endswith(COMPANIONS) and name != newest]
    for old in sets[: 1 - SETS_KEPT]:
        for name in entries:
            if name.startswith(old):
                os.unlink(os.path.join(state_dir, name))


def _tells_of_damage(error: Exception) -> bool:
    """What is wrong with the content, and not with the disk, the permissions or another's lock."""
    if isinstance(error, OSError):
        return False
    if not isinstance(error, sqlite3.Error):
        return True  # a value that no agent writes
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # ours, or Python's own: text that is not UTF-8
        return type(error) in {sqlite3.DatabaseError, sqlite3.OperationalError}
    # A file that could be opened for writing, and says that it must not be written to.
    return code == sqlite3.SQLITE_READONLY or code & 0xFF in _OF_DAMAGE


def _of_disk(error: Exception, path: str) -> str:
    """SQLite says "disk I/O error", too, of a disk without room for its own files."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    with contextlib.suppress(OSError):
        disk = os.statvfs(os.path.dirname(path))
        if code & 0xFF == sqlite3.SQLITE_IOERR and disk.f_bavail * disk.f_frsize < ROOM:
            return " (No space left on device)"
    return ""


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
