"""The phases and where their hooks lie."""

import pathlib

import pytest

from refresh_agent.phases import order


def test_the_phases_are_os_refresh_configs_in_its_order() -> None:
    assert order.PHASES == ("pre-configure", "configure", "post-configure", "migration")
    assert order.ERROR not in order.PHASES


def test_a_phases_directory() -> None:
    assert order.directory("/base", "configure") == "/base/configure.d"


@pytest.mark.parametrize("named", ["/somewhere", ""])
def test_the_environment_names_the_base_directory_even_if_empty(named: str) -> None:
    assert order.default_base_dir({"OS_REFRESH_CONFIG_BASE_DIR": named}) == named


@pytest.mark.parametrize(
    ("old", "new", "expected"), [(0, 0, "new"), (0, 1, "new"), (1, 0, "old"), (1, 1, "new")]
)
def test_the_old_directory_counts_only_if_there_is_no_new_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, old: int, new: int, expected: str
) -> None:
    monkeypatch.setattr(order, "OLD_BASE_DIR", str(tmp_path / "old"))
    monkeypatch.setattr(order, "DEFAULT_BASE_DIR", str(tmp_path / "new"))
    for name, there in (("old", old), ("new", new)):
        if there:
            (tmp_path / name).mkdir()
    assert order.default_base_dir({}) == str(tmp_path / expected)
