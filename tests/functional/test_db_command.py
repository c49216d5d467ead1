"""``refresh-agent db``: the installed command on the shop's database."""

import contextlib
import json
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
from typing import Any

import pytest

from tests.functional.node import COMMAND, Node
from tests.waiting import eventually

SHOP = pathlib.Path(__file__).parents[2] / "examples" / "shop"
BASELINE, CENTS, HEAD = "5a1e0c3b7d21", "8c44d9e6f0b2", "b7f2a6e1935d"


class Shop(Node):
    """A node with an empty database for a shop, and a copy of its tree."""

    def __init__(self, root: pathlib.Path) -> None:
        self.tree = root / "tree"
        shutil.copytree(SHOP, self.tree)
        for name in ("shop", "stock"):
            (root / f"{name}.db").touch()
        super().__init__(root)

    def target(self, name: str, options: str = "") -> str:
        return (
            f"[migration:{name}]\nconnection = sqlite:///{self.root}/{name}.db\n"
            f"alembic_config = {self.tree}/alembic.ini\n{options}"
        )

    def configure(self, text: str = "", **default: str) -> None:
        super().configure(text or f"[migrations]\ntargets = shop\n{self.target('shop')}", **default)

    def configure_two(self) -> None:
        both = self.target("shop") + self.target("stock")
        self.configure(f"[migrations]\ntargets = shop, stock\n{both}")

    def db(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        ended = self.command("db", *arguments)
        assert ended.returncode == status, ended
        return ended

    def told(self, *arguments: str, status: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.db(*arguments, "--json", status=status).stdout)
        return found

    def tables(self, name: str = "shop") -> set[str]:
        with contextlib.closing(sqlite3.connect(self.root / f"{name}.db")) as db:
            return {table for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def break_the_last_revision(self, body: str) -> None:
        (path,) = (self.tree / "alembic" / "versions").glob(f"{HEAD}*")
        text = path.read_text()
        path.write_text(text.replace("def upgrade():", f"def upgrade():\n    {body}"))
        assert body in path.read_text()


@pytest.fixture
def shop(tmp_path: pathlib.Path) -> Shop:
    return Shop(tmp_path)


# --- what each does ----------------------------------------------------------------------------------------


def test_up_and_down_and_where_it_is(shop: Shop) -> None:
    assert shop.db("version").stdout == "shop: empty\n"
    assert not shop.tables()
    ended = shop.db("upgrade", CENTS)
    assert f"alembic upgrade {BASELINE} -> {CENTS}, Prices as whole cents" in ended.stderr
    assert ended.stdout.startswith(f"shop: empty -> alembic {CENTS}, done after ")
    assert shop.db("version").stdout == f"shop: alembic {CENTS}\n"
    assert shop.db("upgrade").stdout.startswith(f"shop: alembic {CENTS} -> alembic {HEAD}, done")
    assert shop.db("upgrade").stdout.startswith(f"shop: alembic {HEAD}, unchanged")
    assert shop.db("downgrade", "-1").stdout.startswith(f"shop: alembic {HEAD} -> alembic {CENTS}, done")
    shop.db("downgrade", "base")
    assert "orders" not in shop.tables()


def test_the_same_for_programs(shop: Shop) -> None:
    (result,) = shop.told("upgrade")
    assert (result["target"], result["outcome"]) == ("shop", "done")
    assert (result["before"], result["after"], result["message"]) == ("empty", f"alembic {HEAD}", "")
    assert (len(result["applied"]), result["dirty"]) == (3, None)
    (result,) = shop.told("version")
    assert (result["version"], result["seconds"] > 0) == (f"alembic {HEAD}", True)


def test_the_status_tells_what_an_upgrade_would_do(shop: Shop) -> None:
    shop.db("upgrade", BASELINE)
    lines = shop.db("status").stdout.splitlines()
    assert lines[0] == f"shop: alembic {BASELINE}; wanted: head"
    assert "  pending: 2" in lines
    assert f"    alembic {CENTS}  Prices as whole cents" in lines
    assert f"  destructive: {CENTS} drops the column orders.price" in lines
    (status,) = shop.told("status")
    assert [step["revision"] for step in status["pending"]] == [CENTS, HEAD]
    assert (status["heads"], status["current"]) == ([HEAD], [BASELINE])
    assert (status["dirty"], status["lock"], status["refusal"]) == (None, None, "")
    shop.db("upgrade")
    assert "  pending: nothing\n" in shop.db("status").stdout


def test_the_sql_can_be_piped_and_nothing_is_executed(shop: Shop) -> None:
    script = shop.db("sql", BASELINE).stdout
    assert not shop.tables()
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(script)
        assert db.execute("SELECT version_num FROM alembic_version").fetchall() == [(BASELINE,)]


def test_a_stamp_only_writes_it_down(shop: Shop) -> None:
    shop.db("stamp", CENTS)
    assert shop.db("version").stdout == f"shop: alembic {CENTS}\n"
    assert "orders" not in shop.tables()


def test_a_new_revision_is_a_file_in_the_tree(shop: Shop) -> None:
    path = pathlib.Path(shop.db("revision", "-m", "Customers have names").stdout.strip())
    assert path.parent == shop.tree / "alembic" / "versions"
    assert "Customers have names" in path.read_text()
    (made,) = shop.told("revision", "-m", "Another")
    assert made["path"].endswith(f"{made['revision']}_another.py")


def test_a_revision_without_a_title_is_a_mistake_in_the_command_line(shop: Shop) -> None:
    assert "say what the revision is for" in shop.db("revision", "-m", " ", status=2).stderr


def test_a_fault_in_the_tree_is_told_with_its_file_and_line(shop: Shop) -> None:
    env = shop.tree / "alembic" / "env.py"
    env.write_text("\nraise RuntimeError('boom')\n")
    ended = shop.db("upgrade", status=4)
    assert "shop: RuntimeError: boom (env.py, line 2) (failed)" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_malformed_alembic_ini_is_told_with_its_line_and_without_its_words(shop: Shop) -> None:
    (shop.tree / "alembic.ini").write_text("sqlalchemy.url = geheim\n")
    ended = shop.db("upgrade", status=4)
    assert f"shop: alembic_config {shop.tree}/alembic.ini: line 1: stands before the first" in ended.stderr
    assert "geheim" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_who_cannot_connect_is_told_server_and_option_but_no_password(shop: Shop) -> None:
    conf = shop.root / "shop.conf"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # nobody listens there in a moment
    url = f"mysql://shop:geheim@127.0.0.1:{port}/shop"
    conf.write_text(f"[database]\nconnection = {url}\n")
    shop.configure(
        f"[migrations]\ntargets = one, two\n[migration:one]\nconnection = {url}\n"
        f"alembic_config = {shop.tree}/alembic.ini\n[migration:two]\nconnection_from = {conf}\n"
        f"alembic_config = {shop.tree}/alembic.ini\n"
    )
    one, two = shop.told("upgrade", status=4)
    assert one["message"].startswith("one: connection: OperationalError: ")
    assert two["message"].startswith(f"two: connection_from: {conf}: OperationalError: ")
    for told in (one, two):
        assert told["outcome"] == "failed"
        assert told["message"].endswith(f" (host 127.0.0.1, port {port})")
        assert "geheim" not in told["message"]


def test_the_sql_of_a_dirty_target_comes_with_a_word_on_standard_error(shop: Shop) -> None:
    shop.db("upgrade", CENTS)
    shop.break_the_last_revision(
        "with op.get_context().autocommit_block():\n"
        "        op.execute('CREATE TABLE half (id INTEGER)')\n"
        "    if not op.get_context().as_sql: raise RuntimeError('boom')"
    )
    shop.db("upgrade", status=4)
    assert shop.told("status")[0]["dirty"]
    ended = shop.db("sql")
    assert "it is dirty" in ended.stderr
    assert "WARNING" in ended.stderr
    assert "it is dirty" not in ended.stdout


def test_a_check_that_finds_something_is_4(shop: Shop) -> None:
    shop.db("upgrade")
    assert shop.db("check").stdout == (
        "shop: nothing to object to\nshop: not looked at: drift: its env.py offers no target_metadata\n"
    )
    assert shop.told("check")[0]["skipped"] == ["drift: its env.py offers no target_metadata"]
    shop.break_the_last_revision("pass  # since it was applied")
    ended = shop.db("check", status=4)
    assert ended.stdout.startswith("shop: ")
    (told,) = shop.told("check", status=4)
    assert [problem for problem in told["problems"] if HEAD in problem["text"]]


def test_nobody_holds_the_lock(shop: Shop) -> None:
    assert "not locked" in shop.db("unlock").stdout


# --- several -----------------------------------------------------------------------------------------------


def test_all_of_them_unless_one_is_named(shop: Shop) -> None:
    shop.configure_two()
    shop.db("upgrade", "--target", "stock")
    assert shop.db("version").stdout == f"shop: empty\nstock: alembic {HEAD}\n"
    assert [each["target"] for each in shop.told("status")] == ["shop", "stock"]
    assert shop.db("sql", BASELINE).stdout.count("\n-- stock\n") == 1


@pytest.mark.parametrize(
    "arguments", [("downgrade", "base"), ("stamp", "head"), ("revision", "-m", "x"), ("unlock",)]
)
def test_what_is_not_meant_for_all_needs_a_name(shop: Shop, arguments: tuple[str, ...]) -> None:
    shop.configure_two()
    assert "Add --target with one of: shop, stock" in shop.db(*arguments, status=2).stderr
    assert not shop.tables()


def test_the_failure_of_one_is_4_and_does_not_keep_the_others(shop: Shop) -> None:
    shop.configure_two()
    (shop.root / "shop.db").unlink()
    ended = shop.db("upgrade", status=4)
    assert f"{shop.root}/shop.db does not exist" in ended.stderr
    assert ended.stdout.startswith(f"stock: empty -> alembic {HEAD}, done")
    assert len(ended.stdout.splitlines()) == 1


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "required: ACTION"),
        (("migrate",), "invalid choice: 'migrate'"),
        (("downgrade",), "required: REVISION"),
        (("stamp",), "required: REVISION"),
        (("revision",), "required: -m/--message"),
        (("status", "head"), "unrecognized arguments: head"),
        (("status", "--resume"), "unrecognized arguments: --resume"),
        (("upgrade", "-m", "x"), "unrecognized arguments: -m"),
        (("upgrade", ""), "'' is not a revision"),
        (("upgrade", "a b"), "'a b' is not a revision"),
        (("upgrade", "--target", "shopp"), "has no 'shopp'; did you mean shop?; it has: shop"),
    ],
)
def test_a_mistake_in_the_command_line_is_2(shop: Shop, arguments: tuple[str, ...], said: str) -> None:
    assert said in shop.db(*arguments, status=2).stderr


