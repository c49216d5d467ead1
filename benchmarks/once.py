"""--once with nothing to do, against os-collect-config --one-time with os-refresh-config as its command."""

import pathlib

from benchmarks.measure import Figure, Tree, medians, quietly
from benchmarks.peers import environment, os_collect_config

ROUNDS = 15


def figures(root: pathlib.Path, agent: pathlib.Path, peers: pathlib.Path) -> list[Figure]:
    tree = Tree(root, agent)
    tree.hook("configure.d/10-a", "#!/bin/sh\n:\n")
    tree.metadata({"a": 1})
    ours = tree.command("--once")
    theirs = os_collect_config(tree)
    env = environment(tree, peers)
    quietly(ours)
    quietly(theirs, env)
    seen = medians({"ours": lambda: quietly(ours), "theirs": lambda: quietly(theirs, env)}, ROUNDS)
    return [
        Figure(
            "--once, nothing to do / os-collect-config --one-time",
            seen["ours"] / seen["theirs"],
            0.30,
            "x",
            f"{seen['ours'] * 1000:.0f} ms / {seen['theirs'] * 1000:.0f} ms, n = {ROUNDS}",
        )
    ]
