"""What the tests ask of other processes."""

import contextlib
import os
import pathlib

PROC = pathlib.Path("/proc")


def alive(pid: int, proc: pathlib.Path = PROC) -> bool:
    """Whether the process runs; a zombie does not. ``proc``: where the pid is this number."""
    try:
        state = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def children() -> list[int]:
    """The pids of this process's children, zombies included."""
    pids = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                pids.append(int(path.parent.name))
    return pids
