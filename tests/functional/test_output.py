"""What hooks write without measure: neither the agent's memory nor its pace suffers."""

import os
import shlex
import subprocess

import pytest

from tests.functional.node import COMMAND, Node

MIB = 2**20

FLOODS = {
    "a gigabyte without a line end": "head -c 1073741824 /dev/zero | tr '\\0' x",
    "long lines": f"yes \"$(head -c 100000 /dev/zero | tr '\\0' y)\" | head -c {128 * MIB}",
    "short lines": f"yes '' | head -c {MIB // 8}",
    "binary": f"head -c {8 * MIB} /dev/urandom",
}
SIZES = {
    "a gigabyte without a line end": 1024 * MIB,
    "long lines": 128 * MIB,
    "short lines": MIB // 8,
    "binary": 8 * MIB,
}


def peak_after(node: Node, body: str) -> int:
    """The agent's own largest resident memory, in bytes, after a hook with this body."""
    peak = node.root / "peak"
    node.hook("configure/10-flood", body)
    node.hook("post-configure/99-look", f"grep VmHWM /proc/$PPID/status > {shlex.quote(str(peak))}")
    command = [COMMAND, "--config-file", str(node.config_file), "--once", "--force"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=110)
    return int(peak.read_text().split()[1]) * 1024


@pytest.mark.parametrize("kind", FLOODS)
def test_output_without_measure_costs_eight_megabytes_at_most(node: Node, kind: str) -> None:
    node.metadata({"db": {"password": "some-secret-of-a-usual-length"}})
    quiet = peak_after(node, "exit 0")
    assert peak_after(node, FLOODS[kind]) - quiet <= 8 * MIB
    assert node.outcomes() == ["success", "success"]
    kept = node.rows("SELECT length(tail) FROM outputs ORDER BY run DESC LIMIT 1")
    limit = min(MIB, SIZES[kind])
    assert limit - 3 <= kept[0][0] <= limit  # it begins with a whole character


def test_a_secret_that_two_writes_and_the_cut_of_a_long_line_split_is_masked(node: Node) -> None:
    secret = "correct-horse-battery"
    node.metadata({"db": {"password": secret}})
    half = len(secret) // 2
    node.hook(
        "configure/10-a",
        f"head -c {8192 - half} /dev/zero | tr '\\0' x; printf %s {secret[:half]}; sleep 0.2;"
        f" printf %s {secret[half:]}; head -c 20000 /dev/zero | tr '\\0' y",
    )
    ended = node.once()
    assert ended.returncode == 0
    assert "***" in ended.stderr
    assert secret[:half] not in ended.stderr
    assert secret[half:] not in ended.stderr
    tail = node.rows("SELECT tail FROM outputs")[0][0]
    assert tail == b"x" * (8192 - half) + b"***" + b"y" * 20000
    assert os.path.getsize(node.state / "journal.sqlite") < MIB
