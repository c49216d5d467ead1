"""Source trees of other people, and an interpreter that answers as it is told to."""

import pathlib
import sys
import textwrap
from collections.abc import Mapping

import pytest

HEAD = f"""\
#!{sys.executable} -IS
import json, os, signal, sys

with open(f"/proc/self/fd/{{sys.argv[2]}}") as file:
    request = json.load(file)
machine = sys.argv[3]


def tell(what):
    print(json.dumps(what), flush=True)


def answer(text, options=1, troubles=(), namespaces=(), names=()):
    counted = {{"options": options, "names": list(names), "namespaces": list(namespaces)}}
    tell({{**counted, "agree": True, "text": text, "troubles": list(troubles)}})


"""


class Shop:
    """A project in a directory with a blank in its name, and what was said of it."""

    def __init__(self, place: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.place = place
        self.base = tree(place / "the shop", {"shop/__init__.py": "", "etc/remark": ""})
        self.sample = self.base / "etc" / "shop.conf.sample"
        self.out = ""
        self.said: list[str] = []
        self._capsys = capsys

    def hear(self) -> None:
        self.out, err = self._capsys.readouterr()
        self.said = [line.partition(": ")[2] for line in err.splitlines()]


def tree(base: pathlib.Path, files: Mapping[str, str]) -> pathlib.Path:
    """Write ``files``, and the directories that they lie in."""
    base.mkdir(exist_ok=True)
    for name, text in files.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return base


def interpreter(path: pathlib.Path, body: str) -> str:
    """A program in the place of a project's Python; it is called as that is, and does what ``body`` says."""
    path.write_text(HEAD + textwrap.dedent(body))
    path.chmod(0o755)
    return str(path)


def trouble(**fields: str) -> dict[str, str]:
    return {"what": "cannot import a", "where": "", "why": "w", "outcome": "o", "module": "a", **fields}
