"""The daemon: wakes, settles, runs, retries, reloads and stops; nothing is lost and nothing runs twice."""

import contextlib
import fcntl
import json
import pathlib
import shutil
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.functional.node import Node, replace_file
from tests.processes import alive
from tests.waiting import eventually


@pytest.fixture
def busy(node: Node) -> pathlib.Path:
    """A hook that waits until this file exists; it notes in overlap.txt if two of it ever run at once."""
    go = node.root / "go"
    node.hook(
        "configure/10-wait",
        f"mkdir {node.root}/alone || echo twice >> {node.root}/overlap.txt\n"
        f"until [ -e {go} ]; do sleep 0.02; done\nrmdir {node.root}/alone",
    )
    return go


@contextlib.contextmanager
def notify_socket(path: pathlib.Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(10)
        yield receiver


def test_it_runs_at_its_start_and_at_every_change(node: Node) -> None:
    node.hook("configure/10-a", 'echo "$REFRESH_AGENT_TRIGGER" >> "$0.triggers"')
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        node.wait_for_outcomes(["success"])
        node.metadata({"a": 2})
        node.wait_for_outcomes(["success"] * 2)
        assert "changed in heat_local: a" in daemon.log()
    assert (node.base / "configure.d" / "10-a.triggers").read_text().split() == ["start", "change"]
    with node.daemon() as daemon:
        daemon.wait_for_log("starts")
        node.metadata({"a": 3})
        node.wait_for_outcomes(["success"] * 3)


def test_a_storm_of_changes_is_one_run_with_the_last_content(node: Node) -> None:
    node.hook("configure/10-a", 'cat "$OS_CONFIG_FILES" > "$0.seen"')
    node.metadata({"a": 0})
    with node.daemon():
        node.wait_for_outcomes(["success"])
        for number in range(1, 201):
            node.metadata({"a": number})
        node.wait_for_outcomes(["success"] * 2)
        node.metadata({"a": "last"})
        node.wait_for_outcomes(["success"] * 3)
    assert json.loads((node.base / "configure.d" / "10-a.seen").read_text()) == {"a": "last"}


def test_a_drizzle_of_changes_cannot_starve_it(node: Node) -> None:
    node.configure("[debounce]\nquiet = 1\nmax_wait = 2")
    node.hook("configure/10-a")
    node.metadata({"a": 0})
    with node.daemon():
        node.wait_for_outcomes(["success"])
        numbers = iter(range(1, 10**6))

        def drizzle_until_it_ran() -> bool:
            node.metadata({"a": next(numbers)})
            return node.outcomes()[1:2] == ["success"]

        eventually(drizzle_until_it_ran)


def test_rewriting_the_same_content_neither_runs_nor_delays_a_change(node: Node) -> None:
    """os-collect-config rewrites its files at every poll, changed or not."""
    node.configure("[debounce]\nquiet = 0.5\nmax_wait = 60")
    node.hook("configure/10-a")
    node.metadata({"a": 1})
    with node.daemon():
        node.wait_for_outcomes(["success"])
        node.metadata({"a": 2})

        def rewrite_until_it_ran() -> bool:
            node.metadata({"a": 2})
            return len(node.outcomes()) > 1

        eventually(rewrite_until_it_ran, 20)
        node.wait_for_outcomes(["success"] * 2)


def test_hup_refreshes_although_nothing_changed_and_reloads(node: Node) -> None:
    node.hook("configure/10-a", 'echo "$REFRESH_AGENT_TRIGGER" > "$0.trigger"')
    node.metadata({"a": 1})
    other = node.root / "metadata" / "other"
    replace_file(other, '{"b": 1}')
    with node.daemon() as daemon:
        node.wait_for_outcomes(["success"])
        node.metadata_file = other
        node.configure()
        daemon.signal(signal.SIGHUP)
        node.wait_for_outcomes(["success"] * 2)
        assert (node.base / "configure.d" / "10-a.trigger").read_text().strip() == "signal"
        replace_file(other, '{"b": 2}')
        node.wait_for_outcomes(["success"] * 3)


def test_a_broken_configuration_at_hup_is_told_and_the_old_one_stays(node: Node) -> None:
    node.hook("configure/10-a")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        node.wait_for_outcomes(["success"])
        node.config_file.write_text("[debounce]\nquite = 1\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("did you mean quiet?")
        node.wait_for_outcomes(["success"] * 2)
        node.metadata({"a": 2})
        node.wait_for_outcomes(["success"] * 3)


def test_a_thousand_hups_during_a_run_are_at_least_one_more_and_never_two_at_once(
    node: Node, busy: pathlib.Path
) -> None:
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        eventually(node.ran)
        for _ in range(1000):
            daemon.signal(signal.SIGHUP)
        busy.touch()
        eventually(lambda: len(node.outcomes()) >= 2 and set(node.outcomes()) == {"success"})
    assert not (node.root / "overlap.txt").exists()
    assert set(node.outcomes()) == {"success"}


def test_a_change_during_a_run_is_the_next_run(node: Node, busy: pathlib.Path) -> None:
    node.metadata({"a": 1})
    with node.daemon():
        eventually(node.ran)
        node.metadata({"a": 2})
        busy.touch()
        node.wait_for_outcomes(["success"] * 2)
    changed = node.rows("SELECT trigger, changed FROM runs ORDER BY id")
    assert changed == [("start", '["heat_local"]'), ("change", '["heat_local"]')]


def test_a_failed_run_is_tried_again_until_it_succeeds(node: Node) -> None:
    mended = node.root / "mended"
    node.hook("configure/10-a", f"[ -e {mended} ]")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        eventually(lambda: len(node.outcomes()) >= 3)
        daemon.wait_for_log("the next attempt is in")
        mended.touch()
        eventually(lambda: node.outcomes()[-1] == "success")
    attempts = node.rows("SELECT attempt, trigger FROM runs ORDER BY id")
    assert attempts[0] == (1, "start")
    assert attempts[1:] == [(number, "retry") for number in range(2, len(attempts) + 1)]


def test_it_holds_after_max_attempts_until_the_metadata_changes(node: Node) -> None:
    node.configure("[retry]\ninitial = 0.01\nmaximum = 0.02\nmax_attempts = 2")
    node.hook("configure/10-a", 'grep -q good "$OS_CONFIG_FILES"')
    node.metadata({"a": "bad"})
    with node.daemon() as daemon:
        daemon.wait_for_log("held until the metadata changes or an operator asks")
        assert node.outcomes() == ["hook failed"] * 2
        node.metadata({"a": "good"})
        node.wait_for_outcomes(["hook failed"] * 2 + ["success"])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_stopping_while_idle_ends_with_0(node: Node, name: str) -> None:
    node.hook("configure/10-a")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        node.wait_for_outcomes(["success"])
        daemon.signal(signal.Signals[name])
        assert daemon.process.wait(5) == 0


def test_stopping_lets_the_running_hook_finish(node: Node, busy: pathlib.Path) -> None:
    node.hook("configure/20-never")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        eventually(node.ran)
        daemon.signal(signal.SIGTERM)
        busy.touch()
        assert daemon.process.wait(10) == 0
    assert node.ran() == ["configure/10-wait"]
    assert node.outcomes() == ["interrupted"]
    with node.daemon():
        node.wait_for_outcomes(["interrupted", "success"])
    assert node.rows("SELECT attempt, trigger FROM runs")[1] == (2, "retry")


def test_stopping_ends_a_hook_that_does_not_end_and_all_that_it_started(node: Node) -> None:
    """os-refresh-config defect: a SIGTERM leaves scripts running, and reparented processes escape."""
    node.configure("[phases]\nstop_grace = 0.2\nkill_grace = 0.3")
    pids = node.root / "pids"
    escaped = node.hook("tools/escaped", f"trap '' TERM; echo $$ >> {pids}; while :; do sleep 0.1; done")
    node.hook(
        "configure/10-stubborn",
        f"trap '' TERM; echo $$ >> {pids}; (setsid {escaped} >/dev/null 2>&1 &); while :; do sleep 0.1; done",
    )
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0
        assert not any(alive(int(pid)) for pid in pids.read_text().split())
    assert node.outcomes() == ["interrupted"]


def test_what_a_hook_has_left_is_buried_while_nothing_happens(node: Node) -> None:
    """Its zombies would fill the process table."""
    node.configure(polling_interval="1")
    over = node.root / "over"
    orphans = f"for i in 1 2 3; do (sleep 0.1 &); done; sleep 0.5; touch {over}"
    node.hook("configure/10-a", f"({orphans}) >/dev/null 2>&1 &")
    node.metadata({"a": 1})

    def zombies(parent: int) -> list[int]:
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, ppid = path.read_text().rpartition(")")[2].split()[:2]
                if (state, ppid) == ("Z", str(parent)):
                    found.append(int(path.parent.name))
        return found

    with node.daemon() as daemon:
        eventually(over.exists)
        eventually(lambda: zombies(daemon.process.pid) == [])


def test_killed_in_the_middle_of_a_hook_it_starts_over_and_commits(node: Node, busy: pathlib.Path) -> None:
    node.hook("pre-configure/10-a", 'echo "${REFRESH_AGENT_INTERRUPTED-}" >> "$0.interrupted"')
    pid_file = node.root / "pid"
    hook = node.base / "configure.d" / "10-wait"
    hook.write_text(
        hook.read_text().replace("mkdir", f"echo $$ > {pid_file}; rm -rf {node.root}/alone; mkdir", 1)
    )
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        eventually(lambda: pid_file.exists() and pid_file.read_text())
        # What takes longer than 2 ms is recorded when it has.
        eventually(lambda: node.rows("SELECT 1 FROM hooks WHERE hook = '10-wait'"))
        daemon.process.kill()
        daemon.process.wait()
    orphan = int(pid_file.read_text())
    assert alive(orphan)
    with node.daemon() as daemon:
        # The hook still waits: it must be ended before its successor starts.
        eventually(lambda: not alive(orphan))
        busy.touch()
        node.wait_for_outcomes(["interrupted", "success"])
        assert "was interrupted" in daemon.log()
    assert node.rows("SELECT attempt, trigger FROM runs")[1] == (2, "retry")
    interrupted = (node.base / "pre-configure.d" / "10-a.interrupted").read_text().splitlines()
    assert interrupted == ["", "configure/10-wait"]
    with node.daemon() as daemon:
        daemon.wait_for_log("starts")
        node.metadata({"a": 2})
        node.wait_for_outcomes(["interrupted", "success", "success"])


def test_the_watched_directory_is_deleted_and_made_again(node: Node) -> None:
    node.hook("configure/10-a")
    node.metadata({"a": 1})
    with node.daemon():
        node.wait_for_outcomes(["success"])
        for number in (2, 3):
            shutil.rmtree(node.metadata_file.parent)
            node.metadata_file.parent.mkdir()
            node.metadata({"a": number})
            node.wait_for_outcomes(["success"] * number)


def test_it_waits_for_directories_that_do_not_exist_yet(node: Node) -> None:
    node.hook("configure/10-a")
    node.metadata_file = node.root / "not" / "yet" / "there"
    node.configure()
    with node.daemon() as daemon:
        daemon.wait_for_log("no source has data")
        node.metadata_file.parent.mkdir(parents=True)
        node.metadata({"a": 1})
        node.wait_for_outcomes(["success"])


def test_a_half_written_file_is_told_by_name_and_the_last_good_content_stands_in(node: Node) -> None:
    cached = node.root / "cfn.json"
    listed = node.root / "os_config_files.json"
    other = node.root / "local.json"
    replace_file(cached, '{"good": 1}')
    replace_file(other, '{"other": 1}')
    listed.write_text(json.dumps([str(cached), str(other)]))
    node.configure(f"[os_collect_config]\nfiles_list = {listed}", collectors="os_collect_config")
    node.hook(
        "configure/10-a", 'echo "$OS_CONFIG_FILES" >> "$0.files"; cat ${OS_CONFIG_FILES//:/ } > "$0.seen"'
    )
    with node.daemon() as daemon:
        node.wait_for_outcomes(["success"])
        cached.write_text('{"good": 2, "ha')
        daemon.wait_for_log(f"{cached}: is not JSON")
        replace_file(other, '{"other": 2}')
        node.wait_for_outcomes(["success"] * 2)
        files = (node.base / "configure.d" / "10-a.files").read_text().splitlines()
        assert files[0] == f"{cached}:{other}"
        assert files[1].split(":")[0].startswith(str(node.state / "sources"))
        assert files[1].split(":")[1] == str(other)
        assert (node.base / "configure.d" / "10-a.seen").read_text() == '{"good": 1}{"other": 2}'
        replace_file(cached, '{"good": 3}')
        node.wait_for_outcomes(["success"] * 3)
        assert daemon.process.poll() is None


def test_it_waits_for_another_refresh_without_counting_an_attempt(node: Node) -> None:
    node.hook("configure/10-a")
    node.metadata({"a": 1})
    with node.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with node.daemon() as daemon:
            daemon.wait_for_log("is held by another refresh")
            assert node.outcomes() == []
            fcntl.flock(file, fcntl.LOCK_UN)
            node.wait_for_outcomes(["success"])
            assert daemon.log().count("is held by another refresh") == 1
    assert node.rows("SELECT attempt FROM runs") == [(1,)]


def test_a_refresh_that_was_asked_for_survives_a_held_lock_and_a_change(node: Node) -> None:
    node.hook("configure/10-a", 'echo "$REFRESH_AGENT_TRIGGER" >> "$0.triggers"')
    node.metadata({"a": 1})
    with node.daemon() as daemon, node.lock.open("w") as file:
        node.wait_for_outcomes(["success"])
        fcntl.flock(file, fcntl.LOCK_EX)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("is held by another refresh")
        node.metadata({"a": 2})
        node.metadata({"a": 1})
        fcntl.flock(file, fcntl.LOCK_UN)
        node.wait_for_outcomes(["success"] * 2)
    assert (node.base / "configure.d" / "10-a.triggers").read_text().split() == ["start", "signal"]


def test_a_directory_that_is_a_link_is_watched(node: Node) -> None:
    node.hook("configure/10-a")
    real = node.root / "real"
    node.metadata_file.parent.rename(real)
    node.metadata_file.parent.symlink_to(real)
    node.metadata({"a": 1})
    with node.daemon():
        node.wait_for_outcomes(["success"])
        node.metadata({"a": 2})
        node.wait_for_outcomes(["success"] * 2)


def test_a_mended_mode_is_seen_by_the_rescan(node: Node) -> None:
    node.configure(f"[local]\npath = {node.root}/local", collectors="local", polling_interval="1")
    node.hook("configure/10-a")
    local = node.root / "local"
    local.mkdir()
    (local / "a").write_text("{}")
    local.chmod(0o777)
    with node.daemon() as daemon:
        daemon.wait_for_log("is writable by everybody; refused")
        local.chmod(0o755)
        node.wait_for_outcomes(["success"])


def test_a_manager_that_does_not_read_its_socket_does_not_hold_it_up(
    node: Node, tmp_path: pathlib.Path
) -> None:
    node.hook("configure/10-a")
    node.metadata({"a": 1})
    with (
        notify_socket(tmp_path / "notify"),
        node.daemon({"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon,
    ):
        for count in range(1, 15):
            node.wait_for_outcomes(["success"] * count)
            daemon.signal(signal.SIGHUP)
        node.wait_for_outcomes(["success"] * 15)


def test_a_success_that_cannot_be_recorded_does_not_end_it_and_is_run_again(node: Node) -> None:
    """The first run too; only a state that cannot be used before the first hook ends the daemon."""
    removed = node.root / "removed"
    node.hook("configure/10-a", f"[ -e {removed} ] || {{ touch {removed}; rm -rf {node.state}; }}")
    node.metadata({"a": 1})
    with node.daemon() as daemon:
        daemon.wait_for_log("the success is not recorded")
        eventually(lambda: node.outcomes()[-1:] == ["success"])
        assert node.ran() == ["configure/10-a"] * 2


def test_systemd_is_told_ready_status_and_stopping(node: Node, tmp_path: pathlib.Path) -> None:
    node.hook("configure/10-a", "sleep 0.3")
    node.metadata({"a": 1})
    with notify_socket(tmp_path / "notify") as receiver:
        with node.daemon({"NOTIFY_SOCKET": str(tmp_path / "notify")}):
            node.wait_for_outcomes(["success"])
        messages = []
        while not messages or "STOPPING=1" not in messages[-1]:
            messages.append(receiver.recv(4096).decode())
    assert messages[0] == "READY=1"
    assert any(message == "STATUS=running configure: 10-a, 0 s, attempt 1" for message in messages)
    assert any(message.startswith("STATUS=waiting for a change") for message in messages)


def test_an_idle_daemon_does_not_wake_up_but_for_the_rescan(node: Node) -> None:
    node.configure(polling_interval="3600")
    node.hook("configure/10-a")
    node.metadata({"a": 1})

    def switches(pid: int) -> int:
        status = [path.read_text() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/status")]
        lines = [line for text in status for line in text.splitlines() if "voluntary_ctxt" in line]
        return sum(int(line.split()[1]) for line in lines if not line.startswith("non"))

    with node.daemon() as daemon:
        node.wait_for_outcomes(["success"])
        pid = daemon.process.pid
        seen = [switches(pid)]

        def quiet_for_a_second() -> bool:
            time.sleep(1)  # the length of the observation, not a wait for a result
            seen.append(switches(pid))
            return seen[-1] == seen[-2]

        eventually(quiet_for_a_second)
