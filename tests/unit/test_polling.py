"""When a source is asked again: for every history of answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.polling import JITTER, LONGEST_RETRY_AFTER, Polling

FRACTIONS = st.floats(0, 1, exclude_max=True)
ANSWERS = st.lists(st.sampled_from(["changed", "unchanged", "failed"]), max_size=40)
SECONDS = st.floats(0.01, 10_000)


def after(polling: Polling, answers: list[str]) -> Polling:
    for answer in answers:
        polling = getattr(polling, answer)()
    return polling


@given(SECONDS, SECONDS, SECONDS, ANSWERS, FRACTIONS)
def test_a_wait_is_never_longer_than_the_interval_unless_it_failed(
    interval: float, minimum: float, longest: float, answers: list[str], fraction: float
) -> None:
    polling = after(Polling.starting(interval, minimum, longest), answers)
    seconds = polling.delay(fraction)
    assert 0 <= seconds <= max(interval, longest)
    if not polling.failures:
        assert seconds <= interval


@given(ANSWERS)
def test_after_a_change_it_is_asked_soon_again_and_then_ever_more_seldom(answers: list[str]) -> None:
    """os-collect-config never comes back to the minimum: its help text says so, its code does not."""
    polling = after(Polling.starting(30, 1, 300), answers).changed()
    waits = []
    for _ in range(7):
        waits.append(polling.delay(0))
        polling = polling.unchanged()
    assert waits == [1, 2, 4, 8, 16, 30, 30]


@given(FRACTIONS)
def test_a_part_of_every_wait_is_left_to_chance(fraction: float) -> None:
    """os-collect-config defect 14: no jitter after the start, so that a fleet lines up."""
    assert Polling(30, 1, 300, 30).delay(fraction) == pytest.approx(30 * (1 - JITTER * fraction))


@given(st.integers(1, 200), FRACTIONS)
def test_failures_back_off_with_full_jitter(failures: int, fraction: float) -> None:
    polling = after(Polling.starting(30, 1, 300), ["failed"] * failures)
    assert polling.delay(fraction) == pytest.approx(fraction * min(300.0, 2.0 ** (failures - 1)))


@given(st.floats(0, 10 * LONGEST_RETRY_AFTER), FRACTIONS)
def test_a_server_is_left_alone_for_as_long_as_it_asks_but_not_for_ever(
    retry_after: float, fraction: float
) -> None:
    seconds = Polling.starting(30, 1, 300).failed(retry_after).delay(fraction)
    assert seconds >= min(retry_after, LONGEST_RETRY_AFTER)
    assert seconds <= max(1.0, LONGEST_RETRY_AFTER * (1 + JITTER))


def test_an_answer_ends_the_back_off() -> None:
    polling = after(Polling.starting(30, 1, 300), ["unchanged"] * 9 + ["failed"] * 9 + ["unchanged"])
    assert polling.delay(0) == 30


@pytest.mark.parametrize("minimum", [5, 100])
def test_a_minimum_above_the_interval_is_the_interval(minimum: float) -> None:
    """os-collect-config clips it only after the first sleep."""
    assert Polling.starting(5, minimum, 300).delay(0) == 5
