"""From an update of a stack to the first hook that it runs on a node, by polling and by a websocket.

Time zero is when the owner of the stack sent the request that was the first to get the new metadata. The hook
tells when it began. Nodes poll at a constant pace: min_polling_interval is polling_interval, so that no
change finds an agent that is still hurrying after the one before.
"""

import contextlib
import json
import os
import pathlib
import random
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import peers as predecessors
from benchmarks.measure import Figure, MissingError, Tree, wait_for
from tests.e2e.cloud import Cloud
from tests.e2e.servers import CloudError
from tests.e2e.stacks import Stack

NODES = {1: 4, 2: 6, 4: 8}
"""By their polling_interval in seconds. The longer it is, the more a median says about chance."""

THEIR_NODES = {1: 2, 2: 2, 4: 2}
UPDATES = 8
THEIR_UPDATES = 5
PUSHES = 10
NEVER = 600
"""A polling_interval in seconds: what arrives came otherwise."""

BESIDES = 0.2
WITHIN = 0.5
LOOK_EVERY = 0.02

HOOK = "#!/bin/bash\necho $EPOCHREALTIME >> {ran}\n"

Options = Mapping[str, Any]


class Watched(Stack):
    def updated(self, greeting: str) -> float:
        """Update it; when the new metadata could first be seen, in seconds since 1970."""
        self._parameters["greeting"] = greeting
        self._call("PATCH", self._path, json={**self._body(), "existing": True})
        wanted = f'"value": {json.dumps(greeting)}'
        while True:
            asked = time.time()
            if wanted in json.dumps(self.metadata()):
                return asked
            time.sleep(LOOK_EVERY)


class Node(NamedTuple):
    """``ran``: a line for every run, the moment when its first hook began in seconds since 1970."""

    interval: int
    command: Sequence[str]
    environment: Mapping[str, str]
    ran: pathlib.Path

    def runs(self) -> list[float]:
        return [float(line) for line in self.ran.read_text().split()] if self.ran.exists() else []


def figures(root: pathlib.Path, agent: pathlib.Path, peers: pathlib.Path) -> Iterator[Figure]:
    (root / "cloud").mkdir()
    (root / "nodes").mkdir()
    with Cloud(root / "cloud") as cloud:
        yield from _polled(cloud, root / "nodes", agent, peers)
        try:
            cloud.zaqar()
        except CloudError as error:
            raise MissingError(str(error)) from error
        yield _pushed(cloud, root / "nodes", agent)


def _polled(cloud: Cloud, root: pathlib.Path, agent: pathlib.Path, peers: pathlib.Path) -> Iterator[Figure]:
    stack, options = _stack(cloud, "POLL_SERVER_HEAT", "heat")
    ours = [
        _ours(Tree(root / f"ours-{interval}-{number}", agent), "heat", options, interval)
        for interval, nodes in NODES.items()
        for number in range(nodes)
    ]
    theirs = [
        _theirs(Tree(root / f"theirs-{interval}-{number}", agent), peers, options, interval)
        for interval, nodes in THEIR_NODES.items()
        for number in range(nodes)
    ]
    seen, beside = _delays(stack, ours, UPDATES), _delays(stack, theirs, THEIR_UPDATES)
    for interval in NODES:
        yield Figure(
            f"heat: visible to first hook, polling_interval = {interval}",
            statistics.median(seen[interval]),
            interval / 2 + BESIDES,
            "s",
            f"{_spread(seen[interval])}; os-collect-config {statistics.median(beside[interval]):.2f} s, "
            f"{_spread(beside[interval])}",
        )


def _pushed(cloud: Cloud, root: pathlib.Path, agent: pathlib.Path) -> Figure:
    stack, options = _stack(cloud, "ZAQAR_MESSAGE", "zaqar")
    tree = Tree(root / "pushed", agent)
    node = _ours(tree, "zaqar", {**options, "use_websockets": "true"}, NEVER)
    seen = _delays(stack, [node], PUSHES)[NEVER]
    return Figure(
        "zaqar: visible to first hook, over a websocket", statistics.median(seen), WITHIN, "s", _spread(seen)
    )


