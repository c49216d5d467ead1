"""A node in a folder: hooks, metadata, configuration, and the installed command to run on it."""

import contextlib
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.waiting import eventually

COMMAND = str(pathlib.Path(sys.executable).with_name("refresh-agent"))


class Node:
    """``collectors = heat_local`` over one file, unless the test configures otherwise."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.base = root / "hooks"
        self.state = root / "state"
        self.cache = root / "cache"
        self.lock = root / "run.lock"
        self.metadata_file = root / "metadata" / "cfn-init-data"
        self.ran_file = root / "ran"
        self.config_file = root / "refresh-agent.conf"
        self.base.mkdir()
        self.metadata_file.parent.mkdir()
        self.configure()

    def configure(self, text: str = "", **default: str) -> None:
        """Write the configuration: ``text`` is further groups, ``default`` overrides [DEFAULT]."""
        values = {
            "base_dir": str(self.base),
            "state_dir": str(self.state),
            "lock_file": str(self.lock),
            "cachedir": str(self.cache),
            "backup_cachedir": str(self.root / "backup"),
            "collectors": "heat_local",
            **default,
        }
        lines = ["[DEFAULT]", *(f"{name} = {value}" for name, value in values.items())]
        lines += ["[heat_local]", f"path = {self.metadata_file}"]
        if "[debounce]" not in text:
            lines += ["[debounce]", "quiet = 0.1", "max_wait = 2"]
        if "[retry]" not in text:
            lines += ["[retry]", "initial = 0.1", "maximum = 0.2"]
        self.config_file.write_text("\n".join([*lines, text, ""]))

    def hook(
        self, place: str, body: str = "", *, mode: int = 0o755, shebang: str = "#!/bin/bash"
    ) -> pathlib.Path:
        """``place`` is like "configure/10-a". Every hook notes that it ran, then does ``body``."""
        phase, name = place.split("/")
        path = self.base / f"{phase}.d" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{shebang}\necho {place} >> {self.ran_file}\n{body}\n")
        path.chmod(mode)
        return path

    def metadata(self, content: Mapping[str, Any]) -> None:
        """Replace the metadata file by rename, as its writers do."""
        replace_file(self.metadata_file, json.dumps(content))

    def ran(self) -> list[str]:
        """The hooks that began, in order, all runs together."""
        return self.ran_file.read_text().split() if self.ran_file.exists() else []

    def once(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return self.command("--once", *arguments, env=env)

    def command(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, "--config-file", str(self.config_file), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **(env or {})},
            timeout=60,
        )

    @contextlib.contextmanager
    def daemon(self, env: Mapping[str, str] | None = None) -> Iterator["Daemon"]:
        """The daemon; on the way out it is stopped, and must end well if it has not been ended already."""
        log = (self.root / "daemon.log").open("ab")
        process = subprocess.Popen(
            [COMMAND, "--config-file", str(self.config_file)],
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
        daemon = Daemon(process, self.root / "daemon.log")
        try:
            yield daemon
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0, daemon.log()
        finally:
            log.close()
            if process.poll() is None:
                process.kill()
                process.wait()

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What the journal says; nothing while there is none."""
        path = self.state / "journal.sqlite"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
            try:
                return db.execute(query, parameters).fetchall()
            except sqlite3.OperationalError:  # it is just being made
                return []

    def outcomes(self) -> list[str | None]:
        """Of all runs, in order; None for one that is under way."""
        return [outcome for (outcome,) in self.rows("SELECT outcome FROM runs ORDER BY id")]

    def wait_for_outcomes(self, outcomes: Sequence[str], seconds: float = 20) -> None:
        eventually(lambda: self.outcomes() == list(outcomes), seconds)


class Daemon:
    def __init__(self, process: subprocess.Popen[bytes], log_file: pathlib.Path) -> None:
        self.process = process
        self._log_file = log_file

    def log(self) -> str:
        return self._log_file.read_text()

    def wait_for_log(self, text: str, seconds: float = 20) -> None:
        eventually(lambda: text in self.log(), seconds)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


def replace_file(path: pathlib.Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.rename(path)
