"""``refresh-agent collect``, in this process: what is printed, what is hidden, and that nothing is stored."""

import json
import os
import pathlib
from typing import Any

import pytest

from refresh_agent.main import main


class Node:
    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.data = root / "data"
        self.data.mkdir(mode=0o755)
        self.conf = root / "refresh-agent.conf"
        self.conf.write_text(
            f"[DEFAULT]\ncollectors = local\nstate_dir = {root}/state\n"
            f"cachedir = {root}/cache\nbackup_cachedir =\n"
            f"lock_file = {root}/lock\nbase_dir = {root}/hooks\n[local]\npath = {self.data}\n"
        )

    def write(self, name: str, content: Any) -> None:
        (self.data / name).write_text(content if isinstance(content, str) else json.dumps(content))

    def run(self, *arguments: str) -> int:
        return main(["--config-file", str(self.conf), *arguments])


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("arguments", [["collect"], ["collect", "--json"]])
def test_it_prints_the_merged_metadata(
    node: Node, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    node.write("10", {"a": {"x": 1, "y": 1}, "l": [1]})
    node.write("20", {"a": {"y": 2}, "l": [2]})
    assert node.run(*arguments) == 0
    assert printed(capsys) == {"a": {"x": 1, "y": 2}, "l": [2]}


def test_secrets_are_masked_wherever_they_show_up(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.write(
        "10",
        {
            "password": "short",
            "db": {"root_password": "long-enough", "port": 3306},
            "url": "mysql://root:long-enough@db/x",
            "inputs": [{"name": "admin_token", "value": {"deep": ["t0ken"]}}],
            "secret_number": 12,
            "empty_token": "",
            "signed": "http://heat/?Signature=abcdefgh",
        },
    )
    assert node.run("collect") == 0
    assert printed(capsys) == {
        "password": "***",
        "db": {"root_password": "***", "port": 3306},
        "url": "mysql://root:***@db/x",
        "inputs": [{"name": "admin_token", "value": {"deep": ["***"]}}],
        "secret_number": "***",
        "empty_token": "",
        "signed": "http://heat/?Signature=***",
    }


def test_root_may_see_them(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.write("10", {"password": "geheim"})
    assert node.run("collect", "--show-secrets") == 0
    assert printed(capsys) == {"password": "geheim"}


def test_nobody_else_may(
    node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    node.write("10", {"password": "geheim"})
    assert node.run("collect", "--show-secrets") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--show-secrets is for root" in err


def test_nothing_is_stored(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.write("10", {"a": 1})
    assert node.run("collect") == 0
    assert capsys.readouterr().out
    assert not (node.root / "state").exists()
    assert not (node.root / "cache").exists()


def test_what_is_bad_is_told_and_its_last_good_content_stands_in(
    node: Node, capsys: pytest.CaptureFixture[str], log: pytest.LogCaptureFixture
) -> None:
    node.write("10", {"a": 1})
    assert node.run("--once") == 0
    capsys.readouterr()
    node.write("10", "{")
    assert node.run("collect") == 0
    assert printed(capsys) == {"a": 1}
    assert "source local: 10: is not JSON" in log.text
    assert "its last good content stands in" in log.text


def test_without_any_data_it_is_3(
    node: Node, capsys: pytest.CaptureFixture[str], log: pytest.LogCaptureFixture
) -> None:
    assert node.run("collect") == 3
    assert capsys.readouterr().out == ""
    assert "no metadata files" in log.text
