"""The verbs of systemctl under a real systemd: start, status, reload, stop; and what follows a crash."""

import re

from tests.e2e.systemd.unit import ALONE, NAME, STORY, Unit
from tests.waiting import eventually

WAITS = f"{ALONE}; echo $$ >> {STORY}/pids; until [ -e {STORY}/go ]; do sleep 0.05; done"

STUBBORN = f"trap '' TERM; echo $$ >> {STORY}/pids; until [ -e {STORY}/mended ]; do sleep 0.05; done"


def test_it_is_active_once_it_is_ready_and_says_what_it_waits_for(unit: Unit) -> None:
    unit.hook("configure/10-a")
    unit.metadata({"a": 1})
    unit.start()
    assert unit.show("ActiveState") == "active"
    unit.wait_for_outcomes("success")
    eventually(lambda: unit.status().startswith("waiting for a change"))
    assert f'Status: "{unit.status()}"' in unit.systemctl("status").stdout


def test_the_status_says_which_hook_runs_and_for_how_long_already(unit: Unit) -> None:
    unit.hook("configure/55-heat-config", WAITS)
    unit.metadata({"a": 1})
    unit.start()
    assert unit.show("ActiveState") == "active"  # a long hook is no failed start
    shown = re.compile(r'Status: "running configure: 55-heat-config, (\d+) s, attempt 1"')

    def seconds() -> int:
        match = shown.search(unit.systemctl("status").stdout)
        return int(match[1]) if match else -1

    first = eventually(lambda: [second for second in [seconds()] if second >= 0])[0]
    eventually(lambda: seconds() > first)
    unit.tell("go")
    unit.wait_for_outcomes("success")


def test_a_reload_uses_what_was_changed_and_refreshes_now(unit: Unit) -> None:
    # It would follow its configuration by itself, too, once that has been quiet for so long.
    quiet = "[debounce]\nquiet = 30\nmax_wait = 60"
    unit.configure(quiet)
    unit.hook(
        "configure/10-a", f'echo "$REFRESH_AGENT_TRIGGER $(tr -d " \\n" <$OS_CONFIG_FILES)" >> {STORY}/seen'
    )
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_outcomes("success")
    pid = unit.pid()
    other = "/var/lib/heat-cfntools/other"
    unit.write(other, '{"b": 1}')
    unit.configure(f"{quiet}\n[heat_local]\npath = {other}")
    unit.systemctl("reload")
    unit.wait_for_outcomes("success", "success")
    assert unit.told("seen") == ['start {"a":1}', 'signal {"b":1}']
    assert unit.pid() == pid


def test_a_broken_configuration_makes_the_reload_fail_and_the_old_one_stays(unit: Unit) -> None:
    unit.hook("configure/10-a")
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_outcomes("success")
    pid = unit.pid()
    unit.configure("[phases]\nkill_grase = 1")
    failed = unit.systemctl("reload", check=False)
    assert failed.returncode != 0
    assert f"Job for {NAME} failed" in failed.stderr
    unit.wait_for_log("[phases] kill_grase is not a known option; did you mean kill_grace?")
    assert (unit.show("ActiveState"), unit.pid()) == ("active", pid)
    unit.metadata({"a": 2})
    unit.wait_for_outcomes("success", "success")


def test_a_broken_configuration_at_the_start_is_told_once_and_not_tried_again(unit: Unit) -> None:
    unit.configure("[phases]\nkill_grase = 1")
    assert unit.systemctl("start", check=False).returncode != 0
    eventually(lambda: unit.show("ActiveState") == "failed")
    assert (unit.show("ExecMainStatus"), unit.show("NRestarts")) == ("2", "0")
    assert unit.log().count("did you mean kill_grace?") == 1


def test_a_stop_ends_a_hook_that_ignores_it_and_the_run_is_made_again_at_the_next_start(unit: Unit) -> None:
    unit.configure("[phases]\nstop_grace = 0.3\nkill_grace = 0.3")
    unit.hook("configure/10-stubborn", STUBBORN)
    unit.metadata({"a": 1})
    unit.start()
    (hook,) = unit.wait_for_told("pids")
    unit.systemctl("stop")
    assert unit.show("ActiveState") == "inactive"
    assert unit.stopped_well()
    assert not unit.machine.alive(int(hook))
    assert unit.processes() == []
    assert unit.outcomes() == ["interrupted"]
    unit.tell("mended")
    unit.start()
    unit.wait_for_outcomes("interrupted", "success")
    assert unit.rows("SELECT attempt FROM runs ORDER BY id") == [(1,), (2,)]


def test_a_stop_takes_no_longer_than_it_may(unit: Unit) -> None:
    """stop_grace + kill_grace, and a little to stop in; a stop that systemd has to end is a failed one."""
    unit.configure("[phases]\nstop_grace = 1\nkill_grace = 1")
    unit.hook("configure/10-stubborn", STUBBORN)
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_told("pids")
    unit.systemctl("stop")
    assert unit.stopped_well()
    assert 2.0 <= unit.seconds_of_stop() < 4.0


def test_a_stop_lets_the_hook_finish_within_its_grace(unit: Unit) -> None:
    unit.hook("configure/10-package", f"{WAITS}; echo finished >> {STORY}/finished")
    unit.hook("configure/20-next")
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_told("pids")
    unit.begin_to_stop()
    unit.tell("go")
    eventually(lambda: unit.show("ActiveState") == "inactive")
    assert unit.told("finished") == ["finished"]
    assert unit.ran() == ["configure/10-package"]
    assert unit.stopped_well()


def test_killed_in_a_hook_it_comes_back_ends_that_hook_and_makes_the_run_again(unit: Unit) -> None:
    unit.hook("configure/10-wait", f"{WAITS}; echo done >> {STORY}/finished")
    unit.metadata({"a": 1})
    unit.start()
    (first,) = unit.wait_for_told("pids")
    eventually(lambda: unit.rows("SELECT 1 FROM hooks"))
    pid = unit.pid()
    unit.machine.run("kill", "-KILL", str(pid))
    eventually(lambda: len(unit.told("pids")) == 2)
    assert not unit.machine.alive(int(first))
    assert unit.pid() not in {0, pid}
    assert unit.show("NRestarts") == "1"
    unit.tell("go")
    unit.wait_for_outcomes("interrupted", "success")
    assert unit.rows("SELECT attempt FROM runs ORDER BY id") == [(1,), (2,)]
    assert (unit.told("overlap"), unit.told("finished")) == ([], ["done"])


def test_it_is_started_at_boot_once_it_is_enabled(unit: Unit) -> None:
    unit.hook("configure/10-a")
    unit.metadata({"a": 1})
    unit.systemctl("enable")
    unit.machine.run("systemctl", "start", "multi-user.target")
    unit.wait_for_outcomes("success")
    unit.systemctl("disable")
    assert "ordering cycle" not in "".join(str(entry["MESSAGE"]) for entry in unit.journal("_PID=1"))
