"""From every state that a database can be found in, under one interpreter and under two, with real parts."""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from refresh_agent.model import MigrationOutcome, MigrationResult
from tests.integration.conftest import BASELINE, HEAD, SHOP, Bridge, ProcessRunner, shop_target, sql

DONE, UNCHANGED, REFUSED, FAILED = (
    MigrationOutcome.DONE,
    MigrationOutcome.UNCHANGED,
    MigrationOutcome.REFUSED,
    MigrationOutcome.FAILED,
)


@dataclass(frozen=True)
class Case:
    """``start`` names a database of the fixture ``shops``, or is "" for an empty one; ``sql`` changes it."""

    name: str
    start: str = ""
    sql: tuple[str, ...] = ()
    options: Mapping[str, object] | None = None
    outcome: MigrationOutcome = DONE
    before: str = "empty"
    after: str = f"alembic {HEAD}"
    said: tuple[str, ...] = ()


ALEMBIC_TABLE = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"
MIGRATE_TABLE = (
    "CREATE TABLE migrate_version (repository_id VARCHAR(250), repository_path TEXT, version INTEGER)"
)

CASES = [
    Case("empty"),
    Case("empty-but-for-version-tables", sql=(ALEMBIC_TABLE, MIGRATE_TABLE)),
    Case("migrate-1", "migrate 1", before="migrate 1"),
    Case("migrate-2", "migrate 2", before="migrate 2"),
    Case("migrate-3", "migrate 3", before="migrate 3"),
    Case(
        "lowest-mapped-version-above",
        "migrate 1",
        options={"legacy_versions": ((9, "ffffffffffff"), (3, BASELINE))},
        before="migrate 1",
    ),
    Case("empty-alembic-table-beside-migrate", "migrate 2", sql=(ALEMBIC_TABLE,), before="migrate 2"),
    Case(
        "our-row-among-others",
        "migrate 2",
        sql=("INSERT INTO migrate_version VALUES ('a', '', 9)",),
        before="migrate 2",
    ),
    Case("alembic", f"alembic {BASELINE}", before=f"alembic {BASELINE}"),
    Case(
        "alembic-wins",
        f"alembic {BASELINE}",
        sql=(MIGRATE_TABLE, "INSERT INTO migrate_version VALUES ('shop', '', 2)"),
        before=f"alembic {BASELINE}",
    ),
    Case(
        "alembic-whose-legacy-repository-is-gone",
        f"alembic {BASELINE}",
        options={"migrate_repository": "/nonexistent"},
        before=f"alembic {BASELINE}",
    ),
    Case("revision", options={"revision": BASELINE}, after=f"alembic {BASELINE}"),
    Case(
        "relative-revision",
        "migrate 3",
        options={"revision": "+1"},
        before="migrate 3",
        after="alembic 8c44d9e6f0b2",
    ),
    Case(
        "head-already",
        f"alembic {BASELINE}",
        options={"revision": BASELINE},
        outcome=UNCHANGED,
        before=f"alembic {BASELINE}",
        after=f"alembic {BASELINE}",
    ),
    Case(
        "nothing-mapped-above",
        "migrate 2",
        options={"legacy_versions": ((1, BASELINE),)},
        outcome=REFUSED,
        before="migrate 2",
        after="migrate 2",
        said=("is at sqlalchemy-migrate version 2", "legacy_versions maps none at or above it (mapped: 1)"),
    ),
    Case(
        "beyond-the-repository",
        "migrate 3",
        sql=("UPDATE migrate_version SET version = 7",),
        options={"legacy_versions": ((7, BASELINE),)},
        outcome=REFUSED,
        before="migrate 7",
        after="migrate 7",
        said=(f"beyond the newest of {SHOP}/legacy, 3",),
    ),
    Case(
        "mapped-beyond-the-repository",
        "migrate 3",
        options={"legacy_versions": ((5, BASELINE),)},
        outcome=REFUSED,
        before="migrate 3",
        after="migrate 3",
        said=(f"takes to 5:{BASELINE}, but {SHOP}/legacy has no version 4",),
    ),
    Case(
        "tables-but-no-version",
        "migrate 3",
        sql=("DROP TABLE migrate_version",),
        outcome=REFUSED,
        before="none",
        after="none",
        said=("has tables but no version", "refresh-agent db stamp --target tables-but-no-version REVISION"),
    ),
    Case(
        "tables-and-an-empty-alembic-table",
        sql=(ALEMBIC_TABLE, "CREATE TABLE orders (id INTEGER)"),
        outcome=REFUSED,
        before="none",
        after="none",
        said=("has tables but no version",),
    ),
    Case(
        "mapped-revision-unknown",
        "migrate 2",
        options={"legacy_versions": ((3, "0123456789ab"),)},
        outcome=REFUSED,
        before="migrate 2",
        after="migrate 2",
        said=("takes to 3:0123456789ab", "Can't locate revision identified by '0123456789ab'"),
    ),
    Case(
        "revision-unknown",
        "migrate 2",
        options={"revision": "0123456789ab"},
        outcome=REFUSED,
        before="migrate 2",
        after="migrate 2",
        said=("to 0123456789ab", "Can't locate revision"),
    ),
    Case(
        "revision-unknown-to-an-empty-database",
        options={"revision": "0123456789ab"},
        outcome=REFUSED,
        after="empty",
        said=("alembic cannot go from base to 0123456789ab",),
    ),
    Case(
        "alembic-at-a-revision-that-the-tree-lacks",
        f"alembic {BASELINE}",
        sql=("UPDATE alembic_version SET version_num = 'dddddddddddd'",),
        outcome=REFUSED,
        before="alembic dddddddddddd",
        after="alembic dddddddddddd",
        said=("alembic cannot go from dddddddddddd to head", "Can't locate revision"),
    ),
    Case(
        "another-repository's",
        "migrate 3",
        sql=("UPDATE migrate_version SET repository_id = 'depot'",),
        outcome=REFUSED,
        before="none",
        after="none",
        said=("knows depot, but not the repository", "correct migrate_repository"),
    ),
    Case(
        "legacy-without-a-repository",
        "migrate 3",
        options={"migrate_repository": "", "legacy_versions": ()},
        outcome=REFUSED,
        before="migrate 3",
        after="migrate 3",
        said=("migrate_repository and legacy_versions are not set",),
    ),
    Case(
        "legacy-with-a-bad-repository",
        "migrate 3",
        options={"migrate_repository": "/nonexistent"},
        outcome=REFUSED,
        before="migrate 3",
        after="migrate 3",
        said=("migrate_repository /nonexistent cannot be read", "No such file"),
    ),
    Case(
        "no-alembic-ini",
        "migrate 2",
        options={"alembic_config": "/nonexistent/alembic.ini"},
        outcome=FAILED,
        before="",
        after="",
        said=("alembic_config /nonexistent/alembic.ini does not exist",),
    ),
]


