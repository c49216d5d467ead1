"""The store of the newest good content, on real files."""

import json
import logging
import os
import pathlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from refresh_agent import metadata
from refresh_agent.errors import StateError
from refresh_agent.intake import Rules
from refresh_agent.model import CollectorSettings, Document, Snapshot, StoredDocument
from refresh_agent.sources import Source, Sources
from tests.unit.support import BAD_METADATA, BAD_METADATA_IDS, LIMITS, looping_link


@dataclass
class Shelf:
    """A collector that gives what the test puts on it."""

    snapshot: Snapshot = field(default_factory=lambda: Snapshot("shelf"))

    def collect(self) -> Snapshot:
        return self.snapshot

    def put(self, **documents: bytes | None) -> None:
        """``b`` for content, None for a document that is there no more."""
        self.snapshot = Snapshot(
            "shelf",
            tuple(
                Document(
                    name,
                    raw,
                    f"/live/{name}.json",
                    f"/live/{name}.json: gone" if raw is None else "",
                    raw is None,
                )
                for name, raw in documents.items()
            ),
        )

    def fail(self, error: str, *, absent: bool = False) -> None:
        self.snapshot = Snapshot("shelf", error=error, absent=absent)


class Store:
    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.shelf = Shelf()
        self.source = self.reopened()

    def reopened(self) -> Source:
        """As another process finds it."""
        self.source = Source("shelf", lambda: self.shelf, str(self.directory), Rules(LIMITS))
        return self.source

    @property
    def index(self) -> pathlib.Path:
        return self.directory / "shelf.json"

    def collect(self, **documents: bytes | None) -> tuple[StoredDocument, ...]:
        self.shelf.put(**documents)
        self.source.collect()
        return self.source.documents

    def files(self) -> set[str]:
        return {path.name for path in (self.directory / "shelf").iterdir()}


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Store:
    return Store(tmp_path / "sources")


def content(document: StoredDocument) -> object:
    return json.loads(pathlib.Path(document.stored).read_bytes())


# --- collecting --------------------------------------------------------------------------------------------


def test_good_documents_are_stored_in_their_order(store: Store) -> None:
    b, a = store.collect(b=b'{"x": 1}', a=b'{"x": 2}')
    assert (b.name, b.live, content(b)) == ("b", "/live/b.json", {"x": 1})
    assert (a.name, a.source, content(a)) == ("a", "shelf", {"x": 2})
    assert a.fingerprint == metadata.fingerprint({"x": 2})
    assert store.source.problems == ()


def test_everything_is_for_the_agents_user_alone(store: Store) -> None:
    os.umask(0)
    store.collect(a=b'{"password": "geheim"}')
    assert (store.directory / "shelf").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (store.directory / "shelf").iterdir()} == {0o600}
    assert store.index.stat().st_mode & 0o777 == 0o600
    assert "geheim" not in repr(store.source._store.kept)


def test_bytes_that_did_not_change_are_neither_parsed_nor_written_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (document,) = store.collect(a=b'{"x": 1}')
    before = (
        os.stat(document.stored).st_mtime_ns,
        os.stat(document.stored).st_ino,
        store.index.stat().st_ino,
    )

    def parse(*_: object) -> None:
        raise AssertionError("parsed again")

    monkeypatch.setattr(metadata, "parse", parse)
    assert store.collect(a=b'{"x": 1}') == (document,)
    assert store.reopened().documents == (document,)
    assert store.collect(a=b'{"x": 1}') == (document,)
    after = (os.stat(document.stored).st_mtime_ns, os.stat(document.stored).st_ino, store.index.stat().st_ino)
    assert after == before


def test_a_change_of_white_space_changes_the_bytes_and_not_the_fingerprint(store: Store) -> None:
    (before,) = store.collect(a=b'{"x": 1, "y": 2}')
    (after,) = store.collect(a=b'{"y":2,\n"x":1}')
    assert after.fingerprint == before.fingerprint
    assert pathlib.Path(after.stored).read_bytes() == b'{"y":2,\n"x":1}'


