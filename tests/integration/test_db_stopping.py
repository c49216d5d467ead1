"""The end of a migration before its time: what remains, what is told, and that nobody is locked out by it."""

import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from refresh_agent.db import bridge
from refresh_agent.db.worker.protocol import Order
from refresh_agent.lines import Listener
from refresh_agent.model import Command, Exit, MigrationOutcome, MigrationResult, Target
from refresh_agent.phases.process import Grace, Process, ProcessRunner
from refresh_agent.wakeup import Stop
from tests.integration.conftest import AlembicTree
from tests.integration.databases import Database
from tests.waiting import eventually

MakeTree = Callable[[str], AlembicTree]

SLOW = {
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(600)",
    "mysql": "SELECT SLEEP(3)",
}
"""Longer than any test, but where a statement is waited for."""

DRIVERS = {"sqlite": "", "postgresql": "psycopg2", "mysql": ""}


class Runs:
    """Workers of an agent that can be asked to stop; ``process`` is the last one."""

    def __init__(self, kill: float) -> None:
        self.log: list[str] = []
        self.stop = Stop()
        self.process: Process | None = None
        self._runner = ProcessRunner(self.stop, Grace(kill=kill, stop=0))

    def upgrade(self, target: Target, *, resume: bool = False) -> MigrationResult:
        surroundings = bridge.Surroundings(
            run=self._run,
            log=self.log.append,
            env=dict(os.environ),
            objection=lambda _path, _owners: "",
            learn=lambda _secrets: None,
        )
        (result,) = bridge.ask(Order("upgrade", run="the tests", resume=resume), [target], surroundings)
        return result

    def _run(self, command: Command, listener: Listener) -> Exit:
        self.process = self._runner.start(command, listener.feed)
        ended = self._runner.wait(self.process)
        listener.flush()
        return ended

    def when_logged(self, text: str, action: Callable[[], object]) -> threading.Thread:
        """Act, from beside, as soon as the log says so."""

        def wait() -> None:
            eventually(lambda: any(text in line for line in tuple(self.log)), 60)
            action()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


@pytest.fixture
def runs() -> Iterator[Runs]:
    found = Runs(kill=20)
    yield found
    found.stop.close()


@pytest.fixture
def target(make_tree: MakeTree, database: Database, modern_python: str) -> Target:
    """Three revisions; the second one takes its time between two tables."""
    tree = make_tree("depot")
    tree.revision("aaaa", None, "op.create_table('a', sa.Column('id', sa.Integer))")
    tree.revision(
        "bbbb",
        "aaaa",
        "op.create_table('b', sa.Column('id', sa.Integer))",
        f"op.execute({SLOW[database.kind]!r})",
        "op.create_table('b2', sa.Column('id', sa.Integer))",
    )
    tree.revision("cccc", "bbbb", "op.create_table('c', sa.Column('id', sa.Integer))")
    return Target(
        name="depot",
        connection=database.url(DRIVERS[database.kind]),
        python=modern_python,
        legacy_python="",
        alembic_location=str(tree.path),
        timeout=60,
        lock_timeout=30,
    )


def quick(target: Target) -> None:
    """From now on the second revision takes no time."""
    script = pathlib.Path(target.alembic_location, "versions", "bbbb.py")
    text = script.read_text()
    for slow in SLOW.values():
        text = text.replace(f"op.execute({slow!r})", "pass")
    script.write_text(text)


def test_a_stop_leaves_whole_revisions_only(runs: Runs, target: Target, database: Database) -> None:
    """What can be taken back is; MariaDB's revision is finished. Then nobody is locked out."""
    thread = runs.when_logged("-> bbbb", lambda: runs.stop.request(signal.SIGTERM))
    result = runs.upgrade(target)
    thread.join()
    finished = database.kind == "mysql"
    assert result.outcome is MigrationOutcome.STOPPED, result
    assert result.after == ("alembic bbbb" if finished else "alembic aaaa")
    assert "refresh-agent is stopping" in result.message
    assert not result.report["dirty"]
    assert any("the revision at hand is finished first" in line for line in runs.log) == finished
    quick(target)
    assert Runs(kill=5).upgrade(target).after == "alembic cccc"


def test_a_time_limit_is_the_targets_own(runs: Runs, target: Target, database: Database) -> None:
    limited = Target(**{**{name: getattr(target, name) for name in Target.__slots__}, "timeout": 1.0})
    result = runs.upgrade(limited)
    finished = database.kind == "mysql"
    assert result.outcome is MigrationOutcome.FAILED, result
    assert "not finished within 1 s" in result.message
    assert result.after == ("alembic bbbb" if finished else "alembic aaaa")
    assert not result.report["dirty"]
    quick(target)
    assert runs.upgrade(target).after == "alembic cccc"


def test_a_worker_that_had_to_be_killed(runs: Runs, target: Target, database: Database) -> None:
    """Half of a revision is told on MariaDB and gone on with when asked; nothing of it is left elsewhere."""

    def kill() -> None:
        if runs.process is not None:
            os.kill(runs.process.pid, signal.SIGKILL)

    def second_table_is_there() -> bool:
        return database.kind != "mysql" or bool(database.execute("SHOW TABLES LIKE 'b'"))

    def kill_half_way() -> None:
        eventually(second_table_is_there, 30)
        kill()

    thread = runs.when_logged("-> bbbb", kill_half_way)
    result = runs.upgrade(target)
    thread.join()
    assert result.outcome is MigrationOutcome.FAILED
    assert "was killed by signal 9" in result.message
    quick(target)
    again = runs.upgrade(target)
    if database.kind == "mysql":
        assert again.outcome is MigrationOutcome.REFUSED, again
        assert "it is dirty: alembic upgrade aaaa -> bbbb" in again.message
        assert "refresh-agent db upgrade --target depot --resume" in again.message
        again = runs.upgrade(target, resume=True)
    else:
        assert any("nothing of it remained" in line for line in runs.log)
    assert again.after == "alembic cccc", again
