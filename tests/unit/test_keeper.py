"""Who listens when the agent has ended: the real program, in a process of its own."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.processes import alive
from tests.unit.support import write_hook
from tests.waiting import eventually

DAEMON = """
( trap 'touch $ROOT/died' PIPE
  echo $BASHPID > $ROOT/pid
  until [ -e $ROOT/go ]; do sleep 0.01; done
  echo "the password is hunter2-hunter2"
  echo "a word on the other" >&2
  touch $ROOT/said ) &
"""
"""It says nothing before the test wants it to: by then the agent is gone."""

FIRST_AND_LAST = """
( until [ -e $ROOT/first ]; do sleep 0.01; done ) 2> /dev/null &
( echo $BASHPID > $ROOT/pid
  until [ -e $ROOT/go ]; do sleep 0.01; done
  echo "still here" >&2 ) > /dev/null &
"""
"""Each holds one of the hook's two pipes."""

AGENT = """
import os, signal, sys
from refresh_agent import keeper
from refresh_agent.model import Command, LogFormat
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.redact import Masker
from refresh_agent.wakeup import Stop

hook, log_format = sys.argv[1:]
env = {
    "PATH": os.environ["PATH"], "ROOT": os.path.dirname(hook), "REFRESH_AGENT_RUN_ID": "0123abcd",
    "REFRESH_AGENT_PHASE": "configure",
}
ended = ProcessRunner(Stop(), Grace()).run(Command(hook, (hook,), env), lambda *_: None)
assert ended.ok, ended
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # as in the daemon's worker
print(keeper.leave_behind(Masker(["hunter2-hunter2"]), LogFormat(log_format)))
"""
"""It runs one hook, and ends."""


class Left:
    """What an agent that has ended has left behind. ``keeper``: its pid, 0 for none."""

    def __init__(self, root: pathlib.Path, body: str, log_format: str = "text") -> None:
        self.root = root
        self._log = root / "log"
        hook = write_hook(root / "10-a", body)
        command = [sys.executable, "-c", AGENT, str(hook), log_format]
        environment = os.environ | {"NOTIFY_SOCKET": "/of/the/agent", "OF_THE_AGENT": "1"}
        with self._log.open("wb") as log:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, env=environment, timeout=30)
        assert done.returncode == 0, self.log()
        self.keeper = int(done.stdout)

    def log(self) -> str:
        return self._log.read_text()

    def pipes(self) -> int:
        """How many of them the keeper has open."""
        found = 0
        for path in pathlib.Path(f"/proc/{self.keeper}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it imports, and closes what it has read
                found += int(path.name) > 2 and os.readlink(path).startswith("pipe:")
        return found

    def let_go_on(self) -> None:
        (self.root / "go").touch()

    def wait_for_the_end(self) -> None:
        eventually(lambda: not alive(self.keeper))

    def kill(self) -> None:
        pid = self.root / "pid"
        for each in (self.keeper, int(pid.read_text()) if pid.exists() else 0):
            with contextlib.suppress(ProcessLookupError):
                if each:
                    os.kill(each, signal.SIGKILL)


@pytest.fixture
def left(tmp_path: pathlib.Path) -> Iterator[Left]:
    left = Left(tmp_path, DAEMON)
    yield left
    left.kill()


def test_a_daemon_of_a_hook_does_not_die_of_its_next_line(left: Left) -> None:
    left.let_go_on()
    eventually((left.root / "said").exists)
    left.wait_for_the_end()
    assert not (left.root / "died").exists()
    assert "configure/10-a| a word on the other" in left.log()


def test_what_it_says_is_masked_still(left: Left) -> None:
    left.let_go_on()
    left.wait_for_the_end()
    assert "configure/10-a| the password is ***" in left.log()
    assert "hunter2" not in left.log()


def test_no_secret_is_on_its_command_line_or_in_its_environment(left: Left) -> None:
    process = pathlib.Path(f"/proc/{left.keeper}")
    seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert b"refresh_agent.keeper" in seen
    assert b"hunter2" not in seen


def test_it_cannot_speak_to_systemd_for_the_agent(left: Left) -> None:
    environment = pathlib.Path(f"/proc/{left.keeper}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in environment
    assert b"OF_THE_AGENT=1" in environment


def test_it_holds_nothing_of_the_agents_but_these_pipes(left: Left) -> None:
    """A lock, for instance, would keep the next agent out."""
    folder = pathlib.Path(f"/proc/{left.keeper}/fd")
    eventually(lambda: b"-m" in pathlib.Path(f"/proc/{left.keeper}/cmdline").read_bytes())

    def kinds() -> list[str]:
        found = []
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it imports, and closes what it has read
                if int(path.name) > 2:
                    found.append(os.readlink(path).partition(":")[0])
        return sorted(found)

    # The first is its own, of refresh_agent.phases.pipes.
    eventually(lambda: kinds() == ["anon_inode", "pipe", "pipe"])


def test_its_log_is_in_the_agents_format(tmp_path: pathlib.Path) -> None:
    left = Left(tmp_path, DAEMON, "json")
    try:
        left.let_go_on()
        left.wait_for_the_end()
        lines = [json.loads(line) for line in left.log().splitlines()]
    finally:
        left.kill()
    said = {line["stream"]: line for line in lines}
    assert said["stdout"]["message"] == "configure/10-a| the password is ***"
    assert (said["stderr"]["run_id"], said["stderr"]["hook"]) == ("0123abcd", "10-a")


def test_where_nobody_goes_on_none_is_started(tmp_path: pathlib.Path) -> None:
    assert Left(tmp_path, "echo done").keeper == 0


def test_it_goes_on_for_the_last_when_the_first_has_ended(tmp_path: pathlib.Path) -> None:
    left = Left(tmp_path, FIRST_AND_LAST)
    try:
        eventually(lambda: left.pipes() == 2)
        (tmp_path / "first").touch()
        eventually(lambda: left.pipes() == 1)
        left.let_go_on()
        left.wait_for_the_end()
    finally:
        (tmp_path / "first").touch()
        left.kill()
    assert "configure/10-a| still here" in left.log()


def test_a_last_line_that_does_not_end_is_told_too(tmp_path: pathlib.Path) -> None:
    left = Left(tmp_path, DAEMON.replace('echo "a word on the other"', 'printf "a last word"'))
    try:
        left.let_go_on()
        left.wait_for_the_end()
    finally:
        left.kill()
    assert "configure/10-a| a last word" in left.log()


def test_whoever_asks_it_to_end_is_heard(left: Left) -> None:
    """systemd does, where it stops all that a unit has left running."""
    os.kill(left.keeper, signal.SIGTERM)
    left.wait_for_the_end()
    assert not (left.root / "said").exists()
