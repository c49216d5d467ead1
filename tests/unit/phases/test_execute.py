"""The phases in order, hook by hook, with real hooks."""

import os
import signal
import time

import pytest

from refresh_agent.model import Ending, Failure
from refresh_agent.phases import execute, trust
from tests.processes import alive
from tests.unit.phases.node import Node
from tests.unit.support import write_hook


def test_phases_and_hooks_run_in_order_and_everything_is_told(node: Node) -> None:
    for place in ("configure/10-a", "configure/9-b", "migration/x", "pre-configure/a", "post-configure/a"):
        node.hook(place)
    assert node.run() is None
    ran = ["pre-configure/a", "configure/9-b", "configure/10-a", "post-configure/a", "migration/x"]
    assert node.ran() == ran
    assert node.told.events == [
        "pre-configure begins with 1",
        "pre-configure/a",
        "pre-configure ends",
        "configure begins with 2",
        "configure/9-b",
        "configure/10-a",
        "configure ends",
        "post-configure begins with 1",
        "post-configure/a",
        "post-configure ends",
        "migration begins with 1",
        "migration/x",
        "migration ends",
    ]
    assert [f"{result.started.phase}/{result.started.hook}" for result in node.told.results] == ran


def test_the_first_failure_ends_it(node: Node) -> None:
    node.hook("pre-configure/10-a")
    node.hook("pre-configure/20-b", "exit 42")
    node.hook("pre-configure/30-c")
    node.hook("configure/10-a")
    failure = node.run()
    assert failure == Failure("pre-configure", "20-b", 42, "failed with status 42")
    assert str(failure) == "pre-configure/20-b: failed with status 42"
    assert node.ran() == ["pre-configure/10-a", "pre-configure/20-b"]
    assert node.told.events[-1] == "pre-configure ends badly"


def test_a_hook_killed_by_a_signal_is_told_so(node: Node) -> None:
    node.hook("configure/10-a", "kill -9 $$")
    assert node.run() == Failure("configure", "10-a", 137, "was ended by signal 9")


def test_a_hook_that_cannot_be_started_is_told_like_one_that_ran(node: Node) -> None:
    node.hook("configure/10-a").write_text("#!/no/such/shell\n")
    failure = node.run()
    assert failure is not None
    assert failure.reason == "cannot be started: its interpreter /no/such/shell does not exist"
    assert failure.status == 127
    assert node.told.events[1] == "configure/10-a without a process"
    assert node.told.results[0].exit.ending is Ending.NOT_STARTED


def test_a_hook_that_is_deleted_by_one_before_it_fails(node: Node) -> None:
    """The list is fixed at the start, as dib-run-parts' is."""
    gone = node.hook("configure/20-b")
    node.hook("configure/10-a", f"rm {gone}; cp $0 {node.base}/configure.d/30-c")
    assert node.run() == Failure("configure", "20-b", 127, "cannot be started: No such file or directory")
    assert node.ran() == ["configure/10-a"]


def test_a_later_phase_is_read_when_it_begins(node: Node) -> None:
    (node.base / "configure.d").mkdir()
    write_hook(node.base / "new", "echo new")
    node.hook("pre-configure/10-a", f"mv {node.base}/new {node.base}/configure.d/10-new")
    assert node.run() is None
    assert node.said() == ["new"]


def test_files_that_are_no_hooks_are_told(node: Node) -> None:
    node.hook("configure/10-a.sh")
    node.hook("configure/20-b").chmod(0o644)
    assert node.run() is None
    assert node.told.notes == [
        "configure: 10-a.sh is not run: its name does not match ^[0-9A-Za-z_-]+$",
        "configure: 20-b is not run: it is not executable",
    ]
    assert node.ran() == []


def test_the_regex_of_the_environment_holds(node: Node) -> None:
    node.env["RUN_PARTS_REGEX"] = r"\.sh$"
    node.hook("configure/10-a.sh")
    node.hook("configure/20-b")
    assert node.run() is None
    assert node.ran() == ["configure/10-a.sh"]


def test_a_regex_that_is_none_fails_the_phase_in_words(node: Node) -> None:
    node.env["RUN_PARTS_REGEX"] = "["
    node.hook("configure/10-a")
    failure = node.run()
    assert failure is not None
    assert "RUN_PARTS_REGEX '[' is not an extended regular expression" in failure.reason


