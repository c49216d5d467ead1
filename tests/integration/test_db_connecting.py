"""The time to connect ends with connecting: on real servers."""

import pytest
import sqlalchemy as sa

from refresh_agent.db.worker import connecting
from tests.integration.databases import Database
from tests.integration.test_db_ledger import DRIVERS

SLOW = {
    "sqlite": "SELECT 1",
    "postgresql": "SELECT 1 FROM pg_sleep(2.5)",
    "mysql": "SELECT SLEEP(2.5) + 1",
}


def test_a_statement_may_take_longer_than_connecting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "SECONDS", 2)
    monkeypatch.setattr(connecting, "_UNTIL_CONNECTED", 2.0)
    engine = sa.create_engine(database.url(DRIVERS[database.kind]), poolclass=sa.NullPool)
    with connecting.limited():
        for _ in range(2):
            with engine.connect() as connection:
                assert connection.exec_driver_sql(SLOW[database.kind]).scalar() == 1
