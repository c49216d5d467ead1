"""From a snapshot to stored documents: deployments, their names, and what stands in for what is bad."""

import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent import metadata
from refresh_agent.collectors import Collector
from refresh_agent.intake import Rules
from refresh_agent.model import Document, MetadataLimits, Snapshot, StoredDocument, Suspicious
from refresh_agent.sources import Source
from tests.unit.support import LIMITS

KEYS = ("deployments",)


def deployment(name: Any, config: Any = None, **entry: Any) -> dict[str, Any]:
    return {"name": name, "config": {"n": name} if config is None else config, **entry}


def metadata_with(*deployments: Any, **content: Any) -> dict[str, Any]:
    return {**content, "deployments": list(deployments)}


class Heat:
    """A collector that gives one document, exploded by KEYS."""

    def __init__(self, directory: pathlib.Path, suspicious: Suspicious = Suspicious.WARN) -> None:
        self.content: Any = {}
        self.raw: bytes | None = None
        self.keys: tuple[str, ...] = KEYS
        self.unchanged = False
        self._directory = directory
        self._rules = Rules(LIMITS._replace(suspicious=suspicious), KEYS)
        self.source = self.reopened()

    def reopened(self) -> Source:
        def build() -> Collector:
            return self

        self.source = Source("heat", build, str(self._directory), self._rules)
        return self.source

    def collect(self) -> Snapshot:
        raw = json.dumps(self.content).encode() if self.raw is None else self.raw
        documents = () if self.unchanged else (Document("heat", raw),)
        return Snapshot("heat", documents, unchanged=self.unchanged, deployment_keys=self.keys)

    def give(self, content: Any, *, confirmed: bool = False) -> tuple[StoredDocument, ...]:
        self.content = content
        self.source.collect(confirmed=confirmed)
        return self.source.documents

    def names(self) -> list[str]:
        return [document.name for document in self.source.documents]

    def problems(self) -> list[str]:
        return [problem.text for problem in self.source.problems]


@pytest.fixture
def heat(tmp_path: pathlib.Path) -> Heat:
    return Heat(tmp_path / "sources")


@pytest.fixture
def holding(tmp_path: pathlib.Path) -> Heat:
    return Heat(tmp_path / "sources", Suspicious.HOLD)


# --- deployments -------------------------------------------------------------------------------------------


def test_the_whole_comes_first_and_then_its_deployments(heat: Heat) -> None:
    whole, a, b = heat.give(metadata_with(deployment("a"), deployment("b", group="os-apply-config"), x=1))
    assert (whole.name, a.name, b.name) == ("heat", "a", "b")
    assert heat.source.content(whole)["x"] == 1
    assert heat.source.content(b) == {"n": "b"}
    assert (whole.deployments, a.parent) == (2, "heat")


def test_deployments_of_other_groups_are_for_other_hooks(heat: Heat) -> None:
    heat.give(
        metadata_with(deployment("s", "#!/bin/sh", group="script"), deployment("a", group="Heat::Ungrouped"))
    )
    assert heat.names() == ["heat", "a"]


def test_two_deployments_of_one_name_are_two_documents(heat: Heat) -> None:
    """os-collect-config defect 3: they share a file, which differs at every poll."""
    content = metadata_with(deployment("a", {"n": 1}, id="1"), deployment("a", {"n": 2}, id="2"))
    first = heat.give(content)
    assert [heat.source.content(document) for document in first[1:]] == [{"n": 1}, {"n": 2}]
    assert heat.names()[1] == "a"
    assert heat.names()[2] == metadata.safe_name("a", "2", {"a"})
    assert heat.give(content) == first


@pytest.mark.parametrize("name", ["../evil", "os_config_files", "a/b", ".hidden", "ä", "heat"])
def test_a_name_can_neither_leave_the_cache_nor_take_anothers_place(heat: Heat, name: str) -> None:
    """os-collect-config defect 4."""
    heat.give(metadata_with(deployment(name, id="the id")))
    (_, made) = heat.names()
    assert made == metadata.safe_name(name, "the id", {"heat"})
    assert made != name
    assert "/" not in made


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("text", "a deployment is a JSON string, not an object"),
        ({"config": {}}, "a deployment has no name"),
        ({"name": 7, "config": {}}, "a deployment has no name"),
        ({"name": "a"}, "the deployment 'a' has no config, not an object"),
        ({"name": "a", "config": "text"}, "the deployment 'a' has a JSON string for a config"),
    ],
)
def test_a_deployment_that_is_none_is_told_and_left_out(heat: Heat, entry: Any, words: str) -> None:
    """os-collect-config: a missing config ends the process; one that is a text breaks os-apply-config."""
    heat.give(metadata_with(entry, deployment("good")))
    assert heat.names() == ["heat", "good"]
    (problem,) = heat.problems()
    assert problem.startswith(f"heat: {words}")
    assert problem.endswith("; it is left out")


@pytest.mark.parametrize("found", [7, "text", {"name": "a"}, None])
def test_deployments_that_are_no_list_are_none(heat: Heat, found: Any) -> None:
    heat.give({"deployments": found})
    assert heat.names() == ["heat"]


def test_a_deployment_that_is_gone_takes_its_document_with_it(heat: Heat) -> None:
    """os-collect-config defect 13: removed deployments' files stay for ever."""
    heat.give(metadata_with(deployment("a"), deployment("b")))
    heat.give(metadata_with(deployment("b")))
    assert heat.names() == ["heat", "b"]


