"""SQLite: flock on a file beside the database's, which tells who holds it.

Never on the database file, and never opening it: with any of its descriptors a process closes all the locks
that SQLite has on it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .database import Database
from .faults import TargetError
from .lock_base import LOST, NOBODY, Holder, Lock, Obstacle

SUFFIX = ".refresh-agent.lock"

_SAFELY = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LONGEST = 4096
"""Bytes of a holder's JSON."""


class SqliteLock(Lock):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        # Whichever way leads to the file, there is one lock.
        self._file = os.path.realpath(database.file)
        self._path = self._file + SUFFIX
        self._descriptor = -1
        self._held = False

    def attempt(self, mine: Holder, tell: Callable[[str], None]) -> Obstacle | None:  # noqa: ARG002
        """The kernel gives the lock back when its holder ends, so there is never anything to take over."""
        if self._descriptor < 0:
            self._descriptor = self._open_to_lock()
        if not self._flock(fcntl.LOCK_EX):
            holder = self._read()
            return Obstacle(holder, f"its database is being migrated by {holder}")
        if not self._is_in_place():
            # Removed since it was opened, so the next one locks another file.
            self.close()
            return Obstacle(None, f"{self._path} was removed")
        self._held = True
        self._write(json.dumps(asdict(mine)).encode())
        return None

    def verify(self) -> None:
        if not self._is_in_place():
            raise TargetError(LOST.format(f"{self._path} was removed or replaced"))

    def admit(self, dbapi_connection: Any) -> None:
        """Nothing of a dead worker goes on: SQLite works in the worker's process."""

    def close(self) -> None:
        if self._descriptor < 0:
            return
        if self._held:
            self._write(b"")
        os.close(self._descriptor)
        self._descriptor = -1
        self._held = False

    def holder(self) -> Holder | None:
        try:
            self._descriptor = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable("opened", error) from error
        return None if self._flock(fcntl.LOCK_SH) else self._read()

    def unlock(self) -> str:
        holder = self.holder()
        if holder is None:
            return "its database is not locked"
        raise TargetError(
            f"its database is being migrated by {holder}; the lock ends with that process: wait for its end,"
            " or end it"
        )

    def _open_to_lock(self) -> int:
        try:
            try:
                return self._open(os.O_RDWR)
            except FileNotFoundError:
                return self._make()
        except OSError as error:
            raise self._unusable("opened", error) from error

    def _open(self, flags: int) -> int:
        descriptor = os.open(self._path, flags | _SAFELY)
        found = os.fstat(descriptor)
        # A second name could be that of any file, and we write.
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(descriptor)
            raise TargetError(f"{self._path} is not a file of ours, so it was not touched; remove it")
        return descriptor

    def _make(self) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFELY, 0o600)
        except FileExistsError:
            return self._open(os.O_RDWR)
        if os.geteuid() == 0:
            owner = os.stat(self._file)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor

    def _unusable(self, what: str, error: OSError) -> TargetError:
        reason = os.strerror(error.errno or 0)
        if error.errno == errno.ELOOP:
            return TargetError(f"{self._path} is a symbolic link, so it was not touched; remove it")
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            return TargetError(
                f"the lock file {self._path} cannot be {what}: {reason}; the user who migrates must be"
                " allowed to write to it and to its directory, as SQLite itself has to"
            )
        return TargetError(f"the lock file {self._path} cannot be {what}: {reason}")

    def _flock(self, how: int) -> bool:
        try:
            fcntl.flock(self._descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._unusable("locked", error) from error
        return True

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path))
        except OSError:
            return False

    def _read(self) -> Holder:
        """Who says so in the file; a holder who has not come to it, or could not, is nobody in particular."""
        try:
            fields = json.loads(os.pread(self._descriptor, _LONGEST, 0))
            return Holder(
                str(fields["host"]),
                int(fields["pid"]),
                str(fields["run"]),
                str(fields["target"]),
                str(fields["since"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return NOBODY

    def _write(self, text: bytes) -> None:
        """For people; a full disk must not keep the lock from being taken."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text, 0)
