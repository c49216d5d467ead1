"""The unit file by itself, and how it comes to its place."""

import pathlib
import re

import pytest

from tests.e2e.systemd.machine import Machine
from tests.e2e.systemd.unit import CONFIG, NAME, UNIT, UNITS, Unit
from tests.pages import TOP, blocks, read

INSTALL = TOP / "docs" / "install.rst"

VERIFY = ("systemd-analyze", "verify", "--recursive-errors=no")

KNOWN_TO_247 = frozenset({
    "After", "Before", "Conflicts", "DefaultDependencies", "Description", "Documentation", "Requires",
    "StartLimitBurst", "StartLimitIntervalSec", "Wants",
    "Delegate", "Environment", "EnvironmentFile", "ExecReload", "ExecStart", "KillMode", "NotifyAccess",
    "OOMPolicy", "Restart", "RestartPreventExitStatus", "RestartSec", "StateDirectory", "StateDirectoryMode",
    "TimeoutStopSec", "Type", "WatchdogSec",
    "WantedBy",
})  # fmt: skip
"""The youngest are OOMPolicy= (243), StateDirectory= (235) and StartLimitIntervalSec= (230). Before one is
added here: systemd's manual tells of each since which version there is it.
"""


def directives(text: str) -> set[str]:
    return set(re.findall(r"^(\w+)=", text, flags=re.MULTILINE))


def test_systemd_has_nothing_to_say_against_it(unit: Unit) -> None:
    verified = unit.machine.run(*VERIFY, f"{UNITS}/{NAME}")
    assert (verified.stdout, verified.stderr) == ("", "")


@pytest.mark.parametrize("wrong", ["Rstart=always", "ExecStop=/nowhere/to/be/found", "WatchdogSec=often"])
def test_systemd_would_have_said_it(unit: Unit, wrong: str) -> None:
    text = UNIT.read_text(encoding="utf-8").replace("[Service]\n", f"[Service]\n{wrong}\n")
    unit.write("/run/wrong/refresh-agent.service", text)
    assert unit.machine.run(*VERIFY, "/run/wrong/refresh-agent.service", check=False).stderr


def test_its_exposure_is_printed(unit: Unit, capsys: pytest.CaptureFixture[str]) -> None:
    """Hooks may do everything, so it cannot be low; that systemd can judge it is what is tested."""
    judged = unit.machine.run(
        "systemd-analyze", "security", "--offline=true", "--no-pager", f"{UNITS}/{NAME}"
    )
    last = judged.stdout.strip().splitlines()[-1]
    with capsys.disabled():
        print(f"\n{last}")
    score = re.search(r"Overall exposure level for refresh-agent.service: ([\d.]+)", last)
    assert score
    assert 0 < float(score[1]) <= 10


def test_every_directive_is_known_to_systemd_247() -> None:
    assert directives(UNIT.read_text(encoding="utf-8")) <= KNOWN_TO_247


def test_the_package_has_the_unit_and_the_sample_beside_it(installed: pathlib.Path) -> None:
    share = installed / "share" / "refresh-agent"
    sample = TOP / "etc" / "refresh-agent" / "refresh-agent.conf.sample"
    assert (share / NAME).read_bytes() == UNIT.read_bytes()
    assert (share / "refresh-agent.conf.sample").read_bytes() == sample.read_bytes()


def test_the_documented_commands_put_it_in_place(bare: Unit, machine: Machine) -> None:
    _, found, text = read(INSTALL).partition("These four commands put them in place")
    assert found
    four = blocks(text, "sh")[0].splitlines()
    assert len(four) == 4
    for command in four:
        machine.run("sh", "-euc", command)
    assert machine.path(f"{UNITS}/{NAME}").read_bytes() == UNIT.read_bytes()
    assert machine.path(CONFIG).exists()
    assert bare.systemctl("is-enabled").stdout.strip() == "enabled"
    assert bare.show("ActiveState") == "active"
    bare.wait_for_log("no source has data")
    bare.systemctl("reload")
    machine.run("refresh-agent", "check-config")
    bare.systemctl("disable")