def _spread(seconds: Sequence[float]) -> str:
    quartiles = statistics.quantiles(seconds, n=4)
    return f"quartiles {quartiles[0]:.2f} and {quartiles[2]:.2f} s, n = {len(seconds)}"


def _delays(stack: Watched, nodes: Sequence[Node], updates: int) -> dict[int, list[float]]:
    """In seconds, by polling_interval: of every update on every node."""
    delays: dict[int, list[float]] = {node.interval: [] for node in nodes}
    longest = max(interval for interval in (1, *delays) if interval != NEVER)
    with contextlib.ExitStack() as running:
        for node in random.sample(nodes, len(nodes)):
            running.enter_context(_daemon(node))
            time.sleep(longest / len(nodes))  # started together, they would go on polling together
        wait_for(lambda: all(node.runs() for node in nodes))
        for number in range(updates):
            # Not before the runs are over, and never in step with the polls.
            time.sleep(0.3 + longest * random.random())
            known = [len(node.runs()) for node in nodes]
            visible = stack.updated(f"{len(nodes)} nodes, {number}")
            wait_for(lambda: all(len(node.runs()) > old for node, old in zip(nodes, known, strict=True)))  # noqa: B023
            for node, old in zip(nodes, known, strict=True):
                delays[node.interval].append(node.runs()[old] - visible)
    return delays


@contextlib.contextmanager
def _daemon(node: Node) -> Iterator[None]:
    nothing = subprocess.DEVNULL
    environment = {**os.environ, **node.environment}
    with subprocess.Popen(node.command, stdout=nothing, stderr=nothing, env=environment) as daemon:
        try:
            yield
        finally:
            daemon.terminate()


# --- nodes and stacks --------------------------------------------------------------------------------------


def _stack(cloud: Cloud, transport: str, source: str) -> tuple[Watched, Options]:
    """A new one, and the options with which a node collects from it."""
    stack = Watched(cloud.tenant(), source)
    stack.create(transport, "NO_SIGNAL")
    stack.wait("CREATE_COMPLETE")
    options = stack.os_collect_config()[source]
    return stack, {name: value for name, value in options.items() if value is not None}


def _ours(tree: Tree, source: str, options: Options, interval: int) -> Node:
    pace = _pace(source, interval)
    default = {"base_dir": tree.base, "state_dir": tree.root / "state", "lock_file": tree.root / "lock"}
    _write(
        tree.config_file,
        {
            "DEFAULT": {**default, **_caches(tree), **pace},
            source: options,
            "debounce": {"quiet": 0},
        },
    )
    return Node(interval, tree.command(), {}, _hooked(tree))


def _theirs(tree: Tree, peers: pathlib.Path, options: Options, interval: int) -> Node:
    config = tree.root / "os-collect-config.conf"
    command = " ".join(predecessors.os_refresh_config(tree))
    _write(
        config, {"DEFAULT": {"command": command, **_caches(tree), **_pace("heat", interval)}, "heat": options}
    )
    program = str(peers / "bin" / "os-collect-config")
    environment = predecessors.environment(tree, peers)
    return Node(interval, [program, "--config-file", str(config)], environment, _hooked(tree))


def _hooked(tree: Tree) -> pathlib.Path:
    ran = tree.root / "ran"
    tree.hook("pre-configure.d/10-first", HOOK.format(ran=ran))
    return ran


def _caches(tree: Tree) -> Options:
    return {"cachedir": tree.root / "cache", "backup_cachedir": tree.root / "backup"}


def _pace(source: str, interval: int) -> Options:
    return {"collectors": source, "polling_interval": interval, "min_polling_interval": interval}


def _write(config: pathlib.Path, groups: Mapping[str, Options]) -> None:
    lines = []
    for group, options in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in options.items())]
    config.write_text("\n".join([*lines, ""]))
