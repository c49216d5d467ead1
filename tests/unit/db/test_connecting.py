"""Connecting to servers that never answer, with each driver: real sockets."""

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.pool import NullPool

from refresh_agent.db.worker import connecting
from refresh_agent.db.worker.database import Database
from refresh_agent.db.worker.faults import NoConnectionError, foreign

DRIVERS = ("postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """The kernel accepts, and nobody ever says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def by_the_worker(url: str) -> Engine:
    return Database(url).engine


def by_env_py(url: str) -> Engine:
    return create_engine(url, poolclass=NullPool)


@pytest.mark.parametrize(
    ("driver", "made"), [("mysql+pymysql", by_the_worker), *((driver, by_env_py) for driver in DRIVERS)]
)
def test_a_server_that_never_answers_is_given_up_and_named(
    driver: str, made: Callable[[str], Engine], silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "SECONDS", 2)  # less is not to be had of libpq
    monkeypatch.setattr(connecting, "_UNTIL_CONNECTED", 2.0)
    began = time.monotonic()
    with connecting.limited(), pytest.raises(NoConnectionError) as caught:
        foreign(made(f"{driver}://shop:geheim@127.0.0.1:{silent_port}/shop").connect)
    assert time.monotonic() - began < 10
    assert "127.0.0.1" in str(caught.value)
    assert str(silent_port) in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_time_out_of_the_url_counts_instead() -> None:
    given = []
    engine = by_env_py("postgresql+psycopg2://db/shop?connect_timeout=3")

    @event.listens_for(engine, "do_connect")
    def note(_dialect: object, _record: object, _arguments: object, parameters: dict[str, object]) -> object:
        given.append(int(str(parameters["connect_timeout"])))
        raise ConnectionRefusedError

    with connecting.limited(), pytest.raises(ConnectionRefusedError):
        engine.connect()
    assert given == [3]


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:p@db/shop", ("host db", "port 5432")),
        ("mysql+pymysql://u:p@db:3307/shop", ("host db", "port 3307")),
        ("mysql+pymysql://u:p@/shop?unix_socket=/run/db.sock", ("socket /run/db.sock",)),
        ("postgresql://u:p@/shop?host=/run/postgresql", ("socket /run/postgresql",)),
        ("sqlite:////var/lib/shop.db", ()),
    ],
)
def test_where_a_url_leads_to(url: str, place: tuple[str, ...]) -> None:
    assert connecting.server(make_url(url)) == place
