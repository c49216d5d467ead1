"""Hooks of one number at the same time, with real hooks."""

import os
import signal
import time

import pytest

from refresh_agent.model import Ending, Failure
from tests.unit.phases.node import Node

MEET = """
touch {base}/here-$1
for ((i = 0; i < 600; i++)); do
    [ -e {base}/here-$2 ] && exit 0
    sleep 0.02
done
echo nobody came
exit 9
"""
"""Succeeds only if another hook runs at the same time."""


def meet(node: Node, own: str, other: str) -> str:
    return f"set -- {own} {other}\n{MEET.format(base=node.base)}"


def test_hooks_of_one_number_run_side_by_side(node: Node) -> None:
    node.settings["parallel"] = 2
    node.hook("configure/10-a", meet(node, "a", "b"))
    node.hook("configure/010-b", meet(node, "b", "a"))
    assert node.run() is None


def test_by_default_one_hook_runs_at_a_time(node: Node) -> None:
    """dib-run-parts: identical numbers may be parallelized later."""
    for name in ("10-a", "10-b", "10-c"):
        node.hook(f"configure/{name}", f"mkdir {node.base}/only && sleep 0.05 && rmdir {node.base}/only")
    assert node.run() is None


@pytest.mark.parametrize("parallel", [2, 3, 8])
def test_no_more_than_so_many_run_and_the_order_between_numbers_is_kept(node: Node, parallel: int) -> None:
    node.settings["parallel"] = parallel
    for name in ("a", "b", "10-a", "10-b", "10-c", "10-d", "10-e", "11-a", "11-b"):
        count = f"ls {node.base}/now | wc -l >> {node.base}/counts"
        body = f"mkdir -p {node.base}/now/$$; {count}; sleep 0.1; {count}; rmdir {node.base}/now/$$"
        node.hook(f"configure/{name}", body)
    assert node.run() is None
    ran = [place.removeprefix("configure/") for place in node.ran()]
    assert ran[:2] == ["a", "b"]  # without a number: one after the other
    assert sorted(ran[2:7]) == ["10-a", "10-b", "10-c", "10-d", "10-e"]
    assert sorted(ran[7:]) == ["11-a", "11-b"]
    counts = [int(line) for line in (node.base / "counts").read_text().split()]
    assert max(counts) <= parallel
    assert max(counts) > 1
    assert set(counts[:4]) == {1}


def test_hooks_without_a_number_are_never_side_by_side(node: Node) -> None:
    node.settings["parallel"] = 4
    for name in ("a", "b", "-", "_c"):
        node.hook(f"configure/{name}", f"mkdir {node.base}/only && sleep 0.05 && rmdir {node.base}/only")
    assert node.run() is None


def test_the_first_failure_stops_those_beside_it_and_all_that_follow(node: Node) -> None:
    node.settings |= {"parallel": 3, "kill_grace": 5.0}
    both_up = f"[ -e {node.base}/up-b ] && [ -e {node.base}/up-c ]"
    node.hook("configure/10-a", f"until {both_up}; do sleep 0.02; done; exit 42")
    node.hook("configure/10-b", f"trap 'echo cleaned; exit 0' TERM; touch {node.base}/up-b; sleep 60 & wait")
    node.hook("configure/10-c", f"touch {node.base}/up-c; exec sleep 60")
    node.hook("configure/10-d")
    node.hook("configure/11-a")
    assert node.run() == Failure("configure", "10-a", 42, "failed with status 42")
    assert sorted(node.ran()) == ["configure/10-a", "configure/10-b", "configure/10-c"]
    ended = {result.started.hook: result.exit for result in node.told.results}
    assert {hook: how.ending for hook, how in ended.items()} == {
        "10-a": Ending.EXITED,
        "10-b": Ending.CANCELLED,
        "10-c": Ending.CANCELLED,
    }
    assert ended["10-b"].detail == "was ended, since 10-a failed"
    assert not ended["10-b"].ok
    assert "configure/10-b/stdout: cleaned" in node.told.lines


def test_what_runs_beside_a_failure_and_ignores_term_is_killed(node: Node) -> None:
    node.settings["parallel"] = 2
    node.hook("configure/10-a", f"until [ -e {node.base}/up ]; do sleep 0.02; done; exit 1")
    node.hook("configure/10-b", f"trap '' TERM; touch {node.base}/up; while :; do sleep 0.05; done")
    began = time.monotonic()
    assert node.run() == Failure("configure", "10-a", 1, "failed with status 1")
    assert time.monotonic() - began < 10


def test_output_stays_attributed(node: Node) -> None:
    node.settings["parallel"] = 4
    for name in "abcd":
        node.hook(f"configure/10-{name}", f"for i in {{1..50}}; do echo {name} $i; done")
    assert node.run() is None
    for result in node.told.results:
        letter = result.started.hook[-1]
        assert result.tail.decode().splitlines() == [f"{letter} {number}" for number in range(1, 51)]
    assert all(line[len("configure/10-")] == line.partition(": ")[2][0] for line in node.told.lines)


def test_a_stop_lets_all_that_run_side_by_side_finish(node: Node) -> None:
    node.settings["parallel"] = 2
    for name in "ab":
        node.hook(f"configure/10-{name}", f"touch {node.base}/up-{name}; sleep 0.3")
    node.hook("configure/20-c")
    failure = node.run_until("up-a", "up-b")
    assert failure == Failure("configure", "20-c", 143, "not started: the agent is stopping", stopped=True)
    assert [result.exit.ok for result in node.told.results] == [True, True]


def test_environment_d_that_one_of_them_breaks_ends_the_phase(node: Node) -> None:
    node.settings["parallel"] = 2
    (node.base / "environment.d").mkdir()
    node.hook("configure/10-a", f"until [ -e {node.base}/up ]; do sleep 0.02; done")
    node.hook("configure/10-b", f"echo exit 3 > {node.base}/environment.d/10-x; touch {node.base}/up")
    node.hook("configure/10-c")
    failure = node.run()
    assert failure is not None
    assert failure.reason.endswith("environment.d/10-x: ended with status 3")
    assert "configure/10-c" not in node.ran()


def test_survivors_are_named_also_when_others_run(node: Node) -> None:
    node.settings["parallel"] = 2
    node.hook(
        "configure/10-a", f"sleep 60 >/dev/null 2>&1 & echo $! > {node.base}/daemon; touch {node.base}/up"
    )
    node.hook("configure/10-b", f"until [ -e {node.base}/up ]; do sleep 0.02; done; sleep 0.3")
    assert node.run() is None
    pid = int((node.base / "daemon").read_text())
    os.kill(pid, signal.SIGKILL)
    survivors = {result.started.hook: result.exit.survivors for result in node.told.results}
    assert survivors == {"10-a": (f"sleep ({pid})",), "10-b": ()}
