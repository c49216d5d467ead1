"""The agent as a unit of a machine: the unit of this tree, the installed command, hooks, metadata."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.e2e.systemd import measuring
from tests.e2e.systemd.machine import Machine
from tests.pages import TOP
from tests.waiting import eventually

NAME = "refresh-agent.service"
UNIT = TOP / "systemd" / NAME
UNITS = "/etc/systemd/system"
DROP_INS = f"{UNITS}/{NAME}.d"
LINK = "/usr/local/bin/refresh-agent"
CONFIG = "/etc/refresh-agent/refresh-agent.conf"
BASE = "/usr/libexec/os-refresh-config"
STATE = "/var/lib/refresh-agent"
METADATA = "/var/lib/heat-cfntools/cfn-init-data"

STORY = "/var/tmp/story"
"""What the hooks of a test leave behind."""

LEFT_BEHIND = (
    DROP_INS, f"{UNITS}/{NAME}", LINK, "/etc/refresh-agent", BASE, STATE, "/var/lib/heat-cfntools",
    "/var/lib/os-collect-config", "/run/os-collect-config", "/run/os-refresh-config.lock", STORY,
)  # fmt: skip

ALONE = f"mkdir {STORY}/alone || echo twice >> {STORY}/overlap; trap 'rmdir {STORY}/alone' EXIT"
"""At the head of a hook: it is told if a second one of it runs at the same time."""

ASK = """
import json, os, sqlite3, sys
path, query = sys.argv[1:]
try:
    print(json.dumps(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10).execute(query).fetchall()))
except sqlite3.OperationalError:  # it is not there yet, or is just being made
    print("[]")
