"""``make soak``: the long forms of the proofs, side by side on two processors, within half an hour.

    .venvs/dev/bin/python -m tests.reliability.soak --seed 7

Prints the seed. What failed is printed as it was said, with the command that reproduces it; exit code 1 then.
"""

import argparse
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

MINUTES = 30


class Proof(NamedTuple):
    """A module of this folder to run, and its arguments besides the seed."""

    module: str
    arguments: tuple[str, ...] = ()


LANES = (
    (Proof("model", ("--count", "1000000")),),
    (
        Proof("kills", ("--count", "500")),
        Proof("power_loss", ("--count", "20000")),
        Proof("long_life", ("--count", "10000")),
        Proof("truncation"),
    ),
)
"""Each lane is worked off in its order."""


class Report(NamedTuple):
    proof: Proof
    seconds: float
    problem: str = ""


def run(proof: Proof, seed: int, deadline: float) -> Report:
    """One proof, ended if it is not done by ``deadline`` of the monotonic clock."""
    command = [
        sys.executable,
        "-m",
        f"tests.reliability.{proof.module}",
        "--seed",
        str(seed),
        *proof.arguments,
    ]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = process.communicate(timeout=max(1.0, deadline - began))
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        return Report(proof, time.monotonic() - began, f"{said}\nnot done within {MINUTES} minutes")
    seconds = time.monotonic() - began
    if process.returncode:
        return Report(proof, seconds, f"{said}\nexit code {process.returncode} of: {' '.join(command)}")
    print(f"{proof.module}: {seconds:.0f} s: {said.strip().splitlines()[-1]}", flush=True)
    return Report(proof, seconds)


def run_lane(lane: Sequence[Proof], seed: int, deadline: float, reports: list[Report]) -> None:
    reports.extend(run(proof, seed, deadline) for proof in lane)


def main() -> int:
    parser = argparse.ArgumentParser(description="The long forms of the proofs that no change is lost.")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="default: a new one")
    seed = parser.parse_args().seed
    print(f"soak: --seed {seed}, at most {MINUTES} minutes", flush=True)
    deadline = time.monotonic() + MINUTES * 60
    reports: list[Report] = []
    lanes = [threading.Thread(target=run_lane, args=(lane, seed, deadline, reports)) for lane in LANES]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    failed = [report for report in reports if report.problem]
    for report in failed:
        print(
            f"{report.proof.module} FAILED after {report.seconds:.0f} s:\n{report.problem}", file=sys.stderr
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