def test_a_document_that_the_source_no_longer_names_is_gone(store: Store) -> None:
    store.collect(a=b'{"x": 1}', b=b'{"x": 2}')
    assert [document.name for document in store.collect(b=b'{"x": 2}')] == ["b"]
    assert [document.name for document in store.reopened().documents] == ["b"]


@pytest.mark.parametrize(("raw", "words"), [case[1:] for case in BAD_METADATA], ids=BAD_METADATA_IDS)
def test_the_last_good_content_stands_in_for_bad(
    store: Store, raw: bytes, words: str, log: pytest.LogCaptureFixture
) -> None:
    """os-collect-config defect 5: a JSON list ends the process; defect 2: a bad file leaves the list."""
    (good,) = store.collect(a=b'{"x": 1}')
    (stands_in,) = store.collect(a=raw)
    assert stands_in.stored == good.stored
    assert stands_in.fingerprint == good.fingerprint
    assert stands_in.live == ""  # hooks must not be given the bad file
    (problem,) = store.source.problems
    assert problem.text.startswith("/live/a.json: ")
    assert words in problem.text
    assert problem.text.endswith("its last good content stands in")
    assert not problem.expected
    assert [record.levelno for record in log.records] == [logging.WARNING]
    (again,) = store.collect(a=b'{"x": 1}')
    assert again == good
    assert store.source.problems == ()


def test_a_bad_document_does_not_touch_the_others(store: Store) -> None:
    store.collect(a=b'{"x": 1}', b=b'{"x": 1}')
    a, b = store.collect(a=b"[]", b=b'{"x": 2}')
    assert (content(a), content(b)) == ({"x": 1}, {"x": 2})


def test_without_a_last_good_content_a_bad_document_is_left_out(store: Store) -> None:
    assert store.collect(a=b"[]", b=b"{}")[0].name == "b"
    assert "there is no last good content to stand in" in store.source.problems[0].text


def test_a_missing_document_that_never_was_is_nothing_to_worry_about(
    store: Store, log: pytest.LogCaptureFixture
) -> None:
    assert store.collect(a=None) == ()
    assert store.source.problems[0].expected
    assert [record.levelno for record in log.records] == [logging.INFO]


def test_a_missing_document_that_was_there_is_stood_in_for(store: Store) -> None:
    (good,) = store.collect(a=b'{"x": 1}')
    (stands_in,) = store.collect(a=None)
    assert (stands_in.stored, stands_in.live) == (good.stored, "")
    assert not store.source.problems[0].expected


def test_a_source_that_fails_as_a_whole_keeps_its_documents(store: Store) -> None:
    """os-collect-config defect 2: while a source is down, hooks run without its file."""
    a, b = store.collect(a=b'{"x": 1}', b=b'{"x": 2}')
    store.shelf.fail("/list: is not a JSON list of file names")
    store.source.collect()
    assert [document.stored for document in store.source.documents] == [a.stored, b.stored]
    assert {document.live for document in store.source.documents} == {""}
    assert store.source.problems[0].text.startswith("/list: is not a JSON list of file names; ")
    assert store.reopened().documents[0].stored == a.stored


def test_a_problem_is_told_once_and_its_end_too(store: Store, log: pytest.LogCaptureFixture) -> None:
    problem = "/live/a.json: is a JSON list, not an object; there is no last good content to stand in"
    for _ in range(3):
        store.collect(a=b"[]")
    assert [record.getMessage() for record in log.records] == [
        f"source shelf: {problem}",
    ]
    log.clear()
    for _ in range(3):
        store.collect(a=b"{}")
    assert [record.getMessage() for record in log.records] == [
        f"source shelf: no longer so: {problem}",
    ]
    log.clear()
    store.collect(a=b"")
    assert "/live/a.json: is empty; its last good content stands in" in log.text


# --- sweeping ----------------------------------------------------------------------------------------------


