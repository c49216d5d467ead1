"""A refresh that ends in a database: only after post-configure; exit code 4 when it fails; tried again."""

import contextlib
import pathlib
import re
import shutil
import sqlite3

import pytest

from tests.functional.node import Node
from tests.integration.conftest import BASELINE, HEAD, SHOP, sql
from tests.waiting import eventually


class ShopNode(Node):
    """A node with the shop's database at sqlalchemy-migrate version 2."""

    def __init__(self, root: pathlib.Path, database: bytes, legacy_python: str) -> None:
        self.database = root / "shop.db"
        self.database.write_bytes(database)
        self.legacy_python = legacy_python
        super().__init__(root)

    def configure(self, text: str = "", **default: str) -> None:
        target = (
            f"[migrations]\ntargets = shop\n[migration:shop]\nconnection = sqlite:///{self.database}\n"
            f"alembic_config = {SHOP}/alembic.ini\nmigrate_repository = {SHOP}/legacy\n"
            f"legacy_versions = 3:{BASELINE}\nlegacy_python = {self.legacy_python}\n"
        )
        super().configure(target + text, **default)

    def version(self) -> str:
        return str(sql(self.database, "SELECT version_num FROM alembic_version")[0][0])


@pytest.fixture
def node(tmp_path: pathlib.Path, shops: dict[str, bytes], legacy_python: str) -> ShopNode:
    node = ShopNode(tmp_path, shops["migrate 2"], legacy_python)
    node.hook("post-configure/90-activate")
    node.hook("migration/10-before")
    node.metadata({"a": 1})
    return node


def test_after_post_configure_the_database_goes_from_migrate_2_to_alembics_head(node: ShopNode) -> None:
    orders = sql(node.database, "SELECT count(*) FROM orders")
    ended = node.once()
    assert ended.returncode == 0, ended.stderr
    assert node.ran() == ["post-configure/90-activate", "migration/10-before"]
    assert node.version() == HEAD
    assert sql(node.database, "SELECT count(*) FROM orders") == orders
    assert node.rows("SELECT target, outcome, before, after FROM migrations") == [
        ("shop", "done", "migrate 2", f"alembic {HEAD}")
    ]
    assert "migration: shop" in ended.stderr


@pytest.mark.parametrize("phase", ["pre-configure", "configure", "post-configure", "migration"])
def test_after_a_failed_hook_it_is_not_touched(node: ShopNode, phase: str) -> None:
    node.hook(f"{phase}/50-broken", "exit 1")
    before = node.database.read_bytes()
    assert node.once().returncode == 1
    assert node.database.read_bytes() == before
    assert node.rows("SELECT * FROM migrations") == []


def test_a_failure_is_exit_code_4_runs_error_d_and_is_tried_again(node: ShopNode) -> None:
    node.hook("error/10-told", 'env | grep ^REFRESH_AGENT_FAILED_ | sort > "$0.env"')
    away = node.root / "away.db"
    node.database.rename(away)
    failed = node.once()
    assert failed.returncode == 4
    assert str(node.database) in failed.stdout
    assert not node.database.exists()
    assert (node.base / "error.d" / "10-told.env").read_text().split() == [
        "REFRESH_AGENT_FAILED_HOOK=migration:shop",
        "REFRESH_AGENT_FAILED_PHASE=migration",
        "REFRESH_AGENT_FAILED_STATUS=1",
    ]
    away.rename(node.database)
    assert node.once().returncode == 0
    assert node.version() == HEAD
    assert node.outcomes() == ["migration failed", "success"]


def test_a_locked_database_is_named_and_tried_again_by_the_daemon(node: ShopNode) -> None:
    with contextlib.closing(sqlite3.connect(node.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with node.daemon() as daemon:
            daemon.wait_for_log(f"{node.database}", 60)
            daemon.wait_for_log("the next attempt is in", 60)
            assert node.outcomes()[0] == "migration failed"
            other.execute("COMMIT")
            eventually(lambda: node.outcomes()[-1] == "success", 60)
    assert node.version() == HEAD


def test_nothing_mapped_above_is_refused_untouched(node: ShopNode) -> None:
    node.config_file.write_text(node.config_file.read_text().replace(f"3:{BASELINE}", f"1:{BASELINE}"))
    before = node.database.read_bytes()
    ended = node.once()
    assert ended.returncode == 4
    assert "legacy_versions maps none at or above it" in ended.stdout
    assert node.database.read_bytes() == before


def test_a_missing_migrate_extra_names_the_command_that_installs_it(node: ShopNode) -> None:
    text = node.config_file.read_text()
    node.config_file.write_text(text.replace(f"legacy_python = {node.legacy_python}\n", ""))
    before = node.database.read_bytes()
    ended = node.once()
    assert ended.returncode == 4
    assert "-m pip install 'sqlalchemy-migrate==0.13.0'" in ended.stdout
    assert "legacy_python" in ended.stdout
    assert node.database.read_bytes() == before


def test_a_migration_whose_agent_was_killed_finishes_before_the_next_one_begins(node: ShopNode) -> None:
    """Two workers on one database would migrate it twice."""
    began, go = node.root / "began", node.root / "go"
    tree = node.root / "shop"
    shutil.copytree(SHOP, tree)
    (slow,) = (tree / "alembic" / "versions").glob(f"{HEAD}*.py")
    wait = f"""
    import pathlib, time
    with open({str(began)!r}, "a") as file:
        file.write("began\\n")
    while not pathlib.Path({str(go)!r}).exists():
        time.sleep(0.05)
"""
    slow.write_text(
        re.sub(
            r"(def upgrade\(\)[^\n]*\n(?:    \"\"\".*?\"\"\"\n)?)",
            lambda m: m[0] + wait,
            slow.read_text(),
            count=1,
        )
    )
    node.config_file.write_text(node.config_file.read_text().replace(str(SHOP), str(tree)))
    with node.daemon() as daemon:
        eventually(began.exists, 60)
        daemon.process.kill()
        daemon.process.wait()
    with node.daemon() as daemon:
        daemon.wait_for_log("a database migration of an interrupted run still goes on")
        assert node.once().returncode == 11
        go.touch()
        eventually(lambda: node.outcomes() == ["interrupted", "success"], 60)
    assert began.read_text().split() == ["began"]
    assert node.version() == HEAD


def test_an_empty_database_goes_straight_through_alembic(node: ShopNode) -> None:
    node.database.write_bytes(b"")
    assert node.once().returncode == 0
    assert node.version() == HEAD
    assert node.rows("SELECT before FROM migrations") == [("empty",)]
