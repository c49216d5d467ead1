"""What the tests of backups start from."""

import pathlib
from collections.abc import Callable, Iterator

import pytest

from refresh_agent.db.worker import backup
from refresh_agent.db.worker.backup import Occasion
from refresh_agent.db.worker.database import Database
from refresh_agent.db.worker.stopping import Stopping
from tests.integration.conftest import sql

OCCASION = Occasion("shop", "alembic 5a1e", "20261121T165000Z")

AWKWARD = "p@ss:w\\rd' \"#;%s=$(id)"
"""A password with what libpq's file, option files, URLs and shells treat in ways of their own."""


@pytest.fixture
def stopping() -> Iterator[Stopping]:
    with Stopping() as stopping:
        yield stopping


@pytest.fixture
def shop(new_database: pathlib.Path) -> pathlib.Path:
    sql(
        new_database,
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, price)",
        "INSERT INTO orders VALUES (1, 2)",
    )
    return new_database


@pytest.fixture(autouse=True)
def private_temporary_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is left in there after any test, however the backup has ended."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield
    assert not list(folder.iterdir())


Take = Callable[..., str]


@pytest.fixture
def take(stopping: Stopping) -> Take:
    def take(url: str | pathlib.Path, option: str, occasion: Occasion = OCCASION) -> str:
        connection = f"sqlite:///{url}" if isinstance(url, pathlib.Path) else url
        return backup.take(Database(connection), option, occasion, stopping)

    return take
