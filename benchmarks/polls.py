"""What polling an unchanged stack costs Heat and Keystone: requests, connections, and polls per second.

Both with collectors alone, so that the same is compared: what os-collect-config does in each round of its loop is a
new collector and one ``collect``; refresh-agent keeps its collector.
"""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.measure import Figure
from tests.e2e.cloud import Cloud

PROGRAM = pathlib.Path(__file__).with_name("poller.py")
TRANSPORTS = {"heat": "POLL_SERVER_HEAT", "cfn": "POLL_SERVER_CFN"}
SIDES = ("ours", "theirs")

COUNTED = 20
"""Polls of one poller whose requests are counted."""

POLLERS = 8
ROUNDS = 3
SECONDS = 5

AT_LEAST = {"heat": 2.5}
TICKS = os.sysconf("SC_CLK_TCK")

Options = Mapping[str, Any]


class Load(NamedTuple):
    """``pollers`` and ``servers``: seconds of processor time for each poll."""

    per_second: float
    pollers: float
    servers: float


def requests(root: pathlib.Path, agent: pathlib.Path, peers: pathlib.Path) -> Iterator[Figure]:
    """By a proxy in front of every service, in the steady state."""
    with Cloud(root, counted=True) as cloud:
        for source, transport in TRANSPORTS.items():
            options = _options(cloud, source, transport)
            ours, ours_opened = _counted(cloud, _command("ours", agent, source), options)
            theirs, theirs_opened = _counted(cloud, _command("theirs", peers, source), options)
            opened = f"connections: {ours_opened:g} / {theirs_opened:g} in {COUNTED} polls"
            yield Figure(
                f"{source}: requests per unchanged poll", ours, 1, "", f"os-collect-config {theirs:g}; {opened}"
            )


def _counted(cloud: Cloud, command: list[str], options: Options) -> tuple[float, int]:
    """Requests per poll, and connections of them all; the proxies are in front of every service."""
    with _poller(command, options) as poller:
        for proxy in cloud.proxies.values():
            proxy.clear()
        _answer(poller, COUNTED, 60)
        seen = [(name, one) for name, proxy in cloud.proxies.items() for one in proxy.exchanges()]
    return len(seen) / COUNTED, len({(name, one.connection) for name, one in seen})


def capacity(root: pathlib.Path, agent: pathlib.Path, peers: pathlib.Path) -> Iterator[Figure]:
    """Eight pollers without a pause; they share the processors with Heat, as many of one side as of the other."""
    with Cloud(root) as cloud:
        for source, transport in TRANSPORTS.items():
            options = _options(cloud, source, transport)
            loads: dict[str, list[Load]] = {side: [] for side in SIDES}
            for _ in range(ROUNDS):
                for side, environment in zip(SIDES, (agent, peers), strict=True):
                    loads[side].append(_load(cloud, _command(side, environment, source), options))
            yield from _compared(source, *(_median(loads[side]) for side in SIDES))


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


def _load(cloud: Cloud, command: list[str], options: Options) -> Load:
    with contextlib.ExitStack() as stack:
        pollers = [stack.enter_context(_poller(command, options)) for _ in range(POLLERS)]
        before = _processor_time(cloud)
        for poller in pollers:
            _ask(poller, 10**6, SECONDS)
        answers = [_told(poller) for poller in pollers]
        servers = _processor_time(cloud) - before
    polls = sum(answer["polls"] for answer in answers)
    return Load(polls / SECONDS, sum(answer["cpu"] for answer in answers) / polls, servers / polls)


def _median(loads: list[Load]) -> Load:
    return Load(*(statistics.median(values) for values in zip(*loads, strict=True)))


def _processor_time(cloud: Cloud) -> float:
    """Seconds that the servers have used so far."""
    return sum(processor_time(pid) for pid in cloud.pids().values())


def processor_time(pid: int) -> float:
    """Seconds, of all threads of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


# --- pollers -----------------------------------------------------------------------------------------------


def _options(cloud: Cloud, source: str, transport: str) -> Options:
    """Those of the node's configuration, of a new stack."""
    stack = cloud.stack()
    stack.create(transport, "NO_SIGNAL")
    stack.wait("CREATE_COMPLETE")
    options = {name: value for name, value in stack.os_collect_config()[source].items() if value is not None}
    return {**options, "path": [options["path"]]} if "path" in options else options


def _command(side: str, environment: pathlib.Path, source: str) -> list[str]:
    return [str(environment / "bin" / "python"), str(PROGRAM), side, source]


@contextlib.contextmanager
def _poller(command: list[str], options: Options) -> Iterator[subprocess.Popen[str]]:
    """One that is ready."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            _write(process, options)
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{' '.join(command)} is not ready")
            yield process
        finally:
            process.kill()


def _ask(poller: subprocess.Popen[str], polls: int, seconds: float) -> None:
    _write(poller, [polls, seconds])


def _told(poller: subprocess.Popen[str]) -> dict[str, float]:
    assert poller.stdout is not None
    answer: dict[str, float] = json.loads(poller.stdout.readline())
    if answer["failed"]:
        raise RuntimeError(f"{answer['failed']:.0f} of {answer['polls']:.0f} polls failed")
    return answer


def _answer(poller: subprocess.Popen[str], polls: int, seconds: float) -> dict[str, float]:
    _ask(poller, polls, seconds)
    return _told(poller)


def _write(poller: subprocess.Popen[str], message: object) -> None:
    assert poller.stdin is not None
    poller.stdin.write(f"{json.dumps(message)}\n")
    poller.stdin.flush()