def test_what_nobody_names_is_removed(store: Store) -> None:
    store.collect(a=b'{"x": 1}', b=b'{"x": 2}')
    (store.directory / "shelf" / ".a-interrupted.json.0a1b2c3d").write_text("{")
    (store.directory / "shelf" / "stranger.json").write_text("{}")
    (document,) = store.collect(a=b'{"x": 3}')
    store.source.sweep(())
    assert store.files() == {os.path.basename(document.stored)}


def test_what_a_run_reads_is_not_removed_although_there_is_newer_content(store: Store) -> None:
    (old,) = store.collect(a=b'{"x": 1}')
    (new,) = store.collect(a=b'{"x": 2}')
    store.source.sweep([old])
    assert store.files() == {os.path.basename(old.stored), os.path.basename(new.stored)}


def test_what_was_committed_stays_until_the_next_commit(store: Store) -> None:
    (old,) = store.collect(a=b'{"x": 1}')
    store.source.commit([old])
    (new,) = store.collect(a=b'{"x": 2}')
    assert store.files() == {os.path.basename(old.stored), os.path.basename(new.stored)}
    assert [content(document) for document in store.reopened().committed] == [{"x": 1}]
    store.source.commit([new])
    store.source.sweep(())
    assert store.files() == {os.path.basename(new.stored)}


def test_committing_the_same_again_writes_nothing(store: Store) -> None:
    documents = store.collect(a=b'{"x": 1}')
    store.source.commit(documents)
    before = store.index.stat().st_ino
    store.source.commit(list(documents))
    assert store.index.stat().st_ino == before


# --- a restart ---------------------------------------------------------------------------------------------


def test_a_restart_finds_what_was_there(store: Store) -> None:
    documents = store.collect(a=b'{"x": 1}', b=b'{"x": 2}')
    store.source.commit(documents[:1])
    again = store.reopened()
    assert again.documents == documents
    assert again.committed == documents[:1]


def test_an_index_cut_at_any_byte_is_told_and_costs_only_the_memory(
    store: Store, log: pytest.LogCaptureFixture
) -> None:
    store.source.commit(store.collect(a=b'{"x": 1}'))
    whole = store.index.read_bytes()
    for length in range(len(whole)):
        store.index.write_bytes(whole[:length])
        log.clear()
        assert store.reopened().documents == ()
        assert f"{store.index} is damaged" in log.text
    (document,) = store.collect(a=b'{"x": 1}')
    assert content(document) == {"x": 1}
    assert store.reopened().documents == (document,)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "7",
        '"x"',
        "{}",
        '{"version": 1}',
        '{"version": 1, "good": 7, "committed": []}',
        '{"version": 1, "good": [7], "committed": []}',
        '{"version": 1, "good": [{"file": 7}], "committed": []}',
        '{"version": 1, "good": [{"file": "x"}], "committed": []}',
        "[" * 10_000,
        "\xff",
    ],
)
def test_an_index_of_another_shape_is_damaged_too(
    store: Store, text: str, log: pytest.LogCaptureFixture
) -> None:
    store.collect(a=b'{"x": 1}')
    store.index.write_text(text, encoding="latin-1")
    assert store.reopened().documents == ()
    assert f"{store.index} is damaged" in log.text


def test_an_index_that_cannot_be_read_is_named(store: Store) -> None:
    store.collect(a=b"{}")
    store.index.unlink()
    looping_link(store.index)
    with pytest.raises(StateError, match="cannot be read: Too many levels") as caught:
        store.reopened()
    assert str(store.index) in str(caught.value)


@pytest.mark.parametrize("damage", [os.unlink, lambda path: pathlib.Path(path).write_bytes(b'{"x": 666}')])
def test_content_that_is_gone_or_was_changed_is_not_trusted(
    store: Store, damage: Callable[[str], object], log: pytest.LogCaptureFixture
) -> None:
    a, b = store.collect(a=b'{"x": 1}', b=b'{"x": 2}')
    damage(a.stored)
    assert store.reopened().documents == (b,)
    assert f"{a.stored} is missing or damaged" in log.text
    again, _ = store.collect(a=b'{"x": 1}', b=b'{"x": 2}')
    assert content(again) == {"x": 1}