@pytest.mark.parametrize("kind", ["missing base", "base is a file", "empty base", "empty phase"])
def test_nothing_to_run_is_a_success_that_is_told(node: Node, kind: str) -> None:
    if kind == "empty phase":
        (node.base / "configure.d").mkdir()
        assert node.run() is None
        assert node.told.events == ["configure begins with 0", "configure ends"]
        return
    if kind != "empty base":
        node.base /= "base"
    if kind == "base is a file":
        node.base.write_text("")
    assert node.run() is None
    assert len(node.told.notes) == 1
    assert str(node.base) in node.told.notes[0]
    assert "there are no hooks to run" in node.told.notes[0]
    assert ("see [DEFAULT] base_dir" in node.told.notes[0]) is (kind != "empty base")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("file", "Not a directory"), ("loop", "Too many levels"), ("dangling", "No such file")],
)
def test_a_phase_directory_that_is_none_is_a_failure_that_names_it(node: Node, kind: str, words: str) -> None:
    path = node.base / "configure.d"
    if kind == "file":
        path.write_text("")
    else:
        path.symlink_to(path.name if kind == "loop" else "nowhere")
    node.hook("post-configure/10-a")
    failure = node.run()
    assert failure is not None
    assert (failure.phase, failure.hook, failure.status) == ("configure", "", 1)
    assert failure.reason.startswith(f"{path}: {words}")
    assert node.told.events == ["configure begins with 0", "configure ends badly"]


# --- the environment ---------------------------------------------------------------------------------------

PRINT = 'for name in A PATH REFRESH_AGENT_{RUN_ID,PHASE,HOOK_ID}; do echo "$name=${!name}"; done'


def test_a_hook_gets_environment_d_and_over_it_the_runs_own(node: Node) -> None:
    (node.base / "environment.d").mkdir()
    (node.base / "environment.d" / "10-a").write_text("export A=1 REFRESH_AGENT_RUN_ID=forged")
    node.hook("configure/10-a", PRINT)
    node.hook("configure/20-b", PRINT)
    assert node.run() is None
    first, second = (dict(line.split("=") for line in lines) for lines in (node.said()[:5], node.said()[5:]))
    assert first["A"] == "1"
    assert first["REFRESH_AGENT_RUN_ID"] == "run-1"
    assert first["REFRESH_AGENT_PHASE"] == "configure"
    assert first["REFRESH_AGENT_HOOK_ID"].startswith("run-1-")
    assert first["REFRESH_AGENT_HOOK_ID"] != second["REFRESH_AGENT_HOOK_ID"]


def test_one_hooks_exports_do_not_reach_the_next(node: Node) -> None:
    node.hook("configure/10-a", "export A=7")
    node.hook("configure/20-b", "echo ${A:-none}")
    assert node.run() is None
    assert node.said() == ["none"]


def test_environment_d_is_read_anew_for_every_phase(node: Node) -> None:
    (node.base / "environment.d").mkdir()
    node.hook("pre-configure/10-a", f"echo export A=new > {node.base}/environment.d/10-a")
    node.hook("configure/10-a", "echo $A")
    assert node.run() is None
    assert node.said() == ["new"]


def test_environment_d_that_fails_is_the_phases_failure_and_names_the_file(node: Node) -> None:
    (node.base / "environment.d").mkdir()
    path = node.base / "environment.d" / "10-a"
    path.write_text("echo about to fail; exit 3")
    node.hook("configure/10-a")
    assert node.run() == Failure("configure", "", 3, f"{path}: ended with status 3")
    assert node.told.lines == ["configure/environment.d/stderr: about to fail"]
    assert node.ran() == []


@pytest.mark.parametrize(
    ("kind", "words"), [("file", "Not a directory"), ("loop", "Too many levels of symbolic links")]
)
def test_environment_d_that_cannot_be_read_is_named(node: Node, kind: str, words: str) -> None:
    node.hook("configure/10-a")
    directory = node.base / "environment.d"
    if kind == "file":
        directory.write_text("")
    else:
        directory.symlink_to(directory.name)
    assert node.run() == Failure("configure", "", 1, f"{directory}: cannot be read: {words}")


def test_environment_d_is_read_again_when_a_hook_has_changed_it(node: Node) -> None:
    directory = node.base / "environment.d"
    directory.mkdir()
    (directory / "10-count").write_text(f"echo read >> {node.base}/read; export COLOUR=red")
    node.hook("configure/10-a")
    node.hook("configure/20-b", f"echo 'export COLOUR=blue' > {directory}/20-new")
    node.hook("configure/30-c", f"echo $COLOUR > {node.base}/colour")
    assert node.run() is None
    assert (node.base / "colour").read_text() == "blue\n"
    assert (node.base / "read").read_text().split() == ["read"] * 2


