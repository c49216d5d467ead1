"""What must not cost a change, a document or a thread: each of these once did."""

import json
import os
import pathlib
import shutil
import threading
from collections.abc import Callable
from typing import Any

import pytest

from refresh_agent.collectors import Polled
from refresh_agent.intake import Rules
from refresh_agent.model import Document, Snapshot
from refresh_agent.pollers import Pollers
from refresh_agent.polling import Polling
from refresh_agent.sources import Source
from refresh_agent.wakeup import Stop
from tests.unit.support import LIMITS, write_json
from tests.waiting import eventually


class Server(Polled):
    """A polled source with entity tags: what it gave and was stored is not given again."""

    def __init__(self) -> None:
        self.content: Any = {"x": 1}
        self.given: Callable[[], Any] | None = None
        self.forgotten = 0
        self._known: Any = None

    def collect(self) -> Snapshot:
        if self.given is not None:
            return self.given()  # type: ignore[no-any-return]
        if self.content == self._known:
            return Snapshot("server", unchanged=True)
        return Snapshot(
            "server", (Document("server", json.dumps(self.content).encode()),), deployment_keys=("d",)
        )

    def stored(self) -> None:
        self._known = self.content

    def forget(self) -> None:
        self.forgotten += 1
        self._known = None


class Node:
    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.server = Server()
        self.source = self.process(self.server)

    def process(self, server: Server) -> Source:
        return Source("server", lambda: server, str(self.directory), Rules(LIMITS, ("d",)))

    def contents(self, source: Source | None = None) -> list[Any]:
        source = source or self.source
        return [source.content(document) for document in source.take()]


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path / "sources")


# --- a thread that nothing may end -------------------------------------------------------------------------


def exit_process() -> Snapshot:
    raise SystemExit(3)


def cancel() -> Snapshot:
    raise GeneratorExit


@pytest.mark.parametrize(
    "given",
    [
        exit_process,
        cancel,
        lambda: Snapshot("server", (each for each in [Document("server", b"{}")])),  # type: ignore[arg-type]
        lambda: Snapshot("server", error="busy", retry_after="soon"),  # type: ignore[arg-type]
        lambda: Snapshot("server", (Document("server", b"{}"),), deployment_keys=(7,)),  # type: ignore[arg-type]
        lambda: Snapshot("server", (Document("server", b"{}"),), watch=(None,)),  # type: ignore[arg-type]
    ],
)
def test_a_thread_outlives_what_a_collector_does(node: Node, given: Callable[[], Any]) -> None:
    node.server.given = given
    stop = Stop()
    pollers = Pollers([node.source], Polling.starting(0.01, 0.01, 0.01), lambda: None)
    pollers.start()
    pollers.wait(10, stop)
    node.server.given = None
    eventually(lambda: node.source.documents)
    pollers.close()
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "poll-server"])
    stop.close()


def test_a_thread_outlives_a_fault_of_our_own(
    node: Node, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def judged(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("geheim")

    monkeypatch.setattr(Source, "_judged", judged)
    assert node.source.collect().failed
    assert "source server: internal error: ZeroDivisionError at" in log.text
    assert "geheim" not in log.text


@pytest.mark.parametrize("group", [["x"], {"x": 1}, 7, None])
def test_a_group_that_is_no_text_is_no_group(node: Node, group: Any) -> None:
    node.server.content = {"d": [{"name": "a", "group": group, "config": {}}]}
    assert not node.source.collect().failed
    assert [document.name for document in node.source.documents] == ["server"]


def test_documents_are_those_of_the_source_whatever_a_snapshot_says(node: Node) -> None:
    node.server.given = lambda: Snapshot("another", (Document("a", b"{}"),))
    node.source.collect()
    assert [document.source for document in node.source.documents] == ["server"]


# --- another process ---------------------------------------------------------------------------------------


def test_what_another_process_has_stored_is_what_is_acted_on(node: Node) -> None:
    """Else the daemon brings the node back to what it was before a --once beside it."""
    node.source.collect()
    other = Server()
    other.content = {"x": 2}
    node.process(other).collect()
    assert node.contents() == [{"x": 2}]


# --- a store that is lost while the agent runs -------------------------------------------------------------


def remove_all(node: Node) -> None:
    shutil.rmtree(node.directory)


def remove_contents(node: Node) -> None:
    for path in (node.directory / "server").iterdir():
        path.unlink()


def damage_index(node: Node) -> None:
    (node.directory / "server.json").write_text("{")


@pytest.mark.parametrize("lose", [remove_all, remove_contents, damage_index])
def test_what_is_lost_is_collected_anew_although_the_server_says_that_nothing_changed(
    node: Node, lose: Callable[[Node], None]
) -> None:
    node.server.content = {"x": 1, "d": [{"name": "a", "config": {"y": 1}}]}
    node.source.collect()
    node.source.commit(node.source.take())
    lose(node)
    node.source.collect()
    assert node.server.forgotten == 1
    node.source.collect()
    assert node.contents() == [node.server.content, {"y": 1}]


def test_a_document_is_never_without_one_of_its_deployments(node: Node) -> None:
    node.server.content = {"x": 1, "d": [{"name": "a", "config": {"y": 1}}]}
    node.source.collect()
    os.unlink(node.source.documents[1].stored)
    assert node.contents() == []


# --- what another program collected before -----------------------------------------------------------------


def test_a_seed_gives_way_to_what_has_been_given_since(node: Node, tmp_path: pathlib.Path) -> None:
    """A thread may have stored a message meanwhile, and the queue has forgotten it."""
    cache = write_json(tmp_path / "server.json", {"x": "old"})
    node.source.collect()
    node.source.seed(str(cache))
    assert node.contents() == [{"x": 1}]


def test_a_seed_that_is_bad_is_told(
    node: Node, tmp_path: pathlib.Path, log: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "server.json").write_text("{")
    node.source.seed(str(tmp_path / "server.json"))
    assert node.contents() == []
    assert f"{tmp_path}/server.json: is not JSON" in log.text


def test_what_is_left_out_is_left_out_as_long_as_nothing_changes(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    node.server.content = {"d": [7]}
    node.source.collect()
    node.source.collect()
    assert "no longer so" not in log.text


# --- messages ----------------------------------------------------------------------------------------------


def test_the_same_problem_is_told_once_and_a_long_name_is_cut(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    node.server.content = {"d": [{"config": {}}, {"config": {}}, {"name": "n" * 100_000}]}
    node.source.collect()
    assert log.text.count("has no name") == 1
    assert len(log.text) < 1000
