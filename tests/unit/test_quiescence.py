"""Settling, by numbers: no clock, no sleeping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.quiescence import Quiescence

TIMES = st.floats(0, 1000, allow_nan=False)
GAPS = st.lists(st.floats(0, 20, allow_nan=False), min_size=1, max_size=30)


def moments(start: float, gaps: list[float]) -> list[float]:
    found = [start]
    for gap in gaps:
        found.append(found[-1] + gap)
    return found


@given(TIMES, st.floats(0.1, 5), st.floats(10, 30), st.integers(2, 200))
def test_a_storm_gives_one_due_moment(start: float, quiet: float, max_wait: float, changes: int) -> None:
    state = Quiescence(quiet, max_wait)
    step = quiet / (2 * changes)
    for number in range(changes):
        now = start + number * step
        assert not state.due(now)
        state = state.touched(now)
    due_at = state.due_at()
    assert due_at is not None
    assert due_at == pytest.approx(start + (changes - 1) * step + quiet)
    assert state.settled().due_at() is None


@given(TIMES, GAPS, st.floats(0, 5), st.floats(5, 30))
def test_a_drizzle_cannot_put_it_off_beyond_max_wait(
    start: float, gaps: list[float], quiet: float, max_wait: float
) -> None:
    state = Quiescence(quiet, max_wait)
    for now in moments(start, gaps):
        state = state.touched(now)
        due_at = state.due_at()
        assert due_at is not None
        assert due_at <= start + max_wait
        assert state.due(start + max_wait)


@given(TIMES, GAPS, st.floats(0, 5), st.floats(5, 30))
def test_it_is_never_due_before_it_was_quiet_unless_it_waited_long_enough(
    start: float, gaps: list[float], quiet: float, max_wait: float
) -> None:
    state = Quiescence(quiet, max_wait)
    for now in moments(start, gaps):
        state = state.touched(now)
        due_at = state.due_at()
        assert due_at in {now + quiet, start + max_wait}
        assert due_at == min(now + quiet, start + max_wait)


@given(TIMES, GAPS, st.floats(0, 5), st.floats(5, 30), st.floats(0, 50), st.floats(0, 50))
def test_it_is_monotone(  # once due it stays due, and a change never makes it due earlier
    start: float, gaps: list[float], quiet: float, max_wait: float, one: float, more: float
) -> None:
    state = Quiescence(quiet, max_wait)
    before = None
    for now in moments(start, gaps):
        state = state.touched(now)
        due_at = state.due_at()
        assert due_at is not None
        assert before is None or due_at >= before
        before = due_at
        assert state.due(now + one) <= state.due(now + one + more)


def test_nothing_is_due_before_a_change_and_after_it_was_acted_on() -> None:
    state = Quiescence(1, 10)
    assert state.due_at() is None
    assert not state.due(1e12)
    assert not state.touched(5).settled().due(1e12)


def test_it_is_due_at_the_very_moment() -> None:
    state = Quiescence(1, 10).touched(5)
    assert not state.due(5.999)
    assert state.due(6)


def test_with_no_quiet_time_a_change_is_due_at_once() -> None:
    assert Quiescence(0, 0).touched(5).due(5)
