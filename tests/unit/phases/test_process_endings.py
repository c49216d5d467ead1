"""How one process and everything that it started come to their end: time-outs, a stop, what is left."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace

import pytest

from refresh_agent.marks import HOOK_ID
from refresh_agent.model import Command, Ending, Stream
from refresh_agent.phases import family
from refresh_agent.phases.process import Grace, ProcessRunner
from tests.processes import alive, children
from tests.unit.phases.shop import OUT, Shop, followers
from tests.unit.support import open_descriptors, write_hook
from tests.waiting import eventually

# --- time-outs ---------------------------------------------------------------------------------------------


def test_at_its_time_out_it_gets_term_and_may_clean_up(shop: Shop) -> None:
    ended = shop.run("trap 'echo cleaning; exit 9' TERM; echo up; sleep 60 & wait", timeout=0.3)
    assert (ended.ending, ended.status) == (Ending.TIMEOUT, 9)
    assert ended.detail == "ran longer than 0.3 s and was ended"
    assert [line for _, line in shop.lines] == ["up", "cleaning"]
    assert not ended.ok


def test_a_success_after_the_time_out_is_none(shop: Shop) -> None:
    ended = shop.run("trap 'exit 0' TERM; sleep 60 & wait", timeout=0.2)
    assert (ended.ending, ended.status, ended.ok) == (Ending.TIMEOUT, 0, False)


def test_who_ignores_term_is_killed_after_the_grace(shop: Shop) -> None:
    ended = shop.run("trap '' TERM; echo up; while :; do sleep 0.05; done", timeout=0.2)
    assert (ended.ending, ended.status) == (Ending.TIMEOUT, 137)
    assert 0.4 <= ended.seconds < 10


def test_a_command_may_have_another_grace_than_the_runners(shop: Shop) -> None:
    done = shop.root / "done"
    body = f"trap : TERM; for i in {{1..10}}; do sleep 0.1; done; touch {done}"
    path = shop.script(body)
    patient = Command(str(path), (str(path),), dict(os.environ), timeout=0.2, kill_grace=float("inf"))
    assert shop.listen(patient).ending is Ending.TIMEOUT
    assert done.exists()
    done.unlink()
    shop.runner = ProcessRunner(shop.stop, Grace(kill=60, stop=60))
    assert shop.listen(replace(patient, kill_grace=0.1)).status == 137
    assert not done.exists()


def test_what_a_command_leaves_behind_has_the_runners_grace(shop: Shop) -> None:
    path = shop.script(
        f"(trap '' TERM; echo $BASHPID > {shop.root}/pid; while :; do sleep 0.05; done) & sleep 60"
    )
    env = {**os.environ, HOOK_ID: "the-hook"}
    ended = shop.listen(Command(str(path), (str(path),), env, timeout=0.5, kill_grace=float("inf")))
    assert ended.ending is Ending.TIMEOUT
    assert not alive(shop.pid())


ESCAPE = textwrap.dedent(
    """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork(): os._exit(0)
    os.setsid()
    if os.fork(): os._exit(0)
    for number in range(3): os.close(number)
    name = sys.argv[1]
    with open(name + ".new", "w") as file: file.write(str(os.getpid()))
    os.rename(name + ".new", name)
    time.sleep(60)
    """
)


def test_a_grandchild_that_tried_everything_to_get_away_is_ended_too(shop: Shop) -> None:
    """os-refresh-config's time-out kills only descendants; what is reparented stays."""
    (shop.root / "escape.py").write_text(ESCAPE)
    body = f"{sys.executable} {shop.root}/escape.py {shop.root}/pid; sleep 60"
    ended = shop.run(body, timeout=1)
    assert ended.ending is Ending.TIMEOUT
    assert not alive(shop.pid())


FORGETFUL = textwrap.dedent(
    """
    import ctypes, os, signal, sys, time
    def forget(*_):
        fields = open("/proc/self/stat").read().rpartition(")")[2].split()
        start, end = int(fields[47]), int(fields[48])  # env_start and env_end, counted behind the name
        ctypes.memset(start, 0, end - start)
        open(sys.argv[2], "w").close()
    signal.signal(signal.SIGTERM, forget)
    if os.fork(): os._exit(0)
    os.setsid()
    if os.fork(): os._exit(0)
    with open(sys.argv[1] + ".new", "w") as file: file.write(str(os.getpid()))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    while True: time.sleep(60)
    """
)


