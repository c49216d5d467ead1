"""``refresh-agent --once``: one refresh, in the foreground, with the right exit code."""

import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.functional.node import COMMAND, Node
from tests.processes import alive
from tests.waiting import eventually

PHASES = ("pre-configure", "configure", "post-configure", "migration")


def test_the_four_phases_run_in_order_and_a_second_time_only_if_something_changed(node: Node) -> None:
    for phase in reversed(PHASES):
        node.hook(f"{phase}/10-{phase}")
    node.metadata({"a": 1})
    first = node.once()
    assert (first.returncode, node.ran()) == (0, [f"{phase}/10-{phase}" for phase in PHASES])
    assert "success" in first.stdout
    again = node.once()
    assert (again.returncode, len(node.ran())) == (0, 4)
    assert "nothing changed" in again.stdout
    node.metadata({"a": 2})
    assert node.once().returncode == 0
    assert len(node.ran()) == 8


def test_every_phase_and_hook_has_a_line_as_it_begins_and_as_it_ends(node: Node) -> None:
    node.hook("configure/10-a", "echo from the hook; echo complaint >&2")
    node.metadata({"a": 1})
    log = node.once().stderr
    expected = ("configure: begins", "configure/10-a: begins", "configure/10-a: done", "configure: done")
    positions = [log.index(text) for text in expected]
    assert positions == sorted(positions)
    assert "configure/10-a| from the hook" in log
    assert "configure/10-a| complaint" in log


def test_reformatted_metadata_is_not_a_change(node: Node) -> None:
    node.hook("configure/10-a")
    node.metadata({"a": 1, "b": 2})
    assert node.once().returncode == 0
    node.metadata_file.write_text('{ "b": 2,\n "a": 1 }')
    assert "nothing changed" in node.once().stdout


def test_force_runs_although_nothing_changed(node: Node) -> None:
    node.hook("configure/10-a")
    node.metadata({"a": 1})
    node.once()
    assert node.once("--force").returncode == 0
    assert len(node.ran()) == 2


def test_a_failed_hook_ends_the_run_and_calls_error_d_and_is_tried_again(node: Node) -> None:
    node.hook("pre-configure/10-a")
    broken = node.hook("configure/50-broken", "exit 3")
    node.hook("configure/60-never")
    node.hook("post-configure/10-never")
    node.hook("migration/10-never")
    node.hook("error/10-told", 'env | grep ^REFRESH_AGENT_FAILED_ | sort > "$0.env"')
    node.metadata({"a": 1})
    failed = node.once()
    assert failed.returncode == 1
    assert node.ran() == ["pre-configure/10-a", "configure/50-broken", "error/10-told"]
    assert (node.base / "error.d" / "10-told.env").read_text().split() == [
        "REFRESH_AGENT_FAILED_HOOK=50-broken",
        "REFRESH_AGENT_FAILED_PHASE=configure",
        "REFRESH_AGENT_FAILED_STATUS=3",
    ]
    assert "configure/50-broken: failed with status 3" in failed.stdout
    broken.unlink()
    retried = node.once()
    assert retried.returncode == 0
    assert node.rows("SELECT outcome, attempt FROM runs") == [("hook failed", 1), ("success", 2)]


def test_going_back_to_what_was_committed_after_a_failure_runs_again(node: Node) -> None:
    """The node holds half of the failed configuration: the old one has to be brought back."""
    node.hook("configure/10-a")
    node.metadata({"a": 1})
    assert node.once().returncode == 0
    node.hook("configure/20-broken", "grep -q 2 $OS_CONFIG_FILES && exit 1 || true")
    node.metadata({"a": 2})
    assert node.once().returncode == 1
    node.metadata({"a": 1})
    back = node.once("--json")
    assert (back.returncode, json.loads(back.stdout)["action"]) == (0, "run")


