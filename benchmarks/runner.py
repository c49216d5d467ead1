"""What running hooks costs: time against other runners, memory, masking, and what ``parallel`` saves."""

import itertools
import json
import pathlib
import random
import shutil
import string
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks import peers as predecessors
from benchmarks.measure import Figure, MissingError, Tree, medians, medians_told, quietly, wall_time

PHASES = ("pre-configure", "configure", "post-configure", "migration")
NOTHING = "#!/bin/sh\n:\n"
FLOOR_SOURCE = pathlib.Path(__file__).with_name("floor.c")
BARE_PROGRAM = pathlib.Path(__file__).with_name("bare.py")
LAYERS_PROGRAM = pathlib.Path(__file__).with_name("layers.py")
OURS, COMMAND, FLOOR = "ours", "command", "floor"
# Each does what the one before does, and more; the runner itself does all.
LAYERS = {
    "Python's system calls alone": [str(BARE_PROGRAM)],
    "processes alone": [str(LAYERS_PROGRAM), "runner"],
    "phases that tell nothing": [str(LAYERS_PROGRAM), "phases"],
}

# Hooks in each phase, and how often they are all run: os-refresh-config needs about 18 ms for each.
SPEED_ROUNDS = {1: 9, 100: 7, 500: 3}
DIB_HOOKS = 400
COMMAND_ROUNDS = {1: 9, 100: 5}
MEMORY_ROUNDS = 3
MASKING_ROUNDS = 5
# One after the other, these hooks sleep for 20 s.
PARALLEL_ROUNDS = 1

# What is promised, by the number of hooks in each phase.
AT_MOST_FLOOR = {100: 1.15}
AT_LEAST_FASTER = {(100, "os-refresh-config"): 13.0}
AT_MOST_COMMAND = {1: 0.20, 100: 0.12}

MIB = 2**20
UNENDING = 256 * MIB
STREAMED = 64 * MIB


@dataclass(frozen=True)
class Place:
    """Where to measure, and with what."""

    root: pathlib.Path
    agent: pathlib.Path
    peers: pathlib.Path

    def tree(self, name: str, hooks: int) -> Tree:
        """So many hooks in each phase that do nothing, each with a number of its own."""
        tree = self.empty_tree(name)
        for phase, number in itertools.product(PHASES, range(hooks)):
            tree.hook(f"{phase}.d/{number:03d}-hook", NOTHING)
        return tree

    def empty_tree(self, name: str) -> Tree:
        tree = Tree(self.root / name, self.agent)
        tree.metadata({"a": 1})
        return tree


def speed(place: Place) -> Iterator[Figure]:
    """Runners alone, then whole commands: what a node had before, and what it has now."""
    floor = _compiled(place.root)
    for hooks, rounds in SPEED_ROUNDS.items():
        tree = place.tree(f"speed-{hooks}", hooks)
        yield from _runners(_candidates(tree, place.peers, floor), hooks, rounds)
    for hooks, rounds in COMMAND_ROUNDS.items():
        tree = place.tree(f"command-{hooks}", hooks)
        yield _commands(tree, place.peers, hooks, rounds)


def _compiled(root: pathlib.Path) -> pathlib.Path:
    for command, package in (("cc", "gcc"), ("run-parts", "debianutils")):
        if shutil.which(command) is None:
            raise MissingError(f"needs the command {command}: install the system package {package}")
    program = root / "floor"
    try:
        quietly(["cc", "-O2", "-o", str(program), str(FLOOR_SOURCE)])
    except subprocess.CalledProcessError as error:
        message = f"cc cannot compile {FLOOR_SOURCE.name}: install the system packages gcc and libc6-dev"
        raise MissingError(message) from error
    return program


