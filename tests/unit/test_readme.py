"""What README.rst and docs/ show works as shown: configurations are good, the example does what it prints."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from refresh_agent.main import main
from tests.pages import PAGES, TOP, blocks, read

CONFIGURATIONS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(read(page), "ini"), 1)
]


def test_there_are_configurations_to_check() -> None:
    assert {str(param.id).partition("-")[0] for param in CONFIGURATIONS} >= {"README.rst", "databases.rst"}


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_a_configuration_is_good(
    text: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "refresh-agent.conf"
    path.write_text(text, encoding="utf-8")
    status = main(["--config-file", str(path), "check-config"])
    assert (status, capsys.readouterr().err) == (0, "")


def test_the_example_prints_what_the_readme_shows(tmp_path: pathlib.Path) -> None:
    (script,) = blocks(read(TOP / "README.rst"), "sh")
    (shown,) = blocks(read(TOP / "README.rst"), "text")
    commands = tmp_path / "bin"
    commands.mkdir()
    command = commands / "refresh-agent"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m refresh_agent "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", f"umask 022\n{script}"],
        cwd=tmp_path,
        env={"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(TOP)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, without_what_differs(done.stdout)) == (0, without_what_differs(shown))


def without_what_differs(output: str) -> list[str]:
    """The lines without times and run ids."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+", "TIME", output)
    text = re.sub(r"\brun [0-9a-f]{8}\b", "run ID", text)
    return re.sub(r"\d+\.\d\d s\b", "N s", text).splitlines()
