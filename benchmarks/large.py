"""A document of 100 MB, unchanged and changed, against os-collect-config: time and peak memory.

Of two kinds: settings, which are millions of short values, and scripts, which are texts of some kilobytes.
First whole processes, ``--once`` and ``--one-time``, without hooks and with the command /bin/true; then the
daemons.
"""

import contextlib
import json
import os
import pathlib
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.measure import Figure, wait_for

SIZE = 100 * 10**6
LIMIT = 2**30
ROUNDS = {"settings": 2, "scripts": 2}
TOUCHES = 5
THEIR_POLLS = 1
PARTS = 100

UNCHANGED_TIME, UNCHANGED_MEMORY = 0.05, 1.3
CHANGED_TIME, CHANGED_MEMORY = 0.3, 0.6

MARK = "@@@@@@@@"
"""In what a document consists of: it is replaced, so that no two parts are the same."""

MIB = 2**20
ENVIRONMENT = {**os.environ, "LC_ALL": "C"}  # os-collect-config's "local" collector crashes under others


class Cost(NamedTuple):
    """Of a process: seconds of wall time, and its peak memory in bytes."""

    seconds: float
    peak: float


class Place(NamedTuple):
    """A document, and the commands that collect it."""

    document: pathlib.Path
    part: str
    ours: Sequence[str]
    theirs: Sequence[str]

    def write(self, change: int) -> None:
        """Replace the document; it is the same again for the same ``change``."""
        new = self.document.parent.parent / "new"
        with new.open("w") as file:
            file.write(f'{{"change": {change}, "deployments": [')
            for number in range(PARTS):
                file.write((", " if number else "") + self.part.replace(MARK, f"{number:08d}"))
            file.write("]}")
        new.rename(self.document)


def figures(root: pathlib.Path, agent: pathlib.Path, peers: pathlib.Path) -> Iterator[Figure]:
    for kind, entry in (("settings", _settings), ("scripts", _script)):
        folder = root / kind
        folder.mkdir()
        place = _place(folder, _part(entry), agent, peers)
        yield from _processes(place, kind)
        if kind == "settings":
            yield from _daemons(place, folder)


# --- whole processes ---------------------------------------------------------------------------------------


def _processes(place: Place, kind: str) -> Iterator[Figure]:
    """The last round's document is what both have brought onto the node."""
    place.write(0)
    for command in (place.ours, place.theirs):
        _run(command)
    costs: dict[tuple[str, str], list[Cost]] = {}
    for number in range(1, ROUNDS[kind] + 1):
        for what in ("unchanged", "changed"):
            if what == "changed":
                place.write(number)
            for who, command in (("ours", place.ours), ("theirs", place.theirs)):
                costs.setdefault((who, what), []).append(_run(command))
    seen = {key: Cost(*map(statistics.median, zip(*each, strict=True))) for key, each in costs.items()}
    for what, at_most in (("unchanged", UNCHANGED_TIME), ("changed", CHANGED_TIME)):
        ours, theirs = seen["ours", what], seen["theirs", what]
        yield Figure(
            f"100 MB of {kind}, {what}: time / os-collect-config",
            ours.seconds / theirs.seconds,
            at_most,
            "x",
            f"{ours.seconds:.2f} s / {theirs.seconds:.2f} s, n = {ROUNDS[kind]}",
        )
    ours = seen["ours", "unchanged"]
    yield Figure(
        f"100 MB of {kind}, unchanged: peak memory / the document",
        ours.peak / SIZE,
        UNCHANGED_MEMORY,
        "x",
        f"{ours.peak / MIB:.0f} MiB; os-collect-config {seen['theirs', 'unchanged'].peak / MIB:.0f} MiB",
    )
    ours, theirs = seen["ours", "changed"], seen["theirs", "changed"]
    yield Figure(
        f"100 MB of {kind}, changed: peak memory / os-collect-config",
        ours.peak / theirs.peak,
        CHANGED_MEMORY,
        "x",
        f"{ours.peak / MIB:.0f} MiB / {theirs.peak / MIB:.0f} MiB",
    )


def _run(command: Sequence[str]) -> Cost:
    """To success. The peak is at least this process's own, which the system counts to it."""
    os.sync()
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(seconds, used.ru_maxrss * 1024)


# --- daemons -----------------------------------------------------------------------------------------------


