"""How long to wait after a failure, by numbers."""

from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.backoff import Backoff

SECONDS = st.floats(0, 1000, allow_nan=False)
FAILURES = st.integers(0, 10_000)
FRACTIONS = st.floats(0, 1, exclude_max=True)


@given(SECONDS, SECONDS, SECONDS, FAILURES, FRACTIONS)
def test_a_delay_is_bounded_by_its_ceiling_and_by_the_maximum(
    now: float, initial: float, maximum: float, failures: int, fraction: float
) -> None:
    backoff = Backoff(initial, maximum)
    not_before = backoff.failed(now, failures, fraction).not_before
    assert not_before is not None
    assert now <= not_before <= now + backoff.ceiling(failures) <= now + maximum


@given(st.floats(0.001, 10), st.integers(1, 60))
def test_the_ceiling_doubles_until_the_maximum(initial: float, failures: int) -> None:
    backoff = Backoff(initial, 1e30)
    assert backoff.ceiling(1) == initial
    assert backoff.ceiling(failures + 1) == 2 * backoff.ceiling(failures)
    assert Backoff(initial, 3 * initial).ceiling(failures + 2) == 3 * initial


@given(SECONDS, SECONDS, FAILURES)
def test_more_failures_never_shorten_the_ceiling(initial: float, maximum: float, failures: int) -> None:
    backoff = Backoff(initial, maximum)
    assert backoff.ceiling(failures) <= backoff.ceiling(failures + 1)


@given(SECONDS, FAILURES, FRACTIONS, SECONDS)
def test_it_is_due_from_its_moment_on(now: float, failures: int, fraction: float, later: float) -> None:
    backoff = Backoff(1, 300).failed(now, failures, fraction)
    assert backoff.not_before is not None
    assert backoff.due(backoff.not_before + later)
    assert not backoff.due(backoff.not_before - 1e-6)


def test_nothing_is_due_without_a_failure_or_once_cleared() -> None:
    assert not Backoff(1, 300).due(1e12)
    assert not Backoff(1, 300).failed(5, 1, 0.5).cleared().due(1e12)


def test_years_of_failures_overflow_nothing() -> None:
    assert Backoff(1, 300).ceiling(10**9) == 300
