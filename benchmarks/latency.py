"""From a file's change to the first hook of the daemon, with quiet = 0.1."""

import contextlib
import pathlib
import statistics
import subprocess
import time

from benchmarks.measure import Figure, Tree, wait_for

CHANGES = 21
QUIET = 0.1


def figures(root: pathlib.Path, agent: pathlib.Path) -> list[Figure]:
    tree = Tree(root, agent)
    ran = root / "ran"
    # The hook tells the time by a shell builtin: a "date" of its own would be measured too.
    tree.hook("pre-configure.d/10-first", f"#!/bin/bash\necho $EPOCHREALTIME >> {ran}\n")
    tree.metadata({"change": 0})
    seconds = []
    with (root / "log").open("wb") as log, subprocess.Popen(tree.command(), stderr=log) as daemon:
        try:
            wait_for(lambda: _count(ran) == 1)
            for change in range(1, CHANGES + 1):
                # Not before the run is over, and never in step with it.
                wait_for(lambda: (root / "log").read_text().count("success in") == change)  # noqa: B023
                time.sleep(0.05 + 0.0037 * change)
                began = time.time()
                tree.metadata({"change": change})
                wait_for(lambda: _count(ran) == change + 1)  # noqa: B023
                seconds.append(float(ran.read_text().split()[-1]) - began)
        finally:
            daemon.terminate()
    median = statistics.median(seconds)
    worst = sorted(seconds)[int(0.95 * len(seconds))]
    return [
        Figure(
            "a file's change to its first hook, quiet = 0.1",
            median,
            QUIET + 0.010,
            "s",
            f"p95 {worst:.3f} s, n = {CHANGES}; os-collect-config at its default interval: 15 to 30 s",
        )
    ]


def _count(path: pathlib.Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().count("\n")
    return 0