def _daemons(place: Place, folder: pathlib.Path) -> Iterator[Figure]:
    """After ``_processes``: both find nothing to do."""
    change = ROUNDS["settings"]
    ours, log = [word for word in place.ours if word != "--once"], folder / "ours.log"
    with _daemon(ours, log) as pid:
        wait_for(lambda: "noop" in log.read_text())
        time.sleep(1)
        before = _processor_time(pid)
        for _ in range(TOUCHES):
            place.write(change)
            time.sleep(1)
        touched = (_processor_time(pid) - before) / TOUCHES
        peak = _peak(pid)
    theirs = [word for word in place.theirs if word != "--one-time"]
    with _daemon(theirs, folder / "theirs.log") as pid:
        cached = folder / "their-cache" / "metadata.json"  # replaced by every poll
        _wait_for_another(cached)
        before = _processor_time(pid)
        for _ in range(THEIR_POLLS):
            _wait_for_another(cached)
        polled = (_processor_time(pid) - before) / THEIR_POLLS
        their_peak = _peak(pid)
    yield Figure(
        "daemon, 100 MB of settings written again / o-c-c's poll",
        touched / polled,
        UNCHANGED_TIME,
        "x",
        f"processor time: {touched:.2f} s / {polled:.2f} s, n = {TOUCHES} / {THEIR_POLLS}",
    )
    yield Figure(
        "daemon, 100 MB of settings: peak memory / the document",
        peak / SIZE,
        UNCHANGED_MEMORY,
        "x",
        f"{peak / MIB:.0f} MiB; os-collect-config {their_peak / MIB:.0f} MiB",
    )


def _wait_for_another(path: pathlib.Path) -> None:
    """Until the file has been replaced."""
    old = path.stat().st_ino
    wait_for(lambda: path.stat().st_ino != old, 120)


@contextlib.contextmanager
def _daemon(command: Sequence[str], log: pathlib.Path) -> Iterator[int]:
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=ENVIRONMENT) as daemon,
    ):
        try:
            yield daemon.pid
        finally:
            daemon.terminate()


def _processor_time(pid: int) -> float:
    """Seconds that its threads have used so far."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def _peak(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024


# --- documents ---------------------------------------------------------------------------------------------


Entry = Callable[[random.Random, int], Mapping[str, object]]


def _part(entry: Entry) -> str:
    """A hundredth of the document: deployments, comma-separated."""
    random_ = random.Random(1)
    part = json.dumps(entry(random_, 0))
    number = 1
    while len(part) < SIZE // PARTS:
        part += ", " + json.dumps(entry(random_, number))
        number += 1
    return part


def _settings(random_: random.Random, number: int) -> Mapping[str, object]:
    """As a TripleO role's hieradata: few kinds of keys, short values, passwords that come again and again."""
    values = (
        lambda: True,
        lambda: random_.randrange(10**6),
        lambda: f"10.0.{random_.randrange(256)}.{random_.randrange(256)}",
        lambda: f"{random_.getrandbits(80):020x}",
        lambda: ["controller-0", "controller-1"],
        lambda: {"password": f"secret-{random_.randrange(200):09d}"},
    )
    config = {f"service{key}::option_{random_.randrange(100)}": random_.choice(values)() for key in range(20)}
    return _deployment(number, "hiera", config)


def _script(random_: random.Random, number: int) -> Mapping[str, object]:
    lines = (f"echo {random_.getrandbits(256):064x}\n" for _ in range(60))
    return _deployment(number, "script", "#!/bin/sh\n" + "".join(lines))


def _deployment(number: int, group: str, config: object) -> Mapping[str, object]:
    return {"id": f"{MARK}-{number}", "name": f"deployment-{number}", "group": group, "config": config}


def _place(folder: pathlib.Path, part: str, agent: pathlib.Path, peers: pathlib.Path) -> Place:
    local, hooks = folder / "local", folder / "hooks"
    local.mkdir()
    (hooks / "configure.d").mkdir(parents=True)
    sources = f"[local]\npath = {local}\n"
    config = folder / "refresh-agent.conf"
    config.write_text(
        f"[DEFAULT]\ncollectors = local\nbase_dir = {hooks}\nstate_dir = {folder}/state\n"
        f"lock_file = {folder}/lock\ncachedir = {folder}/cache\nbackup_cachedir = {folder}/backup\n"
        f"[limits]\nmetadata_bytes = {LIMIT}\n{sources}"
    )
    their_config = folder / "os-collect-config.conf"
    their_config.write_text(
        f"[DEFAULT]\ncollectors = local\ncommand = /bin/true\nmin_polling_interval = 0.1\n"
        f"polling_interval = 0.1\ncachedir = {folder}/their-cache\nbackup_cachedir = {folder}/their-backup\n"
        f"{sources}"
    )
    ours = [str(agent / "bin" / "refresh-agent"), "--config-file", str(config), "--once"]
    theirs = [str(peers / "bin" / "os-collect-config"), "--config-file", str(their_config), "--one-time"]
    return Place(local / "metadata", part, ours, theirs)