def test_bad_metadata_keeps_the_deployments_too(heat: Heat) -> None:
    good = heat.give(metadata_with(deployment("a")))
    heat.raw = b"<html>"
    heat.source.collect()
    assert heat.source.documents == good
    assert heat.problems() == [
        "heat: is not JSON: Expecting value at line 1; its last good content stands in"
    ]


def test_other_deployment_keys_explode_the_same_bytes_anew(heat: Heat) -> None:
    heat.give({"deployments": [deployment("a")], "others": [deployment("b")]})
    heat.keys = ("deployments", "others")
    heat.source.collect()
    assert heat.names() == ["heat", "a", "b"]


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=3)), max_size=8))
def test_names_are_unique_and_stay_as_long_as_the_metadata_does(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str]]
) -> None:
    heat = Heat(tmp_path_factory.mktemp("store"))
    content = metadata_with(*(deployment(name or "x", id=identity) for name, identity in entries))
    documents = heat.give(content)
    assert len(set(heat.names())) == len(entries) + 1
    assert heat.give(content) == documents
    assert heat.reopened().documents == documents


# --- metadata that looks like an accident ------------------------------------------------------------------

FULL = metadata_with(deployment("a"), deployment("b"), x=1)
ACCIDENTS: list[tuple[dict[str, Any], str]] = [
    ({}, "heat has turned blank"),
    ({"deployments": [], "x": None}, "heat has turned blank"),
    ({"deployments": [], "x": 1}, "heat has lost all its deployments (2 before)"),
    ({"x": 1}, "heat has lost all its deployments (2 before)"),
]


@pytest.mark.parametrize(("after", "reason"), ACCIDENTS)
def test_an_accident_is_warned_about(
    heat: Heat, after: Any, reason: str, log: pytest.LogCaptureFixture
) -> None:
    heat.give(FULL)
    log.clear()
    heat.give(after)
    heat.give(after)
    assert heat.names() == ["heat"]
    (record,) = log.records
    assert record.levelname == "WARNING"
    assert reason in record.getMessage()


@pytest.mark.parametrize(("after", "reason"), ACCIDENTS)
def test_an_accident_is_held_back_if_that_is_wanted(
    holding: Heat, after: Any, reason: str, log: pytest.LogCaptureFixture
) -> None:
    good = holding.give(FULL)
    assert holding.give(after) == good
    assert holding.give(after) == good
    assert holding.source.held == reason
    assert log.text.count(f"{reason}: it is held back") == 1
    assert "refresh-agent --once --force" in log.text


def test_what_is_held_back_is_used_once_it_is_confirmed(holding: Heat) -> None:
    holding.give(FULL)
    holding.give({"x": 1})
    holding.give({"x": 1}, confirmed=True)
    assert (holding.names(), holding.source.held) == (["heat"], "")
    assert holding.source.content(holding.source.documents[0]) == {"x": 1}


def test_what_is_held_back_outlives_a_restart_and_a_queue_that_has_forgotten_it(holding: Heat) -> None:
    holding.give(FULL)
    holding.give({"x": 1})
    holding.unchanged = True
    source = holding.reopened()
    source.collect()
    source.sweep(())
    assert source.held
    source.collect(confirmed=True)
    assert (holding.names(), source.held) == (["heat"], "")


def test_newer_metadata_takes_the_place_of_what_is_held_back(
    holding: Heat, log: pytest.LogCaptureFixture
) -> None:
    holding.give(FULL)
    holding.give({})
    holding.give(metadata_with(deployment("c")))
    assert (holding.names(), holding.source.held) == (["heat", "c"], "")
    assert "no longer so: heat has turned blank" in log.text


def test_metadata_that_never_had_anything_is_no_accident(holding: Heat) -> None:
    holding.give({})
    holding.give({"deployments": []})
    assert not holding.source.held


def test_nobody_looks_if_that_is_not_wanted(tmp_path: pathlib.Path, log: pytest.LogCaptureFixture) -> None:
    heat = Heat(tmp_path / "sources", Suspicious.OFF)
    heat.give(FULL)
    heat.give({})
    assert heat.names() == ["heat"]
    assert not log.records


def test_metadata_beyond_the_limits_is_told_and_the_last_good_stays(tmp_path: pathlib.Path) -> None:
    heat = Heat(tmp_path / "sources")
    heat._rules = Rules(MetadataLimits(200, 4), KEYS)
    heat.reopened()
    good = heat.give(FULL)
    assert heat.give({"x": "y" * 200}) == good
    assert "is larger than [limits] metadata_bytes (200 bytes)" in heat.problems()[0]
    assert heat.give({"x": [[[[[1]]]]]}) == good
    assert "nests deeper than [limits] metadata_depth (4)" in heat.problems()[0]


# --- two processes -----------------------------------------------------------------------------------------


def test_what_another_process_has_stored_is_not_undone(tmp_path: pathlib.Path) -> None:
    daemon, once = Heat(tmp_path / "sources"), Heat(tmp_path / "sources")
    daemon.give({"x": 1})
    once.give({"x": 2})
    once.source.commit(once.source.documents)
    once.source.sweep(())
    daemon.unchanged = True
    daemon.source.collect()
    assert [daemon.source.content(document) for document in daemon.source.documents] == [{"x": 2}]
    assert daemon.source.committed == once.source.documents


def test_what_another_process_has_stored_is_a_change_until_it_is_acted_on(tmp_path: pathlib.Path) -> None:
    """--once may have stored it and been killed before it ran."""
    daemon, once = Heat(tmp_path / "sources"), Heat(tmp_path / "sources")
    daemon.give({"x": 1})
    daemon.source.take()
    once.give({"x": 2})
    daemon.content = {"x": 2}
    assert daemon.source.collect().changed
    assert not daemon.source.collect().changed
