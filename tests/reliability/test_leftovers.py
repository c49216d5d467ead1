"""What an agent that was killed leaves running of its hooks is ended by the next, and nothing else is."""

import contextlib
import os
import pathlib
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from refresh_agent.phases.family import process_table
from tests.functional.node import COMMAND, Node
from tests.processes import alive
from tests.waiting import eventually

LONG = 300
"""Seconds; whoever still sleeps then was forgotten."""

Pids = Callable[[str], int]


@pytest.fixture
def pid_of(node: Node) -> Iterator[Pids]:
    """Waits for the pid that a hook has written with ``telling``; whatever is left at the end is ended."""
    node.metadata({"a": 1})
    yield lambda name: int(eventually(lambda: _told(node, name)))
    for path in node.root.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)


def _told(node: Node, name: str) -> str:
    path = node.root / f"{name}.pid"
    return path.read_text().strip() if path.exists() else ""


def telling(node: Node, name: str, pid: str = "$$") -> str:
    return f"echo {pid} > {node.root}/{name}.new; mv {node.root}/{name}.new {node.root}/{name}.pid"


def nap(seconds: float = LONG) -> str:
    """A program that tells nobody whose it is."""
    return f"env -i sleep {seconds:g}"


def killed(node: Node, *arguments: str, hook: str = "10-a") -> None:
    """The command, killed once it has recorded that the hook runs; from now on the hook may do nothing."""
    process = subprocess.Popen(
        [COMMAND, "--config-file", str(node.config_file), *arguments], stderr=subprocess.DEVNULL
    )
    try:
        running = "SELECT began FROM hooks WHERE outcome IS NULL AND began > 0 AND hook = ?"
        eventually(lambda: node.rows(running, hook))
    finally:
        process.kill()
        process.wait(20)
    (node.root / "again").touch()


def waiting(node: Node, when_asked: str) -> str:
    """A hook that waits for TERM. It writes nowhere: nobody reads from it any more, which would end it."""
    begin = f"exec >/dev/null 2>&1\ntrap '{when_asked}' TERM\n{telling(node, 'hook')}"
    return only_once(node, f"{begin}\nwhile :; do sleep 0.02; done")


def only_once(node: Node, body: str) -> str:
    """A hook that has nothing to do when it is run again."""
    return f"[ -e {node.root}/again ] && exit 0\n{body}"


def killed_beside_a_nap(node: Node, pid_of: Pids, *arguments: str) -> int:
    """The pid of a hook that is nothing but a nap by now."""
    node.hook("configure/10-a", only_once(node, f"{telling(node, 'hook')}; exec {nap()}"))
    killed(node, *arguments)
    hook = pid_of("hook")
    eventually(lambda: tells_nobody(hook))
    return hook


def tells_nobody(pid: int) -> bool:
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")


def rewrite(node: Node, statement: str, *parameters: Any) -> None:
    with contextlib.closing(sqlite3.connect(node.state / "journal.sqlite", isolation_level=None)) as db:
        db.execute(statement, parameters)


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process of somebody else's, in a session of its own."""
    process = subprocess.Popen(["sleep", str(LONG)], start_new_session=True)
    try:
        yield process.pid
        assert process.poll() is None, "it was ended"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "next_command", [("--once",), ("run-phases",), ()], ids=["once", "by-hand", "daemon"]
)
def test_a_hook_without_an_environment_is_ended_by_whichever_command_comes_next(
    node: Node, pid_of: Pids, next_command: tuple[str, ...]
) -> None:
    hook = killed_beside_a_nap(node, pid_of, "run-phases")
    if next_command:
        ended = node.command(*next_command)
        assert ended.returncode == 0
        assert f"ended what an interrupted hook had left running: pids ({hook},)" in ended.stderr
    else:
        with node.daemon():
            node.wait_for_outcomes(["interrupted", "success"])
    assert not alive(hook)


def test_so_is_all_of_its_session_also_if_the_hook_itself_has_ended_since(node: Node, pid_of: Pids) -> None:
    """It has nobody to write to any more."""
    child = f"{nap()} & {telling(node, 'child', '$!')}"
    body = f"{telling(node, 'hook')}; {child}; while :; do echo still here; sleep 0.05; done"
    node.hook("configure/10-a", only_once(node, body))
    killed(node, "--once")
    hook, child_pid = pid_of("hook"), pid_of("child")
    eventually(lambda: not alive(hook))
    assert tells_nobody(child_pid)
    assert node.once().returncode == 0
    assert not alive(child_pid)


def test_it_is_asked_first_and_killed_when_its_time_is_up(node: Node, pid_of: Pids) -> None:
    node.configure("[phases]\nkill_grace = 0.5")
    node.hook("configure/10-a", waiting(node, f"echo > {node.root}/asked"))
    killed(node)
    hook = pid_of("hook")
    began = time.monotonic()
    assert node.once().returncode == 0
    assert time.monotonic() - began >= 0.5
    assert not alive(hook)
    assert (node.root / "asked").exists()


