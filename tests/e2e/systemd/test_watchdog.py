"""The watchdog of systemd: an agent that is stuck is started again, one that waits for a hook is not."""

from tests.e2e.systemd.unit import STORY, Unit
from tests.waiting import eventually


def test_a_frozen_agent_is_killed_and_started_again(unit: Unit) -> None:
    unit.drop_in("WatchdogSec=2\nTimeoutAbortSec=1")
    unit.hook("configure/10-a")
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_outcomes("success")
    pid = unit.pid()
    unit.machine.run("kill", "-STOP", str(pid))
    eventually(lambda: unit.pid() not in {0, pid}, 20)
    assert "Watchdog timeout (limit 2s)!" in unit.log()
    assert unit.show("NRestarts") == "1"
    unit.metadata({"a": 2})
    eventually(lambda: unit.outcomes()[-1:] == ["success"] and unit.ran().count("configure/10-a") >= 2)


def test_a_hook_that_takes_three_times_as_long_as_the_watchdog_waits_is_left_alone(unit: Unit) -> None:
    unit.drop_in("WatchdogSec=5")
    unit.hook("configure/10-long", f"sleep 15; echo finished >> {STORY}/finished")
    unit.metadata({"a": 1})
    unit.start()
    assert unit.show("WatchdogUSec") == "5s"
    pid = unit.pid()
    unit.wait_for_outcomes("success", seconds=30)
    assert (unit.pid(), unit.show("NRestarts")) == (pid, "0")
    assert unit.told("finished") == ["finished"]


def test_waiting_for_a_change_longer_than_the_watchdog_waits_is_no_reason_either(unit: Unit) -> None:
    unit.drop_in("WatchdogSec=1")
    unit.configure(polling_interval="3600")
    unit.hook("configure/10-a")
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_outcomes("success")
    pid = unit.pid()
    first = int(unit.show("WatchdogTimestampMonotonic"))
    eventually(lambda: int(unit.show("WatchdogTimestampMonotonic")) > first + 4_000_000)
    assert (unit.pid(), unit.show("NRestarts")) == (pid, "0")
