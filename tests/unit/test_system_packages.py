"""What each profile of bindep.txt asks of the system."""

import shutil
import sys

import pytest

from tools import system_packages


def wanted(platform: str, profile: str) -> set[str]:
    text = system_packages.BINDEP.read_text(encoding="utf-8")
    return set(system_packages.packages(text, platform, profile))


@pytest.mark.parametrize(
    ("platform", "packages"),
    [("dpkg", {"gcc", "libc6-dev", "debianutils"}), ("rpm", {"gcc", "glibc-devel"})],
)
def test_only_the_benchmarks_need_a_compiler(platform: str, packages: set[str]) -> None:
    assert wanted(platform, "bench") == packages
    assert not wanted(platform, "test") & packages


@pytest.mark.parametrize(("profile", "command"), [("test", "bash"), ("bench", "cc")])
def test_without_dpkg_the_commands_of_the_profile_are_looked_for(
    profile: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(sys, "argv", ["system_packages.py", "--profile", profile])
    assert system_packages.main() == 1
    assert f"not found: {command}" in capsys.readouterr().err