def test_a_hook_gets_the_environment_that_is_promised(node: Node) -> None:
    (node.base / "environment.d").mkdir()
    (node.base / "environment.d" / "10-own").write_text("export OWN='two words'\n")
    node.hook("configure/10-a", 'env -0 > "$0.env"; readlink /proc/self/fd/0 > "$0.stdin"')
    node.metadata({"a": 1})
    node.once(env={"NOTIFY_SOCKET": "/nowhere", "INVOCATION_ID": "x", "REFRESH_AGENT_FAILED_HOOK": "stale"})
    raw = (node.base / "configure.d" / "10-a.env").read_text()
    seen = dict(pair.split("=", 1) for pair in raw.split("\0") if pair)
    assert seen["OS_CONFIG_FILES"] == str(node.cache / "heat_local.json")
    assert json.loads((node.cache / "heat_local.json").read_text()) == {"a": 1}
    assert json.loads((node.cache / "os_config_files.json").read_text()) == [seen["OS_CONFIG_FILES"]]
    assert seen["OWN"] == "two words"
    assert seen["REFRESH_AGENT_PHASE"] == "configure"
    assert seen["REFRESH_AGENT_TRIGGER"] == "once"
    assert seen["REFRESH_AGENT_ATTEMPT"] == "1"
    assert seen["REFRESH_AGENT_CHANGED"] == "heat_local"
    assert seen["REFRESH_AGENT_RUN_ID"] == node.rows("SELECT run_id FROM runs")[0][0]
    assert seen["REFRESH_AGENT_HOOK_ID"] == node.rows("SELECT hook_id FROM hooks")[0][0]
    assert not seen.keys() & {"NOTIFY_SOCKET", "INVOCATION_ID", "REFRESH_AGENT_FAILED_HOOK"}
    assert (node.base / "configure.d" / "10-a.stdin").read_text() == "/dev/null\n"


def test_a_hook_inherits_no_descriptor_of_the_agents(node: Node) -> None:
    """os-refresh-config starts its scripts with close_fds."""
    node.hook("configure/10-a", 'ls /proc/$$/fd | sort -n | tr "\\n" " " > "$0.fds"', shebang="#!/bin/sh")
    node.metadata({"a": 1})
    command = f"exec {COMMAND} --config-file {node.config_file} --once 7</dev/null 9>/dev/null"
    assert subprocess.run(["bash", "-c", command]).returncode == 0
    seen = (node.base / "configure.d" / "10-a.fds").read_text().split()
    assert set(seen) & {"7", "9"} == set()


def test_a_stored_content_that_somebody_removed_is_stored_again(node: Node) -> None:
    node.hook("configure/10-a")
    node.metadata({"a": 1})
    assert node.once().returncode == 0
    for path in (node.state / "sources" / "heat_local").iterdir():
        path.unlink()
    assert node.once("--force").returncode == 0


def test_what_a_hook_leaves_running_is_named_and_left_alone(node: Node) -> None:
    pid_file = node.root / "pid"
    node.hook("configure/10-daemon", f"(setsid sleep 300 >/dev/null 2>&1 & echo $! > {pid_file})")
    node.hook("configure/20-innocent")
    node.metadata({"a": 1})
    try:
        ended = node.once()
        pid = int(pid_file.read_text())
        assert ended.returncode == 0
        (told,) = [line for line in ended.stderr.splitlines() if "10-daemon: left running" in line]
        assert told.endswith(f" ({pid})")  # by its name of that moment: it may not have become sleep yet
        assert "configure/20-innocent: left" not in ended.stderr
        assert alive(pid)
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_secrets_of_metadata_and_environment_show_up_nowhere(node: Node) -> None:
    (node.base / "environment.d").mkdir()
    (node.base / "environment.d" / "10-own").write_text("export DB_PASSWORD='from the environment'\n")
    node.hook("configure/10-a", 'cat "$OS_CONFIG_FILES"; echo "says $DB_PASSWORD"; env; exit 3')
    node.metadata({"db": {"password": 'quo"ted-secret', "user": "visible-user"}})
    ended = node.once("--log-level", "DEBUG")
    assert "visible-user" in ended.stderr
    assert "says ***" in ended.stderr
    journal = b"".join(path.read_bytes() for path in node.state.glob("journal.sqlite*"))
    for secret in ('quo"ted-secret', 'quo\\"ted-secret', "from the environment"):
        assert secret not in ended.stderr + ended.stdout
        assert secret.encode() not in journal


