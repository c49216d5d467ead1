"""What the daemon costs while nothing happens: wake-ups in 30 s and memory."""

import pathlib
import subprocess
import time

from benchmarks.measure import Figure, Tree, wait_for

SECONDS = 30


def figures(root: pathlib.Path, agent: pathlib.Path) -> list[Figure]:
    tree = Tree(root, agent)
    tree.hook("configure.d/10-a", "#!/bin/sh\n:\n")
    tree.metadata({"a": 1})
    with (root / "log").open("wb") as log, subprocess.Popen(tree.command(), stderr=log) as daemon:
        try:
            wait_for(lambda: "success in" in (root / "log").read_text())
            time.sleep(1)
            before = _wakeups(daemon.pid)
            time.sleep(SECONDS)
            woken = _wakeups(daemon.pid) - before
            rollup = pathlib.Path(f"/proc/{daemon.pid}/smaps_rollup").read_text()
        finally:
            daemon.terminate()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
    return [
        Figure(f"idle daemon: wake-ups in {SECONDS} s (polling_interval 30)", woken, 2, ""),
        Figure("idle daemon: proportional set size", pss, 30, "MiB"),
    ]


def _wakeups(pid: int) -> int:
    """Voluntary context switches of all threads: each is one end of a wait."""
    total = 0
    for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total
