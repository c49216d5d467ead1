"""What the journal says of the past, here of the boots in which it happened."""

import contextlib
import pathlib

import pytest

from refresh_agent.journal import Journal
from refresh_agent.journal_file import Edge
from refresh_agent.model import Fingerprints, History, RunOutcome
from tests.unit.journals import FAILURE, A, B, decision


class Boots:
    """A node's journal, from boot to boot."""

    def __init__(self, state: pathlib.Path) -> None:
        self._state = str(state)
        self.boot = "the first boot"

    def journal(self) -> contextlib.closing[Journal]:
        return contextlib.closing(Journal(self._state, Edge(boot_id=lambda: self.boot)))

    def history(self) -> History:
        with self.journal() as journal:
            return journal.history()

    def run(self, documents: Fingerprints, outcome: RunOutcome | None) -> None:
        """None: it has no end."""
        with self.journal() as journal:
            run = journal.begin(decision(), documents)
            if outcome is RunOutcome.SUCCESS and documents:
                journal.commit(run, documents)
            elif outcome is RunOutcome.SUCCESS:
                journal.succeed(run)
            elif outcome is not None:
                journal.fail(run, outcome, FAILURE)


@pytest.fixture
def node(state: pathlib.Path) -> Boots:
    return Boots(state)


@pytest.mark.parametrize(
    "outcome", [RunOutcome.SUCCESS, RunOutcome.HOOK_FAILED, RunOutcome.INTERRUPTED, RunOutcome.DEFERRED, None]
)
def test_a_boot_after_the_newest_run_is_known_however_that_ended(
    node: Boots, outcome: RunOutcome | None
) -> None:
    node.run(A, outcome)
    before = node.history()
    assert not before.booted
    node.boot = "the second boot"
    assert node.history() == before._replace(booted=True)


@pytest.mark.parametrize("outcome", [RunOutcome.SUCCESS, RunOutcome.HOOK_FAILED, RunOutcome.INTERRUPTED])
def test_and_counts_until_another_run_has_begun_in_it(node: Boots, outcome: RunOutcome) -> None:
    node.run(A, RunOutcome.SUCCESS)
    node.boot = "the second boot"
    node.run(B, outcome)
    assert not node.history().booted
    node.boot = "the third boot"
    assert node.history().booted


@pytest.mark.parametrize("outcome", [RunOutcome.SUCCESS, RunOutcome.HOOK_FAILED])
def test_a_run_by_hand_does_not_count_for_that(node: Boots, outcome: RunOutcome) -> None:
    node.run(A, RunOutcome.SUCCESS)
    node.boot = "the second boot"
    node.run((), outcome)
    assert node.history().booted


@pytest.mark.parametrize("documents", [None, ()])
def test_where_nothing_ran_but_by_hand_no_boot_means_anything(
    node: Boots, documents: Fingerprints | None
) -> None:
    if documents is not None:
        node.run(documents, RunOutcome.SUCCESS)
    assert node.history() == History()
    node.boot = "the second boot"
    assert node.history() == History()


def test_where_the_kernel_does_not_tell_there_is_no_boot(node: Boots) -> None:
    node.boot = ""
    node.run(A, RunOutcome.SUCCESS)
    assert node.history() == History(A)


def test_what_tells_of_the_boot_is_never_let_go(node: Boots) -> None:
    node.run(A, RunOutcome.SUCCESS)
    node.boot = "the second boot"
    for _ in range(3):
        node.run((), RunOutcome.SUCCESS)
    with node.journal() as journal:
        journal.prune(1, 0)
    assert node.history() == History(A, booted=True)
    node.boot = "the first boot"
    assert node.history() == History(A)
