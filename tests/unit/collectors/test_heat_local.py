"""JSON files merged into one document."""

import json
import os
import pathlib
from typing import Any

import pytest

from refresh_agent.collectors.heat_local import build
from refresh_agent.intake import Rules, text_of
from refresh_agent.model import Document, Snapshot
from refresh_agent.sources import Source
from tests.unit.support import BAD_METADATA, BAD_METADATA_IDS, LIMITS, looping_link, write_json


def collected(*paths: pathlib.Path) -> Snapshot:
    return build({"path": [str(path) for path in paths]}, LIMITS).collect()


def document(*paths: pathlib.Path) -> Document:
    (found,) = collected(*paths).documents
    assert found.name == "heat_local"
    return found


def content(*paths: pathlib.Path) -> Any:
    found = document(*paths)
    assert found.raw is not None, found.error
    return json.loads(found.raw)


def test_files_are_merged_key_by_key_and_the_later_wins(tmp_path: pathlib.Path) -> None:
    """os-collect-config merges shallowly here, and only here."""
    one = write_json(tmp_path / "one", {"a": {"x": 1}, "b": 1, "c": 1})
    two = write_json(tmp_path / "two", {"a": {"y": 2}, "c": 2})
    assert content(one, two) == {"a": {"y": 2}, "b": 1, "c": 2}
    assert content(two, one) == {"a": {"x": 1}, "b": 1, "c": 1}


def test_the_agent_itself_writes_what_hooks_read(tmp_path: pathlib.Path) -> None:
    assert document(write_json(tmp_path / "one", {"a": 1})).path is None


def test_files_that_do_not_exist_are_passed_over_and_still_watched(tmp_path: pathlib.Path) -> None:
    one = write_json(tmp_path / "one", {"a": 1})
    assert content(tmp_path / "missing", one) == {"a": 1}
    assert collected(tmp_path / "missing", one).watch == (str(tmp_path / "missing"), str(one))


@pytest.mark.parametrize("empty_object", [False, True])
def test_no_file_at_all_is_absence_and_not_an_error(tmp_path: pathlib.Path, empty_object: bool) -> None:
    path = tmp_path / "missing"
    if empty_object:
        write_json(path, {})
    found = document(path)
    assert (found.raw, found.absent) == (None, True)
    assert str(path) in found.error


@pytest.mark.parametrize(("raw", "words"), [case[1:] for case in BAD_METADATA], ids=BAD_METADATA_IDS)
def test_one_bad_file_makes_the_document_bad_and_is_named(
    tmp_path: pathlib.Path, raw: bytes, words: str
) -> None:
    """os-collect-config runs the hooks without that file's keys."""
    one = write_json(tmp_path / "one", {"a": 1})
    (tmp_path / "bad").write_bytes(raw)
    for paths in ((one, tmp_path / "bad"), (tmp_path / "bad", one)):
        found = document(*paths)
        assert (found.raw, found.absent) == (None, False)
        assert found.error.startswith(f"{tmp_path / 'bad'}: ")
        assert words in found.error


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("fifo", "is not a regular file"),
        ("directory", "Is a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("below a file", "Not a directory"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: pathlib.Path, kind: str, words: str) -> None:
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "loop":
        looping_link(path)
    else:
        path.touch()
        path /= "y"
    found = document(path)
    assert found.error == f"{path}: {words}"
    assert not found.absent


def test_the_last_good_merge_stands_in_for_one_with_a_bad_file(tmp_path: pathlib.Path) -> None:
    one, two = write_json(tmp_path / "one", {"a": 1}), write_json(tmp_path / "two", {"b": 2})
    collector = build({"path": [str(one), str(two)]}, LIMITS)
    source = Source("heat_local", lambda: collector, str(tmp_path / "state"), Rules(LIMITS))
    source.collect()
    two.write_text('{"b": ')
    source.collect()
    (kept,) = source.documents
    assert json.loads(pathlib.Path(kept.stored).read_text()) == {"a": 1, "b": 2}
    assert source.problems[0].text == (
        f"{two}: is not JSON: Expecting value at line 1; its last good content stands in"
    )


def test_the_sum_of_many_files_may_be_too_large(tmp_path: pathlib.Path) -> None:
    paths = [write_json(tmp_path / name, {name: "x" * 700_000}) for name in "ab"]
    collector = build({"path": [str(path) for path in paths]}, LIMITS)
    source = Source("heat_local", lambda: collector, str(tmp_path / "state"), Rules(LIMITS))
    source.collect()
    assert source.documents == ()
    assert "is larger than [limits] metadata_bytes" in source.problems[0].text


def test_a_large_file_with_nothing_to_be_merged_with_is_taken_as_it_is(tmp_path: pathlib.Path) -> None:
    path = write_json(tmp_path / "one", {"a": "x" * 5000})
    collector = build({"path": [str(path), str(tmp_path / "missing")]}, LIMITS)
    (document,) = collector.collect().documents
    assert (document.raw, document.error) == (None, "")
    assert text_of(document, LIMITS) == path.read_text()
    write_json(tmp_path / "missing", {"b": 1})
    (document,) = collector.collect().documents
    assert json.loads(text_of(document, LIMITS)) == {"a": "x" * 5000, "b": 1}


def test_a_large_file_that_cannot_be_read_is_told(tmp_path: pathlib.Path) -> None:
    path = write_json(tmp_path / "one", {"a": "x" * 5000})
    collector = build({"path": [str(path)]}, LIMITS._replace(bytes=4999))
    (document,) = collector.collect().documents
    assert document.error == f"{path}: is larger than [limits] metadata_bytes (4999 bytes)"