def test_environment_d_is_not_read_for_a_phase_without_hooks(node: Node) -> None:
    (node.base / "environment.d").mkdir()
    (node.base / "environment.d" / "10-a").write_text("exit 3")
    (node.base / "configure.d").mkdir()
    assert node.run() is None


# --- output ------------------------------------------------------------------------------------------------


def test_output_is_told_with_its_hook_and_kept(node: Node) -> None:
    node.hook("configure/10-a", "echo one; sleep 0.1; echo two >&2; printf '\\x1b[2J'")
    assert node.run() is None
    assert node.told.lines == [
        "configure/10-a/stdout: one",
        "configure/10-a/stdout: two",
        "configure/10-a/stdout: \\x1b[2J",
    ]
    assert node.told.results[0].tail == b"one\ntwo\n\x1b[2J"


def test_a_secret_is_neither_told_nor_kept_wherever_the_output_is_cut(node: Node) -> None:
    node.mask.learn(["hunter2-hunter2"])
    endless = "head -c 8185 /dev/zero | tr '\\0' x; echo -n hunter2; sleep 0.1; echo -n -hunter2; echo y"
    node.hook("configure/10-a", endless)
    assert node.run() is None
    assert node.said() == ["x" * 8185 + "***y"]
    assert node.told.results[0].tail == b"x" * 8185 + b"***y\n"


def test_what_environment_d_writes_of_its_own_secrets_is_masked(node: Node) -> None:
    (node.base / "environment.d").mkdir()
    (node.base / "environment.d" / "10-a").write_text(
        "export DB_PASSWORD=correct-horse; echo connecting with $DB_PASSWORD"
    )
    node.hook("configure/10-a")
    assert node.run() is None
    assert node.told.lines[0] == "configure/environment.d/stderr: connecting with ***"


