"""The sample configuration is what the options say."""

import pathlib
import re
import subprocess
import sys

from refresh_agent.collectors import BUILT_IN
from tests.functional.projects import BOTH, OWN_SAMPLE, TOP, Project


def test_the_sample_is_current(tmp_path: pathlib.Path) -> None:
    ended = Project(tmp_path, BOTH["scripts"]).check("--strict", "-b", TOP)
    assert (ended.stdout, ended.stderr) == ("", "")


def test_the_sample_with_every_default_uncommented_is_good_configuration(tmp_path: pathlib.Path) -> None:
    """The names in it are the names that are read, and the values are values."""
    text = OWN_SAMPLE.read_text().replace("<None>", "")
    text = re.sub(r"\[migration:name\][^\[]*", "", text)
    uncommented, count = re.subn(r"^#(\w+ = \S.*)$", r"\1", text, flags=re.MULTILINE)
    assert count > 20
    # Only the groups of chosen collectors are read whole.
    every, count = re.subn(
        r"^collectors = .*", f"collectors = {','.join(BUILT_IN)}", uncommented, flags=re.MULTILINE
    )
    assert count == 1
    (tmp_path / "all.conf").write_text(every)
    command = pathlib.Path(sys.executable).with_name("refresh-agent")
    ended = subprocess.run(
        [command, "check-config", "--config-file", tmp_path / "all.conf"], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
