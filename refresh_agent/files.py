"""Reading with a limit, and writing so that a file is complete at every moment, also after a power loss."""

import contextlib
import errno
import os
import stat


def read_regular(path: str, limit: int) -> bytes:
    """At most ``limit`` + 1 bytes of a regular file, so that the caller can tell "too large".

    A fifo or device would block the agent: it is refused. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError("is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(descriptor)


def write_durably(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path``: temporary file, fsync, rename, fsync of the directory. Raises OSError."""
    directory, name = os.path.split(path)
    # Not tempfile: it costs 4 ms of imports, and the directories written to are the agent's own.
    temporary = os.path.join(directory, f".{name[:200]}.{os.urandom(4).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(directory)


def make_directory(path: str, mode: int) -> None:
    """Make a directory with this mode, and what is missing above it for everybody to read. Raises OSError.

    os.makedirs would leave the modes of those to the umask.
    """
    if os.path.isdir(path):
        return
    make_directory(os.path.dirname(path), 0o755)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):  # else another process has made it since
            raise
    else:
        os.chmod(path, mode)


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
