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
    assert wanted(platform, "bench") >= packages
    assert not wanted(platform, "test") & packages


def test_redis_comes_without_a_service_on_this_machine() -> None:
    assert "redis-tools" in wanted("dpkg", "test")
    assert "redis-server" not in wanted("dpkg", "test")


@pytest.mark.parametrize(
    ("profile", "command"), [("test", "bash"), ("test", "redis-check-rdb"), ("bench", "cc")]
)
def test_without_dpkg_the_commands_of_the_profile_are_looked_for(
    profile: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(sys, "argv", ["system_packages.py", "--profile", profile])
    assert system_packages.main() == 1
    not_found = capsys.readouterr().err.removeprefix("system packages: not found: ")
    assert command in not_found.strip().split(", ")