def test_it_may_put_things_in_order_when_it_is_asked(node: Node, pid_of: Pids) -> None:
    """And what it starts for that purpose is not killed before its time either."""
    tidy = f"{nap(0.3)}; echo tidy > {node.root}/tidy; exit 0"
    node.hook("configure/10-a", waiting(node, tidy))
    killed(node)
    hook = pid_of("hook")
    assert node.once().returncode == 0
    assert not alive(hook)
    assert (node.root / "tidy").exists()


@pytest.mark.parametrize(
    "claim",
    ["UPDATE hooks SET pid = :stranger", "UPDATE hooks SET pid = :stranger, began = began + 100000"],
    ids=["begun-before-the-hook", "begun-after-it"],
)
def test_a_stranger_that_has_got_its_pid_is_left_alone(
    node: Node, pid_of: Pids, stranger: int, claim: str
) -> None:
    hook = killed_beside_a_nap(node, pid_of)
    rewrite(node, claim.replace(":stranger", "?"), stranger)
    ended = node.once()
    assert ended.returncode == 0
    assert "ended what" not in ended.stderr
    assert alive(hook)  # nothing tells any more that it was one


def test_a_process_that_began_at_another_time_is_a_stranger(node: Node, pid_of: Pids) -> None:
    hook = killed_beside_a_nap(node, pid_of)
    rewrite(node, "UPDATE hooks SET began = began - 1")
    assert node.once().returncode == 0
    assert alive(hook)


def test_nothing_of_another_boot_is_touched(node: Node, pid_of: Pids) -> None:
    node.hook("configure/10-a", only_once(node, f"{telling(node, 'hook')}; sleep {LONG}"))
    killed(node)
    hook = pid_of("hook")
    rewrite(node, "UPDATE runs SET boot_id = 'another'")
    ended = node.once()
    assert ended.returncode == 0
    assert "was interrupted" in ended.stderr
    assert alive(hook)
    os.killpg(hook, signal.SIGKILL)


def test_what_a_hook_has_left_behind_that_had_ended_goes_on(node: Node, pid_of: Pids) -> None:
    with_mark = f"sleep {LONG} >/dev/null 2>&1 & {telling(node, 'marked', '$!')}"
    without = f"{nap()} >/dev/null 2>&1 & {telling(node, 'wiped', '$!')}"
    node.hook("configure/00-service", only_once(node, f"{with_mark}; {without}"))
    node.hook("configure/10-a", only_once(node, f"{telling(node, 'hook')}; sleep {LONG}"))
    killed(node)
    assert node.once().returncode == 0
    assert not alive(pid_of("hook"))
    assert alive(pid_of("marked"))
    assert alive(pid_of("wiped"))


def test_a_successor_that_is_killed_while_it_ends_them_leaves_that_to_the_next(
    node: Node, pid_of: Pids
) -> None:
    node.configure("[phases]\nkill_grace = 60")
    node.hook("configure/10-a", waiting(node, f"echo > {node.root}/asked"))
    killed(node)
    hook = pid_of("hook")
    with node.daemon() as daemon:
        eventually((node.root / "asked").exists)
        daemon.process.kill()
        daemon.process.wait(20)
    assert alive(hook)
    assert node.outcomes() == [None]
    node.configure("[phases]\nkill_grace = 0.1")
    assert node.once().returncode == 0
    assert not alive(hook)
    assert node.outcomes() == ["interrupted", "success"]


def test_a_hook_whose_main_thread_has_ended_runs_all_the_same(node: Node, pid_of: Pids) -> None:
    """For the kernel it is a zombie then."""
    program = (
        "import ctypes, threading, time\n"
        f"threading.Thread(target=time.sleep, args=({LONG},)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    (node.root / "threads.py").write_text(program)
    node.hook(
        "configure/10-a", only_once(node, f"{telling(node, 'hook')}; exec python3 {node.root}/threads.py")
    )
    killed(node)
    hook = pid_of("hook")
    eventually(lambda: not alive(hook))  # to look at
    ended = node.once()
    assert f"pids ({hook},)" in ended.stderr
    assert hook not in process_table()  # who buries it may take his time


def test_what_it_had_half_written_is_removed_too(node: Node, pid_of: Pids) -> None:
    killed_beside_a_nap(node, pid_of)
    backup = node.root / "backup"
    half_written = [
        node.state / "sources" / ".heat_local.json.0a1b2c3d",
        node.state / "sources" / "heat_local" / ".heat_local-0a1b2c3d.json.0a1b2c3d",
        *(folder / ".heat_local.json.0a1b2c3d" for folder in (node.cache, backup)),
    ]
    for path in half_written:
        path.write_text("{")
    assert node.once().returncode == 0
    assert [path for path in half_written if path.exists()] == []