def _candidates(
    tree: Tree, peers: pathlib.Path, floor: pathlib.Path
) -> list[Callable[[], Mapping[str, float]]]:
    env = predecessors.environment(tree, peers)
    directories = [str(tree.base / f"{phase}.d") for phase in PHASES]
    hooks = [str(hook) for directory in directories for hook in sorted(pathlib.Path(directory).iterdir())]

    def ours() -> Mapping[str, float]:
        seconds: list[float] = []
        command = wall_time(lambda: seconds.append(_refresh(tree, env)))
        return {OURS: seconds[0], COMMAND: command}

    def layer(name: str) -> Callable[[], Mapping[str, float]]:
        arguments = hooks if name == next(iter(LAYERS)) else [str(tree.base)]
        return lambda: {name: float(quietly([tree.python, *LAYERS[name], *arguments], env))}

    def in_each(program: str) -> list[list[str]]:
        return [[program, directory] for directory in directories]

    def other(name: str, *commands: list[str]) -> Callable[[], Mapping[str, float]]:
        return lambda: {name: wall_time(lambda: [quietly(command, env) for command in commands])}

    candidates = [
        ours,
        *map(layer, LAYERS),
        other(FLOOR, [str(floor), *hooks]),
        other("run-parts", *in_each("run-parts")),
        other("os-refresh-config", predecessors.os_refresh_config(tree)),
    ]
    # It is where os-refresh-config spends its time: of many hooks, half a minute of it is enough.
    if len(hooks) <= DIB_HOOKS:
        candidates.append(other("dib-run-parts", *in_each("dib-run-parts")))
    return candidates


def _runners(
    candidates: list[Callable[[], Mapping[str, float]]], hooks: int, rounds: int
) -> Iterator[Figure]:
    seen = medians_told(candidates, rounds)
    ours, floor, command = (seen.pop(name) for name in (OURS, FLOOR, COMMAND))
    detail = f"{_ms(ours)} / {_ms(floor)}, whole command {_ms(command)}, n = {rounds}"
    yield Figure(f"4x{hooks} hooks: runner / C program", ours / floor, AT_MOST_FLOOR.get(hooks), "x", detail)
    for name in LAYERS:
        seconds = seen.pop(name)
        detail = f"{_ms(seconds)} / {_ms(floor)}, n = {rounds}"
        yield Figure(f"4x{hooks} hooks: {name} / C program", seconds / floor, None, "x", detail)
    for name, seconds in seen.items():
        limit = AT_LEAST_FASTER.get((hooks, name))
        detail = f"{_ms(seconds)} / {_ms(ours)}, n = {rounds}"
        yield Figure(f"4x{hooks} hooks: {name} / runner", seconds / ours, limit, "x", detail, at_least=True)


def _commands(tree: Tree, peers: pathlib.Path, hooks: int, rounds: int) -> Figure:
    env = predecessors.environment(tree, peers)
    before = predecessors.os_collect_config(tree, "--force")
    change = itertools.count()

    def after_a_change(run: Callable[[], object]) -> Callable[[], object]:
        def changed() -> None:
            tree.metadata({"change": next(change)})
            run()

        return changed

    candidates = {
        "ours": after_a_change(lambda: _refresh(tree, env)),
        "theirs": after_a_change(lambda: quietly(before, env)),
    }
    seen = medians(candidates, rounds)
    return Figure(
        f"4x{hooks} hooks: --once / os-collect-config --one-time",
        seen["ours"] / seen["theirs"],
        AT_MOST_COMMAND[hooks],
        "x",
        f"{_ms(seen['ours'])} / {_ms(seen['theirs'])}, n = {rounds}",
    )