def test_without_databases_it_is_2(shop: Shop) -> None:
    shop.configure("[migrations]\ntargets =")
    assert "no database is configured: [migrations] targets is empty" in shop.db("status", status=2).stderr


def test_a_revision_that_nobody_knows_is_4(shop: Shop) -> None:
    assert "nonsense" in shop.db("upgrade", "nonsense", status=4).stderr
    (told,) = shop.told("upgrade", "nonsense", status=4)
    assert told["outcome"] == "refused"


def test_a_tree_that_anybody_may_write_is_refused_untouched(shop: Shop) -> None:
    env = shop.tree / "alembic" / "env.py"
    env.chmod(0o666)
    ended = shop.db("upgrade", status=4)
    assert f"{env} is writable by everybody ([phases] trust)" in ended.stderr
    assert not shop.tables()


# --- others at work ----------------------------------------------------------------------------------------


def sleeping_in_the_last_revision(shop: Shop) -> subprocess.Popen[str]:
    """An upgrade by hand that is under way until somebody ends it."""
    shop.db("upgrade", CENTS)
    sign = shop.root / "sign"
    shop.break_the_last_revision(
        f"import pathlib, time; pathlib.Path('{sign}').touch()\n"
        "    while True: op.execute('SELECT 1'); time.sleep(0.05)"
    )
    process = subprocess.Popen(
        [COMMAND, "--config-file", str(shop.config_file), "db", "upgrade"], stderr=subprocess.PIPE, text=True
    )
    eventually(sign.exists)
    return process


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """End it if the test has not; what it has said to standard error."""
    process.send_signal(number)
    return process.communicate(timeout=30)[1]


