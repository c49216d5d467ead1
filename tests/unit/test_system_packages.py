"""What each profile of bindep.txt asks of the system."""

import pathlib
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


@pytest.mark.parametrize("profile", ["test", "bench"])
def test_mariadb_comes_without_a_service_on_this_machine(profile: str) -> None:
    assert "mariadb-server-core" in wanted("dpkg", profile)
    assert "mariadb-server" not in wanted("dpkg", profile)


@pytest.mark.parametrize("profile", ["test", "bench"])
def test_the_databases_servers_are_there_on_both_kinds_of_systems(profile: str) -> None:
    assert "postgresql" in wanted("dpkg", profile)
    assert wanted("rpm", profile) >= {"postgresql-server", "mariadb-server"}


@pytest.mark.parametrize("profile", ["test", "bench"])
def test_what_a_run_asks_of_the_disk_can_be_recorded(profile: str) -> None:
    assert "strace" in wanted("dpkg", profile) & wanted("rpm", profile)


def test_the_tests_have_a_systemd_also_where_this_machine_runs_without_one() -> None:
    assert wanted("dpkg", "test") & wanted("rpm", "test") >= {"systemd", "util-linux"}


def test_postgresql_is_installed_without_a_cluster_and_nothing_is_left_of_that_wish(
    tmp_path: pathlib.Path,
) -> None:
    setting = tmp_path / "postgresql-common" / "createcluster.d" / "no-main-cluster.conf"
    with system_packages.no_cluster(setting):
        assert setting.read_text() == "create_main_cluster = false\n"
    assert not list(tmp_path.iterdir())


def test_what_the_package_puts_beside_the_wish_for_no_cluster_stays(tmp_path: pathlib.Path) -> None:
    setting = tmp_path / "postgresql-common" / "createcluster.d" / "no-main-cluster.conf"
    with system_packages.no_cluster(setting):
        (tmp_path / "postgresql-common" / "createcluster.conf").touch()
    assert [path.name for path in tmp_path.rglob("*.conf")] == ["createcluster.conf"]


def test_who_wants_no_cluster_at_all_keeps_that_setting(tmp_path: pathlib.Path) -> None:
    setting = tmp_path / "no-main-cluster.conf"
    setting.write_text("create_main_cluster = false  # mine")
    with system_packages.no_cluster(setting):
        pass
    assert setting.read_text().endswith("# mine")


@pytest.mark.parametrize(
    ("profile", "command"),
    [
        ("test", "bash"),
        ("test", "redis-check-rdb"),
        ("test", "initdb"),
        ("test", "strace"),
        ("test", "pivot_root"),
        ("test", "systemctl"),
        ("bench", "mariadbd"),
        ("bench", "cc"),
        ("bench", "strace"),
    ],
)
def test_without_dpkg_the_commands_of_the_profile_are_looked_for(
    profile: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name, path=None: None)
    monkeypatch.setattr(sys, "argv", ["system_packages.py", "--profile", profile])
    assert system_packages.main() == 1
    not_found = capsys.readouterr().err.removeprefix("system packages: not found: ")
    assert command in not_found.strip().split(", ")