def test_nobody_else_writes_lines_of_the_log_or_steers_a_terminal(node: Node) -> None:
    node.configure(f"[local]\npath = {node.root}/local", collectors="heat_local, local")
    local = node.root / "local"
    local.mkdir()
    (local / "bad\n2026 INFO forged\x1b[31m").write_text("{")
    node.hook("configure/10-a", "printf 'red \\033[31m alert\\n'")
    node.metadata({"a": 1})
    node.once()
    node.metadata({"a": 1, "key\n2026 INFO forged\x1b[2J": 1, "\ud800": 1})
    log = node.once().stderr
    assert "forged" in log
    assert not [line for line in log.splitlines() if line.startswith("2026 INFO forged")]
    assert all(line.isprintable() for line in log.splitlines())


class TestStandardStreams:
    """What cannot be written is lost; it does not change what was done, nor the exit code."""

    @pytest.mark.parametrize(
        "redirection", [">/dev/full", ">&-", ">&- 2>&- <&-", ">/dev/full 2>/dev/full", "| true"]
    )
    @pytest.mark.parametrize("arguments", ["--once --force", "--once --force --json", "check-config"])
    def test_an_unusable_one_costs_nothing(self, node: Node, redirection: str, arguments: str) -> None:
        node.hook("configure/10-a")
        node.metadata({"a": 1})
        script = f"{COMMAND} --config-file {node.config_file} {arguments} {redirection}"
        ended = subprocess.run(
            ["bash", "-c", f"{script}; exit ${{PIPESTATUS[0]}}"], capture_output=True, timeout=60
        )
        assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False), ended.stderr
        if "--once" in arguments:
            assert node.outcomes() == ["success"]


