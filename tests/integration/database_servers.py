"""Private PostgreSQL and MariaDB servers: found, set up in a temporary folder, started, gone with the tests.

They write as a server does, but never wait for the disk. A commit is in the kernel's hands when it returns,
so it outlives a server that is killed, though not the machine.
"""

import contextlib
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self

from sqlalchemy.engine import URL

from tests.processes import alive
from tests.waiting import eventually

# PostgreSQL refuses to run as root. The second only where there is no first: the service's data are its own.
UNPRIVILEGED = ("nobody", "postgres")

# A unix socket's path has at most 107 bytes, and this is our longest name of one.
POSTGRESQL_SOCKET, MARIADB_SOCKET = ".s.PGSQL.5432", "mariadb.sock"
LONGEST_FOLDER = 107 - len(f"/{POSTGRESQL_SOCKET}")

ADMIN = "admin"

# What waits for the end of its input, which is the end of the tests, of killed ones too, and then removes the
# folder. The servers may need a moment to be gone.
REMOVE = 'cat; for i in $(seq 100); do rm -rf -- "$0" && exit; sleep 0.1; done'


class DatabasesError(Exception):
    """There is no such server to be had; the message says what to do."""


class Folder:
    """A server's folder: its data, its socket, its log. It goes with ``with``, or with this process."""

    def __init__(self) -> None:
        parent = tempfile.gettempdir()
        short = len(parent) + len("/db-xxxxxxxx") <= LONGEST_FOLDER
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="db-", dir=parent if short else "/tmp"))
        self._remover = subprocess.Popen(
            ["sh", "-c", REMOVE, self.path],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.data = self.path / "data"
        self.log = self.path / "log"
        self._user = _unprivileged() if os.geteuid() == 0 else None
        # Everybody may reach the socket; migration workers run as other users.
        self.path.chmod(0o711)
        self.data.mkdir(0o700)
        for path in (self.path, self.data):
            self.give_away(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._remover.communicate()

    def give_away(self, path: pathlib.Path) -> None:
        """To the user that the server runs as."""
        if self._user:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def popen(self, command: Sequence[str], death: signal.Signals) -> subprocess.Popen[bytes]:
        """Start it as that user. The kernel sends it ``death`` when our thread, the main one best, has ended.

        setpriv changes the user first: that would undo the other wish.
        """
        user = self._user
        words = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"] if user else []
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["setpriv", *words, f"--pdeathsig={death.name.removeprefix('SIG')}", *command],
                cwd=self.path,
                env={"PATH": os.environ["PATH"], "HOME": str(self.path), "LC_ALL": "C", "TZ": "UTC"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # An interrupt from the keyboard is for the tests, which still need the servers then.
                start_new_session=True,
            )

    def run(self, command: Sequence[str], text: str = "") -> None:
        """Run it to its end, with that as its input."""
        process = self.popen(command, signal.SIGKILL)
        process.communicate(text.encode(), timeout=60)
        if process.returncode:
            raise DatabasesError(f"{command[0]}: failed:\n{self.end_of_log()}")

    def end_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


def _unprivileged() -> pwd.struct_passwd:
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise DatabasesError(
        f"root needs another user for the servers: none of {', '.join(UNPRIVILEGED)} is there"
    )


class Signals(NamedTuple):
    """``stop`` asks for an orderly end, ``death`` for one at once."""

    stop: signal.Signals
    death: signal.Signals


class Process:
    """The server in a folder, which listens on the socket of that name there."""

    def __init__(self, folder: Folder, command: Sequence[str], socket_name: str, signals: Signals) -> None:
        self._folder = folder
        self._command = command
        self._socket = socket_name
        self._signals = signals
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self._command[0]} does not run"
        return self._process.pid

    def start(self, answers: Callable[[], bool]) -> None:
        """Come back when it does; if it cannot, the end of its log is in the error."""
        assert self._process is None, f"{self._command[0]} runs already"
        self._process = self._folder.popen(self._command, self._signals.death)
        eventually(lambda: self._runs() and self._listens() and answers(), 60)

    def stop(self) -> None:
        self._end(self._signals.stop)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def abandon(self) -> None:
        """Stop it without care for its data."""
        self._end(self._signals.death)

    def _runs(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            self._process.communicate()
            self._process = None
            raise DatabasesError(f"{self._command[0]} ended at its start:\n{self._folder.end_of_log()}")
        return True

    def _listens(self) -> bool:
        """PyMySQL would leave a socket open after a vain attempt; what it does after that it does well."""
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self._folder.path / self._socket)) == 0

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        children = list(_children(self._process.pid))
        self._process.send_signal(how)
        if how == signal.SIGKILL:
            for pid in filter(alive, children):
                os.kill(pid, how)
        self._process.communicate(timeout=60)
        # As long as one of PostgreSQL's is there, it cannot be started again.
        eventually(lambda: not any(map(alive, children)), 60)
        self._process = None


