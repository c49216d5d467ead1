"""The cache is handed over by the real os-collect-config, and back to it."""

import json
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from refresh_agent import cache, metadata
from refresh_agent.model import Fingerprints
from tests.integration import stand_ins
from tests.integration.programs import OURS, THEIRS, Program
from tests.integration.stand_ins import StandIn
from tests.unit.support import LIMITS, write_json
from tools import environments

OWN = {"ünïcode": ["ä", "\u2028"], "float": 1.0, "large": 2**70, "nothing": None}


class Node:
    """os-collect-config over one directory of files, in a cache that refresh-agent knows too."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.cache = root / "cache"
        self.backup = root / "backup"
        self.local = root / "local"
        self.config = root / "os-collect-config.conf"
        self.local.mkdir()
        self.command("true")

    def command(self, command: str) -> None:
        self.config.write_text(
            f"[DEFAULT]\ncommand = echo >> {self.root}/ran; {command}\ncollectors = local\n"
            f"cachedir = {self.cache}\nbackup_cachedir = {self.backup}\n[local]\npath = {self.local}\n"
        )

    def document(self, name: str, content: Any) -> None:
        write_json(self.local / name, content)

    def os_collect_config(self) -> int:
        """One pass of the real one; how often its command has been run in all."""
        program = environments.ensure("peers") / "bin" / "os-collect-config"
        # Its "local" collector crashes under other locales.
        env = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            [program, "--config-file", self.config, "--one-time"], env=env, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        ran = self.root / "ran"
        return len(ran.read_text().splitlines()) if ran.exists() else 0

    def contents(self) -> list[tuple[str, str]]:
        """The documents as refresh-agent's store would hold them, in the order of its own collector."""
        found = []
        for source in sorted(self.local.iterdir(), key=os.fsencode):
            raw = source.read_bytes()
            path = self.root / f"{source.name}-{metadata.digest(raw)}"
            path.write_bytes(raw)
            found.append((source.name, str(path)))
        return found

    def fingerprints(self) -> Fingerprints:
        return tuple(
            (name, metadata.fingerprint(metadata.parse(pathlib.Path(path).read_bytes(), LIMITS)))
            for name, path in self.contents()
        )

    def run_of_ours(self) -> None:
        """What a run of refresh-agent that succeeds does to the cache."""
        contents = self.contents()
        cache.write(str(self.cache), contents)
        cache.back_up(str(self.cache), str(self.backup))
        cache.commit(str(self.cache), contents)

    def taken_over(self) -> Fingerprints | None:
        return cache.committed(str(self.cache), LIMITS)


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    node = Node(tmp_path)
    node.document("b-own", OWN)
    node.document("A-other", {"nested": {"lists": [1, {"deep": [[]]}]}})
    return node


def test_what_os_collect_config_committed_is_what_we_find(node: Node) -> None:
    assert node.os_collect_config() == 1
    assert node.taken_over() == node.fingerprints()
    assert [name for name, _ in node.fingerprints()] == ["A-other", "b-own"]


def test_what_its_command_failed_for_counts_as_changed(node: Node) -> None:
    node.os_collect_config()
    before = node.taken_over()
    node.document("b-own", {"new": 1})
    node.command("false")
    assert node.os_collect_config() == 2
    assert node.taken_over() == before != node.fingerprints()


def test_a_cache_for_which_its_command_never_succeeded_is_not_taken_over(node: Node) -> None:
    node.command("false")
    node.os_collect_config()
    assert (node.cache / "b-own.json").exists()
    assert node.taken_over() is None


def test_a_source_that_it_lost_is_not_taken_for_unchanged(node: Node) -> None:
    """os-collect-config defect 2: the list is short of a source whose file is still there."""
    node.os_collect_config()
    (node.local / "A-other").unlink()
    node.document("b-own", {"new": 1})
    node.os_collect_config()
    node.document("A-other", {"nested": {"lists": [1, {"deep": [[]]}]}})
    assert node.os_collect_config() == 2
    taken = node.taken_over()
    assert taken is not None
    assert [name for name, _ in taken] == ["b-own"]
    assert taken != node.fingerprints()


def test_after_us_it_finds_nothing_changed(node: Node) -> None:
    node.run_of_ours()
    assert node.os_collect_config() == 0


def test_after_us_it_finds_what_has_changed_since(node: Node) -> None:
    node.run_of_ours()
    node.document("b-own", {"new": 1})
    assert node.os_collect_config() == 1