def test_who_wipes_its_environment_when_told_to_end_is_not_forgotten(shop: Shop) -> None:
    (shop.root / "forgetful.py").write_text(FORGETFUL)
    up = f"until [ -e {shop.root}/pid ]; do sleep 0.02; done; sleep 60"
    ended = shop.run(
        f"{sys.executable} {shop.root}/forgetful.py {shop.root}/pid {shop.root}/forgot; {up}", timeout=1
    )
    assert ended.ending is Ending.TIMEOUT
    assert (shop.root / "forgot").exists()
    assert not alive(shop.pid())


def test_what_becomes_an_orphan_by_our_own_term_is_not_forgotten(shop: Shop) -> None:
    """It ignores TERM, has another session, no mark, and its parent dies of the TERM."""
    inner = f'trap \\"\\" TERM; echo $$ > {shop.root}/pid; exec -a stubborn sleep 60'
    ended = shop.run(f'setsid env -i /bin/bash -c "{inner}" & wait', timeout=0.5)
    assert ended.ending is Ending.TIMEOUT
    assert not alive(shop.pid())


def test_a_process_whose_main_thread_has_ended_still_runs(shop: Shop) -> None:
    body = f"""
import ctypes, os, threading, time
def go_on():
    open("{shop.root}/up", "w").close()
    time.sleep(60)
threading.Thread(target=go_on).start()
open("{shop.root}/pid", "w").write(str(os.getpid()))
ctypes.CDLL(None).syscall({60 if os.uname().machine == "x86_64" else 93}, 0)
"""
    (shop.root / "threads.py").write_text(body)
    ended = shop.run(f"exec {sys.executable} {shop.root}/threads.py", timeout=1)
    assert ended.ending is Ending.TIMEOUT
    assert (shop.root / "up").exists()
    assert ended.seconds < 10


def test_whole_trees_are_ended(shop: Shop) -> None:
    body = f"(sleep 60 & sleep 60) & (setsid sleep 60 & echo $! > {shop.root}/pid; wait) & wait"
    ended = shop.run(body, timeout=0.4)
    assert ended.ending is Ending.TIMEOUT
    assert not alive(shop.pid())
    assert children() == []


def test_another_hooks_daemon_is_left_alone(shop: Shop) -> None:
    """A service that an earlier hook started is not this hook's to end."""
    shop.run(f"setsid sleep 60 >/dev/null 2>&1 & echo $! > {shop.root}/pid", REFRESH_AGENT_HOOK_ID="earlier")
    shop.run("sleep 60", timeout=0.2)
    assert alive(shop.pid())
    os.kill(shop.pid(), signal.SIGKILL)


def test_without_an_identity_only_session_and_descent_count(shop: Shop) -> None:
    ended = shop.run(f"sleep 60 & echo $! > {shop.root}/pid; wait", timeout=0.2, REFRESH_AGENT_HOOK_ID="")
    assert ended.ending is Ending.TIMEOUT
    assert not alive(shop.pid())


@pytest.mark.parametrize("timeout", [30 * 86400, 1e12])
def test_a_time_out_beyond_what_a_poll_takes_is_as_good_as_any(shop: Shop, timeout: float) -> None:
    assert shop.run("echo fine", timeout=timeout).ok


def test_output_without_end_does_not_outlast_the_time_out(shop: Shop) -> None:
    ended = shop.run("yes", timeout=0.2)
    assert ended.ending is Ending.TIMEOUT
    assert ended.seconds < 10


# --- stopping ----------------------------------------------------------------------------------------------


def request_when(shop: Shop, name: str) -> threading.Thread:
    """Ask for a stop as soon as the file exists."""

    def wait() -> None:
        eventually((shop.root / name).exists)
        shop.stop.request(signal.SIGTERM)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_running_hook_may_finish_within_the_grace(shop: Shop) -> None:
    shop.runner = ProcessRunner(shop.stop, Grace(kill=0.3, stop=30))
    thread = request_when(shop, "up")
    ended = shop.run(f"touch {shop.root}/up; sleep 0.3; echo finished")
    thread.join()
    assert ended.ok
    assert shop.lines == [(OUT, "finished")]


