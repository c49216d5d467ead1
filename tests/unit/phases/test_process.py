"""One process and everything that it started, with real processes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from refresh_agent.lines import LINE_LIMIT, Lines
from refresh_agent.marks import HOOK_ID
from refresh_agent.model import Command, Ending, Exit, Stream
from refresh_agent.phases import family
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.redact import printable
from refresh_agent.wakeup import Stop
from tests.processes import alive, children
from tests.unit.support import open_descriptors, write_hook
from tests.waiting import eventually

Told = list[tuple[Stream, str]]
OUT, ERR = Stream.STDOUT, Stream.STDERR


@pytest.fixture
def stop() -> Iterator[Stop]:
    stop = Stop()
    yield stop
    stop.close()


class Shop:
    """Runs bash scripts, by default under a short grace."""

    def __init__(self, root: pathlib.Path, stop: Stop) -> None:
        self.root = root
        self.stop = stop
        self.lines: Told = []
        self.runner = ProcessRunner(stop, Grace(kill=0.3, stop=0.3))

    def script(self, body: str, shebang: str = "#!/bin/bash\n") -> pathlib.Path:
        return write_hook(self.root / "hook", body, shebang=shebang)

    def run(self, body: str, *, timeout: float = 0, stdin: bytes = b"", **env: str) -> Exit:
        return self.run_file(self.script(body), timeout=timeout, stdin=stdin, **env)

    def run_file(self, path: pathlib.Path, *, timeout: float = 0, stdin: bytes = b"", **env: str) -> Exit:
        self.lines.clear()
        variables = {"PATH": os.environ["PATH"], HOOK_ID: "the-hook", **env}
        return self.listen(Command(str(path), (str(path),), variables, stdin, timeout))

    def listen(self, command: Command) -> Exit:
        lines = Lines(lambda *line: self.lines.append(line))
        ended = self.runner.run(command, lines.feed)
        lines.flush()
        return ended

    def pid(self, name: str = "pid") -> int:
        return int(eventually(lambda: (self.root / name).exists() and (self.root / name).read_text()))


def followers() -> int:
    """Threads that listen to what hooks have left in the background."""
    return sum(thread.name == "background-output" for thread in threading.enumerate())


@pytest.fixture
def shop(tmp_path: pathlib.Path, stop: Stop) -> Iterator[Shop]:
    yield Shop(tmp_path, stop)
    for pid in children():  # what a test has left on purpose, or because it failed
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    eventually(lambda: followers() == 0)


# --- how it ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 42, 99, 126, 127, 255])
def test_the_status_is_the_scripts_own(shop: Shop, status: int) -> None:
    """os-refresh-config loses it: 42 becomes 1."""
    ended = shop.run(f"exit {status}")
    assert (ended.status, ended.ending, ended.detail) == (status, Ending.EXITED, "")
    assert ended.ok is (status == 0)


@pytest.mark.parametrize("name", ["TERM", "KILL", "HUP", "PIPE", "USR1", "SEGV"])
def test_a_signal_is_128_plus_its_number_and_is_told(shop: Shop, name: str) -> None:
    ended = shop.run(f"ulimit -c 0; kill -{name} $$; sleep 60")
    number = signal.Signals[f"SIG{name}"]
    assert (ended.status, ended.ending) == (128 + number, Ending.EXITED)
    assert ended.detail == f"was ended by signal {number:d}"
    assert not ended.ok


def test_the_time_it_took_is_measured(shop: Shop) -> None:
    assert 0.2 <= shop.run("sleep 0.2").seconds < 10


def test_the_pid_is_known_as_soon_as_there_is_one(shop: Shop) -> None:
    path = shop.script(f"sleep 0.1; echo $$ > {shop.root}/pid")
    started = shop.runner.start(Command(str(path), (str(path),), {}), lambda *_: None)
    assert alive(started.pid)
    assert shop.runner.wait(started).ok
    assert shop.pid() == started.pid


# --- what cannot be started --------------------------------------------------------------------------------


def test_a_missing_interpreter_is_named(shop: Shop) -> None:
    ended = shop.run_file(shop.script("", "#!/no/such/python -u\n"))
    assert (ended.status, ended.ending) == (127, Ending.NOT_STARTED)
    assert ended.detail == "cannot be started: its interpreter /no/such/python does not exist"


def test_the_name_of_a_missing_interpreter_cannot_steer_a_terminal(shop: Shop) -> None:
    ended = shop.run_file(shop.script("", "#!/no/\x1b[2Jsuch\n"))
    assert ended.detail == r"cannot be started: its interpreter /no/\x1b[2Jsuch does not exist"


def test_a_program_whose_loader_is_missing(shop: Shop) -> None:
    path = shop.root / "program"
    original = pathlib.Path("/bin/true").resolve().read_bytes()
    path.write_bytes(original.replace(b"/lib64/ld-linux", b"/lib64/no-linux"))
    path.chmod(0o755)
    if b"/lib64/no-linux" not in path.read_bytes():  # another architecture's loader has another name
        path.write_text("#!\n")
    ended = shop.run_file(path)
    assert not ended.ok
    assert ended.detail in {"cannot be started: its interpreter (its loader) does not exist", ""}


def test_a_file_that_is_not_executable(shop: Shop) -> None:
    path = shop.script("")
    path.chmod(0o644)
    ended = shop.run_file(path)
    assert (ended.status, ended.ending) == (126, Ending.NOT_STARTED)
    assert ended.detail == "cannot be started: Permission denied"


def test_a_file_that_is_gone(shop: Shop) -> None:
    ended = shop.run_file(shop.root / "gone")
    assert (ended.status, ended.ending) == (127, Ending.NOT_STARTED)
    assert ended.detail == "cannot be started: No such file or directory"


def test_a_link_to_itself(shop: Shop) -> None:
    (shop.root / "loop").symlink_to("loop")
    ended = shop.run_file(shop.root / "loop")
    assert (ended.status, ended.ending) == (127, Ending.NOT_STARTED)
    assert "Too many levels of symbolic links" in ended.detail


def test_without_a_shebang_bash_runs_it(shop: Shop) -> None:
    """As dib-run-parts, which is bash; with fresh options, and the file's own path as $0."""
    ended = shop.run_file(shop.script('false; echo "$BASH_VERSION${undefined}|$0|$#|$-"', ""))
    assert ended.ok
    version, name, count, options = shop.lines[0][1].split("|")
    assert version
    assert (name, count) == (str(shop.root / "hook"), "0")
    assert not {"e", "u", "x"} & set(options)


