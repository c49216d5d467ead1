"""One process and everything that it started, with real processes."""

import json
import os
import pathlib
import signal
import sys
import time

import pytest

from refresh_agent.lines import LINE_LIMIT
from refresh_agent.model import Command, Ending, Stream
from refresh_agent.redact import printable
from tests.processes import alive
from tests.unit.phases.shop import ERR, OUT, Shop, followers
from tests.waiting import eventually

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
