"""Databases in every state that the bridge can meet, and the interpreters of both worlds."""

import contextlib
import os
import pathlib
import runpy
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from refresh_agent.db import bridge
from refresh_agent.db.worker.protocol import Order
from refresh_agent.lines import Listener
from refresh_agent.model import Command, Exit, MigrationResult, Target
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.wakeup import Stop
from tests.integration import databases
from tests.integration.bad_zaqar import serving
from tests.integration.zaqars import Zaqars

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
SHOP = TOP / "examples" / "shop"
BASELINE = "5a1e0c3b7d21"
HEAD = "b7f2a6e1935d"


def sql(path: pathlib.Path, *statements: str) -> list[tuple[object, ...]]:
    """Run statements; the rows of the last one."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


@pytest.fixture(scope="session")
def modern_python() -> str:
    """The newest SQLAlchemy and alembic: the environment that runs the tests."""
    return sys.executable


@pytest.fixture(scope="session")
def legacy_python() -> str:
    """sqlalchemy-migrate with SQLAlchemy 1.4; ``tools/environments.py`` builds it when it is not there."""
    given = os.environ.get("REFRESH_AGENT_TEST_LEGACY_PYTHON")
    if given:
        return given
    ensure: Callable[[str], pathlib.Path] = runpy.run_path(str(TOP / "tools" / "environments.py"))["ensure"]
    return str(ensure("legacy") / "bin" / "python")


@pytest.fixture(scope="session")
def shops(legacy_python: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Shop databases by their version: "migrate 1" to "migrate 3", and "alembic BASELINE"."""
    folder = tmp_path_factory.mktemp("shops")
    found = {}
    for version in (1, 2, 3):
        path = folder / f"{version}.db"
        command = [legacy_python, "-W", "ignore", SHOP / "make_shop.py", path, str(version)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found[f"migrate {version}"] = path.read_bytes()
    sql(
        folder / "3.db",
        "DROP TABLE migrate_version",
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        f"INSERT INTO alembic_version VALUES ('{BASELINE}')",
    )
    found[f"alembic {BASELINE}"] = (folder / "3.db").read_bytes()
    return found


class Bridge:
    """Runs real workers; ``log`` holds every line that the operator would see."""

    def __init__(self, runner: ProcessRunner) -> None:
        self.log: list[str] = []
        self._runner = runner

    def upgrade(self, *targets: Target, **env: str) -> tuple[MigrationResult, ...]:
        return self.ask(Order("upgrade", run="the tests"), *targets, **env)

    def ask(self, order: Order, *targets: Target, **env: str) -> tuple[MigrationResult, ...]:
        """The trees of these tests are trusted, whoever has written them."""
        surroundings = bridge.Surroundings(
            run=self._run,
            log=self.log.append,
            env={**os.environ, **env},
            objection=lambda _path, _owners: "",
            learn=lambda _secrets: None,
        )
        return bridge.ask(order, targets, surroundings)

    def _run(self, command: Command, listener: Listener) -> Exit:
        ended = self._runner.run(command, listener.feed)
        listener.flush()
        return ended

    def upgrade_one(self, target: Target, **env: str) -> MigrationResult:
        return self.upgrade(target, **env)[0]


@pytest.fixture(scope="module")
def runner() -> Iterator[ProcessRunner]:
    stop = Stop()
    yield ProcessRunner(stop, Grace(kill=1, stop=0))
    stop.close()


@pytest.fixture
def db_bridge(runner: ProcessRunner) -> Bridge:
    return Bridge(runner)


def shop_target(path: pathlib.Path, python: str, legacy_python: str, name: str = "shop") -> Target:
    return Target(
        name=name,
        connection=f"sqlite:///{path}",
        python=python,
        legacy_python=legacy_python,
        alembic_config=str(SHOP / "alembic.ini"),
        migrate_repository=str(SHOP / "legacy"),
        legacy_versions=((3, BASELINE),),
    )


@pytest.fixture
def shop(new_database: pathlib.Path, modern_python: str, legacy_python: str) -> Target:
    """The example on a new database, by two interpreters."""
    return shop_target(new_database, modern_python, legacy_python)


@pytest.fixture
def shop_tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the example, to be changed by a test."""
    return pathlib.Path(shutil.copytree(SHOP, tmp_path / "shop"))


class AlembicTree:
    """A small alembic tree, written by a test: ``revision`` adds one."""

    def __init__(self, path: pathlib.Path, env: str) -> None:
        self.path = path
        (path / "versions").mkdir(parents=True)
        self.env = path / "env.py"
        self.env.write_text(env)

    def revision(self, name: str, down: str | None, *body: str) -> None:
        lines = "".join(f"    {line}\n" for line in body or ("pass",))
        (self.path / "versions" / f"{name}.py").write_text(
            "import os, sys\nimport sqlalchemy as sa\nfrom alembic import op\n"
            f"revision = {name!r}\ndown_revision = {down!r}\ndef upgrade():\n{lines}"
        )


@pytest.fixture
def make_tree(tmp_path: pathlib.Path) -> Callable[[str], AlembicTree]:
    """Makes a tree with the example's env.py, in a directory of that name."""
    return lambda name: AlembicTree(tmp_path / name, (SHOP / "alembic" / "env.py").read_text())


@pytest.fixture(scope="session")
def postgresql() -> Iterator[databases.Server]:
    with databases.postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[databases.Server]:
    with databases.mariadb() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def database(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[databases.Database]:
    """An empty database, of each kind in turn."""
    fresh: databases.Database
    if request.param == "sqlite":
        fresh = databases.SQLiteDatabase(tmp_path / "database.db")
    else:
        servers = {"postgresql": "postgresql", "mysql": "mariadb"}
        fresh = request.getfixturevalue(servers[request.param]).create()
    yield fresh
    fresh.drop()


@pytest.fixture
def new_database(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "new.db"
    path.touch()
    return path


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def zaqars(no_proxy: None) -> Iterator[Zaqars]:
    with serving() as (queue, keystone):
        yield Zaqars(queue, keystone)
