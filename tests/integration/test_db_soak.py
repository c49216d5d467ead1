"""Short forms of what ``make soak-databases`` and ``make bench`` do at length: killed workers, crowds."""

import itertools
import pathlib

import pytest

from tests.functional.node import COMMAND
from tests.integration import counted_tree, crowd
from tests.integration.databases import Database, SQLiteDatabase
from tests.integration.kills import MakeDatabase, Soak

BACKENDS = ("sqlite", "postgresql", "mysql")
KILLS = 6
TRIALS = 2
SEED = 20261121
"""As good as any other; what goes wrong with it can be looked at again."""

# They start dozens of processes, and a busy machine may need its time for that.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def make(request: pytest.FixtureRequest, backend: str, tmp_path: pathlib.Path) -> MakeDatabase:
    """Makes empty databases of that backend."""
    numbers = itertools.count()

    def database() -> Database:
        if backend == "sqlite":
            return SQLiteDatabase(tmp_path / f"{next(numbers)}.db")
        made: Database = request.getfixturevalue("mariadb" if backend == "mysql" else backend).create()
        return made

    return database


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_a_kill_at_any_moment_the_next_run_gets_to_the_head_with_every_revision_once(
    backend: str, make: MakeDatabase, tmp_path: pathlib.Path, modern_python: str, legacy_python: str
) -> None:
    tally = Soak(make, tmp_path, (modern_python, legacy_python), SEED).run(backend, KILLS)
    assert tally.wrong == []
    assert tally.kills >= KILLS


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", range(TRIALS))
def test_many_nodes_upgrade_one_empty_database_at_once_and_each_revision_is_applied_once(
    number: int, backend: str, make: MakeDatabase, tmp_path: pathlib.Path, modern_python: str
) -> None:
    url = counted_tree.url(make())
    options = {
        "connection": url,
        "alembic_config": str(counted_tree.write(tmp_path / "tree", url)),
        "python": modern_python,
    }
    told = crowd.trial(crowd.ours(tmp_path, COMMAND, options), url)
    assert told.words == ""
    assert told == (0, "", True)
