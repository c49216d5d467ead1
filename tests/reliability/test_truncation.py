"""A seeded sample of damages to every state and cache file; ``make soak`` cuts them at every byte."""

import logging
import random
from collections.abc import Iterator

import pytest

from tests.reliability.faults import in_memory
from tests.reliability.truncation import Case, Cuts, Damage, How, Situation, Trial, damages

SEED = 1
CUTS = Cuts(large=40, small=10)


@pytest.fixture
def trial() -> Iterator[Trial]:
    with in_memory() as folder:
        trial = Trial(folder)
        yield trial
        trial.close()


def test_all_files_are_among_those_that_are_damaged(trial: Trial) -> None:
    paths = {path for path, _ in trial.paths(Situation.KILLED)}
    assert paths >= {
        "state/journal.sqlite",
        "state/journal.sqlite-wal",
        "state/journal.sqlite-shm",
        "state/paused.json",
        "state/sources/request.json",
        "cache/os_config_files.json",
        "backup/os_config_files.json",
        *(
            f"{folder}/{name}.json"
            for folder in ("cache", "backup")
            for name in ("request", "first", "second")
        ),
        *(f"cache/first.json{suffix}" for suffix in (".orig", ".last")),
    }
    assert sum(path.startswith("state/sources/request/") for path in paths) >= 3


@pytest.mark.parametrize("situation", Situation)
def test_whatever_file_is_damaged_the_agent_starts_and_every_change_is_made(
    trial: Trial, situation: Situation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="refresh_agent")  # thousands of lives say much
    for case in trial.cases(situation, SEED, CUTS):
        try:
            trial.try_case(case)
        except Exception as error:
            raise AssertionError(f"python -m tests.reliability.truncation --case '{case}'") from error


def test_a_damage_is_the_same_each_time_and_leaves_the_rest() -> None:
    content = bytes(range(200)) * 50
    for damage in damages(len(content), random.Random(SEED), CUTS.large):
        hurt = damage.of(content)
        assert hurt == damage.of(content) != content or damage.how is How.ZEROS
        assert Damage(*damage) == Case.of(str(Case(Situation.DONE, "a/b", damage, True, False))).damage
    cuts = [damage.first for damage in damages(300, random.Random(SEED), 1000) if damage.how is How.CUT]
    assert cuts == list(range(300))