def test_an_index_cannot_name_a_file_outside_the_store(store: Store, tmp_path: pathlib.Path) -> None:
    store.collect(a=b"{}")
    (tmp_path / "secret.json").write_bytes(b"{}")
    index = json.loads(store.index.read_text())
    index["good"][0]["file"] = "../../secret.json"
    store.index.write_text(json.dumps(index))
    assert store.reopened().documents == ()


@pytest.mark.parametrize("kind", ["contents", "index"])
def test_a_store_that_cannot_be_written_is_named(store: Store, kind: str) -> None:
    store.directory.mkdir()
    if kind == "contents":
        looping_link(store.directory / "shelf")
    else:
        (store.index / "inside").mkdir(parents=True)
    with pytest.raises(StateError, match=r"cannot be (written|read: Is a directory)") as caught:
        store.collect(a=b"{}")
    assert str(store.directory / "shelf") in str(caught.value)


# --- all sources together ----------------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path: pathlib.Path) -> Sources:
    """heat_local, and a local directory in which a file has the same name."""
    (tmp_path / "local-data").mkdir(mode=0o755)
    (tmp_path / "local-data" / "heat_local").write_text('{"from": "local"}')
    (tmp_path / "cfn-init-data").write_text('{"from": "heat"}')
    settings = [
        CollectorSettings("heat_local", {"path": [str(tmp_path / "cfn-init-data")]}),
        CollectorSettings("local", {"path": [str(tmp_path / "local-data")]}),
    ]
    return Sources(str(tmp_path / "state"), settings, LIMITS)


def test_a_name_that_two_sources_use_is_made_unique_for_the_later(both: Sources) -> None:
    both.collect()
    first, second = both.documents
    assert (first.name, both.content(first)) == ("heat_local", {"from": "heat"})
    assert re.fullmatch(r"heat_local-[0-9a-f]{8}", second.name)
    assert both.content(second) == {"from": "local"}


def test_a_name_made_unique_does_not_change_with_the_content(both: Sources, tmp_path: pathlib.Path) -> None:
    """Else a change would count as two, and leave a file of the old name in the cache for ever."""
    both.collect()
    before = [document.name for document in both.documents]
    (tmp_path / "local-data" / "heat_local").write_text('{"from": "another"}')
    both.collect()
    assert [document.name for document in both.documents] == before


def test_a_commit_gives_every_source_its_own(both: Sources, tmp_path: pathlib.Path) -> None:
    both.collect()
    both.commit(both.documents)
    assert both.committed == both.documents
    (tmp_path / "cfn-init-data").write_text('{"from": "heat", "new": 1}')
    both.collect()
    assert [both.content(document) for document in both.committed] == [{"from": "heat"}, {"from": "local"}]
    assert both.committed != both.documents


def test_what_is_watched_and_what_is_wrong_is_that_of_all(both: Sources, tmp_path: pathlib.Path) -> None:
    assert both.watch == ()
    (tmp_path / "cfn-init-data").write_text("[")
    (tmp_path / "local-data" / "heat_local").write_text("]")
    both.collect()
    assert {str(tmp_path / "cfn-init-data"), str(tmp_path / "local-data")} <= set(both.watch)
    assert len(both.problems) == 2


@pytest.mark.parametrize("damage", ["gone", "bad"])
def test_stored_content_that_went_bad_is_a_state_error(both: Sources, damage: str) -> None:
    both.collect()
    document = both.documents[0]
    if damage == "gone":
        os.unlink(document.stored)
    else:
        pathlib.Path(document.stored).write_text("[")
    with pytest.raises(StateError, match=re.escape(document.stored)):
        both.content(document)
