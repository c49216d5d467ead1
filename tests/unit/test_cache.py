"""The files that os-collect-config would keep."""

import json
import os
import pathlib

import pytest

from refresh_agent import cache
from refresh_agent.errors import ExitCode, StateError
from tests.unit.support import looping_link


def test_it_writes_the_contents_and_then_the_list_in_order(tmp_path: pathlib.Path) -> None:
    paths = cache.write(str(tmp_path / "cache"), [("heat", b'{"a": 1}'), ("cfn", b"{}")])
    assert paths == (str(tmp_path / "cache" / "heat.json"), str(tmp_path / "cache" / "cfn.json"))
    assert (tmp_path / "cache" / "heat.json").read_bytes() == b'{"a": 1}'
    assert json.loads((tmp_path / "cache" / "os_config_files.json").read_text()) == list(paths)


def test_only_the_agents_user_can_read_them(tmp_path: pathlib.Path) -> None:
    os.umask(0)
    for path in (*cache.write(str(tmp_path), [("heat", b"{}")]), str(tmp_path / "os_config_files.json")):
        assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_file_that_holds_its_content_is_left_alone(tmp_path: pathlib.Path) -> None:
    def inodes() -> list[int]:
        return [(tmp_path / name).stat().st_ino for name in ("a.json", "b.json", "os_config_files.json")]

    cache.write(str(tmp_path), [("a", b"{}"), ("b", b"{}")])
    before = inodes()
    cache.write(str(tmp_path), [("a", b"{}"), ("b", b'{"x":1}')])
    after = inodes()
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert after[2] == before[2]


@pytest.mark.parametrize("old", [b"", b"{", b'{"a": 1}{"a": 1}', b'{"a": 2}'])
def test_a_file_that_somebody_damaged_is_written_anew(tmp_path: pathlib.Path, old: bytes) -> None:
    (tmp_path / "a.json").write_bytes(old)
    cache.write(str(tmp_path), [("a", b'{"a": 1}')])
    assert (tmp_path / "a.json").read_bytes() == b'{"a": 1}'


def test_the_list_is_complete_again_after_it_was_truncated(tmp_path: pathlib.Path) -> None:
    """os-collect-config defect 2: a list that lost an entry stays so."""
    cache.write(str(tmp_path), [("a", b"{}")])
    (tmp_path / "os_config_files.json").write_text("[]")
    paths = cache.write(str(tmp_path), [("a", b"{}")])
    assert json.loads((tmp_path / "os_config_files.json").read_text()) == list(paths)


@pytest.mark.parametrize("kind", ["file", "loop"])
def test_a_cache_that_cannot_be_written_is_named(tmp_path: pathlib.Path, kind: str) -> None:
    where = tmp_path / "cache"
    if kind == "file":
        where.write_text("")
    else:
        looping_link(where)
    with pytest.raises(StateError, match="cache cannot be written") as caught:
        cache.write(str(where), [("a", b"{}")])
    assert str(where) in str(caught.value)
    assert caught.value.exit_code is ExitCode.STATE


def test_a_directory_in_the_place_of_a_file_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.json" / "inside").mkdir(parents=True)
    with pytest.raises(StateError, match=r"a\.json"):
        cache.write(str(tmp_path), [("a", b"{}")])
    assert os.listdir(tmp_path) == ["a.json"]
