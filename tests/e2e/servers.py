"""Servers in a folder: started on sockets that are open before they are, ended with whoever started them."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

PARTS = pathlib.Path(__file__).resolve().parent / "parts"

# Debian's redis-tools has the server under this name only; redis-server would also start one on the machine.
# It is the same program everywhere, and goes by the name that it is called by.
REDIS = "redis-check-rdb"


class CloudError(Exception):
    """The cloud cannot be had; the message says what to do, or has the end of the server's log."""


class Servers:
    """All that was started, by name; ``stop`` ends it. Logs are in ``folder/log``.

    Start them from a thread that lives as long as they shall: the kernel ends them with it.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "log").mkdir()

    def serve(
        self, name: str, python: pathlib.Path, script: str, arguments: Sequence[str | socket.socket],
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Run one of parts/ under that interpreter. The sockets among its arguments become its own."""
        sockets = [argument for argument in arguments if isinstance(argument, socket.socket)]
        words = [
            str(argument.fileno()) if isinstance(argument, socket.socket) else argument
            for argument in arguments
        ]
        command = [str(python), str(python), str(PARTS / script), *words]
        self._start(name, command, [one.fileno() for one in sockets], environment or {})
        for one in sockets:
            one.close()

    def redis(self) -> pathlib.Path:
        """The path of the socket on which it can be reached once it has come up."""
        program = shutil.which(REDIS)
        if program is None:
            raise CloudError(
                f"{REDIS} is not installed (on Debian and Ubuntu: apt-get install redis-tools; else: redis)"
            )
        path = self.folder / "redis.sock"
        options = {"--port": "0", "--unixsocket": str(path), "--save": "", "--dir": str(self.folder)}
        words = [word for option in options.items() for word in option]
        self._start("redis", [program, "redis-server", *words], [], {})
        return path

    def _start(
        self, name: str, command: Sequence[str], descriptors: Sequence[int], environment: Mapping[str, str]
    ) -> None:
        dependent = [sys.executable, "-I", "-S", str(PARTS / "dependent.py"), str(os.getpid())]
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                [*dependent, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                cwd=self.folder,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "no_proxy": "*", **environment},
                start_new_session=True,  # Ctrl-C in the terminal is for the tests, which end them
            )

    def failed(self) -> str:
        """Of the first one that ended by itself: its name and the end of its log; else nothing."""
        for name, process in self._running.items():
            if process.poll() is not None:
                end = self._log(name).read_text(errors="replace")[-3000:]
                return f"{name} ended with {process.returncode}; {self._log(name)} ends with:\n{end}"
        return ""

    def _log(self, name: str) -> pathlib.Path:
        return self.folder / "log" / f"{name}.out"

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._running.items()}

    def stop(self) -> None:
        """What they hold is thrown away with the folder, so there is nothing for them to tidy up."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()
        self._running.clear()


def listen() -> socket.socket:
    """A listening socket on a free port of loopback. Who connects before the server is up, waits."""
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def url_of(listening: socket.socket, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