def test_what_we_ran_without_success_it_runs_for(node: Node) -> None:
    node.run_of_ours()
    node.document("b-own", {"new": 1})
    cache.write(str(node.cache), node.contents())
    assert node.os_collect_config() == 1


def test_there_and_back_and_there_again(node: Node) -> None:
    assert node.os_collect_config() == 1
    first = (node.cache / "b-own.json.orig").read_text()
    assert node.taken_over() == node.fingerprints()
    node.document("b-own", {"ours": 1})
    node.document("C-new", {"c": 1})
    node.run_of_ours()
    assert node.os_collect_config() == 1
    assert node.taken_over() == node.fingerprints()
    (node.local / "C-new").unlink()
    node.document("b-own", {"theirs": 1})
    assert node.os_collect_config() == 2
    assert node.taken_over() == node.fingerprints()
    assert (node.cache / "b-own.json.orig").read_text() == first


def test_our_backup_is_where_os_apply_config_looks(node: Node) -> None:
    """By hand, without OS_CONFIG_FILES: it reads the list in the backup directory."""
    node.run_of_ours()
    program = environments.ensure("peers") / "bin" / "os-apply-config"
    done = subprocess.run(
        [program, "--key", "nested.lists.0", "--type", "raw"],
        env={**os.environ, "OS_CONFIG_FILES_PATH": str(node.backup / "os_config_files.json")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_its_torn_files_are_written_anew_before_it_reads_them(node: Node) -> None:
    """It crashes on them, for ever; on the way back to it they must be whole."""
    node.os_collect_config()
    (node.cache / "b-own.json.last").write_text("")
    assert node.taken_over() is None
    node.run_of_ours()
    assert json.loads((node.cache / "b-own.json.last").read_text()) == OWN
    assert node.os_collect_config() == 1


class TestSwitchingANode:
    """The commands themselves, with the same os-collect-config.conf and the same sources."""

    @pytest.fixture
    def server(self) -> Iterator[StandIn]:
        with stand_ins.serving() as server:
            yield server

    @pytest.fixture
    def program(self, tmp_path: pathlib.Path, server: StandIn) -> Program:
        program = Program(THEIRS, tmp_path)
        program.metadata({"stack": [1, 2.0, "ünïcode"]})
        program.own("own", OWN)
        self.deploy(server, "web", "db")
        group = f"[request]\nmetadata_url = {server.url}/m"
        program.configure("heat_local", "local", "request", groups=group)
        return program

    @staticmethod
    def deploy(server: StandIn, *names: str) -> None:
        script = {"id": "0", "name": "script", "group": "script", "config": "#!/bin/bash"}
        others = [{"id": f"id-{name}", "name": name, "config": {"is": name}} for name in names]
        server.answer = stand_ins.document({"deployments": [script, *others]})

    @staticmethod
    def runs(program: Program, name: str) -> int:
        """After one pass of that program: how often the script has been run by any, in all."""
        program.name = name
        done = program.once()
        assert done.returncode == 0, done.stderr
        return len(program.runs())

    def test_nothing_is_run_if_nothing_changed(self, program: Program) -> None:
        assert self.runs(program, THEIRS) == 1
        assert self.runs(program, OURS) == 1

    def test_nor_if_a_name_is_another_now(self, program: Program, server: StandIn) -> None:
        """Ours are made safe. On the way back such a deployment counts as new, once."""
        self.deploy(server, "web", "a name with spaces")
        assert self.runs(program, THEIRS) == 1
        assert self.runs(program, OURS) == 1
        program.own("own", {"ours": 1})
        assert self.runs(program, OURS) == 2
        assert [self.runs(program, THEIRS) for _ in range(2)] == [3, 3]

    def test_a_change_is_run_for_and_nothing_after_it(self, program: Program) -> None:
        assert self.runs(program, THEIRS) == 1
        program.own("own", {"ours": 1})
        assert self.runs(program, OURS) == 2
        assert self.runs(program, OURS) == 2

    def test_the_way_back(self, program: Program) -> None:
        assert self.runs(program, OURS) == 1
        (program.cache / "tmpab12cd").write_text("left by a crash of os-collect-config")
        assert self.runs(program, THEIRS) == 1
        program.own("own", {"theirs": 1})
        assert self.runs(program, THEIRS) == 2

    def test_hooks_are_given_the_same_by_both(self, program: Program) -> None:
        self.runs(program, THEIRS)
        program.own("own", {"ours": 1})
        self.runs(program, OURS)
        theirs, ours = (list(run.values()) for run in program.runs())
        assert [content for content in ours if content != {"ours": 1}] == [c for c in theirs if c != OWN]
