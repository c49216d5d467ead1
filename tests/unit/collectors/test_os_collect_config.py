"""The files of a running os-collect-config."""

import json
import os
import pathlib
import re

import pytest

from refresh_agent.collectors.os_collect_config import build
from refresh_agent.intake import text_of
from refresh_agent.model import Snapshot
from tests.unit.support import LIMITS, looping_link, write_json


@pytest.fixture
def listing(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "os_config_files.json"


def collected(listing: pathlib.Path) -> Snapshot:
    return build({"files_list": str(listing)}, LIMITS).collect()


def test_documents_come_in_the_lists_order_named_without_json(
    tmp_path: pathlib.Path, listing: pathlib.Path
) -> None:
    paths = [str(write_json(tmp_path / name, {"n": name})) for name in ("heat.json", "cfn.json", "plain")]
    write_json(listing, paths)
    snapshot = collected(listing)
    assert [(document.name, document.path) for document in snapshot.documents] == [
        ("heat", paths[0]),
        ("cfn", paths[1]),
        ("plain", paths[2]),
    ]
    assert json.loads(text_of(snapshot.documents[1], LIMITS)) == {"n": "cfn.json"}
    assert snapshot.watch == (str(listing), *paths)
    assert snapshot.error == ""


def test_a_file_that_is_named_twice_is_one_document(tmp_path: pathlib.Path, listing: pathlib.Path) -> None:
    """os-collect-config defect 3: two deployments of one name share a file, and the list names it twice."""
    path = str(write_json(tmp_path / "a.json", {}))
    write_json(listing, [path, path])
    assert [document.name for document in collected(listing).documents] == ["a"]


def test_files_of_one_name_in_two_directories_are_two_documents(
    tmp_path: pathlib.Path, listing: pathlib.Path
) -> None:
    paths = [str(write_json(tmp_path / place / "heat.json", {"from": place})) for place in ("one", "two")]
    write_json(listing, paths)
    first, second = collected(listing).documents
    assert first.name == "heat"
    assert re.fullmatch(r"heat-[0-9a-f]{8}", second.name)
    assert [first.path, second.path] == paths


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "is not a JSON list of file names"),
        ("[1, 2]", "is not a JSON list of file names"),
        ("[null]", "is not a JSON list of file names"),
        ('"/a.json"', "is not a JSON list of file names"),
        ("", "is not a JSON list of file names"),
        ('["/a.json"', "is not a JSON list of file names"),
        ("\xff", "is not a JSON list of file names"),
        ("[" * 10_000, "is not a JSON list of file names"),
        ('["a.json"]', "names 'a.json', which is not an absolute path without a colon"),
        ('["../a.json"]', "which is not an absolute path"),
        ('[""]', "names '', which is not"),
        ('["/a:b.json"]', "names '/a:b.json', which is not an absolute path without a colon"),
        (r'["/a\u0000.json"]', r"names '/a\x00.json', which is not"),
        (r'["/a\ud800.json"]', r"names '/a\ud800.json', which is not"),
        ('["/fine.json", "bad"]', "names 'bad'"),
    ],
)
def test_a_list_that_is_none_is_named_and_the_source_fails(
    listing: pathlib.Path, text: str, words: str
) -> None:
    listing.write_text(text, encoding="latin-1")
    snapshot = collected(listing)
    assert snapshot.documents == ()
    assert snapshot.error.startswith(f"{listing}: ")
    assert words in snapshot.error
    assert not snapshot.absent
    assert snapshot.watch == (str(listing),)


def test_a_list_that_is_not_there_is_absence(listing: pathlib.Path) -> None:
    snapshot = collected(listing)
    assert snapshot.absent
    assert snapshot.error == f"{listing}: No such file or directory"
    assert snapshot.watch == (str(listing),)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("fifo", "is not a regular file"),
        ("directory", "Is a directory"),
        ("loop", "Too many levels of symbolic"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(listing: pathlib.Path, kind: str, words: str) -> None:
    if kind == "fifo":
        os.mkfifo(listing)
    elif kind == "directory":
        listing.mkdir()
    else:
        looping_link(listing)
    snapshot = collected(listing)
    assert snapshot.error.startswith(f"{listing}: {words}")
    assert not snapshot.absent


def test_files_that_cannot_be_read_are_named_one_by_one(
    tmp_path: pathlib.Path, listing: pathlib.Path
) -> None:
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "directory.json").mkdir()
    looping_link(tmp_path / "loop.json")
    good = write_json(tmp_path / "good.json", {})
    names = ["fifo", "directory", "loop", "missing", "good"]
    write_json(listing, [str(tmp_path / f"{name}.json") for name in names])
    found = {document.name: document for document in collected(listing).documents}
    assert list(found) == names
    assert text_of(found["good"], LIMITS) == good.read_text()
    assert found["fifo"].error == f"{tmp_path}/fifo.json: is not a regular file"
    assert found["directory"].error == f"{tmp_path}/directory.json: Is a directory"
    assert found["loop"].error == f"{tmp_path}/loop.json: Too many levels of symbolic links"
    assert found["missing"].error == f"{tmp_path}/missing.json: No such file or directory"
    assert [name for name in names if found[name].absent] == ["missing"]


def test_an_empty_list_is_as_good_as_none(listing: pathlib.Path) -> None:
    """os-collect-config defect 2: it leaves files out while their sources are down."""
    write_json(listing, [])
    snapshot = collected(listing)
    assert (snapshot.documents, snapshot.absent) == ((), True)
    assert snapshot.error == f"{listing}: names no files"


@pytest.mark.parametrize("path", ["/..", "/", "/a/../..", "/a/os_config_files.json", "/a/.json", "/a/ü.json"])
def test_paths_of_every_kind_have_safe_names(listing: pathlib.Path, path: str) -> None:
    """os-collect-config defect 4: names unsanitised."""
    write_json(listing, [path])
    (document,) = collected(listing).documents
    assert re.fullmatch(r"[A-Za-z0-9_-]*-[0-9a-f]{8}", document.name)


def test_a_byte_order_mark_does_not_hide_the_list(tmp_path: pathlib.Path, listing: pathlib.Path) -> None:
    path = write_json(tmp_path / "a.json", {})
    listing.write_bytes(b"\xef\xbb\xbf" + json.dumps([str(path)]).encode())
    assert [document.name for document in collected(listing).documents] == ["a"]