@dataclass(frozen=True)
class Outcome:
    result: MigrationResult
    path: pathlib.Path
    original: bytes
    log: tuple[str, ...]


Outcomes = Mapping[str, Outcome]


@pytest.fixture(scope="module", params=["split", "single"])
def outcomes(
    request: pytest.FixtureRequest,
    modern_python: str,
    legacy_python: str,
    shops: Mapping[str, bytes],
    runner: ProcessRunner,
    tmp_path_factory: pytest.TempPathFactory,
) -> Outcomes:
    """All cases at once, as a node has many targets: "split" is modern and legacy, "single" legacy alone."""
    folder = tmp_path_factory.mktemp("outcomes")
    python = modern_python if request.param == "split" else legacy_python
    targets, originals = [], {}
    for case in CASES:
        path = folder / f"{case.name}.db"
        path.write_bytes(shops.get(case.start, b""))
        sql(path, *case.sql)
        originals[case.name] = path.read_bytes()
        target = shop_target(path, python, legacy_python, case.name)
        targets.append(replace(target, **(case.options or {})))
    bridge = Bridge(runner)
    results = bridge.upgrade(*targets)
    return {
        result.target: Outcome(
            result,
            folder / f"{result.target}.db",
            originals[result.target],
            tuple(line for line in bridge.log if line.startswith(f"{result.target}: ")),
        )
        for result in results
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outcome(outcomes: Outcomes, case: Case) -> None:
    result = outcomes[case.name].result
    assert (result.outcome, result.before, result.after) == (case.outcome, case.before, case.after), result
    assert all(text in result.message for text in case.said), result.message
    assert bool(result.message) == (not result.ok)
    assert result.message.startswith(f"{case.name}: " if result.message else "")
    assert 0 <= result.seconds < 60


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.outcome is not DONE], ids=lambda case: case.name
)
def test_refused_is_untouched(outcomes: Outcomes, case: Case) -> None:
    outcome = outcomes[case.name]
    assert outcome.path.read_bytes() == outcome.original
    assert [path.name for path in outcome.path.parent.glob(f"{case.name}.*")] == [outcome.path.name]


