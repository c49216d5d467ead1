"""A hook that stops or restarts the agent which runs it, as a package upgrade does; and daemons of hooks."""

import functools

import pytest

from tests.e2e.systemd.unit import ALONE, BASE, NAME, STORY, Unit
from tests.waiting import eventually

RESTARTS = {
    "waiting": "systemctl restart refresh-agent",
    "not-waiting": "systemctl restart --no-block refresh-agent",
    "service": "service refresh-agent restart",
    "stop-then-start": "systemctl stop refresh-agent; systemctl start refresh-agent",
    "disable-then-enable": "systemctl disable --now refresh-agent; systemctl enable --now refresh-agent",
    # As RPM does it.
    "marked": f"systemctl set-property {NAME} Markers=+needs-restart; systemctl reload-or-restart --marked",
    # An upgrade tells what it does: so its output is readable in the moment of the stop.
    "talking": "(while :; do echo progress; done) & systemctl restart refresh-agent; kill $!",
}

UPGRADE = """
{alone}
echo $$ >> {story}/pids
if [ ! -e {story}/upgraded ]; then
    touch {story}/upgraded
    {command}
    echo $? > {story}/status
    sleep 2
    echo finished >> {story}/finished
fi
"""


def upgrade(command: str) -> str:
    """A hook that has the command made once, and something left to do after it."""
    return UPGRADE.format(alone=ALONE, story=STORY, command=command)


@pytest.mark.parametrize("command", RESTARTS.values(), ids=RESTARTS)
def test_a_hook_that_restarts_the_agent_finishes_and_the_agent_is_a_new_one(unit: Unit, command: str) -> None:
    unit.configure("[phases]\nstop_grace = 1\nkill_grace = 1")
    unit.hook("configure/10-upgrade", upgrade(command))
    unit.hook("configure/20-next")
    unit.metadata({"a": 1})
    unit.start()
    pid = unit.pid()
    eventually(lambda: unit.outcomes()[-1:] == ["success"], 30)
    assert (unit.told("finished"), unit.told("status")) == (["finished"], ["0"])
    assert unit.told("overlap") == []
    assert unit.pid() not in {0, pid}
    assert unit.show("ActiveState") == "active"
    assert unit.rows("SELECT attempt FROM runs ORDER BY id") == [(1,), (2,)]
    assert unit.ran() == ["configure/10-upgrade", "configure/10-upgrade", "configure/20-next"]


def test_it_may_be_the_first_thing_that_a_hook_does_and_over_at_once(unit: Unit) -> None:
    """Then systemctl has come and gone before the hook is a few milliseconds old."""
    unit.configure("[phases]\nstop_grace = 0.2\nkill_grace = 0.3")
    number = "$(tr -dc 0-9 <$OS_CONFIG_FILES)"
    unit.write(
        f"{BASE}/configure.d/10-upgrade",
        f"#!/bin/sh\n{{ mkdir {STORY}/{number} && echo > {STORY}/{number}/began; }} || exit 0\n"
        f"systemctl restart --no-block refresh-agent\nsleep 1\necho {number} >> {STORY}/finished\n",
        0o755,
    )
    unit.metadata({"a": 1})
    unit.start()
    for last in range(1, 5):
        unit.metadata({"a": last})
        unit.wait_for_told(f"{last}/began")
        expected = [str(number) for number in range(1, last + 1)]
        eventually(functools.partial(finished, unit, expected))


def finished(unit: Unit, expected: list[str]) -> bool:
    """So many hooks to their end, and what each of them had made again."""
    return unit.told("finished") == expected and unit.outcomes()[-1:] == ["success"]


def test_a_hook_may_restart_the_agent_that_somebody_is_stopping_already(unit: Unit) -> None:
    unit.configure("[phases]\nstop_grace = 20\nkill_grace = 1")
    wait = f"until [ -e {STORY}/go ]; do sleep 0.05; done"
    unit.hook("configure/10-upgrade", upgrade(f"{wait}; systemctl restart refresh-agent"))
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_told("pids")
    unit.begin_to_stop()
    unit.tell("go")
    eventually(lambda: unit.outcomes()[-1:] == ["success"], 15)
    assert unit.told("finished") == ["finished"]


def test_a_hook_that_stops_the_agent_finishes_and_the_agent_is_stopped(unit: Unit) -> None:
    unit.configure("[phases]\nstop_grace = 1\nkill_grace = 1")
    unit.hook("configure/10-stops", upgrade("systemctl stop refresh-agent"))
    unit.metadata({"a": 1})
    unit.start()
    assert unit.wait_for_told("finished") == ["finished"]
    assert unit.show("ActiveState") == "inactive"
    assert unit.stopped_well()
    unit.start()
    eventually(lambda: unit.outcomes()[-1:] == ["success"])
    assert len(unit.told("pids")) == 2


def test_a_hook_that_waits_for_another_unit_is_ended_by_a_stop_like_any_other(unit: Unit) -> None:
    unit.configure("[phases]\nstop_grace = 0.3\nkill_grace = 0.3")
    unit.write("/run/systemd/system/slow.service", "[Service]\nType=oneshot\nExecStart=/bin/sleep 60\n")
    unit.machine.run("systemctl", "daemon-reload")
    unit.hook("configure/10-other", f"echo $$ >> {STORY}/pids; systemctl restart slow.service")
    unit.metadata({"a": 1})
    unit.start()
    (hook,) = unit.wait_for_told("pids")
    eventually(lambda: unit.machine.show("slow.service", "ActiveState") == "activating")
    unit.systemctl("stop")
    assert not unit.machine.alive(int(hook))
    assert unit.seconds_of_stop() < 5
    unit.machine.run("systemctl", "stop", "slow.service")


@pytest.mark.parametrize("verb", ["restart", "stop"])
def test_daemons_that_successful_hooks_started_stay_alive(unit: Unit, verb: str) -> None:
    unit.hook("configure/10-quiet", f"setsid sleep 1000 >/dev/null 2>&1 &\necho $! >> {STORY}/daemons")
    # One that keeps its standard output, and dies if that is closed.
    unit.hook(
        "configure/20-chatty",
        f"(while sleep 0.1; do echo chatter; echo $((++said)) > {STORY}/said; done) &\n"
        f"echo $! >> {STORY}/daemons",
    )
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_outcomes("success")
    daemons = [int(line) for line in unit.told("daemons")]
    unit.wait_for_told("said")
    unit.systemctl(verb)
    said = int(unit.told("said")[0])
    eventually(lambda: int((unit.told("said") or ["0"])[0]) >= said + 5)
    assert [unit.machine.alive(pid) for pid in daemons] == [True, True]
    assert unit.show("ActiveState") == {"restart": "active", "stop": "inactive"}[verb]
    assert NAME in unit.machine.path(f"/proc/{daemons[0]}/cgroup").read_text()