def test_an_empty_file_does_nothing(shop: Shop) -> None:
    path = shop.root / "empty"
    path.touch(0o755)
    assert shop.run_file(path).ok


# --- what it inherits --------------------------------------------------------------------------------------

LOOK_AROUND = f"""#!{sys.executable}
import json, os, signal
print(json.dumps({{
    "stdin": os.readlink("/proc/self/fd/0"),
    "open": [os.path.realpath("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")],
    "leader": os.getsid(0) == os.getpgid(0) == os.getpid(),
    "status": dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines()),
    "argv": open("/proc/self/cmdline").read(),
    "cwd": os.getcwd(),
    "environment": dict(os.environ),
}}))
"""


def look_around(shop: Shop, **env: str) -> dict[str, object]:
    path = shop.root / "look"
    path.write_text(LOOK_AROUND)
    path.chmod(0o755)
    assert shop.run_file(path, **env).ok, shop.lines
    found: dict[str, object] = json.loads(shop.lines[0][1])
    return found


def test_standard_input_is_empty(shop: Shop) -> None:
    """A hook of dib-run-parts can eat the input of those behind it."""
    assert look_around(shop)["stdin"] == "/dev/null"
    assert shop.run("cat; read x; echo $?").ok
    assert shop.lines == [(OUT, "1")]


