"""What happens now, and why: every combination of values, no side effects."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from refresh_agent.model import Fingerprints, History, Quiesced, Trigger, Unfinished
from refresh_agent.plan import Action, Request, changed_names, decide

DOCUMENTS: st.SearchStrategy[Fingerprints] = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("123")), max_size=4, unique_by=lambda item: item[0]
).map(tuple)
UNFINISHED = st.builds(
    Unfinished,
    documents=DOCUMENTS,
    attempts=st.integers(1, 9),
    failures=st.integers(0, 9),
    interrupted=st.booleans(),
    phase=st.sampled_from(["", "configure"]),
    hook=st.sampled_from(["", "10-a"]),
)
QUIESCED = st.builds(Quiesced, since=st.just(1.0), attempt=st.integers(1, 9), interrupted=st.booleans())
HISTORIES = st.builds(
    History,
    committed=st.none() | DOCUMENTS.filter(bool),
    unfinished=st.none() | UNFINISHED,
    quiesced=st.none() | QUIESCED,
    booted=st.booleans(),
)
REQUESTS = st.builds(
    Request, trigger=st.sampled_from(Trigger), force=st.booleans(), max_attempts=st.integers(0, 9)
)
ASKED = {Trigger.SIGNAL, Trigger.ONCE}


def same_again(documents: Fingerprints, history: History) -> bool:
    return history.unfinished is not None and history.unfinished.documents == documents


def left_by_hand(documents: Fingerprints, history: History) -> bool:
    """What is committed is what there is, but a run by hand has left the node quiesced."""
    as_committed = history.unfinished is None and history.committed == documents
    return as_committed and history.quiesced is not None


@given(REQUESTS, DOCUMENTS, HISTORIES)
def test_noop_only_if_nothing_changed_nothing_is_unfinished_and_nobody_asked(
    request: Request, documents: Fingerprints, history: History
) -> None:
    idle = history._replace(committed=None) == History() and history.committed == documents
    asked = request.force or request.trigger is Trigger.SIGNAL
    assert (decide(request, documents, history).action is Action.NOOP) is (idle and not asked)


@given(REQUESTS, DOCUMENTS, HISTORIES)
def test_a_new_change_is_never_held(request: Request, documents: Fingerprints, history: History) -> None:
    assume(not same_again(documents, history))
    action = decide(request, documents, history).action
    assert action in {Action.RUN, Action.NOOP} or left_by_hand(documents, history)


@given(REQUESTS, DOCUMENTS.filter(bool), QUIESCED)
def test_a_node_that_a_run_by_hand_has_left_quiesced_is_not_forgotten(
    request: Request, documents: Fingerprints, quiesced: Quiesced
) -> None:
    decision = decide(request, documents, History(documents, None, quiesced))
    assert (decision.action, decision.attempt) == (Action.RETRY, quiesced.attempt + 1)
    assert decision.trigger in {Trigger.RETRY, request.trigger}


@given(REQUESTS, DOCUMENTS, HISTORIES)
def test_held_only_after_max_attempts_that_failed_and_when_nobody_asked_and_in_the_same_boot(
    request: Request, documents: Fingerprints, history: History
) -> None:
    unfinished = history.unfinished
    expected = (
        unfinished is not None
        and unfinished.documents == documents
        and 0 < request.max_attempts <= unfinished.failures
        and not request.force
        and request.trigger not in ASKED
        and not history.booted
    )
    assert (decide(request, documents, history).action is Action.HOLD) is expected


@given(REQUESTS, DOCUMENTS, HISTORIES)
def test_attempts_count_up_only_for_the_same_documents(
    request: Request, documents: Fingerprints, history: History
) -> None:
    assume(not left_by_hand(documents, history))
    decision = decide(request, documents, history)
    if decision.action is Action.RETRY:
        assert history.unfinished is not None
        assert decision.failures == history.unfinished.failures
        assert same_again(documents, history)
        assert decision.attempt == history.unfinished.attempts + 1
    if decision.action is Action.RUN:
        assert not same_again(documents, history)
        assert decision.attempt == 1


@given(REQUESTS, DOCUMENTS, HISTORIES)
def test_a_decision_tells_its_reason_and_whether_it_runs(
    request: Request, documents: Fingerprints, history: History
) -> None:
    decision = decide(request, documents, history)
    assert decision.reason
    assert decision.runs is (decision.action in {Action.RUN, Action.RETRY})
    if decision.runs:
        assert decision.changed == changed_names(history.committed or (), documents)


@given(REQUESTS, DOCUMENTS, HISTORIES)
def test_a_run_is_called_a_retry_only_if_it_is_one(
    request: Request, documents: Fingerprints, history: History
) -> None:
    decision = decide(request, documents, history)
    if decision.action is Action.RUN:
        assert decision.trigger is not Trigger.RETRY
    if decision.action is Action.RETRY and request.trigger not in ASKED and not request.force:
        assert decision.trigger is (Trigger.START if history.booted else Trigger.RETRY)


@given(REQUESTS, DOCUMENTS.filter(bool), HISTORIES)
def test_whoever_asks_first_after_a_boot_a_run_follows(
    request: Request, documents: Fingerprints, history: History
) -> None:
    booted = decide(request, documents, history._replace(booted=True))
    assert booted.runs
    assert booted.changed == changed_names(history.committed or (), documents)
    if request.trigger in {Trigger.START, *ASKED}:
        assert booted.trigger is request.trigger


@given(REQUESTS, DOCUMENTS, HISTORIES)
def test_what_changed_runs_after_a_boot_as_it_would_have_run_before(
    request: Request, documents: Fingerprints, history: History
) -> None:
    assume(not same_again(documents, history))
    assume(history.unfinished is not None or history.committed != documents)
    booted, before = (decide(request, documents, history._replace(booted=flag)) for flag in (True, False))
    assert booted == before


@given(DOCUMENTS, DOCUMENTS)
def test_changed_names_are_those_that_came_went_or_differ(before: Fingerprints, after: Fingerprints) -> None:
    old, new = dict(before), dict(after)
    differing = {name for name in old | new if old.get(name) != new.get(name)}
    names = changed_names(before, after)
    assert len(names) == len(set(names))
    if differing:
        assert set(names) == differing
    elif before == after:
        assert names == ()
    else:
        assert names == tuple(name for name, _ in after)


def test_a_changed_order_is_a_change_of_all() -> None:
    """Later wins, so another order is another configuration."""
    assert changed_names((("a", "1"), ("b", "2")), (("b", "2"), ("a", "1"))) == ("b", "a")


def test_changed_names_come_in_the_order_of_merging_and_then_what_is_gone() -> None:
    assert changed_names((("x", "1"), ("a", "1")), (("c", "1"), ("a", "2"), ("b", "1"))) == (
        "c",
        "a",
        "b",
        "x",
    )


A, B = (("a", "1"),), (("a", "2"),)
BOOTED = History(A, booted=True)


@pytest.mark.parametrize(
    ("request_", "history", "expected"),
    [
        ({"trigger": Trigger.START}, History(), (Action.RUN, Trigger.START, 1, "nothing was ever committed")),
        ({"trigger": Trigger.CHANGE}, History(B), (Action.RUN, Trigger.CHANGE, 1, "changed: a")),
        ({"trigger": Trigger.RETRY}, History(B), (Action.RUN, Trigger.CHANGE, 1, "changed: a")),
        ({"trigger": Trigger.ONCE}, History(A), (Action.NOOP, Trigger.ONCE, 1, "nothing changed since")),
        (
            {"trigger": Trigger.ONCE, "force": True},
            History(A),
            (Action.RUN, Trigger.ONCE, 1, "asked for, nothing changed"),
        ),
        ({"trigger": Trigger.SIGNAL}, History(A), (Action.RUN, Trigger.SIGNAL, 1, "asked for")),
        (
            {"trigger": Trigger.CHANGE},
            History(A, Unfinished(B, 3, 3, interrupted=False)),
            (Action.RUN, Trigger.CHANGE, 1, "back to the last commit"),
        ),
        (
            {"trigger": Trigger.START},
            History(B, Unfinished(A, 3, 3, interrupted=False, phase="configure", hook="10-a")),
            (Action.RETRY, Trigger.RETRY, 4, "the last attempt failed in configure/10-a"),
        ),
        (
            {"trigger": Trigger.START},
            History(B, Unfinished(A, 1, 0, interrupted=True)),
            (Action.RETRY, Trigger.RETRY, 2, "was interrupted before its first phase"),
        ),
        (
            {"trigger": Trigger.RETRY},
            History(B, Unfinished(A, 0, 0, False, "migration", "migration:shop", deferred=True)),
            (Action.RETRY, Trigger.RETRY, 1, "the last attempt was deferred in migration/migration:shop"),
        ),
        (
            {"trigger": Trigger.RETRY, "max_attempts": 3},
            History(B, Unfinished(A, 3, 3, interrupted=False)),
            (Action.HOLD, Trigger.RETRY, 3, "held after 3 attempts"),
        ),
        (
            {"trigger": Trigger.ONCE, "max_attempts": 3},
            History(B, Unfinished(A, 3, 3, interrupted=False, phase="configure")),
            (Action.RETRY, Trigger.ONCE, 4, "failed in configure"),
        ),
        ({"trigger": Trigger.START}, BOOTED, (Action.RUN, Trigger.START, 1, "the node has booted since the")),
        ({"trigger": Trigger.ONCE}, BOOTED, (Action.RUN, Trigger.ONCE, 1, "the node has booted since the")),
        ({"trigger": Trigger.SIGNAL}, BOOTED, (Action.RUN, Trigger.SIGNAL, 1, "the node has booted since")),
        ({"trigger": Trigger.RETRY}, BOOTED, (Action.RUN, Trigger.START, 1, "the node has booted since the")),
        (
            {"trigger": Trigger.START},
            BOOTED._replace(quiesced=Quiesced(1.0, "a run by hand", 4, interrupted=True)),
            (Action.RUN, Trigger.START, 1, "the node has booted since the last success"),
        ),
        (
            {"trigger": Trigger.START},
            History(B, Unfinished(A, 1, 0, True, "configure", "10-a"), booted=True),
            (
                Action.RETRY,
                Trigger.START,
                2,
                "the last attempt was interrupted in configure/10-a, and the node has booted since",
            ),
        ),
        (
            {"trigger": Trigger.CHANGE, "max_attempts": 3},
            History(B, Unfinished(A, 3, 3, interrupted=False, phase="configure"), booted=True),
            (Action.RETRY, Trigger.START, 4, "failed in configure, and the node has booted since"),
        ),
    ],
)
def test_what_is_decided_and_in_what_words(
    request_: dict[str, Any], history: History, expected: tuple[Action, Trigger, int, str]
) -> None:
    decision = decide(Request(**request_), A, history)
    assert (decision.action, decision.trigger, decision.attempt) == expected[:3]
    assert expected[3] in decision.reason


def test_a_long_list_of_changes_is_told_in_short() -> None:
    documents = tuple((f"d{number}", "1") for number in range(11))
    reason = decide(Request(Trigger.CHANGE), documents, History(A)).reason
    assert reason == "changed: d0, d1, d2, d3, d4, d5, d6, d7 and 4 more"
