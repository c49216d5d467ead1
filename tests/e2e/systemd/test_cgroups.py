"""Each hook has a control group of its own, below that of the unit."""

import re

from tests.e2e.systemd.unit import NAME, STORY, Unit
from tests.waiting import eventually

# It leaves the session, the process group and the family, and takes no mark along.
ESCAPED = f"""
( env -i setsid /bin/bash -c 'trap "" TERM; echo $$ > {STORY}/escaped; while :; do sleep 0.1; done' &
) >/dev/null 2>&1
"""


SAYS_ITS_GROUP = f"grep ^0:: /proc/self/cgroup >> {STORY}/groups"


def test_a_hook_runs_in_a_group_of_its_own_which_is_gone_afterwards(unit: Unit) -> None:
    for name in ("10-a", "20-b"):
        unit.hook(f"configure/{name}", SAYS_ITS_GROUP)
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_outcomes("success")
    groups = unit.told("groups")
    assert len(set(groups)) == 2
    assert all(re.fullmatch(f"0::/system.slice/{NAME}/hook-[^/]+", line) for line in groups)
    eventually(lambda: [path.name for path in unit.cgroup().iterdir() if path.is_dir()] == [])


def test_what_left_a_hook_without_a_trace_is_ended_when_the_hooks_time_is_up(unit: Unit) -> None:
    unit.configure("[phases]\nhook_timeout = 1.5\nkill_grace = 0.3\n[retry]\nmax_attempts = 1")
    unit.hook("configure/10-a", f"{ESCAPED}\nsleep 1000")
    unit.metadata({"a": 1})
    unit.start()
    (escaped,) = unit.wait_for_told("escaped")
    assert unit.machine.alive(int(escaped))
    unit.wait_for_outcomes("hook failed")
    assert not unit.machine.alive(int(escaped))
    assert len(unit.processes()) == 1


def test_what_left_a_hook_without_a_trace_is_ended_when_the_agent_is_stopped(unit: Unit) -> None:
    unit.configure("[phases]\nstop_grace = 0.2\nkill_grace = 0.3")
    unit.hook("configure/10-a", f"{ESCAPED}\nsleep 1000")
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_told("escaped")
    unit.systemctl("stop")
    assert unit.processes() == []


def test_what_left_a_hook_without_a_trace_is_ended_after_a_crash_of_the_agent(unit: Unit) -> None:
    unit.configure("[phases]\nkill_grace = 0.3")
    unit.hook("configure/10-a", f"[ -e {STORY}/escaped ] || {{ {ESCAPED}\nsleep 1000; }}")
    unit.metadata({"a": 1})
    unit.start()
    (escaped,) = unit.wait_for_told("escaped")
    eventually(lambda: unit.rows("SELECT 1 FROM hooks"))
    unit.machine.run("kill", "-KILL", str(unit.pid()))
    unit.wait_for_outcomes("interrupted", "success")
    assert not unit.machine.alive(int(escaped))
