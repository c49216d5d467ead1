"""The judgement, case by case, and what holds of all of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent import health
from refresh_agent.errors import ExitCode
from refresh_agent.health import EXIT_CODES, Doing, Facts, SourceFacts, State, judge
from refresh_agent.model import Quiesced, RunOutcome
from refresh_agent.pause import Pause
from refresh_agent.presence import Daemon
from refresh_agent.seen import Seen, SeenProblem
from refresh_agent.standing import RunSeen, Standing

NOW = 100_000.0


def run(outcome: RunOutcome | None = RunOutcome.SUCCESS, failures: int = 0, **changes: Any) -> RunSeen:
    ended = None if outcome is None else NOW - 5
    run = RunSeen(
        1, "ab" * 16, "change", 1, NOW - 10, ended, outcome, False, failures, False, "", "", None, ""
    )
    return run._replace(**changes)


GOOD = run()
FAILED = run(RunOutcome.HOOK_FAILED, 1, phase="configure", hook="10-a")
UNDER_WAY = run(None, phase="configure", hook="10-a")
QUIESCED = Quiesced(NOW - 10, "ab" * 16, 1, False, "configure", "10-a")
PAUSE = Pause("an upgrade", NOW - 60)
DAEMON = Daemon(7, NOW - 5000, "waiting for a change")


def facts(newest: RunSeen | None = GOOD, **changes: Any) -> Facts:
    known = {
        name: changes.pop(name) for name in ("running", "quiesced", "doubt", "trouble") if name in changes
    }
    return Facts(NOW, Standing(newest=newest, last=newest, **known), **changes)


def source(asked: float = 1.0, *problems: SeenProblem, every: float | None = 0.0) -> SourceFacts:
    """Asked so many seconds ago."""
    return SourceFacts("cfn", 10.0, Seen(NOW - asked, NOW - asked, every, problems))


CASES = {
    "all is well": (facts(), State.HEALTHY),
    "a hook failed": (facts(FAILED), State.FAILING),
    "a migration failed": (facts(run(RunOutcome.MIGRATION_FAILED, 1)), State.FAILING),
    "stopped with the agent": (facts(run(RunOutcome.INTERRUPTED)), State.FAILING),
    "stopped, and made up for just now": (
        facts(run(RunOutcome.INTERRUPTED), running=UNDER_WAY),
        State.FAILING,
    ),
    "failed before it was stopped": (facts(run(RunOutcome.INTERRUPTED, 2)), State.FAILING),
    "another node migrates": (facts(run(RunOutcome.DEFERRED, 2)), State.HEALTHY),
    "quiesced": (facts(run(RunOutcome.INTERRUPTED), quiesced=QUIESCED), State.QUIESCED),
    "quiesced by a run by hand": (facts(quiesced=QUIESCED), State.QUIESCED),
    "quiesced, and another run is under way": (
        facts(FAILED, quiesced=QUIESCED, running=UNDER_WAY),
        State.QUIESCED,
    ),
    "held, says the journal": (facts(FAILED._replace(held=True)), State.HELD),
    "held, by the configuration": (facts(FAILED, max_attempts=1), State.HELD),
    "not held yet": (facts(FAILED, max_attempts=2), State.FAILING),
    "held, then stopped when asked to try": (
        facts(run(RunOutcome.INTERRUPTED, 3), max_attempts=3),
        State.HELD,
    ),
    "paused": (facts(paused=PAUSE), State.PAUSED),
    "paused and failing": (facts(FAILED, paused=PAUSE), State.FAILING),
    "paused and new": (facts(None, paused=PAUSE), State.PAUSED),
    "new": (facts(None), State.STALE),
    "the first run is under way": (facts(None, running=UNDER_WAY), State.STALE),
    "the journal was damaged, and is new": (facts(None, doubt="it was damaged"), State.FAILING),
    "a run is under way after a failure": (facts(FAILED, running=UNDER_WAY), State.FAILING),
    "never asked": (facts(sources=(SourceFacts("cfn", 10.0),), daemon=DAEMON), State.STALE),
    "never asked, but the daemon is young": (
        facts(sources=(SourceFacts("cfn", 10.0),), daemon=DAEMON._replace(started=NOW - 99)),
        State.HEALTHY,
    ),
    "never asked, but no daemon asks": (facts(sources=(SourceFacts("cfn"),)), State.HEALTHY),
    "the daemon cannot even begin": (facts(daemon=DAEMON._replace(until=NOW + 9)), State.FAILING),
    "the daemon puts off what another node migrates": (
        facts(run(RunOutcome.DEFERRED), daemon=DAEMON._replace(until=NOW + 9)),
        State.HEALTHY,
    ),
    "answers": (facts(sources=(source(),), daemon=DAEMON), State.HEALTHY),
    "stands in": (facts(sources=(source(1, SeenProblem("HTTP 503")),)), State.STALE),
    "nothing there, as ever": (facts(sources=(source(1, SeenProblem("no", expected=True)),)), State.HEALTHY),
    "late": (facts(sources=(source(101),), daemon=DAEMON), State.STALE),
    "not late yet": (facts(sources=(source(99),), daemon=DAEMON), State.HEALTHY),
    "late, but asked once an hour": (
        facts(sources=(source(9000, every=3600.0),), daemon=DAEMON),
        State.HEALTHY,
    ),
    "late, but watched": (facts(sources=(source(9000, every=None),), daemon=DAEMON), State.HEALTHY),
    "late, but no daemon asks": (facts(sources=(source(9000),)), State.HEALTHY),
    "late, but the daemon is young": (
        facts(sources=(source(9000),), daemon=DAEMON._replace(started=NOW - 50)),
        State.HEALTHY,
    ),
    "the clock was set back": (facts(sources=(source(-9000),), daemon=DAEMON), State.HEALTHY),
    "the journal is damaged": (facts(None, trouble="it is damaged"), State.UNKNOWN),
    "the journal is damaged, and paused": (facts(None, trouble="it is damaged", paused=PAUSE), State.UNKNOWN),
}


@pytest.mark.parametrize("case", CASES)
def test_the_judgement(case: str) -> None:
    given_facts, state = CASES[case]
    assert judge(given_facts).state is state


def test_the_exit_codes_are_those_that_scripts_rely_on() -> None:
    codes = {state.value: int(code) for state, code in EXIT_CODES.items()}
    assert codes == {
        "unknown": 5,
        "quiesced": 1,
        "held": 1,
        "failing": 1,
        "paused": 6,
        "stale": 3,
        "healthy": 0,
    }


RUNS = st.none() | st.builds(
    lambda outcome, failures, held: run(outcome, failures, held=held),
    st.sampled_from([outcome for outcome in RunOutcome if outcome is not RunOutcome.NOT_RECORDED]),
    st.integers(0, 3),
    st.booleans(),
)
FACTS = st.builds(
    lambda newest, running, quiesced, paused, daemon, problem, limit: facts(
        newest,
        running=UNDER_WAY if running else None,
        quiesced=QUIESCED if quiesced else None,
        paused=PAUSE if paused else None,
        daemon=DAEMON if daemon else None,
        sources=(source(1, *problem),),
        max_attempts=limit,
    ),
    RUNS,
    *[st.booleans()] * 4,
    st.lists(st.builds(SeenProblem, st.just("x"), st.booleans()), max_size=1),
    st.integers(0, 3),
)


@given(FACTS)
def test_what_is_worse_is_never_hidden_and_good_health_has_no_reasons(given_facts: Facts) -> None:
    judgement = judge(given_facts)
    assert (judgement.state is State.HEALTHY) is (not judgement.reasons)
    assert (judgement.exit_code is ExitCode.OK) is (judgement.state is State.HEALTHY)
    if given_facts.standing.quiesced is not None:
        assert judgement.state is State.QUIESCED
    if given_facts.paused is not None:
        assert judgement.exit_code in {ExitCode.HOOK_FAILED, ExitCode.PAUSED}
    assert judge(given_facts._replace(daemon=None)).exit_code == judgement.exit_code


@given(FACTS)
def test_a_run_that_is_under_way_changes_nothing_until_it_has_ended(given_facts: Facts) -> None:
    standing = given_facts.standing
    idle = given_facts._replace(standing=standing._replace(running=None))
    assert judge(idle) == judge(given_facts)


def test_what_was_never_asked_and_what_is_not_known_is_told_in_words() -> None:
    found = judge(facts(None, doubt="it was damaged", sources=(SourceFacts("cfn"),), daemon=DAEMON))
    assert found.reasons == (
        "whether the node is quiesced is not known: it was damaged",
        "source cfn: it never answered",
    )
    cut_off = judge(facts(run(RunOutcome.INTERRUPTED, phase="configure", hook="10-a")))
    assert cut_off.reasons == ("the newest run: interrupted in configure/10-a",)


@pytest.mark.parametrize(
    ("given_facts", "doing"),
    [
        (facts(), Doing.NO_DAEMON),
        (facts(running=UNDER_WAY), Doing.RUNNING),
        (facts(running=UNDER_WAY, daemon=DAEMON, paused=PAUSE), Doing.RUNNING),
        (facts(paused=PAUSE), Doing.NO_DAEMON),
        (facts(daemon=DAEMON, paused=PAUSE), Doing.PAUSED),
        (facts(FAILED, daemon=DAEMON._replace(until=NOW + 5)), Doing.BACKING_OFF),
        (facts(FAILED, daemon=DAEMON._replace(until=NOW - 5)), Doing.WAITING),
        (facts(FAILED, daemon=DAEMON, max_attempts=1), Doing.HELD),
        (facts(daemon=DAEMON), Doing.WAITING),
    ],
)
def test_what_it_does_now(given_facts: Facts, doing: Doing) -> None:
    assert health.doing(given_facts) is doing
