"""Selection and order against the real dib-run-parts, over generated directories."""

import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from refresh_agent.phases import run_parts
from tools import environments

EXAMPLES = int(os.environ.get("REFRESH_AGENT_TEST_TREES", "300"))
"""Each costs two processes; the long form has 2,000."""

KINDS = ("script", "not executable", "only for others", "link", "dangling link", "directory", "fifo")

NAMES = st.one_of(
    st.from_regex(r"-?[0-9]{0,3}[-_a-zA-Z]?[0-9A-Za-z_-]{0,4}", fullmatch=True),
    st.from_regex(r"[0-9A-Za-z_.~# äß+-]{1,6}", fullmatch=True),
).filter(lambda name: name not in {"", ".", ".."})

TREES = st.dictionaries(NAMES, st.sampled_from(KINDS), max_size=12)


@pytest.fixture(scope="session")
def dib_run_parts() -> str:
    return str(environments.ensure("peers") / "bin" / "dib-run-parts")


def make(directory: pathlib.Path, tree: Mapping[str, str]) -> None:
    for name, kind in tree.items():
        path = directory / name
        if kind in {"script", "not executable", "only for others"}:
            path.write_text("#!/bin/sh\n")
            path.chmod({"script": 0o755, "not executable": 0o644, "only for others": 0o601}[kind])
        elif kind == "directory":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path, 0o755)
        else:
            path.symlink_to("/bin/true" if kind == "link" else "nowhere")


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=TREES)
@example(
    tree=dict.fromkeys(["10-b", "10-a", "9-z", "-5neg", "_x", "abc", "010-c", "100-z", "-", "-0"], "script")
)
@example(tree={"20-foo.sh": "script", "20-foo~": "script", ".20-foo": "script", "20-foo": "link"})
def test_the_same_hooks_in_the_same_order(dib_run_parts: str, tree: dict[str, str]) -> None:
    directory = pathlib.Path(tempfile.mkdtemp(prefix="refresh-agent-trees-"))
    try:
        make(directory, tree)
        listed = subprocess.run(
            [dib_run_parts, "--list", directory], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert [f"{directory}/{name}" for name in run_parts.select(str(directory)).hooks] == listed
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_whatever_the_locale(dib_run_parts: str, tmp_path: pathlib.Path, locale: str) -> None:
    make(tmp_path, dict.fromkeys(["B", "a", "C", "_", "1b", "1B", "-1", "10", "9"], "script"))
    env = {**os.environ, "LANG": locale}
    env.pop("LC_ALL", None)
    listed = subprocess.run(
        [dib_run_parts, "--list", tmp_path], capture_output=True, text=True, check=True, env=env
    ).stdout.splitlines()
    assert [f"{tmp_path}/{name}" for name in run_parts.select(str(tmp_path)).hooks] == listed