def memory(place: Place) -> Iterator[Figure]:
    """The most that the agent itself holds at a time; what hooks hold is theirs."""
    silent, unending = place.empty_tree("silent"), place.empty_tree("unending")
    silent.hook("configure.d/10-hook", NOTHING)
    unending.hook("configure.d/10-hook", f"#!/bin/sh\nhead -c {UNENDING} /dev/zero | tr '\\0' x\n")
    trees = {"few": place.tree("few", 1), "many": place.tree("many", 500), "no": silent, "long": unending}
    seen = medians_told([_peak_of(name, tree) for name, tree in trees.items()], MEMORY_ROUNDS)
    for title, more, less, limit in (
        ("peak memory: 4x500 hooks, over 4x1", "many", "few", 2),
        ("peak memory: 256 MiB without a line end, over none", "long", "no", 8),
    ):
        detail = f"{seen[more]:.1f} MiB, {seen[less]:.1f} MiB, n = {MEMORY_ROUNDS}"
        yield Figure(title, seen[more] - seen[less], limit, "MiB", detail)


def _peak_of(name: str, tree: Tree) -> Callable[[], Mapping[str, float]]:
    """The last hook looks: later than that, there is nobody to ask."""
    status = tree.root / "status"
    tree.hook("migration.d/999-look", f"#!/bin/sh\nexec cat /proc/$PPID/status > {status}\n")

    def peak() -> Mapping[str, float]:
        _refresh(tree)
        lines = status.read_text().splitlines()
        return {name: next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024}

    return peak


def masking(place: Place) -> Iterator[Figure]:
    """Lines like those of a log, none of which holds a secret: what is paid for looking."""
    tree = place.empty_tree("masking")
    text = tree.root / "text"
    chance = random.Random(0)
    text.write_text("".join(_log_line(chance) for _ in range(MIB // 80)))
    repeated = f"{text} " * (STREAMED // text.stat().st_size)
    tree.hook("configure.d/10-hook", f"#!/bin/sh\nexec cat {repeated}\n")
    letters = string.ascii_letters + string.digits
    secrets = {f"password_{number}": "".join(chance.choices(letters, k=32)) for number in range(100)}

    def streaming(name: str, content: Mapping[str, str]) -> Mapping[str, float]:
        tree.metadata(content)
        return {name: _refresh(tree)}

    seen = medians_told(
        [lambda: streaming("plain", {"a": "1"}), lambda: streaming("masked", secrets)], MASKING_ROUNDS
    )
    detail = f"{seen['masked']:.2f} s / {seen['plain']:.2f} s, n = {MASKING_ROUNDS}"
    yield Figure("64 MiB of lines: 100 secrets / none", seen["masked"] / seen["plain"], 1.05, "x", detail)


def _log_line(chance: random.Random) -> str:
    """80 characters with the line end, different ones each time: no cache of lines can help."""
    second, pid, block = chance.randrange(60), chance.randrange(1000, 10000), chance.getrandbits(84)
    return f"10:31:{second:02d} INFO  nova[{pid}] wrote /etc/nova/nova.conf, {block:021x} done\n"


def parallel(place: Place) -> Iterator[Figure]:
    """Hooks that wait, ten of each number."""
    tree = place.empty_tree("parallel")
    for phase, number, letter in itertools.product(PHASES, range(10, 20), "abcdefghij"):
        tree.hook(f"{phase}.d/{number}-{letter}", "#!/bin/sh\nsleep 0.05\n")

    def sleeping(parallel: int) -> Mapping[str, float]:
        tree.configure(parallel=parallel)
        return {str(parallel): _refresh(tree)}

    seen = medians_told([lambda: sleeping(1), lambda: sleeping(4)], PARALLEL_ROUNDS)
    detail = f"{seen['1']:.2f} s / {seen['4']:.2f} s, n = {PARALLEL_ROUNDS}"
    name = "4x100 hooks of sleep 0.05: parallel = 1 / parallel = 4"
    yield Figure(name, seen["1"] / seen["4"], 3, "x", detail, at_least=True)


def _refresh(tree: Tree, env: Mapping[str, str] | None = None) -> float:
    """Seconds that the run took by the agent's account: from its beginning in the journal to its commit."""
    return float(json.loads(quietly(tree.command("--once", "--force", "--json"), env))["seconds"])


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
