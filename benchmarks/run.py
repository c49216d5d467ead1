"""``make bench``: measure what is promised, print it as ratios, and end with 1 if a figure is not kept."""

import pathlib
import sys
import tempfile
from collections.abc import Callable

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from benchmarks import idle, latency, once
from benchmarks.measure import Figure
from tools import environments


def main() -> int:
    agent, peers = environments.ensure("agent"), environments.ensure("peers")
    parts: dict[str, Callable[[pathlib.Path], list[Figure]]] = {
        "latency": lambda root: latency.figures(root, agent),
        "once": lambda root: once.figures(root, agent, peers),
        "idle": lambda root: idle.figures(root, agent),
    }
    kept = True
    for name in sys.argv[1:] or parts:
        with tempfile.TemporaryDirectory(prefix="refresh-agent-bench-") as root:
            for figure in parts[name](pathlib.Path(root)):
                print(figure, flush=True)
                kept = kept and figure.kept
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
