"""A node in a folder with the hooks of heat-agents, for the real os-collect-config and for refresh-agent."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.functional.node import COMMAND, Daemon

# Wrappers for programs that have no other way to be told where the node is.
WRAPPER = """#!{python} -IS
import os, sys
os.execv({program!r}, [{program!r}, *{options!r}, *sys.argv[1:]])
"""


class NodeTree:
    """``root`` is an empty folder; ``peers`` and ``heat_agents`` the environments of these names.

    ``os_collect_config_conf`` is the file that Heat's metadata replaces on every run; ``own_conf`` is read
    after it, and stays.
    """

    def __init__(self, root: pathlib.Path, peers: pathlib.Path, heat_agents: pathlib.Path) -> None:
        self.root = root
        self.peers = peers
        self.cache = root / "cache"
        self.state = root / "state"
        self.os_collect_config_conf = root / "etc" / "os-collect-config.conf"
        self.own_conf = root / "own.conf"
        self._log = root / "daemon.log"
        for name in ("etc", "bin", "hooks", "phases", "local", "work"):
            (root / name).mkdir()
        self._install(heat_agents)
        self.environment = self._environment()
        self.configure()

    def _install(self, heat_agents: pathlib.Path) -> None:
        """As the installers of heat-agents do on a real node."""
        heat_config = heat_agents / "heat-config"
        shutil.copytree(heat_config / "os-refresh-config", self.root / "phases", dirs_exist_ok=True)
        shutil.copytree(heat_config / "os-apply-config", self.root / "templates")
        shutil.copytree(heat_config / "bin", self.root / "bin", dirs_exist_ok=True)
        script = self.root / "hooks" / "script"
        shutil.copy(heat_agents / "heat-config-script" / "install.d" / "hook-script.py", script)
        for path in (
            *(self.root / "phases" / "configure.d").iterdir(),
            *(self.root / "bin").iterdir(),
            script,
        ):
            path.chmod(0o755)
        nowhere = str(self.root / "nowhere")
        self._wrap("os-apply-config", "--output", str(self.root), "--fallback-metadata", nowhere)
        self._wrap("os-refresh-config", "--lockfile", str(self.root / "run.lock"))

    def _wrap(self, name: str, *options: str) -> None:
        path = self.root / "bin" / name
        program = str(self.peers / "bin" / name)
        path.write_text(WRAPPER.format(python=sys.executable, program=program, options=options))
        path.chmod(0o755)

    def _environment(self) -> dict[str, str]:
        root = self.root
        return {
            "PATH": f"{root}/bin:{self.peers}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "no_proxy": "*",
            "OS_REFRESH_CONFIG_BASE_DIR": f"{root}/phases",
            "OS_CONFIG_APPLIER_TEMPLATES": f"{root}/templates",
            "HEAT_SHELL_CONFIG": f"{root}/var/run/heat-config/heat-config",
            "HEAT_CONFIG_HOOKS": f"{root}/hooks",
            "HEAT_CONFIG_DEPLOYED": f"{root}/deployed",
            "HEAT_CONFIG_DEPLOYED_OLD": f"{root}/deployed",
            "HEAT_CONFIG_NOTIFY": f"{root}/bin/heat-config-notify",
            "HEAT_SCRIPT_WORKING": f"{root}/work",
            "HEAT_SCRIPT_OUTPUTS": f"{root}/outputs",
            "RAN": f"{root}/ran",
            "RAN_AT": f"{root}/ran-at",
        }

    def configure(self, text: str = "", **default: str) -> None:
        """Write ``own_conf``: ``text`` is further groups, ``default`` overrides [DEFAULT]."""
        values = {
            "base_dir": str(self.root / "phases"),
            "state_dir": str(self.state),
            "lock_file": str(self.root / "run.lock"),
            "cachedir": str(self.cache),
            "backup_cachedir": str(self.root / "backup"),
            "polling_interval": "1",
            **default,
        }
        groups = {"DEFAULT": values, "local": {"path": str(self.root / "local")}}
        if "[debounce]" not in text:
            groups["debounce"] = {"quiet": "0.1", "max_wait": "2"}
        self.own_conf.write_text(f"{_ini(groups)}{text}\n")

    def point_at(self, os_collect_config: Mapping[str, Any]) -> None:
        """Write os-collect-config.conf as whoever boots the node does: with a stack's credentials."""
        groups: dict[str, dict[str, Any]] = {
            "DEFAULT": {
                "command": "os-refresh-config",
                "collectors": os_collect_config["collectors"],
            }
        }
        for name, values in os_collect_config.items():
            if isinstance(values, Mapping):
                groups[name] = {option: value for option, value in values.items() if value is not None}
        self.os_collect_config_conf.touch(0o600)
        self.os_collect_config_conf.write_text(_ini(groups))

    # --- what runs on it ---

    def os_collect_config(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One pass of the real one, which runs the real os-refresh-config."""
        options = {
            "DEFAULT": {"cachedir": self.root / "occ-cache", "backup_cachedir": self.root / "occ-backup"},
            "local": {"path": self.root / "local"},
        }
        config = self.root / "occ.conf"
        config.write_text(_ini(options))
        (self.root / "occ-cache").mkdir(exist_ok=True)
        command = [str(self.peers / "bin" / "os-collect-config"), *self._config_files(config), *arguments]
        # Its "local" collector crashes under other locales.
        environment = {**self.environment, "LC_ALL": "C"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    def once(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.command("--once", *arguments)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._refresh_agent(), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            timeout=60,
        )

    @contextlib.contextmanager
    def daemon(self) -> Iterator[Daemon]:
        """refresh-agent; on the way out it is stopped, and must end well if it has not been ended already."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._refresh_agent(),
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
            )
        daemon = Daemon(process, self._log)
        try:
            yield daemon
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0, daemon.log()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _refresh_agent(self) -> list[str]:
        return [COMMAND, *self._config_files(self.own_conf)]

    def _config_files(self, other: pathlib.Path) -> list[str]:
        return ["--config-file", str(self.os_collect_config_conf), "--config-file", str(other)]

    # --- what came of it ---

    def ran(self) -> list[str]:
        """What the deployments' scripts said, in order."""
        return self._lines("ran")

    def ran_at(self) -> list[float]:
        """When they began, in seconds since 1970."""
        return [float(line) for line in self._lines("ran-at")]

    def _lines(self, name: str) -> list[str]:
        path = self.root / name
        return path.read_text().splitlines() if path.exists() else []


def _ini(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """A list is an option that is given several times."""
    lines = []
    for group, values in groups.items():
        lines.append(f"[{group}]")
        for option, value in values.items():
            each: Sequence[Any] = value if isinstance(value, list) else [value]
            lines += [f"{option} = {one}" for one in each]
    return "\n".join([*lines, ""])