def test_results_are_in_the_order_of_the_targets(outcomes: Outcomes) -> None:
    assert list(outcomes) == [case.name for case in CASES]


@pytest.mark.parametrize("start", ["migrate-1", "migrate-2", "migrate-3", "alembic"])
def test_rows_are_kept(outcomes: Outcomes, start: str) -> None:
    path = outcomes[start].path
    assert sql(path, "SELECT * FROM customers") == [(1, "Ada"), (2, "Grace"), (3, "Karen")]
    assert sql(path, "SELECT id, customer_id, item, price_cents, status FROM orders") == [
        (1, 1, "engine", 181512, "new"),
        (2, 1, "punched cards", 7, "new"),
        (3, 2, "compiler", 195200, "new"),
    ]


@pytest.mark.parametrize("start", ["migrate-1", "migrate-2", "migrate-3", "alembic"])
def test_a_migrated_schema_equals_a_fresh_one(outcomes: Outcomes, start: str) -> None:
    fresh = schema(outcomes["empty"].path)
    ours = {"refresh_agent_ledger"}
    assert {"customers", "orders", "invoices", "payments"} == fresh.keys() - ours
    migrated = schema(outcomes[start].path)
    assert {name: migrated[name] for name in fresh} == fresh
    assert migrated.keys() - fresh.keys() <= {"migrate_version"}


def schema(path: pathlib.Path) -> dict[str, object]:
    """Every table with its columns (by name: their order may differ), foreign keys and indexes."""
    tables = sql(path, "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'alembic_version'")
    return {
        str(name): (
            sorted(column[1:] for column in sql(path, f"PRAGMA table_info({name})")),
            sql(path, f"PRAGMA foreign_key_list({name})"),
            sorted(index[1:] for index in sql(path, f"PRAGMA index_list({name})")),
        )
        for (name,) in tables
    }


def test_progress_tells_each_step(outcomes: Outcomes) -> None:
    steps = tuple(line for line in outcomes["migrate-1"].log if "drops" not in line)
    assert steps == (
        "migrate-1: sqlalchemy-migrate upgrade 1 -> 2",
        "migrate-1: sqlalchemy-migrate upgrade 2 -> 3",
        f"migrate-1: alembic stamp {BASELINE}",
        f"migrate-1: alembic upgrade {BASELINE} -> 8c44d9e6f0b2, Prices as whole cents",
        f"migrate-1: alembic upgrade 8c44d9e6f0b2 -> {HEAD}, Payments of invoices",
    )
    assert "migrate-1: alembic 8c44d9e6f0b2 drops the column orders.price" in outcomes["migrate-1"].log
    assert outcomes["empty"].log[1] == (
        f"empty: alembic upgrade base -> {BASELINE}, What the legacy repository had made by its version 3"
    )


def test_that_alembic_wins_is_said(outcomes: Outcomes) -> None:
    assert "both version tables; alembic's counts" in outcomes["alembic-wins"].log[0]
    assert sql(outcomes["alembic-wins"].path, "SELECT version FROM migrate_version") == [(2,)]


def test_a_second_time_nothing_is_to_do(
    outcomes: Outcomes, runner: ProcessRunner, modern_python: str, legacy_python: str
) -> None:
    done = [outcome for outcome in outcomes.values() if outcome.result.after == f"alembic {HEAD}"]
    content = {outcome.path: outcome.path.read_bytes() for outcome in done}
    targets = [shop_target(path, modern_python, legacy_python, path.stem) for path in content]
    bridge = Bridge(runner)
    results = bridge.upgrade(*targets)
    assert {(result.outcome, result.message) for result in results} == {(UNCHANGED, "")}
    assert {path: path.read_bytes() for path in content} == content
    assert bridge.log == []


def test_each_interpreter_is_started_once(
    shops: Mapping[str, bytes],
    runner: ProcessRunner,
    modern_python: str,
    legacy_python: str,
    tmp_path: pathlib.Path,
) -> None:
    started: list[str] = []

    class Counting(Bridge):
        def __init__(self) -> None:
            super().__init__(runner)
            inner = runner.run

            class Run:
                def run(self, command, sink):
                    started.append(command.path)
                    return inner(command, sink)

            self._runner = Run()

    targets = []
    for number in range(3):
        path = tmp_path / f"{number}.db"
        path.write_bytes(shops["migrate 2"])
        targets.append(shop_target(path, modern_python, legacy_python, str(number)))
    assert all(result.ok for result in Counting().upgrade(*targets))
    assert started == [modern_python, legacy_python, modern_python]


