"""The command is killed at random moments: nothing is lost, nothing overlaps, nothing is left behind."""

import pathlib
import random
import subprocess
import sys

import pytest

from tests.reliability import kills
from tests.reliability.traced_tree import ERROR, HOOKS, judge

COUNT = 50
PHASES = {place.partition("/")[0] for place in HOOKS}
A, B = "a" * 32, "b" * 32


@pytest.mark.timeout(240)
def test_killed_fifty_times_it_comes_right_every_time(tmp_path: pathlib.Path) -> None:
    seed = random.randrange(2**32)
    tally = kills.side_by_side(tmp_path, seed, COUNT)
    again = f"python -m tests.reliability.kills --seed {seed} --count {COUNT}"
    assert not tally.problems, "\n".join([again, *tally.problems])
    assert tally.where.total() == COUNT
    told = f"{again}: {tally}"
    assert tally.where["start-up"] + tally.where["cleaning up"] >= 2, told
    assert sum(tally.where[place] for place in (*PHASES, "between")) >= 5, told
    assert len(tally.where) >= 4, told
    assert tally.runs["interrupted"] >= 5, told
    assert tally.runs["success"] >= 2, told


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
def test_a_signal_in_its_last_moments_does_not_take_the_place_of_its_exit_code(
    tmp_path: pathlib.Path, name: str
) -> None:
    program = (
        "import os, signal, sys; from refresh_agent import main\n"
        "code = main.command()\n"
        f"os.kill(os.getpid(), signal.{name}); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "run-parts", "--list", str(tmp_path)]
    assert subprocess.run(command, capture_output=True).returncode == 0


class TestTheJudge:
    """What it is there to see, it sees."""

    def whole(self, run: str) -> list[str]:
        return [f"{what} {run} {place}" for place in HOOKS for what in ("begin", "end")]

    def recorded(self, run: str, **outcomes: str | None) -> dict[tuple[str, str], str | None]:
        return {(run, place): outcomes.get(place.rpartition("-")[2], "exited") for place in HOOKS}

    def test_runs_one_after_the_other_are_as_they_should_be(self) -> None:
        lines = [*self.whole(A)[:3], *self.whole(B)]
        assert judge(lines, self.recorded(B)).violations == ()

    def test_a_failed_hook_is_followed_by_error_d_and_by_nothing_else(self) -> None:
        errors = [f"begin {A} {ERROR}", f"end {A} {ERROR}"]
        assert judge([*self.whole(A)[:3], *errors], {}).violations == ()
        assert judge([*errors, *self.whole(A)], {}).violations
        assert judge([*self.whole(A)[:3], *errors, *self.whole(A)[3:]], {}).violations

    def test_a_run_that_goes_on_beside_another(self) -> None:
        lines = [*self.whole(A)[:3], *self.whole(B)[:1], self.whole(A)[3]]
        (violation,) = judge(lines, self.recorded(A)).violations
        assert "goes on (end pre-configure/10-quiesce) beside bbbbbbbb" in violation

    def test_a_hook_that_begins_before_the_one_before_it_has_ended(self) -> None:
        lines = self.whole(A)
        lines[-2], lines[-3] = lines[-3], lines[-2]  # migration.d before the end of post-configure
        assert judge(lines, {}).violations
        assert judge([line for line in self.whole(A) if "post-configure" not in line], {}).violations

    def test_what_still_ran_when_a_run_began(self) -> None:
        alive = f"alive {B} pre-configure/00-look :: nap /node {A} configure/30-linger 0.8"
        lines = [*self.whole(A)[:9], f"begin {B} pre-configure/00-look", alive]
        assert judge(lines, self.recorded(A, linger="interrupted")).violations
        assert judge(lines, self.recorded(A, linger=None)).violations
        assert judge(lines, self.recorded(A, linger="exited")).violations == ()
        ended = [*self.whole(A)[:10], *lines[9:]]
        assert judge(ended, self.recorded(A, linger="interrupted")).violations == ()

    def test_what_nobody_could_know_of_is_counted(self) -> None:
        wiped = f"wiped {A} configure/30-linger"
        alive = f"alive {B} pre-configure/00-look :: nap /node {A} configure/30-linger 0.8"
        lines = [*self.whole(A)[:9], wiped, f"begin {B} pre-configure/00-look", alive]
        assert judge(lines, {}) == ((), 1)
        assert judge(lines, self.recorded(A, linger="interrupted")).violations
