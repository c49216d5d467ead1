"""Small projects of other people, and the tools for sample configurations to run on them.

Every path has a blank in it: wherever a word is split, a test fails.
"""

import os
import pathlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest

TOP = pathlib.Path(__file__).parents[2]
SCRIPTS = TOP / "tools" / "config"
BIN = pathlib.Path(sys.executable).parent
OWN_SAMPLE = TOP / "etc" / "refresh-agent" / "refresh-agent.conf.sample"


class Tools(NamedTuple):
    """The two programs: as scripts of a checkout, or as the commands that are installed with the package."""

    generate: pathlib.Path
    check: pathlib.Path


BOTH = {
    "scripts": Tools(SCRIPTS / "generate_sample.sh", SCRIPTS / "check_uptodate.sh"),
    "commands": Tools(BIN / "refresh-agent-config-sample", BIN / "refresh-agent-config-uptodate"),
}

either_way = pytest.mark.parametrize("tools", list(BOTH.values()), ids=list(BOTH))

Ended = subprocess.CompletedProcess[str]


class Project:
    """A tree that is called shop, unless a test says otherwise; ``place`` is all that there is around it."""

    def __init__(self, place: pathlib.Path, tools: Tools = BOTH["scripts"]) -> None:
        self.place = place / "a place"
        self.base = self.place / "the shop"
        self.home = self.place / "a home"
        self.temporary = self.place / "temporary files"
        self.tools = tools
        for directory in (self.base / "etc", self.home, self.temporary):
            directory.mkdir(parents=True)
        self.file("pyproject.toml", '[project]\nname = "shop"\n')

    @property
    def sample(self) -> pathlib.Path:
        return self.base / "etc" / "shop.conf.sample"

    def file(self, name: str, text: str) -> pathlib.Path:
        """Below the base; every package on the way gets its __init__.py."""
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        for directory in path.parents:
            if directory == self.base or path.suffix != ".py":
                break
            (directory / "__init__.py").touch()
        return path

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What the tools start with: nothing of whoever runs the tests, but what measures coverage."""
        measuring = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        ours = {"HOME": str(self.home), "TMPDIR": str(self.temporary), "PYTHON": sys.executable}
        return {**measuring, **ours, "PATH": os.environ["PATH"], **(more or {})}

    def run(
        self,
        *words: object,
        status: int = 0,
        cwd: pathlib.Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        ended = subprocess.run(
            [str(word) for word in words],
            capture_output=True,
            text=True,
            cwd=cwd or self.base,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
        )
        assert ended.returncode == status, ended
        assert "Traceback" not in ended.stdout + ended.stderr
        return ended

    def generate(
        self,
        *words: object,
        status: int = 0,
        cwd: pathlib.Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        return self.run(self.tools.generate, *words, status=status, cwd=cwd, env=env)

    def check(
        self,
        *words: object,
        status: int = 0,
        cwd: pathlib.Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        return self.run(self.tools.check, *words, status=status, cwd=cwd, env=env)

    def options(self, *words: object, env: Mapping[str, str] | None = None) -> dict[str, dict[str, str]]:
        """What stands in a sample that is written now."""
        self.generate(*words, env=env)
        return options_of(self.sample.read_text())


def defining(*names: str, group: str = "DEFAULT") -> str:
    """A module that registers options when it is imported; their defaults are their names in capitals."""
    return _module(names) + f'cfg.CONF.register_opts(OPTS, group="{group}")\n'


def listing(*names: str, group: str = "DEFAULT") -> str:
    """A module that an entry point names: it registers nothing, and lists its options if asked."""
    return _module(names) + f'\n\ndef list_opts():\n    return [("{group}", OPTS)]\n'


def _module(names: Sequence[str]) -> str:
    options = "".join(
        f'    cfg.StrOpt("{name}", default="{name.upper()}", help="So many."),\n' for name in names
    )
    return f"from oslo_config import cfg\n\nOPTS = [\n{options}]\n"


def options_of(sample: str) -> dict[str, dict[str, str]]:
    """Group → option → default."""
    found: dict[str, dict[str, str]] = {}
    group = ""
    for line in sample.splitlines():
        if header := re.fullmatch(r"\[(.+)\]", line):
            group = header[1]
        elif option := re.fullmatch(r"#(\w+) = ?(.*)", line):
            found.setdefault(group, {})[option[1]] = option[2]
    return found


def everything(place: pathlib.Path) -> dict[str, bytes | None]:
    """Every path below, with what is in it if it is a file."""
    paths = sorted(place.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def state(path: pathlib.Path) -> tuple[bytes, int, int]:
    """Differs after every write, also of the same bytes."""
    return path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
