"""What polling an unchanged stack costs Heat and Keystone: requests, connections, and polls per second.

Both with collectors alone, so that the same is compared: in each round of its loop os-collect-config makes a
new collector and lets it collect once; refresh-agent keeps its collector.
"""

import contextlib
import itertools
import json
import os
import pathlib
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from benchmarks.measure import Figure
from tests.e2e.cloud import Cloud

PROGRAM = pathlib.Path(__file__).with_name("poller.py")
TRANSPORTS = {"heat": "POLL_SERVER_HEAT", "cfn": "POLL_SERVER_CFN"}

COUNTED = 20
"""Polls of one poller whose requests are counted."""

POLLERS = 8
ROUNDS = 7
SECONDS = 2
UNLIMITED = 10**6

AT_LEAST = {"heat": 2.5}
TICKS = os.sysconf("SC_CLK_TCK")

Options = Mapping[str, Any]


class Load(NamedTuple):
    """``pollers`` and ``servers``: seconds of processor time for each poll."""

    per_second: float
    pollers: float
    servers: float


class Poller:
    """A process that polls when it is asked to."""

    def __init__(self, side: str, environment: pathlib.Path, source: str, options: Options) -> None:
        command = [str(environment / "bin" / "python"), str(PROGRAM), side, source]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self._say(options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait(self) -> None:
        """Until it is ready."""
        if self._hear() != b"ready\n":
            raise RuntimeError(f"{self._process.args!r} cannot poll")

    def keep_to(self, processor: int) -> None:
        os.sched_setaffinity(self._process.pid, {processor})

    def ask(self, polls: int, seconds: float) -> None:
        """Poll so often, or so long."""
        self._say([polls, seconds])

    def told(self) -> dict[str, float]:
        """What came of it."""
        answer: dict[str, float] = json.loads(self._hear())
        if answer["failed"]:
            raise RuntimeError(f"{answer['failed']} of {answer['polls']} polls failed")
        return answer

    def _say(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(message)}\n".encode())
        self._process.stdin.flush()

    def _hear(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def requests(root: pathlib.Path, agent: pathlib.Path, peers: pathlib.Path) -> Iterator[Figure]:
    """By a proxy in front of every service, in the steady state."""
    with Cloud(root, counted=True) as cloud:
        for source, transport in TRANSPORTS.items():
            options = _options(cloud, source, transport)
            with Poller("ours", agent, source, options) as poller:
                ours, opened = _counted(cloud, poller)
            with Poller("theirs", peers, source, options) as poller:
                theirs, their_opened = _counted(cloud, poller)
            yield Figure(
                f"{source}: requests for an unchanged poll",
                ours,
                1,
                "",
                f"os-collect-config {theirs:g}; connections in {COUNTED} polls: {opened} / {their_opened}",
            )


def _counted(cloud: Cloud, poller: Poller) -> tuple[float, int]:
    """Requests for each poll, and the connections of all polls."""
    poller.wait()
    for proxy in cloud.proxies.values():
        proxy.clear()
    poller.ask(COUNTED, 60)
    poller.told()
    seen = [(name, one.connection) for name, proxy in cloud.proxies.items() for one in proxy.exchanges()]
    return len(seen) / COUNTED, len(set(seen))


def capacity(root: pathlib.Path, agent: pathlib.Path, peers: pathlib.Path) -> Iterator[Figure]:
    """Pollers without a pause, as many of one side as of the other.

    The servers have one processor and the pollers another: pollers take nothing from the servers, and that
    Heat is one process here, and Keystone another, does not count.
    """
    processors = sorted(os.sched_getaffinity(0))
    with Cloud(root) as cloud:
        for pid in cloud.pids().values():
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {processors[0]})
        for source, transport in TRANSPORTS.items():
            options = _options(cloud, source, transport)
            with contextlib.ExitStack() as running:
                sides = [
                    [running.enter_context(Poller(side, place, source, options)) for _ in range(POLLERS)]
                    for side, place in (("ours", agent), ("theirs", peers))
                ]
                for poller in itertools.chain(*sides):
                    poller.keep_to(processors[-1])
                    poller.wait()
                loads = [[_load(cloud, pollers) for pollers in sides] for _ in range(ROUNDS)]
            yield from _compared(source, *(_median(of_one_side) for of_one_side in zip(*loads, strict=True)))


def _compared(source: str, ours: Load, theirs: Load) -> Iterator[Figure]:
    yield Figure(
        f"{source}: polls that Heat serves to {POLLERS} pollers / o-c-c's",
        ours.per_second / theirs.per_second,
        AT_LEAST.get(source),
        "x",
        f"{ours.per_second:.1f} / {theirs.per_second:.1f} per s, n = {ROUNDS} of {SECONDS} s",
        at_least=True,
    )
    yield Figure(
        f"{source}: the servers' processor time for a poll / o-c-c's",
        ours.servers / theirs.servers,
        None,
        "x",
        f"{ours.servers * 1000:.1f} ms / {theirs.servers * 1000:.1f} ms; "
        f"the poller's own {ours.pollers * 1000:.1f} ms / {theirs.pollers * 1000:.1f} ms",
    )


def _load(cloud: Cloud, pollers: Sequence[Poller]) -> Load:
    before = _processor_time(cloud)
    for poller in pollers:
        poller.ask(UNLIMITED, SECONDS)
    answers = [poller.told() for poller in pollers]
    servers = _processor_time(cloud) - before
    polls = sum(answer["polls"] for answer in answers)
    return Load(polls / SECONDS, sum(answer["cpu"] for answer in answers) / polls, servers / polls)


def _median(loads: Sequence[Load]) -> Load:
    return Load(*(statistics.median(values) for values in zip(*loads, strict=True)))


def _processor_time(cloud: Cloud) -> float:
    """Seconds that the servers have used so far."""
    return sum(processor_time(pid) for pid in cloud.pids().values())


def processor_time(pid: int) -> float:
    """Seconds, of all threads of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _options(cloud: Cloud, source: str, transport: str) -> Options:
    """Those of the node's configuration, of a new stack."""
    stack = cloud.stack()
    stack.create(transport, "NO_SIGNAL")
    stack.wait("CREATE_COMPLETE")
    options = {name: value for name, value in stack.os_collect_config()[source].items() if value is not None}
    return {**options, "path": [options["path"]]} if "path" in options else options
