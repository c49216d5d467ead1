"""refresh-agent and os-collect-config, to be looked at side by side on the same node."""

import contextlib
import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from tests.functional.node import COMMAND, replace_file
from tests.waiting import eventually
from tools import environments

T = TypeVar("T")

OURS, THEIRS = "refresh-agent", "os-collect-config"


class Program:
    """Either of the two, on a node in a folder, with the same os-collect-config.conf.

    What it is to do for new metadata is one script: the command of one, the hook of the other.
    """

    def __init__(self, name: str, root: pathlib.Path) -> None:
        self.name = name
        self.root = root
        self.cache = root / "cache"
        self.backup = root / "backup"
        self.local = root / "local"
        self.heat_local = root / "cfn-init-data"
        self.config = root / "os-collect-config.conf"
        self.env = {"LC_ALL": "C"}  # os-collect-config's "local" crashes under others: defect 6
        self._own_config = root / "refresh-agent.conf"
        self._script = root / "hooks" / "configure.d" / "10-script"
        self._runs = root / "runs"
        for path in (self.local, self._script.parent, self._runs):
            path.mkdir(parents=True)
        self.script()

    def configure(self, *collectors: str, groups: str = "", **default: object) -> None:
        values = {
            "cachedir": self.cache,
            "backup_cachedir": self.backup,
            "polling_interval": 1,
            "min_polling_interval": 0.2,
            **default,
        }
        lines = ["[DEFAULT]", *(f"{name} = {value}" for name, value in values.items())]
        lines += [f"collectors = {collector}" for collector in collectors]
        lines += ["[heat_local]", f"path = {self.heat_local}", "[local]", f"path = {self.local}", groups, ""]
        replace_file(self.config, "\n".join(lines))
        self._own_config.write_text(
            f"[DEFAULT]\nbase_dir = {self.root}/hooks\nstate_dir = {self.root}/state\n"
            f"lock_file = {self.root}/run.lock\n"
            "[debounce]\nquiet = 0.1\n[retry]\ninitial = 0.1\nmaximum = 0.2\n"
        )

    def script(self, body: str = "") -> None:
        """It keeps what OS_CONFIG_FILES names, then does ``body``."""
        self._script.write_text(
            f"#!/bin/bash\nruns={self._runs}\nmkdir $runs/.new\n"
            "(IFS=:; cp $OS_CONFIG_FILES $runs/.new)\nmv $runs/.new $runs/$(ls $runs | wc -l)\n"
            f"{body}\n"
        )
        self._script.chmod(0o755)

    def metadata(self, content: Mapping[str, Any]) -> None:
        """Of the source heat_local."""
        replace_file(self.heat_local, json.dumps(content))

    def own(self, name: str, content: Mapping[str, Any]) -> None:
        """A document of the source local."""
        replace_file(self.local / name, json.dumps(content))

    def once(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        how = "--once" if self.name == OURS else "--one-time"
        return subprocess.run(
            [*self._command(), how, *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )

    @contextlib.contextmanager
    def daemon(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.root / "log").open("ab") as log:
            process = subprocess.Popen([*self._command(), *arguments], env=self._environment(), stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait()

    def runs(self) -> list[dict[str, Any]]:
        """For every run of the script: file name → content of what it was given."""
        folders = sorted(self._runs.glob("[0-9]*"), key=lambda path: int(path.name))
        return [{path.name: json.loads(path.read_text()) for path in sorted(f.iterdir())} for f in folders]

    def listed(self) -> list[str]:
        paths = json.loads((self.cache / "os_config_files.json").read_text())
        return [os.path.basename(path) for path in paths]

    def in_time(self, condition: Callable[[], T]) -> T:
        """os-collect-config is expected to fail: it is given less time."""
        return eventually(condition, 20 if self.name == OURS else 4)

    def established(self, condition: Callable[[], T], seconds: float = 20) -> T:
        """What both have to do before the defect can show. If one does not, the test is wrong."""
        try:
            return eventually(condition, seconds)
        except AssertionError as error:
            log = self.root / "log"
            raise RuntimeError(f"{error}\n{log.read_text() if log.exists() else ''}") from error

    def _command(self) -> list[str]:
        if self.name == OURS:
            return [COMMAND, "--config-file", str(self.config), "--config-file", str(self._own_config)]
        program = environments.ensure("peers") / "bin" / "os-collect-config"
        return [str(program), "--config-file", str(self.config), "--command", str(self._script)]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
        return {**kept, **self.env}
