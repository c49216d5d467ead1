"""A pause is a file: that it is there is what counts."""

import json
import os
import pathlib
import tempfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent import pause
from refresh_agent.errors import StateError
from refresh_agent.pause import Pause
from tests.unit.support import NUMBERS, json_values, looping_link

HUGE = json.dumps({"reason": "x", "since": 10**400})


@pytest.fixture
def state(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "state")


def test_it_lasts_from_its_beginning_to_its_end(state: str) -> None:
    assert pause.read(state) is None
    pause.begin(state, "an upgrade", 1000.5)
    assert pause.read(state) == Pause("an upgrade", 1000.5)
    assert os.stat(pause.path_in(state)).st_mode & 0o777 == 0o600
    pause.begin(state, "another", 2000.0)
    assert pause.read(state) == Pause("another", 2000.0)
    pause.end(state)
    assert pause.read(state) is None
    pause.end(state)
    assert os.listdir(state) == []


def test_it_tells_since_when_why_and_what_ends_it(state: str) -> None:
    told = Pause("an upgrade", 0.0)
    assert str(told) == f"{told.told}; it ends with refresh-agent resume"
    assert told.told == f"paused since {pause.moment(0.0)}: an upgrade"
    assert Pause("why", None).told == "paused: why"
    assert Pause("why", 1e99).told == "paused since an unknown time: why"


@pytest.mark.parametrize(
    "content",
    ["", "\0\0\0", "{", "[]", "17", '{"reason": "x"}', '{"reason": "x", "since": "y"}', "[" * 9999, HUGE],
)
def test_a_damaged_file_is_a_pause_all_the_same(state: str, content: str) -> None:
    pause.begin(state, "x", 1.0)
    path = pathlib.Path(pause.path_in(state))
    path.write_text(content)
    assert pause.read(state) == Pause(f"unknown, {path} cannot be read (it is damaged)", None)


def test_one_cut_anywhere_is_a_pause_all_the_same(state: str) -> None:
    pause.begin(state, "an upgrade", 1000.5)
    path = pathlib.Path(pause.path_in(state))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert pause.read(state) is not None


def test_what_cannot_be_read_or_written_is_told(state: str) -> None:
    looping_link(pathlib.Path(pause.path_in(state)))
    found = pause.read(state)
    assert found is not None
    assert "cannot be read (Too many levels of symbolic links)" in found.reason
    pause.begin(state, "x", 1.0)  # it takes the place of whatever is there
    pause.end(state)
    os.mkdir(pause.path_in(state))
    with pytest.raises(StateError, match=r"paused.json: cannot be written: Is a directory"):
        pause.begin(state, "x", 1.0)
    told = r"paused.json: cannot be removed: Is a directory; the pause goes on until you remove it by hand"
    with pytest.raises(StateError, match=told):
        pause.end(state)


def test_a_link_that_leads_nowhere_is_a_pause_all_the_same(state: str) -> None:
    pathlib.Path(state).mkdir()
    pathlib.Path(pause.path_in(state)).symlink_to("nowhere")
    assert pause.read(state) is not None
    pause.end(state)
    assert pause.read(state) is None


def test_its_end_removes_what_a_killed_beginning_has_left(state: str) -> None:
    left = pathlib.Path(state, ".paused.json.0123abcd")
    pathlib.Path(state).mkdir()
    left.touch()
    pause.end(state)
    assert not left.exists()


def test_what_a_killed_beginning_has_left_is_nobodys_reason_to_stay_paused(state: str) -> None:
    """It may be gone, or stay: another command sweeps at the same time."""
    pause.begin(state, "x", 1.0)
    os.mkdir(os.path.join(state, ".paused.json.0123abcd"))
    pause.end(state)
    assert pause.read(state) is None


@given(json_values(st.sampled_from(["reason", "since"])) | NUMBERS)
def test_whatever_the_file_says_it_is_a_pause(content: Any) -> None:
    with tempfile.TemporaryDirectory() as state:
        for told in (content, {"reason": content, "since": 1.0}, {"reason": "x", "since": content}):
            pathlib.Path(pause.path_in(state)).write_text(json.dumps(told))
            found = pause.read(state)
            assert found is not None
            assert str(found).endswith("it ends with refresh-agent resume")
