"""When a source was last asked: a report that costs next to nothing and never fails anything."""

import json
import logging
import os
import pathlib
import tempfile
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent import seen
from refresh_agent.errors import StateError
from refresh_agent.intake import Rules
from refresh_agent.model import CollectorSettings, Snapshot
from refresh_agent.seen import Seen, SeenFile, SeenProblem
from refresh_agent.sources import Source, Sources
from refresh_agent.store import forget
from tests.unit.support import LIMITS, NUMBERS, json_values, looping_link, write_json

BAD = SeenProblem("HTTP 503")


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> str:
    return str(tmp_path)


def test_what_was_noted_is_read_by_another_process(directory: str) -> None:
    noted = Seen(1000.5, 1000.5, 3600.0, (BAD, SeenProblem("no such file", expected=True)))
    SeenFile(directory, "cfn").note(noted)
    assert seen.read(directory, "cfn") == noted
    assert os.stat(f"{directory}/cfn.seen").st_mode & 0o777 == 0o600
    assert os.listdir(directory) == ["cfn.seen"]


def test_the_last_good_answer_is_remembered_also_by_the_next_process(directory: str) -> None:
    SeenFile(directory, "cfn").note(Seen(1000.0, 1000.0))
    SeenFile(directory, "cfn").note(Seen(2000.0, None, None, (BAD,)))
    assert seen.read(directory, "cfn") == Seen(2000.0, 1000.0, None, (BAD,))


@pytest.mark.parametrize(
    ("second", "written"),
    [
        (Seen(1004.9, 1004.9), False),
        (Seen(1005.0, 1005.0), True),
        (Seen(1000.1, 1000.1, None, (BAD,)), True),
        (Seen(999.0, 999.0), True),  # the clock was set back
        (Seen(1000.1, 1000.1, 60.0), True),
    ],
)
def test_it_is_written_again_after_a_while_or_when_there_is_news(
    directory: str, second: Seen, written: bool
) -> None:
    file = SeenFile(directory, "cfn")
    file.note(Seen(1000.0, 1000.0))
    file.note(second)
    assert (seen.read(directory, "cfn") == second) is written


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "17",
        '{"asked": "x"}',
        '{"asked": 1, "answered": 1, "every": 0, "problems": 3}',
        json.dumps({"asked": 1, "answered": 10**400, "every": 0, "problems": []}),
    ],
)
def test_what_is_damaged_is_not_known_and_written_anew(directory: str, content: str) -> None:
    pathlib.Path(directory, "cfn.seen").write_text(content)
    assert seen.read(directory, "cfn") is None
    SeenFile(directory, "cfn").note(Seen(1000.0, 1000.0))
    assert seen.read(directory, "cfn") == Seen(1000.0, 1000.0)


