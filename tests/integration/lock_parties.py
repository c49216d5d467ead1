"""Who else has to do with a lock: another worker, and what may stand between a worker and its server."""

import contextlib
import pathlib
import select
import socket
import subprocess
import threading

TOP = pathlib.Path(__file__).resolve().parent.parent.parent

BACKEND_KEY = b"K\x00\x00\x00\x0c"
"""What begins the message in which a server tells its process id."""


class Worker:
    """A process that has, or wants, the lock."""

    def __init__(self, python: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [python, "-W", "error", "-m", "tests.integration.lock_worker", *arguments],
            cwd=TOP,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        with contextlib.suppress(ValueError):
            self.process.communicate(timeout=30)


class Pooler(threading.Thread):
    """Stands between one client and PostgreSQL, and tells a process id of its own, as poolers do."""

    def __init__(self, server: str, own: str) -> None:
        super().__init__()
        self._server = server
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(own)
        self._listening.listen()

    def run(self) -> None:
        client, _ = self._listening.accept()
        with self._listening, client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    begin, key, rest = data.partition(BACKEND_KEY)
                    (client if source is server else server).sendall(
                        begin + key + b"\x00\x00\x00\x07" + rest[4:] if key else data
                    )
