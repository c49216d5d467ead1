"""What it costs that each hook runs in a control group of its own, as where systemd delegates the agent's."""

import contextlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping

from benchmarks.measure import Figure, MissingError, Tree, medians_told, quietly, wait_for
from benchmarks.runner import PHASES, Place
from refresh_agent.phases import cgroup

HOOKS, ROUNDS = 100, 15
AT_MOST = 1.35
# The kernel moves a process at once, if it has moved another just before; else it waits for all processors.
SLOW_HOOKS, SLOW_ROUNDS = 5, 7

WITHIN = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"']


def figures(place: Place) -> Iterator[Figure]:
    """Hooks that do nothing, then hooks that take a while; where the agent's group is delegated or not."""
    with _group("ours", delegated=True) as ours, _group("somebodys", delegated=False) as somebodys:
        groups = {"without": somebodys, "with": ours}
        seen = _seen(place.tree("contained", HOOKS), groups, ROUNDS)
        detail = f"{seen['with'] * 1000:.0f} ms / {seen['without'] * 1000:.0f} ms, n = {ROUNDS}"
        name = f"4x{HOOKS} hooks: in control groups / without"
        yield Figure(name, seen["with"] / seen["without"], AT_MOST, "x", detail)
        seen = _seen(_slow(place), groups, SLOW_ROUNDS)
        later = (seen["with"] - seen["without"]) * 1000 / (len(PHASES) * SLOW_HOOKS)
        detail = f"{seen['with']:.3f} s, {seen['without']:.3f} s, n = {SLOW_ROUNDS}"
        name = f"4x{SLOW_HOOKS} hooks of sleep 0.1: more for each, in groups"
        yield Figure(name, later, None, "ms", detail)


def _slow(place: Place) -> Tree:
    tree = place.empty_tree("slow")
    for phase, number in itertools.product(PHASES, range(SLOW_HOOKS)):
        tree.hook(f"{phase}.d/{number}-hook", "#!/bin/sh\nsleep 0.1\n")
    return tree


def _seen(tree: Tree, groups: Mapping[str, pathlib.Path], rounds: int) -> Mapping[str, float]:
    """Seconds of a run by the agent's own account, in each of the groups."""

    def refreshed(name: str) -> Mapping[str, float]:
        command = [*WITHIN, str(groups[name]), *tree.command("--once", "--force", "--json")]
        return {name: float(json.loads(quietly(command))["seconds"])}

    return medians_told([lambda: refreshed("without"), lambda: refreshed("with")], rounds)


@contextlib.contextmanager
def _group(name: str, *, delegated: bool) -> Iterator[pathlib.Path]:
    """Below the one that we are in, as systemd makes them for units."""
    here = cgroup.directory(
        *(pathlib.Path(f"/proc/self/{file}").read_text() for file in ("cgroup", "mountinfo"))
    )
    group = pathlib.Path(here or "/nowhere", f"refresh-agent-bench-{os.getpid()}-{name}")
    try:
        group.mkdir()
    except OSError as error:
        raise MissingError(f"takes root and a hierarchy of control groups, version 2: {error}") from error
    try:
        if delegated:
            os.setxattr(group, "trusted.delegate", b"1")
        yield group
    finally:
        wait_for(lambda: not cgroup.Group(str(group)).populated)
        group.rmdir()
