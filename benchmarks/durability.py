"""What it costs to lose nothing: waits for the disk, a start with a full journal, and recording itself."""

import itertools
import pathlib
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping

from benchmarks.measure import Figure, MissingError, Tree, medians, medians_told, quietly, wait_for
from benchmarks.runner import PHASES, Place

RECORDED_PROGRAM = str(pathlib.Path(__file__).with_name("recorded.py"))

WAITS = "fsync,fdatasync,sync_file_range,msync,sync,syncfs"
AT_MOST_WAITS = 8

RUNS = 500
STARTS = 41
AT_MOST_LATER = 10

HOOKS = 100
RECORDED_ROUNDS = 15
AT_MOST_RECORDED = 1.03

_SYNCED = re.compile(r"\w*sync\w*\(\d+<(?P<path>[^>]*)>")


def waits(place: Place) -> Iterator[Figure]:
    """How often a run waits for the disk, but for the files that hooks read and the copies of the sources."""
    if shutil.which("strace") is None:
        raise MissingError("needs the command strace: install the system package strace")
    for folder, name, count in (
        ("waits-once", "--once", _waits_of_once),
        ("waits-daemon", "the daemon", _waits_of_the_daemon),
    ):
        tree = place.tree(folder, 4)
        synced = count(tree)
        caches = (f"{tree.root}/cache", f"{tree.root}/state/sources")
        counted = [path for path in synced if not path.startswith(caches)]
        detail = f"and {len(synced) - len(counted)} for the cache files; 4x4 hooks"
        yield Figure(f"waits for the disk in a run of {name}", len(counted), AT_MOST_WAITS, "", detail)


def _strace(tree: Tree) -> tuple[list[str], pathlib.Path]:
    """In front of a command whose process is to be the one that was started."""
    trace = tree.root / "trace"
    return ["strace", "-D", "-f", "--seccomp-bpf", "-y", "-e", f"trace={WAITS}", "-o", str(trace)], trace


def _waits_of_once(tree: Tree) -> list[str]:
    """The second run: only the first makes the journal."""
    quietly(tree.command("--once"))
    tree.metadata({"a": 2})
    strace, trace = _strace(tree)
    quietly([*strace, *tree.command("--once")])
    wait_for(lambda: _is_over(trace))
    return _SYNCED.findall(trace.read_text())


def _is_over(trace: pathlib.Path) -> bool:
    """Whether the agent has ended, not only one of its hooks; it is the process of the first line."""
    text = trace.read_text()
    agent = text.partition(" ")[0]
    return bool(agent) and re.search(rf"^{agent} \+\+\+ exited", text, re.MULTILINE) is not None


def _waits_of_the_daemon(tree: Tree) -> list[str]:
    strace, trace = _strace(tree)
    log = tree.root / "log"
    with log.open("wb") as file, subprocess.Popen([*strace, *tree.command()], stderr=file) as daemon:
        try:
            wait_for(lambda: log.read_text().count(": success in") == 1)
            before = len(trace.read_text())
            tree.metadata({"a": 2})
            wait_for(lambda: log.read_text().count(": success in") == 2)
            return _SYNCED.findall(trace.read_text()[before:])
        finally:
            daemon.send_signal(signal.SIGTERM)


def startup(place: Place) -> Iterator[Figure]:
    """``--once`` that finds nothing to do, with a journal of one run and with one that is full."""
    trees = {"one": place.tree("start-one", 1), "full": place.tree("start-full", 1)}
    for tree in trees.values():
        quietly(tree.command("--once"))
    full = trees["full"]
    quietly([full.python, RECORDED_PROGRAM, "fill", f"{full.root}/state", str(RUNS)])

    def starting(tree: Tree) -> Callable[[], object]:
        return lambda: quietly(tree.command("--once"))

    seen = medians({name: starting(tree) for name, tree in trees.items()}, STARTS)
    later = (seen["full"] - seen["one"]) * 1000
    size = (full.root / "state" / "journal.sqlite").stat().st_size / 2**20
    detail = f"{seen['full'] * 1000:.0f} ms, {seen['one'] * 1000:.0f} ms, {size:.1f} MiB, n = {STARTS}"
    yield Figure(
        f"--once, nothing to do: {RUNS} runs in the journal, over 1", later, AT_MOST_LATER, "ms", detail
    )


def recording(place: Place) -> Iterator[Figure]:
    """The phases of a run, from its beginning to its commit, with the journal and without."""
    tree = place.tree("recorded", HOOKS)
    states = (f"{tree.root}/state-{number}" for number in itertools.count())

    def running(name: str) -> Callable[[], Mapping[str, float]]:
        def run() -> Mapping[str, float]:
            state = [next(states)] if name == "on" else []
            for each in state:  # made beforehand, as on any node but for its first run
                quietly([tree.python, RECORDED_PROGRAM, "fill", each, "1"])
            return {name: float(quietly([tree.python, RECORDED_PROGRAM, "run", str(tree.base), *state]))}

        return run

    seen = medians_told([running("on"), running("off")], RECORDED_ROUNDS)
    on, off = seen["on"], seen["off"]
    detail = f"{on * 1000:.0f} ms / {off * 1000:.0f} ms, n = {RECORDED_ROUNDS}"
    name = f"{len(PHASES)}x{HOOKS} hooks: with the journal / without"
    yield Figure(name, on / off, AT_MOST_RECORDED, "x", detail)
