"""The short form of the long life, and that it would show what grows."""

import pytest

from refresh_agent import redact
from refresh_agent.journal import Journal
from refresh_agent.sources import Sources
from refresh_agent.store import Store
from tests.reliability import long_life
from tests.reliability.long_life import KEEP_RUNS, live


@pytest.fixture(autouse=True)
def _unheard(caplog: pytest.LogCaptureFixture) -> None:
    """What the log holds grows, too."""
    caplog.set_level("CRITICAL", logger="refresh_agent")


def test_an_agent_that_has_seen_many_changes_is_as_small_as_at_first() -> None:
    compared = live(seed=1, changes=400, keep_runs=KEEP_RUNS[0], warm_up=240)
    assert compared.problems == []
    assert compared.last.journal < 512
    assert compared.last.files < 20


def problems() -> str:
    return "; ".join(live(seed=1, changes=160, keep_runs=KEEP_RUNS[0], warm_up=40).problems)


def test_a_secret_for_ever_of_every_run_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "MOST_KNOWN", 10**9)
    assert "blocks has grown" in problems()


def test_a_journal_that_is_not_pruned_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "prune", lambda *_arguments: None)
    assert "journal has grown" in problems()


def test_files_that_are_left_over_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sources, "sweep", lambda _self: None)
    monkeypatch.setattr(Store, "sweep", lambda _self, _in_use: None)
    assert "files has grown" in problems()


def test_secrets_in_the_journal_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact.Masker, "mask", lambda _self, data: data)
    assert "secrets are in the journal" in problems()
    assert long_life.SECRET not in problems()
