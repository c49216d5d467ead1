"""``refresh-agent run-phases``: the installed command in os-refresh-config's place."""

import fcntl
import json
import os
import pathlib
import signal
import subprocess
from typing import Any

import pytest

from tests.functional.node import COMMAND, Node
from tests.functional.test_bad_input import in_small_file_system
from tests.processes import alive
from tests.waiting import eventually

PHASES = ("pre-configure", "configure", "post-configure", "migration")


def phases(node: Node, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return node.command("run-phases", *arguments, env=env)


def decision(node: Node) -> dict[str, Any]:
    """What a refresh would do now, and why: it is stopped by its first hook, and the journal put back."""
    kept = {path: path.read_bytes() for path in node.state.rglob("*") if path.is_file()}
    told = json.loads(node.once("--json").stdout)
    for path in node.state.rglob("*"):
        if path.is_file():
            path.unlink()
    for path, data in kept.items():
        path.write_bytes(data)
    return {key: told[key] for key in ("action", "reason", "attempt", "changed")}


def test_the_phases_run_in_order_without_metadata_and_each_time(node: Node) -> None:
    for phase in reversed(PHASES):
        node.hook(f"{phase}/10-{phase}", "echo said; echo complaint >&2")
    ended = phases(node)
    assert (ended.returncode, node.ran()) == (0, [f"{phase}/10-{phase}" for phase in PHASES])
    assert ended.stdout == "said\n" * 4
    assert ended.stderr.count("\ncomplaint\n") == 4
    assert "success in" in ended.stderr
    assert phases(node).returncode == 0
    assert len(node.ran()) == 8


def test_a_failure_is_1_whatever_the_hooks_status_and_error_d_runs(node: Node) -> None:
    node.hook("configure/50-broken", "exit 99")
    node.hook("post-configure/10-never")
    node.hook("error/10-told", 'env | grep ^REFRESH_AGENT_FAILED_ | sort > "$0.env"')
    ended = phases(node)
    assert (ended.returncode, node.ran()) == (1, ["configure/50-broken", "error/10-told"])
    assert "configure/50-broken: failed with status 99" in ended.stderr
    assert node.rows("SELECT status FROM hooks ORDER BY position") == [(99,), (0,)]
    assert node.rows("SELECT outcome, failed_hook, failed_status FROM runs") == [
        ("hook failed", "50-broken", 99)
    ]
    told = (node.base / "error.d" / "10-told.env").read_text().split()
    assert told[0] == "REFRESH_AGENT_FAILED_HOOK=50-broken"


def test_a_timeout_is_1_after_everything_was_ended_and_error_d_runs(node: Node) -> None:
    node.hook("pre-configure/10-slow", f"(setsid sleep 300 & echo $! > {node.root}/pid); sleep 300")
    node.hook("configure/10-never")
    node.hook("error/10-told")
    ended = phases(node, "--timeout", "1")
    assert (ended.returncode, node.ran()) == (1, ["pre-configure/10-slow", "error/10-told"])
    assert "the time of [phases] run_timeout = 1 s was up" in ended.stderr
    assert not alive(int((node.root / "pid").read_text()))


def test_timeout_0_is_none(node: Node) -> None:
    node.configure("[phases]\nrun_timeout = 0.001")
    node.hook("configure/10-a", "sleep 0.1")
    assert phases(node, "--timeout", "0").returncode == 0
    assert phases(node).returncode == 1


class TestTheNextRefreshIsAsItWouldHaveBeen:
    """Nobody's metadata was brought onto the node, and nobody's has failed."""

    BROKEN = "[ ! -e $0.broken ]"

    @pytest.mark.parametrize("succeeds", [True, False])
    def test_after_nothing_and_after_a_success_and_after_a_failure(self, node: Node, succeeds: bool) -> None:
        node.hook("configure/10-a", self.BROKEN)
        broken = node.base / "configure.d" / "10-a.broken"

        def by_hand() -> None:
            broken.unlink(missing_ok=True)
            if not succeeds:
                broken.touch()
            assert phases(node).returncode == (0 if succeeds else 1)
            broken.unlink(missing_ok=True)

        node.metadata({"a": 1})
        by_hand()
        first = decision(node)
        assert (first["action"], first["reason"]) == ("run", "nothing was ever committed here")
        assert node.once().returncode == 0

        before = decision(node)
        assert before["action"] == "noop"
        by_hand()
        assert decision(node) == before

        node.metadata({"a": 2})
        by_hand()
        assert decision(node) == {
            "action": "run",
            "reason": "changed: heat_local",
            "attempt": 1,
            "changed": ["heat_local"],
        }
        broken.touch()
        assert node.once().returncode == 1
        assert node.once().returncode == 1
        broken.unlink()
        before = decision(node)
        assert (before["action"], before["attempt"]) == ("retry", 3)
        by_hand()
        assert decision(node) == before

    def test_also_when_the_journal_keeps_next_to_nothing(self, node: Node) -> None:
        """What failed before must be remembered: the node holds half of it."""
        node.configure("[journal]\nkeep_runs = 1\nkeep_days = 0")
        node.hook("configure/10-a", self.BROKEN)
        node.metadata({"a": 1})
        assert node.once().returncode == 0
        (node.base / "configure.d" / "10-a.broken").touch()
        node.metadata({"a": 2})
        assert node.once().returncode == 1
        (node.base / "configure.d" / "10-a.broken").unlink()
        for _ in range(3):
            assert phases(node).returncode == 0
        assert len(node.outcomes()) <= 4
        node.metadata({"a": 1})
        assert (
            decision(node)["reason"] == "changed since the run that did not succeed: back to the last commit"
        )

    def test_the_daemon_starts_nothing_because_of_it(self, node: Node) -> None:
        node.hook("configure/10-a", self.BROKEN)
        node.metadata({"a": 1})
        with node.daemon() as daemon:
            node.wait_for_outcomes(["success"])
            (node.base / "configure.d" / "10-a.broken").touch()
            assert phases(node).returncode == 1
            (node.base / "configure.d" / "10-a.broken").unlink()
            node.metadata({"a": 2})
            node.wait_for_outcomes(["success", "hook failed", "success"])
            assert node.rows("SELECT trigger, attempt FROM runs ORDER BY id")[1:] == [
                ("once", 1),
                ("change", 1),
            ]
            assert "retry" not in daemon.log()

    def test_after_a_kill_its_leftovers_are_ended_and_its_run_is_closed(self, node: Node) -> None:
        node.metadata({"a": 1})
        assert node.once().returncode == 0
        node.hook(
            "configure/10-slow", f"[ -e {node.root}/pid ] && exit 0; echo $$ > {node.root}/pid; sleep 300"
        )
        process = subprocess.Popen([COMMAND, "--config-file", str(node.config_file), "run-phases"])
        eventually(lambda: node.rows("SELECT * FROM hooks") and (node.root / "pid").exists())
        process.kill()
        process.wait(20)
        pid = int(eventually((node.root / "pid").read_text))
        assert alive(pid)
        ended = node.once()
        assert "nothing changed" in ended.stdout
        assert "was interrupted" in ended.stderr
        assert not alive(pid)
        assert node.outcomes() == ["success", "interrupted"]


class TestOsConfigFiles:
    @pytest.fixture(autouse=True)
    def _hook(self, node: Node) -> None:
        node.hook("configure/10-a", 'echo "${OS_CONFIG_FILES-unset}"; cat ${OS_CONFIG_FILES//:/ }')

    def test_the_callers_are_handed_on_unchanged_and_their_secrets_masked(self, node: Node) -> None:
        one, two = node.root / "one.json", node.root / "two.json"
        one.write_text('{"password": "open-sesame"}')
        two.write_text("no JSON")
        given = f"{one}:{two}:/no/such/file"
        ended = phases(node, OS_CONFIG_FILES=given)
        assert ended.stdout == given + '\n{"password": "***"}no JSON'
        assert "open-sesame" not in ended.stderr
        assert b"open-sesame" not in b"".join(path.read_bytes() for path in node.state.glob("journal*"))
        assert phases(node, OS_CONFIG_FILES="").stdout == "\n"

    def test_without_them_those_of_the_last_collection(self, node: Node) -> None:
        node.metadata({"token": "open-sesame"})
        assert node.once().returncode == 0
        node.metadata({"a": "not collected yet"})
        assert phases(node).stdout == f'{node.cache}/heat_local.json\n{{\n "token": "***"\n}}'

    def test_without_any_the_variable_is_not_set(self, node: Node) -> None:
        node.metadata({"a": "not collected yet"})
        assert phases(node).stdout == "unset\n"

    def test_a_file_that_os_collect_config_has_written_since_is_read_and_masked(self, node: Node) -> None:
        listed, live = node.root / "list.json", node.root / "heat.json"
        listed.write_text(json.dumps([str(live)]))
        live.write_text('{"a": 1}')
        node.configure(f"[os_collect_config]\nfiles_list = {listed}", collectors="os_collect_config")
        assert node.once().returncode == 0
        live.write_text('{"token": "open-sesame"}')
        assert phases(node).stdout == f'{live}\n{{"token": "***"}}'
        live.unlink()
        (kept,) = (node.state / "sources" / "os_collect_config").iterdir()
        assert phases(node).stdout == f'{kept}\n{{"a": 1}}'


def test_what_hooks_are_told(node: Node) -> None:
    node.hook("configure/10-a", "env | grep ^REFRESH_AGENT_ | grep -v _ID= | sort")
    assert phases(node).stdout.splitlines() == [
        "REFRESH_AGENT_ATTEMPT=1",
        "REFRESH_AGENT_CHANGED=",
        "REFRESH_AGENT_PHASE=configure",
        "REFRESH_AGENT_TRIGGER=once",
    ]


def test_the_output_is_kept_in_the_journal_and_the_order_where_both_streams_are_one(node: Node) -> None:
    node.hook("configure/10-a", "for i in {1..50}; do echo $i; echo $i >&2; done")
    command = f"{COMMAND} --config-file {node.config_file} run-phases --log-level ERROR 2>&1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60)
    assert ended.stdout.split() == [str(number).encode() for number in range(1, 51) for _ in range(2)]
    assert node.rows("SELECT tail FROM outputs") == [(ended.stdout,)]


def test_the_result_as_json_has_standard_output_for_itself(node: Node) -> None:
    node.hook("configure/10-a", "echo said; exit 9")
    ended = phases(node, "--json")
    told = json.loads(ended.stdout)
    assert (told["exit_code"], told["trigger"], told["changed"]) == (1, "once", [])
    assert (told["failure"]["hook"], told["failure"]["status"]) == ("10-a", 9)
    assert "configure/10-a| said" in ended.stderr


def test_nothing_to_run_is_silent_but_for_a_missing_base_directory(node: Node) -> None:
    ended = phases(node)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert "has no phase directory" in phases(node, "--log-level", "DEBUG").stderr
    assert json.loads(phases(node, "--json").stdout)["run"] is None
    assert node.outcomes() == []
    node.base.rmdir()
    ended = phases(node)
    assert (ended.returncode, f"{node.base} does not exist" in ended.stderr) == (0, True)


def test_nohup_lets_it_survive_a_hangup(node: Node) -> None:
    """As os-refresh-config."""
    node.hook("configure/10-a", f"touch {node.root}/up; until [ -e {node.root}/go ]; do sleep 0.02; done")
    node.hook("configure/20-b")
    command = ["nohup", COMMAND, "--config-file", str(node.config_file), "run-phases"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually((node.root / "up").exists)
    process.send_signal(signal.SIGHUP)
    (node.root / "go").touch()
    assert process.wait(20) == 0
    assert node.ran() == ["configure/10-a", "configure/20-b"]


def test_what_it_prints(node: Node) -> None:
    with node.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        base, names = phases(node, "--print-base"), phases(node, "--print-phases")
    assert (base.returncode, base.stdout, base.stderr) == (0, f"{node.base}\n", "")
    assert (names.returncode, names.stdout, names.stderr) == (0, "\t".join(PHASES) + "\n", "")
    assert json.loads(phases(node, "--print-base", "--json").stdout) == str(node.base)
    assert not node.state.exists()


@pytest.mark.parametrize("level", ["ERROR", "WARN", "CRITICAL", "INFO", "DEBUG", "WARNING"])
def test_the_log_levels_of_os_refresh_config(node: Node, level: str) -> None:
    node.hook("configure/10-a")
    ended = phases(node, "--log-level", level)
    assert (ended.returncode, "success in" in ended.stderr) == (0, level in {"INFO", "DEBUG"})


class TestTheLock:
    @pytest.mark.parametrize("held", ["run.lock", "other"])
    def test_held_is_11_be_it_the_configured_one_or_the_callers(self, node: Node, held: str) -> None:
        node.hook("configure/10-a")
        with (node.root / held).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            ended = phases(node, "--lockfile", str(node.root / "other"))
            assert (ended.returncode, node.ran()) == (11, [])
            assert f"{node.root / held} is held by another refresh" in ended.stderr
            assert ended.stderr.count("\n") == 1
            assert phases(node).returncode == (11 if held == "run.lock" else 0)

    def test_the_same_file_by_another_path_is_one_lock(self, node: Node) -> None:
        """os-refresh-config's default is in /var/run, which is a link."""
        node.hook("configure/10-a")
        (node.root / "link").symlink_to(".")
        assert phases(node, "--lockfile", f"{node.root}/link/run.lock").returncode == 0

    def test_a_run_of_another_agent_is_not_taken_for_leftovers(self, node: Node) -> None:
        os.mkfifo(node.root / "go")
        node.hook("configure/10-a", f"read -r _ < {node.root}/go")
        node.metadata({"a": 1})
        process = subprocess.Popen([COMMAND, "--config-file", str(node.config_file), "--once"])
        eventually(node.ran)
        assert phases(node, "--lockfile", str(node.root / "other")).returncode == 11
        (node.root / "go").write_text("\n")
        assert process.wait(20) == 0
        assert node.outcomes() == ["success"]

    def test_it_is_held_while_hooks_run(self, node: Node) -> None:
        node.hook("configure/10-a", f"{COMMAND} --config-file {node.config_file} run-phases; echo $?")
        assert phases(node).stdout == "11\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_lets_the_running_hook_finish_and_starts_no_other(node: Node, name: str) -> None:
    os.mkfifo(node.root / "go")
    node.hook("configure/10-slow", f"read -r _ < {node.root}/go")
    node.hook("configure/20-never")
    node.hook("error/10-never")
    process = subprocess.Popen([COMMAND, "--config-file", str(node.config_file), "run-phases"])
    eventually(node.ran)
    process.send_signal(signal.Signals[name])
    (node.root / "go").write_text("\n")
    assert process.wait(20) == 128 + signal.Signals[name]
    assert (node.ran(), node.outcomes()) == (["configure/10-slow"], ["interrupted"])


class TestDatabases:
    def test_one_that_cannot_be_migrated_is_4_and_is_not_tried_after_a_failed_phase(self, node: Node) -> None:
        database = node.root / "new.db"
        tree = node.root / "tree"
        tree.mkdir()
        node.configure(
            f"[migrations]\ntargets = shop\n[migration:shop]\nconnection = sqlite:///{database}\n"
            f"alembic_location = {tree}"
        )
        ended = phases(node)  # no hooks at all: the databases are reason enough
        assert (ended.returncode, "migration:shop" in ended.stderr) == (4, True)
        assert node.outcomes() == ["migration failed"]
        node.hook("configure/10-a", "exit 1")
        assert phases(node).returncode == 1
        assert len(node.rows("SELECT * FROM migrations")) == 1


class TestBadInput:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["--no-such"],
            ["--timeout", "soon"],
            ["--timeout", "-1"],
            ["--timeout"],
            ["--log-level", "LOUD"],
            ["x"],
        ],
    )
    def test_wrong_arguments_are_2_with_a_line_that_names_them(
        self, node: Node, arguments: list[str]
    ) -> None:
        node.hook("configure/10-a")
        ended = phases(node, *arguments)
        assert (ended.returncode, node.ran()) == (2, [])
        assert "error: " in ended.stderr.splitlines()[-1]
        assert arguments[0] in ended.stderr.splitlines()[-1]

    def test_bad_configuration_is_2(self, node: Node) -> None:
        node.configure("[debounce]\nquite = 1")
        ended = phases(node)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)

    def test_a_lock_file_that_cannot_be_opened_is_5(self, node: Node) -> None:
        node.hook("configure/10-a")
        ended = phases(node, "--lockfile", "no/such/lock")
        assert (ended.returncode, node.ran()) == (5, [])
        assert f"{os.getcwd()}/no/such/lock: the lock file cannot be opened" in ended.stderr
        assert ended.stderr.count("\n") == 1

    def test_a_state_directory_that_cannot_be_used_is_5(self, node: Node) -> None:
        node.hook("configure/10-a")
        (node.root / "file").touch()
        node.configure(state_dir=f"{node.root}/file/state")
        ended = phases(node)
        assert (ended.returncode, node.ran()) == (5, [])
        assert (f"{node.root}/file/state" in ended.stderr, ended.stderr.count("\n")) == (True, 1)

    def test_a_read_only_state_directory_is_5(self, node: Node) -> None:
        node.state.mkdir(mode=0o700)
        node.hook("configure/10-a")
        ended = in_small_file_system(node, node.state, "ro", "run-phases")
        assert (ended.returncode, node.ran()) == (5, [])
        assert (str(node.state) in ended.stderr, "Traceback" in ended.stderr) == (True, False)

    def test_a_journal_that_is_damaged_is_set_aside_and_named(self, node: Node) -> None:
        node.hook("configure/10-a")
        assert phases(node).returncode == 0
        path: pathlib.Path = node.state / "journal.sqlite"
        path.write_bytes(b"x" * 8192)
        ended = phases(node)
        assert (ended.returncode, len(node.ran())) == (0, 2)
        (aside,) = node.state.glob("journal.sqlite.damaged-*")
        assert f"it is damaged; it is set aside as {aside}, and everything is run once more" in ended.stderr