def test_it_has_a_session_of_its_own(shop: Shop) -> None:
    assert look_around(shop)["leader"] is True


def test_it_inherits_none_of_the_agents_descriptors(shop: Shop, tmp_path: pathlib.Path) -> None:
    with (tmp_path / "secret").open("w"):
        opened = look_around(shop)["open"]
    assert isinstance(opened, list)
    assert "/dev/null" in opened
    assert str(tmp_path / "secret") not in opened
    assert not [path for path in opened if "eventfd" in path or "pidfd" in path]


def test_signal_dispositions_and_mask_are_reset(shop: Shop) -> None:
    """os-collect-config defect 1: its hooks and what they start ignore SIGHUP; Python's ignore SIGPIPE."""
    ignored = (signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
    try:
        shop.run("exec grep -E '^Sig(Ign|Blk)' /proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    sets = {line.split(":")[0]: int(line.split()[1], 16) for _, line in shop.lines}
    the_c_librarys_own = 1 << 31 | 1 << 32  # signals 32 and 33
    assert sets["SigBlk"] == 0
    assert sets["SigIgn"] & ~the_c_librarys_own == 0


def test_a_writer_into_a_closed_pipe_ends_quietly(shop: Shop) -> None:
    assert shop.run("set -o pipefail; yes | head -1; echo ${PIPESTATUS[0]}").ok
    assert shop.lines == [(OUT, "y"), (OUT, "141")]


def test_its_environment_is_the_given_one_and_no_more(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS_ALONE", "x")
    strange = "a\nb 'c' \"d\" $e \\ ü \udcff"
    found = look_around(shop, STRANGE=strange)["environment"]
    assert isinstance(found, dict)
    assert found["STRANGE"] == strange
    assert "OURS_ALONE" not in found


def test_its_umask_is_the_agents(shop: Shop) -> None:
    os.umask(0o027)
    shop.run("umask")
    assert shop.lines == [(OUT, "0027")]


def test_its_arguments_are_its_path_alone(shop: Shop) -> None:
    assert str(look_around(shop)["argv"]).split("\0")[1:] == [str(shop.root / "look"), ""]


def test_a_megabyte_of_standard_input_blocks_nothing(shop: Shop) -> None:
    data = os.urandom(2**20)
    assert shop.run("sleep 0.05; head -c 1 >/dev/null; cat | wc -c", stdin=data).ok
    assert shop.lines == [(OUT, str(len(data) - 1))]
    assert shop.run("exit 3", stdin=data).status == 3  # nobody has to read it


# --- output ------------------------------------------------------------------------------------------------


def test_output_comes_line_by_line_with_its_stream(shop: Shop) -> None:
    shop.run("echo one; echo two >&2; echo; echo three")
    assert [line for stream, line in shop.lines if stream is OUT] == ["one", "", "three"]
    assert [line for stream, line in shop.lines if stream is ERR] == ["two"]


def test_a_line_comes_while_the_process_runs(shop: Shop) -> None:
    seen_at: list[float] = []
    path = shop.script(f"echo first; while [ ! -e {shop.root}/go ]; do sleep 0.01; done")

    def sink(_stream: Stream, _data: bytes) -> None:
        seen_at.append(time.monotonic())
        (shop.root / "go").touch()

    assert shop.runner.run(Command(str(path), ("hook",), dict(os.environ), timeout=20), sink).ok
    assert len(seen_at) == 1


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        (r"no end", ["no end"]),
        (r"a\r\nb\n", ["a", "b"]),
        (r"10%%\r20%%\n", [r"10%\r20%"]),
        (r"a\0b\n", [r"a\x00b"]),
        (r"\xff\xfe\n", [r"\xff\xfe"]),
        (r"gr\xc3\xbc\xc3\x9fe \xe2\x9c\x93\n", ["grüße ✓"]),
        (r"\x1b[31mred\x1b]0;title\x07\n", [r"\x1b[31mred\x1b]0;title\x07"]),
        (r"\xc2\x9b31m\n", [r"\x9b31m"]),
        (r"\xe2\x80\xae\n", [r"\u202e"]),
        (r"a\tb\n", ["a\tb"]),
        (r"\n\n", ["", ""]),
        ("", []),
    ],
)
def test_every_byte_that_a_process_can_write_is_shown_safely(
    shop: Shop, output: str, lines: list[str]
) -> None:
    shop.run(f"printf '{output}'")
    assert [line for _, line in shop.lines] == lines


def test_a_line_without_end_comes_in_pieces(shop: Shop) -> None:
    shop.run("head -c 1000000 /dev/zero | tr '\\0' x")
    assert "".join(line for _, line in shop.lines) == "x" * 1_000_000
    assert max(len(line) for _, line in shop.lines) == LINE_LIMIT


def test_pieces_are_cut_between_characters(shop: Shop) -> None:
    shop.run("printf x; for ((i = 0; i < 20000; i++)); do printf ü; done")
    assert "".join(line for _, line in shop.lines) == "x" + "ü" * 20_000


def test_binary_output_is_taken_to_its_end(shop: Shop) -> None:
    assert shop.run("head -c 300000 /dev/urandom; echo; echo end").ok
    assert shop.lines[-1] == (OUT, "end")


def test_much_output_on_both_streams_does_not_block(shop: Shop) -> None:
    assert shop.run("for i in {1..20000}; do echo out $i; echo err $i >&2; done").ok
    assert [line for stream, line in shop.lines if stream is OUT] == [f"out {i}" for i in range(1, 20001)]
    assert [line for stream, line in shop.lines if stream is ERR] == [f"err {i}" for i in range(1, 20001)]


def test_a_process_may_close_its_output_and_go_on(shop: Shop) -> None:
    assert shop.run("echo bye; exec >&- 2>&-; sleep 0.1; exit 7").status == 7
    assert shop.lines == [(OUT, "bye")]


def test_a_background_process_that_keeps_the_pipe_open_does_not_delay(shop: Shop) -> None:
    """A reader of dib-run-parts' output waits for it."""
    ended = shop.run(f"sleep 60 & echo $! > {shop.root}/pid; echo done")
    assert ended.ok
    assert ended.seconds < 10
    assert shop.lines == [(OUT, "done")]
    assert alive(shop.pid())  # it is a daemon that the hook started on purpose
    os.kill(shop.pid(), signal.SIGKILL)


def test_a_background_process_that_writes_without_end_does_not_delay(shop: Shop) -> None:
    ended = shop.run(f"yes & echo $! > {shop.root}/pid; sleep 0.05; exit 5")
    os.kill(shop.pid(), signal.SIGKILL)
    assert ended.status == 5
    assert ended.seconds < 10


def test_a_background_process_is_heard_on_and_does_not_die_of_its_next_line(shop: Shop) -> None:
    ended = shop.run(f"(sleep 0.3; echo later; echo and >&2; touch {shop.root}/over) & echo now")
    assert ended.ok
    eventually((shop.root / "over").exists)
    eventually(lambda: {(OUT, "now"), (OUT, "later"), (ERR, "and")} == set(shop.lines))
    eventually(lambda: followers() == 0)


@pytest.mark.parametrize("line", [b"", b"plain", b"caf\xc3\xa9", b"\x00", b"\xe2\x82", b"\\", b"'\"\x7f"])
def test_printable_text_is_printable_and_says_what_was_there(line: bytes) -> None:
    text = printable(line)
    assert text.isprintable()
    assert (text == line.decode(errors="replace")) is (
        (b"\0" not in line and line.isascii() and b"\x7f" not in line) or line == b"caf\xc3\xa9"
    )


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


# --- after a crash -----------------------------------------------------------------------------------------


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
