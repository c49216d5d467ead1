"""Whose a process is: what is adopted and what is ours, what is left of a hook and what is a stranger's."""

import os
import pathlib
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from refresh_agent.marks import HOOK_ID
from refresh_agent.phases import family
from refresh_agent.systemd import Pulse
from tests.processes import alive, children
from tests.waiting import eventually


def has_ended(pid: int) -> bool:
    """It waits to be buried."""
    return pid in children() and not alive(pid)


@pytest.fixture
def ours() -> Iterator["subprocess.Popen[bytes]"]:
    """As another thread starts mount: in our session, and its status is for that thread."""
    process = subprocess.Popen(["false"])
    eventually(lambda: has_ended(process.pid))
    yield process
    process.wait()


@pytest.fixture
def others() -> Iterator["list[subprocess.Popen[bytes]]"]:
    """As hooks are, in sessions of their own; whatever of them still lives at the end is ended."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def started(command: str, others: "list[subprocess.Popen[bytes]]", **env: str) -> int:
    process = subprocess.Popen(
        ["bash", "-c", command], start_new_session=True, env={"PATH": os.environ["PATH"], **env}
    )
    others.append(process)
    return process.pid


# --- reap_orphans ------------------------------------------------------------------------------------------


def test_how_a_child_of_ours_ended_is_left_to_whoever_waits_for_it(
    ours: "subprocess.Popen[bytes]",
) -> None:
    assert family.reap_orphans()
    assert ours.wait() == 1


def test_what_has_ended_in_another_session_is_buried_also_behind_it(
    ours: "subprocess.Popen[bytes]", others: "list[subprocess.Popen[bytes]]"
) -> None:
    pids = [started("true", others) for _ in range(3)]
    eventually(lambda: all(map(has_ended, pids)))
    assert family.reap_orphans()
    assert children() == [ours.pid]
    assert ours.wait() == 1
    assert not family.reap_orphans()


def test_whether_others_live_on_is_told(others: "list[subprocess.Popen[bytes]]") -> None:
    pid = started("exec sleep 300", others)
    assert family.reap_orphans()
    assert alive(pid)


# --- end_leftovers -----------------------------------------------------------------------------------------


def nobody(_mark: str) -> bool:
    return False


def test_a_leader_is_known_by_its_pid_and_the_moment_of_its_start(
    others: "list[subprocess.Popen[bytes]]",
) -> None:
    left, stranger = started("exec sleep 300", others), started("exec sleep 300", others)
    leaders = frozenset({(left, family.birth(left)), (stranger, family.birth(stranger) - 1)})
    assert family.end_leftovers(family.Leftovers(nobody, leaders), 5) == (left,)
    assert alive(stranger)


def test_a_leader_that_has_ended_but_is_not_buried_still_tells_whose_session_it_is(
    others: "list[subprocess.Popen[bytes]]",
) -> None:
    left = started("sleep 300 & sleep 0.1", others)
    began = family.birth(left)
    eventually(lambda: has_ended(left))
    (child,) = family.end_leftovers(family.Leftovers(nobody, frozenset({(left, began)})), 5)
    assert child != left
    assert not alive(child)


def test_what_only_just_appears_is_asked_too(others: "list[subprocess.Popen[bytes]]") -> None:
    """A process that starts others when it is asked to end."""
    loop = "trap 'sleep 300 & wait $!; exit' TERM; while :; do sleep 0.01; done"
    left = started(f"exec 2>/dev/null; {loop}", others, **{HOOK_ID: "hook"})
    eventually(lambda: _catches(left, signal.SIGTERM))
    pids = family.end_leftovers(family.Leftovers("hook".__eq__), 5)
    assert not any(map(alive, pids))
    assert others[0].wait(10) == 128 + signal.SIGTERM


def test_what_does_not_want_to_end_is_no_reason_to_fall_silent(
    others: "list[subprocess.Popen[bytes]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[str] = []
    monkeypatch.setattr(family, "PULSE", Pulse(0.1, beats.append))
    left = started("trap '' TERM; while :; do sleep 0.05; done", others, **{HOOK_ID: "hook"})
    eventually(lambda: _ignores(left, signal.SIGTERM))
    assert left in family.end_leftovers(family.Leftovers("hook".__eq__), 0.5)
    assert len(beats) >= 2
    assert set(beats) == {"WATCHDOG=1"}


def _catches(pid: int, number: int) -> bool:
    return _is_among("SigCgt", pid, number)


def _ignores(pid: int, number: int) -> bool:
    return _is_among("SigIgn", pid, number)


def _is_among(name: str, pid: int, number: int) -> bool:
    with open(f"/proc/{pid}/status") as file:
        signals = next(line.split()[1] for line in file if line.startswith(name))
    return bool(int(signals, 16) >> (number - 1) & 1)


# --- leftovers ---------------------------------------------------------------------------------------------


@pytest.fixture
def orphan(tmp_path: pathlib.Path) -> Iterator[Callable[[str], tuple[int, int]]]:
    """Start a command in a session whose leader ends at once; the session and the command's pid."""
    started: list[int] = []

    def start(command: str) -> tuple[int, int]:
        note = tmp_path / "pids"
        script = f"{command} & echo $$ $! > {note}.new; mv {note}.new {note}"
        subprocess.run(["bash", "-c", script], start_new_session=True, check=True, stdout=subprocess.DEVNULL)
        session, pid = map(int, note.read_text().split())
        started.append(pid)
        eventually(lambda: b"sleep" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
        return session, pid

    yield start
    for pid in started:
        os.kill(pid, signal.SIGKILL)


def of(session: int) -> family.Leftovers:
    return family.Leftovers(lambda _mark: False, frozenset({(session, 12345)}))


def test_of_a_leader_that_has_ended_what_has_wiped_its_environment_is_found(
    orphan: Callable[[str], tuple[int, int]],
) -> None:
    session, pid = orphan("env -i sleep 60")
    assert of(session).find() == {pid}


def test_a_strangers_session_with_the_number_of_a_leader_that_has_ended_is_left_alone(
    orphan: Callable[[str], tuple[int, int]],
) -> None:
    session, _ = orphan("sleep 60")
    assert of(session).find() == set()


def test_what_a_killed_agents_hook_left_running_is_ended_with_all_that_it_started(
    tmp_path: pathlib.Path,
) -> None:
    """Two runs of one hook must not overlap; strangers and other hooks' daemons are left alone."""
    script = (
        f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; wait; sleep 60"
    )
    env = {"PATH": os.environ["PATH"]}
    theirs = [
        subprocess.Popen(["sleep", "60"], env={**env, HOOK_ID: identity}, start_new_session=True)
        for identity in ("h", "hook-11", "")
    ]
    left = subprocess.Popen(["bash", "-c", script], env={**env, HOOK_ID: "hook-1"}, start_new_session=True)
    try:
        inner = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
        ended = family.end_leftovers(family.Leftovers("hook-1".__eq__), 0.2)
        assert {left.pid, inner} <= set(ended)
        assert not alive(left.pid)
        assert not alive(inner)
        assert all(child.poll() is None for child in theirs)
    finally:
        for child in (left, *theirs):
            child.kill()
            child.wait()


def test_without_leftovers_nothing_is_ended() -> None:
    assert family.end_leftovers(family.Leftovers("no-such-hook".__eq__), 5) == ()
