"""The programs that refresh-agent replaces, on the same tree of hooks."""

import pathlib

from benchmarks.measure import Tree


def environment(tree: Tree, peers: pathlib.Path) -> dict[str, str]:
    """For os-collect-config and os-refresh-config, which have no options for these."""
    return {
        "LC_ALL": "C",  # os-collect-config's "local" collector crashes under others
        "OS_REFRESH_CONFIG_BASE_DIR": str(tree.base),
        "PATH": f"{peers}/bin:/usr/bin:/bin",
    }


def os_refresh_config(tree: Tree) -> list[str]:
    return ["os-refresh-config", "--lockfile", f"{tree.root}/orc.lock"]


def os_collect_config(tree: Tree, *arguments: str) -> list[str]:
    """With os-refresh-config as its command."""
    config = tree.root / "os-collect-config.conf"
    config.write_text(
        f"[DEFAULT]\ncollectors = heat_local\n"
        f"cachedir = {tree.root}/occ\nbackup_cachedir = {tree.root}/backup\n"
        f"command = {' '.join(os_refresh_config(tree))}\n"
        f"[heat_local]\npath = {tree.metadata_file}\n"
    )
    return ["os-collect-config", "--config-file", str(config), "--one-time", *arguments]
