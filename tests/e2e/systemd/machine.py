"""A machine with a systemd of its own: a second after it was asked for, gone with whoever asked."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Self

from tests.e2e.servers import PARTS
from tests.processes import alive
from tests.waiting import eventually

BOOT = pathlib.Path(__file__).resolve().parent / "boot.sh"

NEEDS = ("unshare", "nsenter", "pivot_root", "mount", "systemctl")

CGROUP = "refresh-agent-machine-"

COMMANDS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class MachineError(Exception):
    """There is no machine to be had; the message says what to do, or has what it said at its start."""


class Machine:
    """Process 1 is this system's systemd, in namespaces of its own; see boot.sh.

    ``folder`` is an empty one for its bookkeeping; ``binds``: what else is to be seen inside, place by place,
    read-only. Loopback is shared: what listens there is reached from inside.
    Start it from a thread that lives as long as it shall: the kernel ends it with that.
    """

    def __init__(self, folder: pathlib.Path, binds: Mapping[str, pathlib.Path]) -> None:
        self._folder = folder
        self._binds = binds
        self._log = folder / "boot.log"
        self._pid = 0

    def __enter__(self) -> Self:
        """Raises MachineError."""
        self._cgroup = _cgroup()
        words = [word for place, source in self._binds.items() for word in (str(source), place)]
        dependent = [sys.executable, "-I", "-S", str(PARTS / "dependent.py"), str(os.getpid())]
        bash = _program("bash")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*dependent, bash, bash, str(BOOT), str(self._cgroup), str(self._folder), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": COMMANDS, "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        try:
            self._pid = int(eventually(self._named, 20))
            eventually(self._is_up, 20)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Powered off; what does not care for that is killed, with all that runs in there."""
        if self._pid and self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run("systemctl", "poweroff", check=False, timeout=5)
        try:
            self._process.wait(8)
        except subprocess.TimeoutExpired:
            self._process.kill()  # unshare, which takes process 1 along, and the kernel takes all others
            self._process.wait()
        eventually(lambda: _removed(self._cgroup))

    def _named(self) -> str:
        """The pid of process 1. It is written when what is asked in there can reach nobody out here."""
        self._check()
        path = self._folder / "pid"
        return path.read_text() if path.exists() else ""

    def _is_up(self) -> bool:
        self._check()
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in {"running", "degraded"}

    def _check(self) -> None:
        if self._process.poll() is not None:
            raise MachineError(f"systemd ended with {self._process.returncode}:\n{self._log.read_text()}")

    def run(
        self, *argv: str, check: bool = True, timeout: float = 60, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """As root, in an environment that has nothing of ours; ``text`` is its standard input.

        Raises AssertionError with its output if it fails, unless ``check`` is off; TimeoutExpired after so
        many seconds.
        """
        self._check()
        done = subprocess.run(
            [_program("nsenter"), "--all", f"--target={self._pid}", *argv],
            input=text or "",
            capture_output=True,
            text=True,
            env={"PATH": COMMANDS, "LC_ALL": "C.UTF-8", "HOME": "/root", "SYSTEMD_PAGER": ""},
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def path(self, place: str) -> pathlib.Path:
        """That file as it can be reached from here. A link to an absolute path leads to the outside!"""
        return pathlib.Path(f"/proc/{self._pid}/root{place}")

    def alive(self, pid: int) -> bool:
        """Whether the process that has this number in there runs; a zombie does not."""
        return alive(pid, self.path("/proc"))

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()

    def journal(self, *arguments: str) -> list[dict[str, Any]]:
        """The entries, oldest first, of ``journalctl`` with these options and matches."""
        done = self.run("journalctl", "--output=json", "--all", "--no-pager", "--quiet", *arguments)
        return [json.loads(line) for line in done.stdout.splitlines()]


def _program(name: str) -> str:
    """Raises MachineError if it is not installed."""
    found = shutil.which(name, path=COMMANDS)
    if found is None:
        raise MachineError(
            f"{name} is not installed (on Debian and Ubuntu: apt-get install util-linux systemd)"
        )
    return found


def _cgroup() -> pathlib.Path:
    """A new one for a machine, below that of this process. Raises MachineError if there can be none."""
    for name in NEEDS:
        _program(name)
    mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    tops = [mount[1] for mount in mounts if mount[2] == "cgroup2"]
    if not tops:
        raise MachineError(
            "no cgroup v2 is mounted, and a systemd needs one (mount -t cgroup2 cgroup2 /PLACE)"
        )
    lines = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
    own = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
    above = pathlib.Path(tops[0] + own)
    for left in above.glob(f"{CGROUP}*"):  # by those who were killed
        if not alive(int(left.name.removeprefix(CGROUP).partition("-")[0])):
            _removed(left)
    number = sum(1 for _ in above.glob(f"{CGROUP}{os.getpid()}-*"))
    cgroup = above / f"{CGROUP}{os.getpid()}-{number}"
    try:
        cgroup.mkdir()
    except OSError as error:
        raise MachineError(f"{cgroup}: cannot be made: {error.strerror}; it takes root") from error
    return cgroup


def _removed(cgroup: pathlib.Path) -> bool:
    """Remove it with those below it; False while a process is still ending in one of them."""
    try:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            os.rmdir(folder)
    except OSError:
        return not cgroup.exists()
    return True
