"""``make bench``: measure what is promised, print it as ratios, and end with 1 if a figure is not kept.

    .venvs/dev/bin/python benchmarks/run.py runner idle

measures only the parts that are named.
"""

import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterable

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from benchmarks import (
    contained,
    databases,
    delivery,
    durability,
    idle,
    large,
    latency,
    once,
    polls,
    runner,
    sample,
)
from benchmarks.measure import Figure, MissingError
from tools import environments

Part = Callable[[pathlib.Path], Iterable[Figure]]

GROUPS = {
    "runner": ("speed", "memory", "masking", "parallel", "contained"),
    "collect": ("requests", "capacity", "delivery", "large"),
    "databases": ("unchanged", "crowds", "large-tree"),
    "durability": ("waits", "start-up", "recording"),
}


def main() -> int:
    parts = _parts(environments.ensure("agent"), environments.ensure("peers"))
    names = [part for name in sys.argv[1:] or parts for part in GROUPS.get(name, (name,))]
    kept = [_kept(name, parts[name]) for name in names]  # all of them, also after one that is not
    return 0 if all(kept) else 1


def _parts(agent: pathlib.Path, peers: pathlib.Path) -> dict[str, Part]:
    return {
        "latency": lambda root: latency.figures(root, agent),
        "once": lambda root: once.figures(root, agent, peers),
        "idle": lambda root: idle.figures(root, agent),
        "speed": lambda root: runner.speed(runner.Place(root, agent, peers)),
        "memory": lambda root: runner.memory(runner.Place(root, agent, peers)),
        "masking": lambda root: runner.masking(runner.Place(root, agent, peers)),
        "parallel": lambda root: runner.parallel(runner.Place(root, agent, peers)),
        "contained": lambda root: contained.figures(runner.Place(root, agent, peers)),
        "requests": lambda root: polls.requests(root, agent, peers),
        "capacity": lambda root: polls.capacity(root, agent, peers),
        "delivery": lambda root: delivery.figures(root, agent, peers),
        "large": lambda root: large.figures(root, agent, peers),
        "unchanged": lambda root: databases.unchanged(root, agent),
        "crowds": lambda root: databases.crowds(root, agent),
        "large-tree": lambda root: databases.large_tree(root, agent),
        "waits": lambda root: durability.waits(runner.Place(root, agent, peers)),
        "start-up": lambda root: durability.startup(runner.Place(root, agent, peers)),
        "recording": lambda root: durability.recording(runner.Place(root, agent, peers)),
        "sample": lambda root: sample.figures(root, agent),
    }


def _kept(name: str, part: Part) -> bool:
    kept = True
    with tempfile.TemporaryDirectory(prefix="refresh-agent-bench-") as root:
        try:
            for figure in part(pathlib.Path(root)):
                print(figure, flush=True)
                kept = kept and figure.kept
        except MissingError as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
            return False
    return kept


if __name__ == "__main__":
    sys.exit(main())