"""


class Unit:
    """``collectors = heat_local`` and the defaults, but for delays that a test would have to wait for."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._since = 0.0

    # --- before it starts ---

    def install(self, command: pathlib.Path) -> None:
        """The unit of this tree, with that command."""
        self.write(f"{UNITS}/{NAME}", UNIT.read_text(encoding="utf-8"))
        self.machine.run("ln", "-s", str(command), LINK)
        self.write(f"{DROP_INS}/quick.conf", "[Service]\nRestartSec=0.2\n[Unit]\nStartLimitIntervalSec=0\n")
        self.write(f"{DROP_INS}/measured.conf", measuring.setting())
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("mkdir", "-p", STORY, measuring.FOLDER)
        self.configure()

    def begin_journal(self) -> None:
        """``log`` and ``journal`` show what comes from now on."""
        # Not a cursor: after one, journalctl leaves out the first entry that matches, too.
        self._since = time.time()

    def write(self, place: str, text: str, mode: int = 0o644) -> None:
        """Complete at every moment, as those who write what the agent watches do it."""
        path = self.machine.path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(text)
        temporary.chmod(mode)
        temporary.rename(path)

    def configure(self, text: str = "", **default: str) -> None:
        """Write the configuration: ``text`` is further groups, ``default`` is of [DEFAULT]."""
        values = {"collectors": "heat_local", **default}
        lines = ["[DEFAULT]", *(f"{name} = {value}" for name, value in values.items())]
        if "[debounce]" not in text:
            lines += ["[debounce]", "quiet = 0.1", "max_wait = 2"]
        if "[retry]" not in text:
            lines += ["[retry]", "initial = 0.1", "maximum = 0.2"]
        self.write(CONFIG, "\n".join([*lines, text, ""]))

    def drop_in(self, text: str) -> None:
        """Lines for [Service], as ``systemctl edit`` adds them."""
        self.write(f"{DROP_INS}/test.conf", f"[Service]\n{text}\n")
        self.machine.run("systemctl", "daemon-reload")

    def hook(self, place: str, body: str = "") -> None:
        """``place`` is like "configure/10-a". Every hook notes that it ran, then does ``body``."""
        phase, name = place.split("/")
        text = f"#!/bin/bash\necho {place} >> {STORY}/ran\n{body}\n"
        self.write(f"{BASE}/{phase}.d/{name}", text, 0o755)

    def metadata(self, content: Mapping[str, Any]) -> None:
        self.write(METADATA, json.dumps(content))

    # --- what an operator does ---

    def systemctl(self, verb: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.machine.run("systemctl", verb, NAME, check=check)

    def start(self) -> None:
        self.systemctl("start")

    def begin_to_stop(self) -> None:
        """Without waiting for its end."""
        self.machine.run("systemctl", "stop", "--no-block", NAME)
        eventually(lambda: self.show("ActiveState") == "deactivating")

    def tell(self, name: str, text: str = "") -> None:
        """A file that a hook waits for."""
        self.machine.path(f"{STORY}/{name}").write_text(text)

    # --- what came of it ---

    def show(self, name: str) -> str:
        return self.machine.show(NAME, name)

    def pid(self) -> int:
        """The number that the agent's process has in there; 0 if there is none."""
        return int(self.show("MainPID"))

    def status(self) -> str:
        """What the agent has systemd say of it."""
        return self.show("StatusText")

    def told(self, name: str) -> list[str]:
        """The lines of a file that a hook has written."""
        path = self.machine.path(f"{STORY}/{name}")
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_told(self, name: str, seconds: float = 20) -> list[str]:
        return eventually(lambda: self.told(name), seconds)

    def ran(self) -> list[str]:
        """The hooks that began, in order, all runs together."""
        return self.told("ran")

    def journal(self, *arguments: str) -> list[dict[str, Any]]:
        """Of this test; by default what the unit itself and systemd say of it."""
        return self.machine.journal(f"--since=@{self._since:.6f}", *(arguments or (f"--unit={NAME}",)))

    def log(self) -> str:
        """The messages."""
        return "".join(f"{_text(entry['MESSAGE'])}\n" for entry in self.journal())

    def stopped_well(self) -> bool:
        """Whether systemd has seen it end as it should; of a unit that is gone it knows nothing any more."""
        return "Deactivated successfully." in self.log()

    def seconds_of_stop(self) -> float:
        """From systemd's beginning of the last stop to its end."""
        moments = {}
        for entry in self.journal(f"UNIT={NAME}"):
            verb = str(entry["MESSAGE"]).partition(" ")[0]
            moments[verb] = int(entry["__MONOTONIC_TIMESTAMP"]) / 1_000_000
        return moments["Stopped"] - moments["Stopping"]

    def wait_for_log(self, text: str, seconds: float = 20) -> None:
        """The whole log is the explanation if it does not come."""
        try:
            eventually(lambda: text in self.log(), seconds)
        except AssertionError:
            raise AssertionError(f"{text!r} is not told within {seconds:g} s in:\n{self.log()}") from None

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the agent's own journal says; nothing while there is none."""
        # Asked in there: SQLite follows the links of a path by itself, and would end up out here.
        asked = self.machine.run(sys.executable, "-I", "-S", "-c", ASK, f"{STATE}/journal.sqlite", query)
        return [tuple(row) for row in json.loads(asked.stdout)]

    def outcomes(self) -> list[str | None]:
        """Of all runs, in order; None for one that is under way."""
        return [outcome for (outcome,) in self.rows("SELECT outcome FROM runs ORDER BY id")]

    def wait_for_outcomes(self, *outcomes: str, seconds: float = 20) -> None:
        try:
            eventually(lambda: self.outcomes() == list(outcomes), seconds)
        except AssertionError:
            raise AssertionError(f"{self.outcomes()} is not {list(outcomes)}:\n{self.log()}") from None

    # --- afterwards ---

    def cgroup(self) -> pathlib.Path:
        return self.machine.path(f"/sys/fs/cgroup/system.slice/{NAME}")

    def processes(self) -> Sequence[int]:
        """Whoever is still in the unit's cgroup or one below it; the numbers of the outside."""
        found = []
        for path in self.cgroup().glob("**/cgroup.procs"):
            with contextlib.suppress(OSError):  # it ends meanwhile
                found += [int(line) for line in path.read_text().split()]
        return found

    def remove(self) -> None:
        """Stopped, with all that its hooks have left, and as if it had never been."""
        self.machine.run("systemctl", "stop", "--no-block", NAME, check=False)
        with contextlib.suppress(AssertionError):  # a hook may still run
            eventually(lambda: self.show("ActiveState") in {"inactive", "failed"}, 2)
        self.machine.run("systemctl", "kill", "--signal=KILL", NAME, check=False)
        self.write(f"{DROP_INS}/zz-end.conf", "[Service]\nRestart=no\nTimeoutStopSec=1\nSendSIGKILL=yes\n")
        self.machine.run("systemctl", "daemon-reload")
        self.systemctl("stop", check=False)
        eventually(self._emptied)
        self.machine.run("rm", "-rf", *LEFT_BEHIND)
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "reset-failed")

    def _emptied(self) -> bool:
        pids = self.processes()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        return not pids


def _text(message: str | list[int]) -> str:
    """What is not UTF-8 comes as numbers."""
    return message if isinstance(message, str) else bytes(message).decode(errors="replace")
