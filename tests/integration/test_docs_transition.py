"""docs/migrate-to-alembic.rst, command for command: the shop goes there and back, as the page says."""

import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from tests import pages
from tests.integration.conftest import SHOP

PAGE = pages.TOP / "docs" / "migrate-to-alembic.rst"
REFRESH_AGENT = pathlib.Path(sys.executable).parent / "refresh-agent"

DIFFERS = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+|\d{8}T\d{6}Z|\d+\.\d\d s")
"""Moments and durations."""


def transcripts(text: str) -> Iterator[tuple[str, str]]:
    """Every command of the literal blocks, with what the page says that it prints."""
    for block in re.findall(r"::\n\n((?: {4}.*\n)+)", text):
        for command in re.split(r"^ {4}\$ ", block, flags=re.MULTILINE)[1:]:
            words, _, printed = command.partition("\n")
            yield words, "\n".join(line[4:] for line in printed.splitlines())


def test_the_shop_goes_there_and_back(tmp_path: pathlib.Path, legacy_python: str) -> None:
    places = {
        "/opt/shop-legacy/bin/python": legacy_python,
        "/opt/shop": str(shutil.copytree(SHOP, tmp_path / "opt")),
        "/var/lib/shop": str(tmp_path / "lib"),
    }
    (tmp_path / "lib").mkdir()

    def here(text: str) -> str:
        for place, mine in places.items():
            text = text.replace(place, mine)
        return text

    (settings,) = pages.blocks(pages.section(PAGE, "The shop"), "ini")
    config = tmp_path / "agent.conf"
    own = (
        f"{name} = {tmp_path}/{name}\n" for name in ("state_dir", "lock_file", "cachedir", "backup_cachedir")
    )
    config.write_text(f"[DEFAULT]\n{''.join(own)}{here(settings)}")
    text = pages.section(PAGE, "The shop") + pages.section(PAGE, "Back again")
    shown = list(transcripts(text))
    assert [command.split()[0] for command, _ in shown] == [
        "/opt/shop-legacy/bin/python",
        *["refresh-agent"] * 5,
    ]
    for command, said in shown:
        words = here(command).replace("refresh-agent ", f"{REFRESH_AGENT} --config-file {config} ", 1).split()
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
        printed = "\n".join(line for line in done.stdout.splitlines() if "Warning" not in line)
        assert DIFFERS.sub("…", printed) == DIFFERS.sub("…", here(said))