def _children(parent: int) -> Iterator[int]:
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                yield int(path.parent.name)


# --- the two kinds -----------------------------------------------------------------------------------------


def postgresql_process(folder: Folder) -> tuple[Process, URL]:
    """Made, not started, with the URL of its superuser."""
    initdb = program("initdb").resolve()
    password = secrets.token_hex(8)
    file = folder.path / "password"
    file.touch(0o600)
    file.write_text(password)
    folder.give_away(file)
    folder.run([
        str(initdb), f"--pgdata={folder.data}", f"--username={ADMIN}", f"--pwfile={file}",
        "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
    ])  # fmt: skip
    file.unlink()
    settings = (
        "listen_addresses=", f"unix_socket_directories={folder.path}", "max_connections=200",
        "shared_buffers=32MB", "fsync=off",
    )  # fmt: skip
    command = [str(initdb.with_name("postgres")), "-D", str(folder.data)]
    command += [f"--{setting}" for setting in settings]
    url = URL.create("postgresql", ADMIN, password, database="postgres", query={"host": str(folder.path)})
    # SIGINT ends the connections, for whose end SIGTERM would wait. SIGQUIT leaves the recovery to the next
    # start, but no shared memory, as SIGKILL would.
    return Process(folder, command, POSTGRESQL_SOCKET, Signals(signal.SIGINT, signal.SIGQUIT)), url


def mariadb_process(folder: Folder) -> tuple[Process, URL]:
    """Made, not started, with the URL of an account that may do everything; there is no other."""
    server = program("mariadbd")
    password = secrets.token_hex(8)
    command = [
        str(server), "--no-defaults", f"--datadir={folder.data}", f"--tmpdir={folder.path}",
        "--skip-log-error", "--loose-innodb-flush-method=nosync", "--innodb-log-file-size=16M",
        "--innodb-buffer-pool-size=64M",
        # A commit is written, though not synced; the default would do both.
        "--innodb-flush-log-at-trx-commit=2",
    ]  # fmt: skip
    # What mariadb-install-db does, without its help and functions of sys, and without its accounts. That
    # script would also need mariadb-client.
    statements = [
        "CREATE DATABASE mysql;",
        "USE mysql;",
        *(_mariadb_tables(server, part) for part in ("system_tables", "performance_tables")),
        "FLUSH PRIVILEGES;",
        f"CREATE USER {ADMIN}@localhost IDENTIFIED BY '{password}';",
        f"GRANT ALL ON *.* TO {ADMIN}@localhost WITH GRANT OPTION;",
    ]
    folder.run([*command, "--bootstrap", "--log-warnings=0"], "\n".join([*statements, ""]))
    network = [
        f"--socket={folder.path / MARIADB_SOCKET}",
        "--skip-networking",
        f"--pid-file={folder.path}/pid",
        "--max-connections=200",
    ]
    url = URL.create("mysql", ADMIN, password, query={"unix_socket": str(folder.path / MARIADB_SOCKET)})
    signals = Signals(signal.SIGTERM, signal.SIGKILL)
    return Process(folder, [*command, *network], MARIADB_SOCKET, signals), url


def _mariadb_tables(server: pathlib.Path, part: str) -> str:
    share = server.resolve().parent.parent / "share"
    for name in (f"mysql/mysql_{part}.sql", f"mariadb/mysql_{part}.sql", f"mariadb/mariadb_{part}.sql"):
        if (share / name).exists():
            return (share / name).read_text()
    raise DatabasesError(f"{server}: there is no mysql_{part}.sql in {share}/mysql or {share}/mariadb")


def program(name: str) -> pathlib.Path:
    """From the PATH, or from where the packages of Debian, Fedora and PostgreSQL's project have it."""
    versions = sorted(
        (*pathlib.Path("/usr/lib/postgresql").glob("*/bin"), *pathlib.Path("/usr").glob("pgsql-*/bin")),
        key=lambda path: int(path.parent.name.removeprefix("pgsql-")),
        reverse=True,
    )
    path = os.pathsep.join([*os.get_exec_path(), "/usr/sbin", "/usr/libexec", *map(str, versions)])
    found = shutil.which(name, path=path)
    if found is None:
        raise DatabasesError(f"{name} is not installed: python3 tools/system_packages.py installs it")
    return pathlib.Path(found)
