"""A boot: the first refresh after it runs, also when no metadata has changed meanwhile."""

import contextlib
import uuid
from collections.abc import Iterator

from tests.e2e.systemd.unit import STORY, Unit

BOOT_ID = "/proc/sys/kernel/random/boot_id"


@contextlib.contextmanager
def another_boot(unit: Unit) -> Iterator[None]:
    """The kernel says meanwhile that it was booted anew."""
    unit.write(f"{STORY}/boot_id", f"{uuid.uuid4()}\n")
    unit.machine.run("mount", "--bind", f"{STORY}/boot_id", BOOT_ID)
    try:
        yield
    finally:
        unit.machine.run("umount", BOOT_ID)


def start_again(unit: Unit) -> None:
    """Up to the end of its first refresh."""
    unit.systemctl("stop")
    unit.begin_journal()
    unit.start()
    unit.wait_for_log("refresh-agent starts")


def started(unit: Unit) -> None:
    unit.hook("configure/10-a", f'echo "$REFRESH_AGENT_TRIGGER" >> {STORY}/triggers')
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_outcomes("success")


def test_a_restart_alone_runs_nothing(unit: Unit) -> None:
    started(unit)
    start_again(unit)
    unit.wait_for_log("nothing changed since the last success")
    assert unit.told("triggers") == ["start"]


def test_the_first_refresh_after_a_boot_runs(unit: Unit) -> None:
    started(unit)
    with another_boot(unit):
        start_again(unit)
        unit.wait_for_outcomes("success", "success")
        start_again(unit)
        unit.wait_for_log("nothing changed since the last success")
    assert unit.told("triggers") == ["start", "start"]


def test_who_wants_a_run_only_for_changes_gets_none_after_a_boot(unit: Unit) -> None:
    unit.configure(run_at_boot="changed")
    started(unit)
    with another_boot(unit):
        start_again(unit)
        unit.wait_for_log("nothing changed since the last success")
        assert unit.told("triggers") == ["start"]
        unit.metadata({"a": 2})
        unit.wait_for_outcomes("success", "success")
