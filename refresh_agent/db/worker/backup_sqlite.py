"""A copy of an SQLite database by SQLite's own backup API: of one moment, whoever writes meanwhile."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from urllib.parse import quote

from .faults import TargetError, foreign
from .stopping import Stopping

_PAGES = 1024
"""Copied between two looks whether a stop was asked for."""

_BUSY = 30.0
"""Seconds to wait for somebody who is writing."""

_ADVICE = "nothing was changed; make room, or name another directory: backup = builtin:/absolute/path"

_COMPANIONS = ("", "-journal", "-wal", "-shm")


def take(file: str, directory: str, suffix: str, stopping: Stopping) -> str:
    """Copy the database ``file`` to a new file FILE.SUFFIX; return its path.

    ``directory``: where to, "" for that of the file itself. The copy is complete, on the disk and readable
    before it gets its name. Raises TargetError.
    """
    folder = directory or os.path.dirname(os.path.realpath(file))
    _check_directory(folder)
    # Not the path of a link's target only: a backup is found under the name that people use.
    wanted = os.path.join(folder, f"{os.path.basename(file)}.{suffix}")
    temporary = os.path.join(folder, f".{os.path.basename(file)}.{secrets.token_hex(4)}")
    try:
        _create(temporary)
        foreign(lambda: _copy(file, temporary, stopping), file)
        _verify(temporary, file)
        path = _give_name(temporary, wanted)
    except OSError as error:
        raise TargetError(
            f"backup: {wanted} cannot be written: {error.strerror or error}; nothing was changed"
        ) from error
    finally:
        for companion in _COMPANIONS:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary + companion)
    return path


def _check_directory(folder: str) -> None:
    if not os.path.isabs(folder):
        raise TargetError(f"backup: {folder} is not an absolute path; write builtin:/absolute/path")
    if not os.path.isdir(folder):
        raise TargetError(f"backup: the directory {folder} does not exist; create it")


def _create(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _copy(file: str, copy: str, stopping: Stopping) -> None:
    uri = f"file:{quote(os.path.abspath(file))}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY, isolation_level=None)) as source:
        # A read transaction around it all: else SQLite begins anew whenever somebody writes.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        _check_space(os.path.dirname(copy), _size(source))
        with contextlib.closing(sqlite3.connect(copy)) as target:
            try:
                source.backup(target, pages=_PAGES, progress=lambda *_: stopping.check(), sleep=0)
            except sqlite3.OperationalError as error:
                if "full" not in str(error):
                    raise
                raise TargetError(f"backup: {os.path.dirname(copy)} is full now; {_ADVICE}") from error


def _size(source: sqlite3.Connection) -> int:
    """The database's size in bytes."""
    pages = int(source.execute("PRAGMA page_count").fetchone()[0])
    return pages * int(source.execute("PRAGMA page_size").fetchone()[0])


def _check_space(folder: str, needed: int) -> None:
    status = os.statvfs(folder)
    free = (status.f_bfree if os.geteuid() == 0 else status.f_bavail) * status.f_frsize
    if free < needed:
        raise TargetError(
            f"backup: it needs {_mebibytes(needed)} in {folder}, which has {_mebibytes(free)} left; {_ADVICE}"
        )


def _mebibytes(number: int) -> str:
    return f"{number / 2**20:.1f} MiB"


def _verify(copy: str, file: str) -> None:
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        answer = foreign(lambda: connection.execute("PRAGMA quick_check(1)").fetchone()[0], copy)
    if answer != "ok":
        raise TargetError(
            f"backup: the database file {file} is damaged ({answer}), so its copy is too; nothing was"
            " changed; repair it, or restore an older backup"
        )


def _give_name(temporary: str, wanted: str) -> str:
    """Never that of an older backup."""
    descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path, number = wanted, 1
    while os.path.lexists(path):
        number += 1
        path = f"{wanted}-{number}"
    os.rename(temporary, path)
    _sync_directory(os.path.dirname(path))
    return path


def _sync_directory(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