def test_something_unforeseen_in_the_middle_leaves_no_hook(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.settings["parallel"] = 2
    node.hook("configure/10-a", f"echo $$ > {node.base}/new; mv {node.base}/new {node.base}/pid; sleep 60")
    node.hook("configure/10-b", f"until [ -e {node.base}/pid ]; do sleep 0.02; done")

    def fail(*_: object) -> str:
        raise ZeroDivisionError

    node.hook("configure/10-c")
    original = trust.Trust.hook_objection
    monkeypatch.setattr(
        trust.Trust,
        "hook_objection",
        lambda self, path, env: fail() if path.endswith("10-c") else original(self, path, env),
    )
    with pytest.raises(ZeroDivisionError):
        node.run()
    assert not alive(int((node.base / "pid").read_text()))


def test_a_secret_that_environment_d_sets_is_masked(node: Node) -> None:
    (node.base / "environment.d").mkdir()
    (node.base / "environment.d" / "10-a").write_text("export DB_PASSWORD=correct-horse")
    node.hook("configure/10-a", "echo $DB_PASSWORD")
    assert node.run() is None
    assert node.said() == ["***"]


def test_what_a_hook_left_behind_and_goes_on_talking_disturbs_no_other(node: Node) -> None:
    """It is listened to by a thread; the journal belongs to another."""
    node.hook("configure/10-a", f"(while :; do echo still here; done) & echo $! > {node.base}/pid")
    for number in range(20, 60):
        write_hook(node.base / "configure.d" / f"{number}-quick", shebang="#!/bin/sh\n")
    try:
        assert node.run() is None
    finally:
        os.kill(int((node.base / "pid").read_text()), signal.SIGKILL)
    assert len(node.told.results) == 41
    assert {line.partition("/stdout")[0] for line in node.told.lines} == {"configure/10-a"}


# --- time budgets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["hook_timeout", "phase_timeout", "run_timeout"])
def test_the_option_whose_time_was_over_is_named(node: Node, option: str) -> None:
    node.settings |= {"hook_timeout": 50.0, "phase_timeout": 60.0, "run_timeout": 70.0, option: 0.3}
    node.hook("configure/10-a", "sleep 60")
    failure = node.run()
    assert failure is not None
    assert failure.reason == f"was ended: the time of [phases] {option} = 0.3 s was up"
    assert failure.status == 143
    assert not failure.stopped


def test_a_phases_time_is_shared_by_its_hooks_and_a_runs_by_its_phases(node: Node) -> None:
    node.settings |= {"phase_timeout": 0.8, "hook_timeout": 60}
    for place in ("pre-configure/10-a", "configure/10-a", "configure/20-b", "configure/30-c"):
        node.hook(place, "sleep 0.35")
    failure = node.run()
    assert failure is not None
    assert (failure.phase, failure.hook) == ("configure", "30-c")
    assert "phase_timeout" in failure.reason
    node.settings |= {"phase_timeout": 0, "run_timeout": 0.9}
    failure = node.run()
    assert failure is not None
    assert (failure.phase, failure.hook) == ("configure", "20-b")
    assert "run_timeout" in failure.reason


@pytest.mark.parametrize("option", ["hook_timeout", "phase_timeout", "run_timeout"])
def test_environment_d_takes_its_time_from_the_same_budgets(node: Node, option: str) -> None:
    node.settings |= {option: 0.3}
    (node.base / "environment.d").mkdir()
    path = node.base / "environment.d" / "10-a"
    path.write_text("sleep 60")
    node.hook("configure/10-a")
    failure = node.run()
    assert failure is not None
    assert str(path) in failure.reason
    assert option in failure.reason
    assert node.ran() == []


def test_without_a_limit_there_is_none() -> None:
    assert execute.Budget(0, "hook_timeout").left() == float("inf")
    assert 0 < execute.Budget(5, "hook_timeout").left() <= 5


# --- stopping ----------------------------------------------------------------------------------------------


def test_after_a_stop_the_running_hook_finishes_and_no_other_starts(node: Node) -> None:
    node.hook("configure/10-a", f"touch {node.base}/up; sleep 0.3")
    node.hook("configure/20-b")
    failure = node.run_until("up")
    assert failure == Failure("configure", "20-b", 143, "not started: the agent is stopping", stopped=True)
    assert node.ran() == ["configure/10-a"]
    assert node.told.results[0].exit.ok


def test_a_hook_ended_by_a_stop_is_no_fault_of_its_own(node: Node) -> None:
    node.settings |= {"stop_grace": 0.2}
    node.hook("configure/10-a", f"touch {node.base}/up; sleep 60")
    failure = node.run_until("up")
    assert failure is not None
    assert failure.stopped


def test_a_stop_during_environment_d_is_a_stop(node: Node) -> None:
    node.settings |= {"stop_grace": 0.2}
    (node.base / "environment.d").mkdir()
    (node.base / "environment.d" / "10-a").write_text(f"touch {node.base}/up; sleep 60")
    node.hook("configure/10-a")
    failure = node.run_until("up")
    assert failure is not None
    assert failure.stopped
    assert node.ran() == []


# --- error.d -----------------------------------------------------------------------------------------------

FAILURE = Failure("configure", "20-b", 42, "failed with status 42")


def test_error_hooks_are_told_what_failed(node: Node) -> None:
    """os-refresh-config tells them nothing."""
    node.hook("error/10-a", "env | grep REFRESH_AGENT_ | sort")
    execute.run_error_hooks(node.job(), FAILURE)
    told = dict(line.split("=") for line in node.said())
    assert told.pop("REFRESH_AGENT_HOOK_ID")
    assert told == {
        "REFRESH_AGENT_FAILED_HOOK": "20-b",
        "REFRESH_AGENT_FAILED_PHASE": "configure",
        "REFRESH_AGENT_FAILED_STATUS": "42",
        "REFRESH_AGENT_PHASE": "error",
        "REFRESH_AGENT_RUN_ID": "run-1",
    }


def test_error_hooks_stop_at_their_own_first_failure(node: Node) -> None:
    node.hook("error/10-a", "exit 1")
    node.hook("error/20-b")
    execute.run_error_hooks(node.job(), FAILURE)
    assert node.ran() == ["error/10-a"]


def test_error_hooks_have_their_time_all_together(node: Node) -> None:
    """os-refresh-config gives them no limit at all."""
    node.settings |= {"error_timeout": 0.6, "run_timeout": 0.01, "phase_timeout": 0.01}
    node.hook("error/10-a", "sleep 0.3")
    node.hook("error/20-b", "sleep 60")
    began = time.monotonic()
    execute.run_error_hooks(node.job(), FAILURE)
    assert time.monotonic() - began < 10
    assert [result.exit.ending for result in node.told.results] == [Ending.EXITED, Ending.TIMEOUT]


def test_environment_d_that_hangs_does_not_outlast_error_timeout(node: Node) -> None:
    node.settings |= {"error_timeout": 0.3}
    (node.base / "environment.d").mkdir()
    (node.base / "environment.d" / "10-a").write_text("sleep 60")
    node.hook("error/10-a")
    began = time.monotonic()
    execute.run_error_hooks(node.job(), FAILURE)
    assert time.monotonic() - began < 10


def test_without_error_d_nothing_happens(node: Node) -> None:
    execute.run_error_hooks(node.job(), FAILURE)
    assert node.told.events == []
