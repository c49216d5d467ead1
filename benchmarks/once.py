"""--once with nothing to do, against os-collect-config --one-time with os-refresh-config as its command."""

import pathlib

from benchmarks.measure import Figure, Tree, medians, quietly

ROUNDS = 15


def figures(root: pathlib.Path, agent: pathlib.Path, peers: pathlib.Path) -> list[Figure]:
    tree = Tree(root, agent)
    tree.hook("configure.d/10-a", "#!/bin/sh\n:\n")
    tree.metadata({"a": 1})
    ours = tree.command("--once")
    theirs = _predecessors(tree, peers)
    env = {
        "LC_ALL": "C",  # its "local" collector crashes under others
        "OS_REFRESH_CONFIG_BASE_DIR": str(tree.base),
        "PATH": f"{peers}/bin:/usr/bin:/bin",
    }
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


def _predecessors(tree: Tree, peers: pathlib.Path) -> list[str]:
    config = tree.root / "os-collect-config.conf"
    config.write_text(
        f"[DEFAULT]\ncollectors = heat_local\n"
        f"cachedir = {tree.root}/occ\nbackup_cachedir = {tree.root}/backup\n"
        f"command = os-refresh-config --lockfile {tree.root}/orc.lock\n"
        f"[heat_local]\npath = {tree.metadata_file}\n"
    )
    return [str(peers / "bin" / "os-collect-config"), "--config-file", str(config), "--one-time"]
