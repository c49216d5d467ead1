"""Reading with a limit, and writing so that a file is complete at every moment, also after a power loss."""

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader
from typing import NamedTuple

COPIED_AT_ONCE = 2**30
"""Bytes per call; the kernel takes no more than 2 GiB."""

TEMPORARY = re.compile(r"\..{1,200}\.[0-9a-f]{8}", re.DOTALL)
"""Names that files have while they are written here; one that stays was left by a process that was killed."""


def open_regular(path: str, flags: int = 0) -> BufferedReader:
    """A regular file, to be read; ``flags`` such as O_NOFOLLOW are added.

    A fifo or device would block the agent: it is refused. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        refuse_special(os.fstat(descriptor).st_mode, path)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def refuse_special(mode: int, path: str) -> None:
    """Raise OSError unless ``mode``, of ``path``, is that of a regular file."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError("is not a regular file")


def read_regular(path: str, limit: int) -> bytes:
    """At most ``limit`` + 1 bytes of a regular file, so that the caller can tell "too large".

    Raises OSError.
    """
    with open_regular(path) as file:
        return file.read(limit + 1)


class Look(NamedTuple):
    """How a file looks from outside; times in nanoseconds. Another look, likely another content."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def look(file: BufferedReader) -> Look:
    status = os.fstat(file.fileno())
    return Look(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def digest(file: BufferedReader) -> str:
    """sha256 of what is in it from here on, in hex. Raises OSError."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: str, data: bytes | Iterable[bytes], mode: int = 0o600) -> None:
    """Replace ``path``: temporary file, fsync, rename, fsync of the directory. Raises OSError.

    ``data`` may come in pieces, so that a large one need not be in memory as a whole.
    """
    with _replacing(path, mode) as descriptor, open(descriptor, "wb", closefd=False) as file:
        file.writelines((data,) if isinstance(data, bytes) else data)
    sync_directory(os.path.dirname(path))


def copy(source: str, path: str, mode: int = 0o600) -> None:
    """Replace ``path`` by a copy of a regular file; the kernel copies, so that its size does not matter.

    The name is durable only after ``sync_directory``: one for many copies. Raises OSError.
    """
    with open_regular(source) as reading, _replacing(path, mode) as descriptor:
        # Shares the blocks where the file system can. Where this call cannot be had, or ends early, the next
        # goes on from there: it always works, and says it if the disk is full.
        with contextlib.suppress(OSError):
            while os.copy_file_range(reading.fileno(), descriptor, COPIED_AT_ONCE):
                pass
        while os.sendfile(descriptor, reading.fileno(), None, COPIED_AT_ONCE):
            pass


def link(source: str, path: str) -> bool:
    """Replace ``path`` by another name of a file beside it; False if that cannot be.

    The name is durable only after ``sync_directory``. Raises OSError.
    """
    temporary = _temporary(path)
    try:
        with open_regular(source) as file:
            os.fsync(file.fileno())  # another program may have written it; if not, this costs nothing
        os.link(source, temporary, follow_symlinks=False)
    except OSError:
        return False  # not with this file system
    try:
        os.rename(temporary, path)
    except OSError as error:
        error.filename, error.filename2 = path, None
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):  # else path was that file already, or cannot be replaced
            os.unlink(temporary)
    return True


def _temporary(path: str) -> str:
    # Not tempfile: it costs 4 ms of imports, and the directories written to are the agent's own.
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name[:200]}.{os.urandom(4).hex()}")


@contextlib.contextmanager
def _replacing(path: str, mode: int) -> Iterator[int]:
    """A descriptor to write to; what was written takes the place of ``path`` once it is durable.

    An OSError names ``path``, whichever of the two files it came from.
    """
    temporary = _temporary(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, mode)
        try:
            os.fchmod(descriptor, mode)  # whatever the umask
            yield descriptor
            os.fsync(descriptor)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        error.filename, error.filename2 = path, None
        raise


def make_directory(path: str, mode: int) -> None:
    """Make a directory with this mode, and what is missing above it for everybody to read. Raises OSError.

    Its name is durable, for what is written into it is to be. os.makedirs would not see to that, and would
    leave the modes of what is above to the umask.
    """
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    make_directory(above, 0o755)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):  # else another process has made it since
            raise
    else:
        os.chmod(path, mode)
        sync_directory(above)


def sync_directory(directory: str) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: OSError) -> str:
    """The system's words for it, without the path: messages name that once, themselves."""
    return error.strerror or str(error)