def test_what_cannot_be_written_or_read_is_passed_over(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cfn.seen").mkdir()
    SeenFile(str(tmp_path), "cfn").note(Seen(1000.0))
    looping_link(tmp_path / "heat.seen")
    assert seen.read(str(tmp_path), "cfn") is seen.read(str(tmp_path), "heat") is None
    assert sorted(os.listdir(tmp_path)) == ["cfn.seen", "heat.seen"]


def test_two_processes_that_write_at_the_same_time_do_not_tear_the_file(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon and --once: one has not ended when the other begins."""
    daemon, once = Seen(1000.0, None, None, (SeenProblem("x" * 5000),)), Seen(2000.0, 2000.0)
    rename = os.rename

    def slowly(source: str, target: str) -> None:
        monkeypatch.setattr("os.rename", rename)
        SeenFile(directory, "cfn").note(once)
        assert seen.read(directory, "cfn") == once
        rename(source, target)

    monkeypatch.setattr("os.rename", slowly)
    SeenFile(directory, "cfn").note(daemon)
    assert seen.read(directory, "cfn") == daemon
    assert os.listdir(directory) == ["cfn.seen"]


@given(st.fixed_dictionaries(dict.fromkeys(Seen._fields, json_values() | NUMBERS)) | json_values())
def test_whatever_the_file_says_it_is_read_or_not_known(content: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory, "cfn.seen").write_text(json.dumps(content))
        assert isinstance(seen.read(directory, "cfn"), Seen | None)


def test_it_goes_with_its_source_and_only_then(tmp_path: pathlib.Path) -> None:
    for name in ("cfn", "heat"):
        SeenFile(str(tmp_path), name).note(Seen(1000.0))
    for killed in ("cfn.0123abcd.seen~", "heat.0123abcd.seen~"):
        (tmp_path / killed).touch()
    forget(str(tmp_path), {"heat"})
    assert os.listdir(tmp_path) == ["heat.seen"]


# --- what sources note ------------------------------------------------------------------------------------


def sources(root: pathlib.Path) -> Sources:
    entry = CollectorSettings("heat_local", {"path": [str(root / "metadata")]})
    return Sources(str(root / "state"), [entry], LIMITS)


def test_a_source_notes_that_it_was_asked_and_whether_it_answered_well(tmp_path: pathlib.Path) -> None:
    write_json(tmp_path / "metadata", {"a": 1})
    ours = sources(tmp_path)
    ours.collect()
    first = seen.read(str(tmp_path / "state" / "sources"), "heat_local")
    assert first is not None
    assert first.answered == first.asked
    assert first.every is None
    assert first.problems == ()
    (tmp_path / "metadata").write_text("{")
    ours.collect()
    second = seen.read(str(tmp_path / "state" / "sources"), "heat_local")
    assert second is not None
    assert second.answered == first.answered < second.asked
    assert [problem.expected for problem in second.problems] == [False]
    assert "its last good content stands in" in second.problems[0].text
    ours.sweep()
    assert seen.read(str(tmp_path / "state" / "sources"), "heat_local") == second


def test_that_nothing_could_be_stored_is_noted_too(tmp_path: pathlib.Path) -> None:
    write_json(tmp_path / "metadata", {"a": 1})
    ours = sources(tmp_path)
    (tmp_path / "state" / "sources" / "heat_local.json").mkdir(parents=True)
    with pytest.raises(StateError, match="cannot be read: Is a directory"):
        ours.collect()
    found = seen.read(str(tmp_path / "state" / "sources"), "heat_local")
    assert found is not None
    assert found.answered is None
    assert len(found.problems) == 1
    assert found.problems[0].text.endswith("heat_local.json: cannot be read: Is a directory")
    (tmp_path / "state" / "sources" / "heat_local.json").rmdir()
    ours.collect()
    found = seen.read(str(tmp_path / "state" / "sources"), "heat_local")
    assert found is not None
    assert (found.answered, found.problems) == (found.asked, ())


def test_where_nothing_at_all_can_be_written_the_error_is_the_first_one(tmp_path: pathlib.Path) -> None:
    write_json(tmp_path / "metadata", {"a": 1})
    ours = sources(tmp_path)
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="sources/heat_local: cannot be written"):
        ours.collect()


def test_an_internal_error_is_noted_too(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    write_json(tmp_path / "metadata", {"a": 1})

    def broken(*_: object) -> NoReturn:
        raise ZeroDivisionError

    ours = sources(tmp_path)
    (tmp_path / "state" / "sources").mkdir(parents=True)
    monkeypatch.setattr("refresh_agent.sources.Intake", broken)
    ours.collect()
    assert "internal error" in log.text
    found = seen.read(str(tmp_path / "state" / "sources"), "heat_local")
    assert found is not None
    assert found.answered is None
    assert [problem.text.partition(":")[0] for problem in found.problems] == ["internal error"]


def test_a_mere_look_is_not_noted(tmp_path: pathlib.Path) -> None:
    write_json(tmp_path / "metadata", {"a": 1})
    sources(tmp_path).look()
    assert not (tmp_path / "state").exists()


def test_no_secret_gets_into_it(tmp_path: pathlib.Path) -> None:
    class Careless:
        def collect(self) -> Snapshot:
            return Snapshot(
                "shelf", error="HTTP 403 for http://x/?temp_url_sig=0123456789abcdef, key sesame-open-up"
            )

    source = Source("shelf", Careless, str(tmp_path), Rules(LIMITS, secrets=("sesame-open-up",)))
    source.collect()
    text = (tmp_path / "shelf.seen").read_text()
    assert json.loads(text)["problems"][0][0].startswith("HTTP 403 for http://x/?temp_url_sig=***")
    assert "sesame" not in text
    assert "0123456789abcdef" not in text
    assert "sesame" not in repr(source._rules)


def test_once_it_is_closed_it_notes_nothing(tmp_path: pathlib.Path) -> None:
    write_json(tmp_path / "metadata", {"a": 1})
    ours = sources(tmp_path)
    ours.close()
    ours.collect()
    assert seen.read(str(tmp_path / "state" / "sources"), "heat_local") is None


def test_a_full_disk_says_nothing(tmp_path: pathlib.Path, log: pytest.LogCaptureFixture) -> None:
    write_json(tmp_path / "metadata", {"a": 1})
    (tmp_path / "state" / "sources" / "heat_local.seen").mkdir(parents=True)
    ours = sources(tmp_path)
    ours.collect()
    assert [document.name for document in ours.documents] == ["heat_local"]
    assert not [record for record in log.records if record.levelno >= logging.WARNING]