def test_while_somebody_else_migrates_it_is_11_and_says_who(shop: Shop) -> None:
    targets = f"[migrations]\ntargets = shop\n{shop.target('shop', 'lock_timeout = 0.2')}\n"
    shop.configure(f"{targets}[phases]\nstop_grace = 0")
    process = sleeping_in_the_last_revision(shop)
    try:
        ended = shop.db("upgrade", status=11)
        assert "run hand" in ended.stderr
        assert "(deferred)" in ended.stderr
        (told,) = shop.told("status")
        assert told["lock"]["target"] == "shop"
        assert told["lock"]["run"].startswith("hand")
        assert "  locked by host " in shop.db("status").stdout
        shop.metadata({"a": 1})
        run = json.loads(shop.once("--json").stdout)
        assert (run["exit_code"], run["attempt"]) == (11, 1)
        assert "deferred after" in run["summary"]
        assert shop.outcomes() == ["deferred"]
    finally:
        stop(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_rolls_back_and_is_128_and_its_signal(shop: Shop, number: int) -> None:
    shop.configure(f"[migrations]\ntargets = shop\n{shop.target('shop')}\n[phases]\nstop_grace = 0")
    process = sleeping_in_the_last_revision(shop)
    said = stop(process, number)
    assert process.returncode == 128 + number, said
    assert "(stopped)" in said
    (status,) = shop.told("status")
    assert (status["version"], status["dirty"], status["lock"]) == (f"alembic {CENTS}", None, None)
