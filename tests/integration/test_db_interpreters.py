"""The worker by interpreters that lack something."""

import pathlib
import subprocess
import venv
from collections.abc import Mapping
from dataclasses import replace

import pytest

from refresh_agent.model import MigrationOutcome, Target
from tests.integration.conftest import Bridge


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An environment of its own in which nothing is installed."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return str(folder / "bin" / "python")


def test_nothing_installed(shop: Target, db_bridge: Bridge, bare_python: str) -> None:
    result = db_bridge.upgrade_one(replace(shop, python=bare_python))
    assert result.outcome is MigrationOutcome.FAILED
    assert result.message == (
        f"shop: {bare_python} cannot import sqlalchemy (ModuleNotFoundError: No module named 'sqlalchemy');"
        f" run: {bare_python} -m pip install SQLAlchemy"
    )


def test_alembic_not_installed(
    shop: Target, db_bridge: Bridge, bare_python: str, modern_python: str, tmp_path: pathlib.Path
) -> None:
    code = "import sqlalchemy, typing_extensions; print(sqlalchemy.__path__[0], typing_extensions.__file__)"
    found = subprocess.run([modern_python, "-c", code], capture_output=True, text=True, check=True)
    for place in found.stdout.split():
        (tmp_path / pathlib.Path(place).name).symlink_to(place)
    result = db_bridge.upgrade_one(replace(shop, python=bare_python), PYTHONPATH=str(tmp_path))
    assert f"cannot import alembic (ModuleNotFoundError: No module named 'alembic'); run: {bare_python}" in (
        result.message
    )


@pytest.mark.parametrize("where", ["python", "legacy_python"])
def test_sqlalchemy_migrate_not_installed(
    where: str,
    shop: Target,
    db_bridge: Bridge,
    modern_python: str,
    bare_python: str,
    shops: Mapping[str, bytes],
    new_database: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    """Without ``legacy_python`` it is the same interpreter; else that of another environment."""
    new_database.write_bytes(shops["migrate 2"])
    other = tmp_path / "other" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.write_text(f"#!/bin/sh\nexec '{modern_python}' \"$@\"\n")
    other.chmod(0o755)
    result = db_bridge.upgrade_one(replace(shop, legacy_python="" if where == "python" else str(other)))
    assert (result.outcome, result.before) == (MigrationOutcome.FAILED, "migrate 2")
    assert "shop: " in result.message
    assert "No module named 'migrate'" in result.message
    assert (
        f"run: {modern_python} -m pip install 'sqlalchemy-migrate==0.13.0' 'SQLAlchemy>=1.4.54,<2'"
        " 'setuptools<82'; or name in legacy_python the interpreter of an environment that has them"
    ) in result.message
    assert new_database.read_bytes() == shops["migrate 2"]


def test_a_version_that_is_mapped_needs_no_sqlalchemy_migrate(
    shop: Target, db_bridge: Bridge, shops: Mapping[str, bytes], new_database: pathlib.Path
) -> None:
    new_database.write_bytes(shops["migrate 3"])
    assert db_bridge.upgrade_one(replace(shop, legacy_python="")).ok


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        ("postgresql+pg8000", "cannot import the database driver pg8000"),
        ("mysql+mysqldb", "-m pip install mysqlclient"),
        ("postgresql+nonesuch", "Can't load plugin: sqlalchemy.dialects:postgresql.nonesuch"),
        ("oracle", "oracle is not supported; it can be SQLite, PostgreSQL, or MariaDB or MySQL"),
    ],
)
def test_driver_not_installed(
    scheme: str, said: str, shop: Target, db_bridge: Bridge, bare_python: str, modern_python: str
) -> None:
    result = db_bridge.upgrade_one(replace(shop, connection=f"{scheme}://shop:geh%25eim@localhost/shop"))
    assert said in result.message
    assert "geh" not in result.message


def test_interpreter_that_does_not_exist(
    shop: Target, db_bridge: Bridge, shops: Mapping[str, bytes], new_database: pathlib.Path
) -> None:
    result = db_bridge.upgrade_one(replace(shop, python="/nonexistent/python"))
    assert result.outcome is MigrationOutcome.FAILED
    assert result.message.startswith("shop: python /nonexistent/python: ")
    new_database.write_bytes(shops["migrate 2"])
    result = db_bridge.upgrade_one(replace(shop, legacy_python="/nonexistent/python"))
    assert result.message.startswith("shop: legacy_python /nonexistent/python: ")
    assert (result.before, new_database.read_bytes()) == ("migrate 2", shops["migrate 2"])
