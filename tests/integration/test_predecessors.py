"""Beside the real os-collect-config and os-refresh-config."""

import contextlib
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.functional.node import Node, replace_file
from tests.waiting import eventually
from tools import environments


@pytest.fixture(scope="session")
def peers() -> pathlib.Path:
    """The environment with os-collect-config, os-refresh-config and dib-run-parts."""
    return environments.ensure("peers")


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


@contextlib.contextmanager
def os_collect_config(node: Node, peers: pathlib.Path) -> Iterator[pathlib.Path]:
    """The daemon, looking every 0.1 s, with a command that does nothing; gives the list of its files."""
    config = node.root / "os-collect-config.conf"
    cache = node.root / "occ-cache"
    config.write_text(
        f"[DEFAULT]\ncommand = /bin/true\ncollectors = heat_local\ncollectors = local\ncachedir = {cache}\n"
        f"backup_cachedir = {node.root}/occ-backup\npolling_interval = 0.1\nmin_polling_interval = 0.1\n"
        f"[heat_local]\npath = {node.metadata_file}\n[local]\npath = {node.root}/local\n"
    )
    (node.root / "local").mkdir()
    with (node.root / "os-collect-config.log").open("w") as log:
        process = subprocess.Popen(
            [peers / "bin" / "os-collect-config", "--config-file", config],
            env={**os.environ, "LC_ALL": "C"},  # its "local" collector crashes under others
            stderr=log,
        )
        try:
            yield cache / "os_config_files.json"
        finally:
            process.terminate()
            process.wait()


def test_it_follows_what_os_collect_config_writes(node: Node, peers: pathlib.Path) -> None:
    node.hook(
        "configure/10-a",
        'echo "$REFRESH_AGENT_CHANGED" >> "$0.changed"; cat ${OS_CONFIG_FILES//:/ } > "$0.seen"',
    )
    with os_collect_config(node, peers) as listed:
        node.configure(f"[os_collect_config]\nfiles_list = {listed}", collectors="os_collect_config")
        with node.daemon():
            node.metadata({"stack": 1})
            node.wait_for_outcomes(["success"])
            replace_file(node.root / "local" / "own", json.dumps({"own": 1}))
            node.wait_for_outcomes(["success"] * 2)
            node.metadata({"stack": 2})
            node.wait_for_outcomes(["success"] * 3)
    changed = (node.base / "configure.d" / "10-a.changed").read_text().split()
    assert changed == ["heat_local", "own", "heat_local"]
    assert (node.base / "configure.d" / "10-a.seen").read_text() == '{\n "stack": 2\n}{\n "own": 1\n}'


def test_a_source_that_os_collect_config_loses_does_not_vanish_for_the_hooks(
    node: Node, peers: pathlib.Path
) -> None:
    """os-collect-config defect 2 is its own; its torn files, at least, are not passed on."""
    node.hook("configure/10-a", 'cat ${OS_CONFIG_FILES//:/ } > "$0.seen"')
    with os_collect_config(node, peers) as listed:
        node.configure(f"[os_collect_config]\nfiles_list = {listed}", collectors="os_collect_config")
        with node.daemon() as daemon:
            node.metadata({"stack": 1})
            node.wait_for_outcomes(["success"])
            listed.write_text("[")
            daemon.wait_for_log("is not a JSON list of file names; its last good content stands in")
            assert node.once("--force").returncode == 0
    assert (node.base / "configure.d" / "10-a.seen").read_text() == '{\n "stack": 1\n}'


class TestTheLockIsSharedWithOsRefreshConfig:
    def test_it_waits_for_us(self, node: Node, peers: pathlib.Path) -> None:
        node.hook("configure/10-a", f"{self.os_refresh_config(node, peers)}; echo $? > {node.root}/status")
        node.metadata({"a": 1})
        assert node.once().returncode == 0
        assert (node.root / "status").read_text() == "11\n"

    def test_we_wait_for_it(self, node: Node, peers: pathlib.Path) -> None:
        go = node.root / "go"
        node.hook("configure/10-a", f"until [ -e {go} ]; do sleep 0.05; done")
        node.metadata({"a": 1})
        process = subprocess.Popen(["bash", "-c", self.os_refresh_config(node, peers)])
        try:
            eventually(node.ran)
            assert node.once().returncode == 11
            with node.daemon() as daemon:
                daemon.wait_for_log("is held by another refresh")
                go.touch()
                assert process.wait(20) == 0
                node.wait_for_outcomes(["success"])
        finally:
            go.touch()
            process.wait(20)

    @staticmethod
    def os_refresh_config(node: Node, peers: pathlib.Path) -> str:
        return (
            f"PATH={peers}/bin:$PATH OS_REFRESH_CONFIG_BASE_DIR={node.base} "
            f"os-refresh-config --lockfile {node.lock} > {node.root}/orc.log 2>&1"
        )
