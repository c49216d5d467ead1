"""What the journal has of the agent, and that a restarted journald is no harm."""

import pytest

from tests.e2e.systemd.unit import STORY, Unit
from tests.waiting import eventually

TALKS = f"""
echo "run $REFRESH_AGENT_RUN_ID" > {STORY}/run
for ((number = 0; ; number++)); do
    echo "line $number"
    echo $number > {STORY}/said
    [ -e {STORY}/go ] && break
    sleep 0.02
done
echo "the last line"
"""


def run_id(unit: Unit) -> str:
    return unit.wait_for_told("run")[0].split()[1]


def test_it_shows_one_run_and_in_it_one_hook_and_what_went_wrong(unit: Unit) -> None:
    unit.hook("configure/10-a", f'echo "run $REFRESH_AGENT_RUN_ID" > {STORY}/run; echo well; echo badly >&2')
    unit.hook("post-configure/20-b", "echo later")
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_outcomes("success")
    run = f"RUN_ID={run_id(unit)}"

    def messages(*arguments: str) -> list[str]:
        return [str(entry["MESSAGE"]) for entry in unit.journal(*arguments)]

    eventually(lambda: any("success" in message for message in messages(run)))
    whole = "\n".join(messages(run))
    assert whole.index("well") < whole.index("later")
    assert "refresh-agent starts" not in whole
    of_hook = messages(run, "HOOK=10-a")
    assert any("well" in message for message in of_hook)
    assert not any("later" in message for message in of_hook)
    of_phase = messages(run, "PHASE=post-configure")
    assert any("later" in message for message in of_phase)
    assert not any("well" in message for message in of_phase)
    (wrong,) = unit.journal(run, "--priority=err")
    assert "badly" in str(wrong["MESSAGE"])
    assert (wrong["STREAM"], wrong["PRIORITY"], wrong["HOOK"]) == ("stderr", "3", "10-a")
    (good,) = (entry for entry in unit.journal(run, "STREAM=stdout") if "well" in str(entry["MESSAGE"]))
    assert good["PRIORITY"] == "6"


def test_what_it_logs_is_of_its_unit_and_is_told_once(unit: Unit) -> None:
    unit.hook("configure/10-a", "echo 'told by the hook'")
    unit.metadata({"a": 1})
    unit.start()
    unit.wait_for_log("told by the hook")
    assert unit.log().count("told by the hook") == 1
    identifiers = {entry["SYSLOG_IDENTIFIER"] for entry in unit.journal() if entry["_PID"] != "1"}
    assert identifiers == {"refresh-agent"}


def test_a_failed_run_is_found_by_priority(unit: Unit) -> None:
    unit.configure("[retry]\nmax_attempts = 1")
    unit.hook("configure/10-a", "exit 3")
    unit.metadata({"a": 1})
    unit.start()
    eventually(lambda: unit.outcomes() == ["hook failed"])
    eventually(
        lambda: any(
            "10-a" in str(entry["MESSAGE"]) for entry in unit.journal("--priority=err", "PHASE=configure")
        )
    )


def one_after_the_other(unit: Unit, command: tuple[str, ...]) -> None:
    """The command ends a journald; until there is another one."""
    before = unit.machine.show("systemd-journald", "MainPID")
    unit.machine.run(*command)
    eventually(lambda: unit.machine.show("systemd-journald", "MainPID") not in {"0", before})


@pytest.mark.parametrize(
    "command",
    [
        ("systemctl", "restart", "systemd-journald"),
        ("systemctl", "kill", "--signal=KILL", "systemd-journald"),
    ],
    ids=["restarted", "killed"],
)
def test_a_journald_that_goes_away_while_a_hook_talks_does_no_harm(
    unit: Unit, command: tuple[str, ...]
) -> None:
    unit.hook("configure/10-talks", TALKS)
    unit.metadata({"a": 1})
    unit.start()
    pid = unit.pid()
    for _ in range(2):
        unit.wait_for_told("said")
        one_after_the_other(unit, command)
        before = int(unit.wait_for_told("said")[0])
        unit.wait_for_log(f"line {before + 5}\n")
    unit.tell("go")
    unit.wait_for_log("the last line")
    unit.wait_for_outcomes("success")
    assert (unit.pid(), unit.show("NRestarts")) == (pid, "0")
