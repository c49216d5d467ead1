"""The scratch tree: a node's file tree with the real hooks, the shop, and both programs' configuration."""

import json
import os
import pathlib
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
EXAMPLES = TOP / "examples"

QUIET = 0.5
"""The agent's debounce: a storm has to keep its rewrites closer together than this."""

LEGACY_VERSIONS = "3:5a1e0c3b7d21"
"""The shop's: legacy version 3 is what that alembic revision makes."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Environments:
    """The directories that tools/environments.py built."""

    agent: pathlib.Path
    legacy: pathlib.Path
    peers: pathlib.Path
    heat_agents: pathlib.Path


@dataclass(frozen=True)
class Tree:
    """Where everything is: below root, but for the environments."""

    root: pathlib.Path
    environments: Environments

    @property
    def metadata(self) -> pathlib.Path:
        """What Heat would have sent: the demo rewrites it, os-collect-config reads it."""
        return self.root / "metadata.json"

    @property
    def collected(self) -> pathlib.Path:
        """Os-collect-config's copy of it, which the agent watches."""
        return self.root / "collected" / "heat_local.json"

    @property
    def report(self) -> pathlib.Path:
        """What the deployment's script writes."""
        return self.root / "report"

    @property
    def rendered(self) -> pathlib.Path:
        """What os-apply-config makes of examples/demo/templates."""
        return self.root / "node" / "etc" / "shop.conf"

    @property
    def deployed(self) -> pathlib.Path:
        """Where 55-heat-config remembers which deployments it has run, and with what result."""
        return self.root / "deployed"

    @property
    def shop(self) -> pathlib.Path:
        return self.root / "shop"

    @property
    def database(self) -> pathlib.Path:
        return self.root / "shop.db"

    @property
    def journal(self) -> pathlib.Path:
        return self.root / "state" / "journal.sqlite"

    @property
    def collector_config(self) -> pathlib.Path:
        return self.root / "os-collect-config.conf"

    @property
    def agent_config(self) -> pathlib.Path:
        return self.root / "refresh-agent.conf"


def build(tree: Tree) -> None:
    """Lay out everything but the metadata and the database."""
    real = tree.environments.heat_agents
    _copy(EXAMPLES / "demo" / "hooks", tree.root / "hooks")
    _copy(EXAMPLES / "demo" / "templates", tree.root / "templates")
    _copy(EXAMPLES / "shop", tree.shop)
    _copy(real / "heat-config" / "os-refresh-config", tree.root / "hooks")
    _copy(real / "heat-config" / "os-apply-config", tree.root / "templates")
    _copy(real / "heat-config" / "bin", tree.root / "bin")
    _copy(real / "heat-config-script" / "install.d" / "hook-script.py", tree.root / "heat-hooks" / "script")
    _write(
        tree.root / "bin" / "os-apply-config",
        f'#!/bin/sh\nexec {tree.environments.peers}/bin/os-apply-config -o {tree.root}/node "$@"\n',
        mode=0o755,
    )
    _write(tree.collector_config, _collector_config(tree))
    _write(tree.agent_config, _agent_config(tree))


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Add source to target. Only the owner may write, whatever the checkout's modes: root runs hooks."""
    if source.is_dir():
        for entry in source.iterdir():
            if entry.name != "__pycache__":
                _copy(entry, target / entry.name)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def _write(path: pathlib.Path, text: str, *, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _collector_config(tree: Tree) -> str:
    # Without a command os-collect-config prints what it collected and writes no files.
    return f"""\
[DEFAULT]
command = /bin/true
collectors = heat_local
cachedir = {tree.collected.parent}
backup_cachedir = {tree.root}/collected-backup
[heat_local]
path = {tree.metadata}
"""


def _agent_config(tree: Tree) -> str:
    # max_wait is longer than the storm, so that only its end can let the agent run.
    return f"""\
[DEFAULT]
base_dir = {tree.root}/hooks
state_dir = {tree.journal.parent}
lock_file = {tree.root}/refresh.lock
collectors = os_collect_config
[os_collect_config]
files_list = {tree.collected.parent}/os_config_files.json
[phases]
trust = {_trust(tree.environments.peers)}
[debounce]
quiet = {QUIET}
max_wait = 60
[migrations]
targets = shop
[migration:shop]
connection = sqlite:///{tree.database}
alembic_config = {tree.shop}/alembic.ini
migrate_repository = {tree.shop}/legacy
legacy_versions = {LEGACY_VERSIONS}
legacy_python = {tree.environments.legacy}/bin/python
"""


def _trust(directory: pathlib.Path) -> str:
    """The hooks' interpreters lie in the checkout: if a group may write to it, the agent refuses them."""
    shared = any(
        path.stat().st_mode & 0o022 and not path.stat().st_mode & stat.S_ISVTX
        for path in (directory, *directory.parents)
    )
    return "warn" if shared else "enforce"


def agent_environment(tree: Tree) -> Mapping[str, str]:
    """What the hooks of heat-agents need to stay inside of the tree, and to find their programs."""
    return os.environ | {
        "PATH": f"{tree.root}/bin:{tree.environments.peers}/bin:{SYSTEM_PATH}",
        "OS_CONFIG_APPLIER_TEMPLATES": f"{tree.root}/templates",
        "HEAT_CONFIG_HOOKS": f"{tree.root}/heat-hooks",
        "HEAT_SHELL_CONFIG": f"{tree.root}/node/var/run/heat-config/heat-config",
        "HEAT_CONFIG_DEPLOYED": f"{tree.deployed}",
        "HEAT_CONFIG_DEPLOYED_OLD": f"{tree.deployed}",
        "HEAT_CONFIG_NOTIFY": f"{tree.root}/bin/heat-config-notify",
        "HEAT_SCRIPT_WORKING": f"{tree.root}/scripts",
        "HEAT_SCRIPT_OUTPUTS": f"{tree.root}/outputs",
        "DEMO_ROOT": f"{tree.root}/node",
    }


def collector_environment() -> Mapping[str, str]:
    """Os-collect-config 14.1.0 fails under some locales, LANG=C.UTF-8 among them."""
    return os.environ | {"LC_ALL": "C"}


def write_metadata(tree: Tree, deployment: str, greeting: str) -> None:
    """New metadata as Heat would send it: a new input, and so a deployment with a new id."""
    metadata = json.loads((EXAMPLES / "demo" / "metadata.json").read_text(encoding="utf-8"))
    metadata["shop"]["greeting"] = greeting
    script = metadata["deployments"][0]
    script["id"] = deployment
    values = {"greeting": greeting, "report": str(tree.report)}
    for item in script["inputs"]:
        item["value"] = values.get(item["name"], item["value"])
    new = tree.metadata.with_suffix(".new")
    new.write_text(json.dumps(metadata, indent=1), encoding="utf-8")
    new.replace(tree.metadata)