def test_an_error_hook_of_a_killed_agent_is_ended_before_anything_runs_again(node: Node) -> None:
    pid_file = node.root / "pid"
    node.metadata({"a": 1})
    node.hook("configure/10-fail", f"[ -e {node.root}/well ] || exit 3")
    node.hook("error/10-long", f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 300")
    process = subprocess.Popen(
        [COMMAND, "--config-file", str(node.config_file), "--once"], stderr=subprocess.DEVNULL
    )
    eventually(pid_file.exists)
    process.kill()
    process.wait()
    pid = int(pid_file.read_text())
    assert alive(pid)
    (node.root / "well").touch()
    ended = node.once()
    assert ended.returncode == 0
    assert not alive(pid)
    assert "ended what an interrupted hook had left running" in ended.stderr


def test_a_hook_with_a_nul_in_its_first_line_runs_as_the_kernel_runs_it(node: Node) -> None:
    node.metadata({"a": 1})
    hook = node.hook("configure/10-nul")
    hook.write_bytes(b"#!/bin/sh\0\necho it runs\n")
    ended = node.once()
    assert ended.returncode == 0
    assert "10-nul| it runs" in ended.stderr


def test_an_old_password_is_masked_too_while_it_is_changed(node: Node) -> None:
    node.metadata({"password": "old-password"})
    assert node.once().returncode == 0
    node.hook("configure/10-change", "echo from old-password to new-password")
    node.metadata({"password": "new-password"})
    ended = node.once()
    assert "from *** to ***" in ended.stderr


def test_the_journal_keeps_the_newest_runs_and_never_loses_the_commit(node: Node) -> None:
    node.configure("[journal]\nkeep_runs = 3")
    node.hook("configure/10-a", "echo something")
    node.metadata({"a": 1})
    for _ in range(6):
        assert node.once("--force").returncode == 0
    assert len(node.outcomes()) <= 4
    assert len(node.rows("SELECT * FROM hooks")) <= 4
    assert "nothing changed" in node.once().stdout
    node.hook("configure/10-a", "exit 1")
    for _ in range(6):  # also where nothing succeeds any more
        assert node.once("--force").returncode == 1
    assert len(node.outcomes()) <= 5
    node.hook("configure/10-a")
    assert node.once().returncode == 0
    node.configure("[journal]\nkeep_days = 0")
    node.once("--force")
    assert "nothing changed" in node.once().stdout


def test_the_result_as_json(node: Node) -> None:
    node.hook("configure/10-a", "exit 9")
    node.metadata({"a": 1})
    told = json.loads(node.once("--json").stdout)
    assert told["exit_code"] == 1
    assert told["trigger"] == "once"
    assert told["changed"] == ["heat_local"]
    assert told["failure"]["phase"] == "configure"
    assert told["failure"]["hook"] == "10-a"
    assert told["failure"]["status"] == 9


def test_no_data_is_exit_code_3_and_nothing_runs(node: Node) -> None:
    node.hook("configure/10-a")
    ended = node.once("--force")
    assert (ended.returncode, node.ran()) == (3, [])
    assert str(node.metadata_file) in ended.stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_lets_the_running_hook_finish_and_starts_no_other(node: Node, name: str) -> None:
    node.hook(
        "configure/10-slow", f"until [ -e {node.root}/go ]; do sleep 0.05; done; touch {node.root}/finished"
    )
    node.hook("configure/20-never")
    node.hook("error/10-never")
    node.metadata({"a": 1})
    process = subprocess.Popen([COMMAND, "--config-file", str(node.config_file), "--once"])
    eventually(node.ran)
    number = signal.Signals[name]
    process.send_signal(number)
    (node.root / "go").touch()
    assert process.wait(20) == 128 + number
    assert node.ran() == ["configure/10-slow"]
    assert (node.root / "finished").exists()
    assert node.outcomes() == ["interrupted"]
    assert node.once().returncode == 0
    assert node.ran()[-1] == "configure/20-never"


def test_heavy_libraries_are_not_imported(node: Node) -> None:
    """Start-up time: nothing of these is needed to find out that nothing changed, or to run hooks."""
    node.hook("configure/10-a")
    node.metadata({"a": 1})
    program = (
        "import sys; from refresh_agent.main import main; code = main(sys.argv[1:]);"
        "heavy = {'oslo_service', 'requests', 'watchdog', 'keystoneauth1', 'sqlalchemy', 'alembic',"
        " 'oslo_log', 'eventlet', 'asyncio', 'cotyledon'};"
        "print('heavy:', *sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, "--config-file", str(node.config_file), "--once"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "heavy:"


class TestTheLock:
    def test_held_by_another_is_exit_code_11_and_names_the_holder(self, node: Node) -> None:
        node.hook("configure/10-a")
        node.metadata({"a": 1})
        with node.lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write("Locked by pid==4711 at some time\n")
            file.flush()
            ended = node.once()
            told = json.loads(node.once("--json").stdout)
        assert (ended.returncode, node.ran()) == (11, [])
        assert "pid==4711" in ended.stderr
        assert (told["exit_code"], told["run"], told["action"]) == (11, None, None)
        assert "pid==4711" in told["summary"]
        assert node.once().returncode == 0

    def test_tells_pid_and_start_time_while_held_and_is_not_inherited(self, node: Node) -> None:
        node.hook(
            "configure/10-a",
            f"cp {node.lock} {node.root}/seen; flock -n {node.lock} true && exit 1; "
            f"(setsid sleep 300 & echo $! > {node.root}/daemon) >/dev/null 2>&1; true",
        )
        node.metadata({"a": 1})
        process = subprocess.Popen([COMMAND, "--config-file", str(node.config_file), "--once"])
        try:
            assert process.wait(30) == 0
            text = (node.root / "seen").read_text()
            assert f"pid=={process.pid} " in text
            assert " at 20" in text
            node.metadata({"a": 2})
            held = subprocess.run(["flock", "-n", str(node.lock), "true"], timeout=10)
            assert held.returncode == 0
        finally:
            os.kill(int((node.root / "daemon").read_text()), signal.SIGKILL)
