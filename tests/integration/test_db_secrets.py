"""A connection's password: in no log, no message, no command line, no environment of a child, no ledger."""

import pathlib
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

import pytest

from refresh_agent.db.worker.protocol import Order
from refresh_agent.model import MigrationOutcome, Target
from tests.integration.conftest import AlembicTree, Bridge
from tests.integration.databases import Server, ServerDatabase

MakeTree = Callable[[str], AlembicTree]
DRIVERS = {"postgresql": "psycopg2", "mysql": ""}


@pytest.fixture(params=["postgresql", "mariadb"])
def database(request: pytest.FixtureRequest) -> Iterator[ServerDatabase]:
    server: Server = request.getfixturevalue(request.param)
    made = server.create()
    yield made
    made.drop()


def target_of(database: ServerDatabase, tree: AlembicTree, python: str, url: str = "") -> Target:
    return Target(
        name="depot",
        connection=url or database.url(DRIVERS[database.kind]),
        python=python,
        legacy_python="",
        alembic_location=str(tree.path),
        lock_timeout=5,
    )


LEAKS = """
import json, logging
url = context.config.get_main_option("sqlalchemy.url")
parsed = engine_from_config(context.config.get_section("alembic")).url
print("the url", url, json.dumps(url), repr(parsed.password), parsed.render_as_string(hide_password=False))
logging.getLogger("leak").warning("password %s", parsed.password)
"""


def forms(password: str) -> set[str]:
    return {password, quote(password), quote(password, safe=""), quote_plus(password)}


@pytest.mark.parametrize("world", ["modern_python", "legacy_python"])
def test_while_it_runs_and_when_it_fails(
    world: str,
    make_tree: MakeTree,
    database: ServerDatabase,
    db_bridge: Bridge,
    tmp_path: pathlib.Path,
    request: pytest.FixtureRequest,
) -> None:
    """env.py and the revision look at their process, say all that they know, and fail with it."""
    tree = make_tree("depot")
    tree.env.write_text(
        tree.env.read_text().replace("config = context.config", "config = context.config\n" + LEAKS, 1)
    )
    seen = tmp_path / "seen"
    tree.revision(
        "aaaa",
        None,
        "import os, pathlib",
        "def child():",
        "    os.system('cat /proc/self/cmdline /proc/self/environ >> " + str(seen) + "')",
        "child()",
        f"with open({str(seen)!r}, 'ab') as file:",
        "    for name in ('cmdline', 'environ'):",
        "        file.write(pathlib.Path('/proc/self', name).read_bytes())",
        "url = op.get_bind().engine.url",
        "print(url, repr(url), url.render_as_string(hide_password=False), url.password)",
        "op.execute(sa.text(\"SELECT '%s' FROM missing\" % url.password.replace(':', ' ')))",
    )
    result = db_bridge.upgrade_one(target_of(database, tree, request.getfixturevalue(world)))
    assert result.outcome is MigrationOutcome.FAILED
    assert "depot: WARNING leak: password ***" in db_bridge.log
    assert "missing" in result.message
    said = "\n".join([*db_bridge.log, result.message, str(result.report)])
    assert "***" in said
    said += seen.read_text(errors="replace")
    said += str(database.execute("SELECT failed, error, kept, step FROM refresh_agent_ledger"))
    for form in forms(database.password):
        assert form not in said


@pytest.mark.parametrize("operation", ["upgrade", "status", "check", "sql", "unlock", "downgrade"])
def test_a_wrong_password_is_not_repeated(
    operation: str, make_tree: MakeTree, database: ServerDatabase, modern_python: str, db_bridge: Bridge
) -> None:
    wrong = "s3cr/t%: " + database.password
    url = database.url(DRIVERS[database.kind]).replace(
        quote(database.password, safe=" +"), quote(wrong, safe="")
    )
    assert quote(wrong, safe="") in url
    target = target_of(database, make_tree("depot"), modern_python, url)
    (result,) = db_bridge.ask(Order(operation), target)
    assert not result.ok
    said = "\n".join([*db_bridge.log, result.message, str(result.report)])
    for form in forms(wrong) | forms(database.password) | {"s3cr"}:
        assert form not in said
