"""Directories of JSON files, under os-collect-config's rules."""

import os
import pathlib
import re

import pytest

from refresh_agent.collectors.local import Local, build
from refresh_agent.intake import Rules, text_of
from refresh_agent.model import Snapshot
from refresh_agent.sources import Source
from tests.unit.support import LIMITS, looping_link


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "local-data"
    path.mkdir(mode=0o755)
    return path


def collected(*directories: pathlib.Path) -> Snapshot:
    return build({"path": [str(path) for path in directories]}, LIMITS).collect()


def put(directory: pathlib.Path, name: str, text: str = "{}", mode: int = 0o644) -> pathlib.Path:
    path = directory / name
    path.write_text(text)
    path.chmod(mode)
    return path


def test_every_file_is_a_document_named_as_the_file(directory: pathlib.Path) -> None:
    put(directory, "b", '{"x": 1}')
    put(directory, "a.json", '{"x": 2}')
    snapshot = collected(directory)
    assert [(document.name, text_of(document, LIMITS)) for document in snapshot.documents] == [
        ("a.json", '{"x": 2}'),
        ("b", '{"x": 1}'),
    ]
    assert {document.path for document in snapshot.documents} == {None}
    assert snapshot.error == ""


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "no_SUCH.locale"])
def test_the_order_is_that_of_bytes_over_all_directories(
    directory: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, locale: str
) -> None:
    """os-collect-config defect 6: it sets the locale to sort, and ends where that does not exist."""
    monkeypatch.setenv("LC_ALL", locale)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("b", "A", "10"):
        put(directory, name)
    for name in ("a", "9", "B"):
        put(other, name)
    assert [document.name for document in collected(directory, other).documents] == [
        "10",
        "9",
        "A",
        "B",
        "a",
        "b",
    ]


def test_hidden_files_and_directories_are_no_documents(directory: pathlib.Path) -> None:
    put(directory, ".hidden", "not JSON")
    put(directory, ".a.json.swp", "not JSON")
    (directory / "deeper").mkdir()
    put(directory / "deeper", "x")
    put(directory, "a")
    assert [document.name for document in collected(directory).documents] == ["a"]


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "ü",
        "x/../y".replace("/", "\\"),
        "os_config_files",
        "a\nb",
        "$(x)",
        "-x y",
        os.fsdecode(b"\xff"),
    ],
)
def test_names_of_every_kind_are_made_safe(directory: pathlib.Path, name: str) -> None:
    """os-collect-config defect 4: names unsanitised."""
    put(directory, name)
    (document,) = collected(directory).documents
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*-[0-9a-f]{8}", document.name)


def test_names_that_look_alike_once_safe_stay_apart(directory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for place, name in ((directory, "a b"), (directory, "a_b"), (other, "a b"), (other, "a_b")):
        put(place, name)
    names = [document.name for document in collected(directory, other).documents]
    assert len(set(names)) == 4
    assert "a_b" in names


def test_a_directory_that_everybody_can_write_to_is_refused(directory: pathlib.Path) -> None:
    put(directory, "a")
    directory.chmod(0o777)
    snapshot = collected(directory)
    assert snapshot.documents == ()
    assert snapshot.error == f"{directory}: is writable by everybody; refused"
    assert not snapshot.absent


def test_a_directory_of_another_user_is_refused(directory: pathlib.Path) -> None:
    if os.getuid() == 0:
        put(directory, "a")
        os.chown(directory, 65534, -1)
    else:
        directory = pathlib.Path("/usr")
    owner = directory.stat().st_uid
    snapshot = collected(directory)
    assert snapshot.error == f"{directory}: is owned by user {owner}, not by the agent's own; refused"


def test_a_file_that_everybody_can_write_to_is_refused_and_the_others_are_not(
    directory: pathlib.Path,
) -> None:
    bad = put(directory, "a", mode=0o646)
    put(directory, "b")
    a, b = collected(directory).documents
    assert (a.raw, a.error, a.absent) == (None, f"{bad}: is writable by everybody; refused", False)
    assert text_of(b, LIMITS) == "{}"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("fifo", "is not a regular file"),
        ("loop", "Too many levels of symbolic links"),
        ("dangling", "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(directory: pathlib.Path, kind: str, words: str) -> None:
    path = directory / "x"
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "loop":
        looping_link(path)
    else:
        path.symlink_to("nowhere")
    (document,) = collected(directory).documents
    assert (document.raw, document.error) == (None, f"{path}: {words}")


def test_a_file_that_vanishes_between_list_and_read_is_named(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(directory, "a")
    put(directory, "b")
    read = Local._read

    def vanishing(self: Local, name: str, where: str) -> object:
        path.unlink(missing_ok=True)
        return read(self, name, where)

    monkeypatch.setattr(Local, "_read", vanishing)
    a, b = collected(directory).documents
    assert a.error == f"{path}: No such file or directory"
    assert text_of(b, LIMITS) == "{}"


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_no_file_at_all_is_absence_and_the_directory_is_watched(directory: pathlib.Path, kind: str) -> None:
    if kind == "missing":
        directory.rmdir()
    snapshot = collected(directory)
    assert (snapshot.documents, snapshot.absent) == ((), True)
    assert str(directory) in snapshot.error
    assert snapshot.watch == (str(directory),)


def test_files_are_watched_one_by_one_too(directory: pathlib.Path) -> None:
    """A rewrite in place changes nothing in the directory."""
    path = put(directory, "a")
    assert collected(directory).watch == (str(directory), str(path))


@pytest.mark.parametrize(
    ("kind", "words"), [("file", "Not a directory"), ("loop", "Too many levels of symbolic links")]
)
def test_a_directory_that_cannot_be_read_is_named(directory: pathlib.Path, kind: str, words: str) -> None:
    directory.rmdir()
    if kind == "file":
        directory.write_text("")
    else:
        looping_link(directory)
    snapshot = collected(directory)
    assert snapshot.error == f"{directory}: {words}"
    assert not snapshot.absent
    assert snapshot.watch == (str(directory),)


def test_one_bad_file_does_not_reject_the_source(directory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """os-collect-config gives up all local files for one that is not JSON."""
    put(directory, "a", "{")
    put(directory, "b", '{"x": 1}')
    collector = build({"path": [str(directory)]}, LIMITS)
    source = Source("local", lambda: collector, str(tmp_path / "state"), Rules(LIMITS))
    source.collect()
    assert [document.name for document in source.documents] == ["b"]
    assert source.problems[0].text.startswith(f"{directory}/a: is not JSON")
