"""Collectors are found by their name."""

import pathlib
import sys
import textwrap

import pytest

from refresh_agent import collectors
from refresh_agent.collectors.heat_local import HeatLocal
from refresh_agent.collectors.local import Local
from refresh_agent.collectors.os_collect_config import OsCollectConfig
from refresh_agent.errors import ConfigError, ExitCode
from refresh_agent.model import CollectorSettings, Snapshot
from tests.unit.support import LIMITS


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("os_collect_config", {"files_list": "/x"}, OsCollectConfig),
        ("heat_local", {"path": ["/x"]}, HeatLocal),
        ("local", {"path": ["/x"]}, Local),
    ],
)
def test_the_built_in_ones(name: str, options: dict[str, object], kind: type) -> None:
    assert isinstance(collectors.build(CollectorSettings(name, options), LIMITS), kind)


def test_all_built_in_ones_are_known() -> None:
    assert set(collectors.BUILT_IN) <= set(collectors.known())
    assert list(collectors.known()) == sorted(collectors.known())


def test_an_unknown_one_is_an_error_that_tells_the_known() -> None:
    with pytest.raises(ConfigError, match=r"there is no collector 'heta'; there are: .*heat_local") as caught:
        collectors.build(CollectorSettings("heta", {}), LIMITS)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.fixture
def third_party(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with one collector that works and two that cannot be loaded."""
    (tmp_path / "their_collectors.py").write_text(
        textwrap.dedent(
            """
            from refresh_agent.model import Snapshot
            class Theirs:
                def collect(self):
                    return Snapshot("theirs")
            def build(options, limits):
                return Theirs()
            """
        )
    )
    package = tmp_path / "their_collectors-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: their-collectors\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[refresh_agent.collectors]\ntheirs = their_collectors:build\n"
        "gone = their_collectors:gone\nmissing = no_such_module_at_all:build\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_collectors", raising=False)


@pytest.mark.usefixtures("third_party")
def test_a_third_partys_is_found_through_its_entry_point() -> None:
    assert "theirs" in collectors.known()
    assert collectors.build(CollectorSettings("theirs", {}), LIMITS).collect() == Snapshot("theirs")


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize("name", ["gone", "missing"])
def test_one_that_cannot_be_loaded_is_told_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"collectors: {name} cannot be loaded: "):
        collectors.build(CollectorSettings(name, {}), LIMITS)
