"""What marks the processes of a hook."""

import itertools

from refresh_agent.marks import hook_ids, is_of_run


def test_every_hook_of_a_run_has_a_mark_of_its_own_that_tells_the_run() -> None:
    marks = list(itertools.islice(hook_ids("a-run"), 100))
    assert len(set(marks)) == 100
    assert all(is_of_run(mark, "a-run") for mark in marks)
    assert not any(is_of_run(mark, other) for mark in marks for other in ("a", "a-run-1", "b-run", ""))