def test_a_hook_that_needs_longer_than_the_grace_is_ended(shop: Shop) -> None:
    thread = request_when(shop, "up")
    ended = shop.run(f"touch {shop.root}/up; sleep 60")
    thread.join()
    assert (ended.ending, ended.status) == (Ending.STOPPED, 143)
    assert ended.detail == "the agent is stopping and 0.3 s were not enough; it was ended"


def test_a_time_out_that_comes_before_the_end_of_the_grace_holds(shop: Shop) -> None:
    shop.runner = ProcessRunner(shop.stop, Grace(kill=0.3, stop=30))
    thread = request_when(shop, "up")
    ended = shop.run(f"touch {shop.root}/up; while :; do echo still; sleep 0.05; done", timeout=1)
    thread.join()
    assert ended.ending is Ending.TIMEOUT
    assert ended.seconds < 10


def test_a_stop_does_not_make_the_agent_spin(shop: Shop) -> None:
    shop.runner = ProcessRunner(shop.stop, Grace(kill=0.3, stop=30))
    thread = request_when(shop, "up")
    before = time.process_time()
    assert shop.run(f"touch {shop.root}/up; sleep 1").ok
    thread.join()
    assert time.process_time() - before < 0.5


def test_nothing_is_started_once_a_stop_was_requested(shop: Shop) -> None:
    shop.stop.request(signal.SIGTERM)
    ended = shop.run(f"touch {shop.root}/started")
    assert (ended.ending, ended.status, ended.detail) == (Ending.STOPPED, 143, "the agent is stopping")
    assert not (shop.root / "started").exists()


# --- nothing is left behind --------------------------------------------------------------------------------


def test_two_hundred_runs_leave_no_descriptor_and_no_zombie(shop: Shop) -> None:
    path = shop.script("(true &) ; true", "#!/bin/sh\n")
    gone = shop.root / "gone"
    shop.run_file(path)
    eventually(lambda: followers() == 0)
    before = open_descriptors()
    for number in range(200):
        shop.run_file(gone if number % 10 == 0 else path, stdin=b"x" * (number % 2))
    eventually(lambda: open_descriptors() == before)

    def buried() -> bool:
        family.reap_orphans()
        return children() == []

    eventually(buried)


def test_a_sink_that_fails_leaves_no_process(shop: Shop) -> None:
    path = shop.script(f"echo $$ > {shop.root}/pid; echo up; sleep 60")

    def sink(_stream: Stream, _data: bytes) -> None:
        raise ZeroDivisionError

    """Nor does it matter that its pipes close before it has ended."""
    before = open_descriptors()
    with pytest.raises(ZeroDivisionError):
        shop.runner.run(Command(str(path), ("hook",), dict(os.environ)), sink)
    assert not alive(shop.pid())
    eventually(lambda: open_descriptors() == before)


def test_orphans_that_end_later_are_buried_by_the_next_run(shop: Shop) -> None:
    shop.run(f"(sleep 0.2; echo > {shop.root}/over) >/dev/null 2>&1 &")
    eventually((shop.root / "over").exists)

    def buried() -> bool:
        shop.run("true")
        return children() == []

    eventually(buried)


def test_the_process_table_shows_parents_and_sessions_and_no_zombies() -> None:
    child = subprocess.Popen(["true"])
    try:
        eventually(lambda: child.pid not in family.process_table())  # ended, and not yet waited for
        entry = family.process_table()[os.getpid()]
        assert (entry.parent, entry.session) == (os.getppid(), os.getsid(0))
    finally:
        child.wait()


def test_a_process_whose_name_looks_like_a_stat_line_is_read_right(shop: Shop) -> None:
    path = write_hook(
        shop.root / ") Z 1 1 (", f"echo $$ > {shop.root}/pid; sleep 60", shebang="#!/bin/bash\n"
    )
    started = shop.runner.start(Command(str(path), (str(path),), {}, timeout=0.2), lambda *_: None)
    eventually((shop.root / "pid").exists)
    assert family.process_table()[started.pid].session == started.pid
    assert shop.runner.wait(started).ending is Ending.TIMEOUT


def test_what_a_caller_could_not_cope_with_leaves_no_process(shop: Shop) -> None:
    path = shop.script(f"echo $$ > {shop.root}/pid; exec sleep 60")
    for _ in range(2):
        shop.runner.start(Command(str(path), ("hook",), dict(os.environ)), lambda *_: None)
    pid = shop.pid()
    shop.runner.abandon()
    assert not alive(pid)
    assert children() == []