@pytest.mark.parametrize("world", ["split", "single"])
def test_a_legacy_script_that_loses_the_database(
    world: str,
    shops: Mapping[str, bytes],
    db_bridge: Bridge,
    modern_python: str,
    legacy_python: str,
    shop_tree: pathlib.Path,
) -> None:
    """What has failed is told, not that the version cannot be read; and no new file appears."""
    (shop_tree / "legacy" / "versions" / "003_invoices.py").write_text(
        "import os\n"
        "def upgrade(engine):\n    os.unlink(engine.url.database)\n    raise RuntimeError('lost it')\n"
    )
    path = shop_tree / "shop.db"
    path.write_bytes(shops["migrate 2"])
    python = modern_python if world == "split" else legacy_python
    target = replace(shop_target(path, python, legacy_python), migrate_repository=str(shop_tree / "legacy"))
    result = db_bridge.upgrade_one(target)
    assert (result.outcome, result.before, result.after) == (FAILED, "migrate 2", "")
    assert result.message.endswith("2 -> 3 failed: RuntimeError: lost it (003_invoices.py, line 4)")
    assert not path.exists()


BROKEN_SCRIPT = """
def upgrade(migrate_engine):
    migrate_engine.execute("INSERT INTO customers VALUES (4, 'Edith')")
    raise RuntimeError("the third script\\nis broken")
"""


@pytest.mark.parametrize("world", ["split", "single"])
def test_a_legacy_script_that_fails(
    world: str,
    shops: Mapping[str, bytes],
    db_bridge: Bridge,
    modern_python: str,
    legacy_python: str,
    shop_tree: pathlib.Path,
) -> None:
    (shop_tree / "legacy" / "versions" / "003_invoices.py").write_text(BROKEN_SCRIPT)
    path = shop_tree / "shop.db"
    path.write_bytes(shops["migrate 1"])
    target = replace(
        shop_target(path, modern_python if world == "split" else legacy_python, legacy_python),
        migrate_repository=str(shop_tree / "legacy"),
    )
    result = db_bridge.upgrade_one(target)
    assert (result.outcome, result.before, result.after) == (FAILED, "migrate 1", "migrate 2")
    assert result.message == (
        "shop: sqlalchemy-migrate upgrade 2 -> 3 failed: RuntimeError: the third script is broken"
        " (003_invoices.py, line 4); nothing of it remains"
    )


def test_a_legacy_half_that_was_undone(
    shops: Mapping[str, bytes],
    runner: ProcessRunner,
    modern_python: str,
    legacy_python: str,
    tmp_path: pathlib.Path,
) -> None:
    """A legacy half that says it is done, and is not, ends the matter: no endless conversation."""
    path = tmp_path / "shop.db"
    path.write_bytes(shops["migrate 2"])

    def undo_after(command, sink):
        ended = runner.run(command, sink)
        if command.path == legacy_python:
            path.write_bytes(shops["migrate 2"])
        return ended

    class Undoing:
        run = staticmethod(undo_after)

    result = Bridge(Undoing()).upgrade_one(shop_target(path, modern_python, legacy_python))  # type: ignore[arg-type]
    assert (result.outcome, result.before) == (FAILED, "migrate 2")
    assert "its legacy repository has done its part, yet it is not at version 3" in result.message


def test_python_path_gives_way_to_what_the_legacy_environment_has(
    shops: Mapping[str, bytes],
    db_bridge: Bridge,
    modern_python: str,
    legacy_python: str,
    shop_tree: pathlib.Path,
) -> None:
    """``python_path`` belongs to ``python``; for the legacy one it only fills gaps."""
    modules = shop_tree / "modules"
    modules.mkdir()
    (modules / "tempita.py").write_text("raise ImportError('not for the legacy half')\n")
    (modules / "shop_helper.py").write_text("WORD = 'helped'\n")
    script = shop_tree / "legacy" / "versions" / "003_invoices.py"
    script.write_text("import shop_helper\n" + script.read_text())
    path = shop_tree / "shop.db"
    path.write_bytes(shops["migrate 2"])
    target = replace(
        shop_target(path, modern_python, legacy_python),
        migrate_repository=str(shop_tree / "legacy"),
        python_path=(str(modules),),
    )
    assert db_bridge.upgrade_one(target).ok, db_bridge.log
