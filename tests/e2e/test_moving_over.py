"""docs/moving-over.rst, command for command: from the real os-collect-config and os-refresh-config, and back.

The commands are those of the page. /etc and /var are folders of the node's, ``systemctl`` is the machine
here, and the two programs are told by wrappers where the node is.
"""

import os
import pathlib
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests import pages
from tests.e2e.cloud import Cloud
from tests.e2e.nodes import NodeTree
from tests.e2e.stacks import Stack
from tests.functional.node import COMMAND
from tests.waiting import eventually

PAGE = pages.TOP / "docs" / "moving-over.rst"
SWITCH = "To refresh-agent alone"
BACK = "And back"
AGAIN = "A second time"

OCC, AGENT = "os-collect-config", "refresh-agent"

NOTE = """#!/bin/sh
test -n "$REFRESH_AGENT_RUN_ID" && who=refresh-agent
echo "${who:-os-refresh-config}" >> %s
"""


class Machine:
    """The node's programs, as services of these names."""

    def __init__(self, node: NodeTree, cloud: Cloud, peers: pathlib.Path) -> None:
        self.node = node
        self._cloud = cloud
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._hook()
        var = node.root / "var"
        (var / "lib").mkdir(parents=True)
        caches = {
            "cachedir": str(var / "lib" / "os-collect-config"),
            "backup_cachedir": str(var / "run" / "os-collect-config"),
        }
        own = node.root / "etc" / "refresh-agent"
        own.mkdir()
        node.own_conf = own / "refresh-agent.conf"
        node.configure(state_dir=str(var / "lib" / "refresh-agent"), **caches)
        self._wrap(AGENT, COMMAND, f"--config-dir {own}/refresh-agent.conf.d --config-file {node.own_conf}")
        theirs = node.root / "occ.conf"
        lines = [f"{name} = {value}" for name, value in {**caches, "polling_interval": "1"}.items()]
        theirs.write_text("\n".join(["[DEFAULT]", *lines, "[local]", f"path = {node.root}/local", ""]))
        config = f"--config-file {node.os_collect_config_conf} --config-file {theirs}"
        self._wrap(OCC, str(peers / "bin" / OCC), config)

    def _hook(self) -> None:
        """One that tells who runs the hooks, each time."""
        hook = self.node.root / "phases" / "configure.d" / "10-note"
        hook.write_text(NOTE % (self.node.root / "runs"))
        hook.chmod(0o755)

    def _wrap(self, name: str, program: str, options: str) -> None:
        path = self.node.root / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {program} {options} "$@"\n')
        path.chmod(0o755)

    def follow(self, title: str) -> str:
        """Do what stands under that title; all that its commands print."""
        printed = [self._do(self._here(command)) for command in pages.commands(pages.section(PAGE, title))]
        assert printed
        return "".join(printed)

    def _here(self, command: str) -> str:
        return re.sub(r"(?<![\w/.])/(?=(etc|var)/)", f"{self.node.root}/", command)

    def _do(self, command: str) -> str:
        words = shlex.split(command, comments=True)
        if words[0] == "systemctl":
            return self._systemctl(*words[1:])
        if words[0] == "journalctl":
            return self.log(words[-1])
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", command],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout + done.stderr

    def _systemctl(self, verb: str, now: str, unit: str) -> str:
        assert now == "--now"
        {"enable": self.start, "disable": self.stop}[verb](unit)
        return ""

    def _environment(self) -> dict[str, str]:
        # os-collect-config's "local" collector crashes under other locales.
        return {**os.environ, **self.node.environment, "LC_ALL": "C"}

    def start(self, unit: str) -> None:
        with self._log(unit).open("wb") as log:
            self._running[unit] = subprocess.Popen(
                [self.node.root / "bin" / unit],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self, unit: str) -> None:
        process = self._running.pop(unit)
        assert process.poll() is None, self.log(unit)
        process.send_signal(signal.SIGTERM)
        process.wait(20)

    def end(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def log(self, unit: str) -> str:
        """Since its last start."""
        return self._log(unit).read_text()

    def _log(self, unit: str) -> pathlib.Path:
        return self.node.root / f"{unit}.log"

    def runs(self) -> list[str]:
        """Who ran the hooks, once for every run."""
        path = self.node.root / "runs"
        return path.read_text().splitlines() if path.exists() else []

    def comes_to_rest(self, unit: str) -> None:
        """Until Heat has been asked twice since now, and what came of that is done."""
        before = self._polls()
        eventually(lambda: self._polls() >= before + 2, 20)
        if unit == AGENT:  # which asks while it runs hooks, too
            eventually(lambda: re.search(r"(success in|noop: ).*\Z", self.log(unit).strip()), 20)

    def _polls(self) -> int:
        asked = [one for name in ("cfn", "heat") for one in self._cloud.proxies[name].exchanges()]
        return sum(one.method == "GET" and one.path.endswith(("/v1/", "/metadata")) for one in asked)


@pytest.fixture
def machine(node: NodeTree, cloud: Cloud, peers: pathlib.Path) -> Iterator[Machine]:
    machine = Machine(node, cloud, peers)
    try:
        yield machine
    finally:
        machine.end()


def deliver(machine: Machine, stack: Stack, greeting: str) -> None:
    stack.update(greeting)
    stack.wait("UPDATE_COMPLETE")
    assert stack.outputs()["said"] == machine.node.ran()[-1] == greeting


def test_a_node_is_switched_and_switched_back_as_the_page_says(machine: Machine, stack: Stack) -> None:
    stack.create("POLL_SERVER_CFN", "CFN_SIGNAL", "hello")
    machine.node.point_at(stack.os_collect_config())
    machine.start(OCC)
    stack.wait("CREATE_COMPLETE")
    machine.comes_to_rest(OCC)
    before = machine.runs()
    assert set(before) == {"os-refresh-config"}

    printed = machine.follow(SWITCH)
    assert '"deployments": [' in printed
    machine.comes_to_rest(AGENT)
    assert "taken over, and nothing changed since" in machine.log(AGENT)
    assert machine.runs() == before
    deliver(machine, stack, "good day")
    machine.comes_to_rest(AGENT)
    assert set(machine.runs()[len(before) :]) == {AGENT}

    before = machine.runs()
    machine.follow(BACK)
    machine.comes_to_rest(OCC)
    assert machine.runs() == before
    deliver(machine, stack, "good evening")
    machine.comes_to_rest(OCC)
    assert set(machine.runs()[len(before) :]) == {"os-refresh-config"}

    before = machine.runs()
    machine.stop(OCC)
    machine.follow(AGAIN)
    machine.start(AGENT)
    machine.comes_to_rest(AGENT)
    assert machine.runs() == before
    assert machine.node.ran() == ["hello", "good day", "good evening"]
