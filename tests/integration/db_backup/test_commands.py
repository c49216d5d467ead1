"""Backups by commands: their words, their output, where the password is, and how they end."""

import json
import os
import pathlib
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from refresh_agent.db.worker import backup, backup_command
from refresh_agent.db.worker.database import Database
from refresh_agent.db.worker.faults import TargetError
from refresh_agent.db.worker.stopping import Stopped, Stopping
from tests.integration import databases
from tests.integration.db_backup.conftest import AWKWARD, OCCASION, Take
from tests.processes import alive
from tests.waiting import eventually

# --- commands --------------------------------------------------------------------------------------------

WITNESS = """
import json, os, pathlib, stat, sys
files = [os.environ.get("PGPASSFILE", ""), *(word.partition("=")[2] for word in sys.argv)]
seen = {"argv": sys.argv, "environment": dict(os.environ), "files": {}}
for path in filter(os.path.isfile, files):
    modes = [stat.S_IMODE(os.stat(name).st_mode) for name in (path, os.path.dirname(path))]
    seen["files"][path] = [pathlib.Path(path).read_text(), *modes]
pathlib.Path(sys.argv[1]).write_text(json.dumps(seen))
"""


@pytest.fixture
def witness(tmp_path: pathlib.Path) -> "Witness":
    """A command line, and what the command has seen."""
    program, seen = tmp_path / "witness.py", tmp_path / "seen"
    program.write_text(WITNESS)
    command = shlex.join([sys.executable, str(program), str(seen)])
    return command, lambda: json.loads(seen.read_text())


Witness = tuple[str, Callable[[], dict[str, Any]]]


def test_words_of_a_command(take: Take, shop: pathlib.Path, witness: Witness) -> None:
    command, seen = witness
    assert take(
        shop, f"{command} {{target}} '{{version}} {{time}}' {{file}} {{database}} '{{{{x}}}}' '$(id); *'"
    ) == (f"backup by {sys.executable}")
    words = ["shop", "alembic-5a1e 20261121T165000Z", str(shop), str(shop), "{x}", "$(id); *"]
    assert seen()["argv"][2:] == words


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("dump {password}", r"backup: \{password\} cannot be had for this database; there is \{database\}, "),
        ("dump {defaults_file}", r"backup: \{defaults_file\} cannot be had for this database"),
        ("dump 'x", "backup cannot be split into words"),
        (" ", "backup names no command"),
        ("/not/there {file}", "backup: /not/there cannot be run: No such file or directory"),
        ("sh -c 'echo 1; echo full >&2; echo; exit 3'", "sh exited with status 3: full; nothing was changed"),
        ("sh -c 'kill -9 $$'", "sh was ended by SIGKILL and said nothing; nothing was changed"),
    ],
)  # fmt: skip
def test_command_that_fails(option: str, message: str, take: Take, shop: pathlib.Path) -> None:
    with pytest.raises(TargetError, match=message):
        take(shop, option)


def test_what_a_command_makes_is_for_its_user_alone(take: Take, shop: pathlib.Path) -> None:
    take(f"sqlite:///{shop}", "/bin/cp --no-preserve=mode {file} {file}.copy")
    assert pathlib.Path(f"{shop}.copy").stat().st_mode & 0o777 == 0o600


def test_builtin_is_for_sqlite_only(take: Take) -> None:
    with pytest.raises(
        TargetError, match="backup = builtin of the target shop is for SQLite only; name a command"
    ):
        take("postgresql+psycopg2://u:secret@h/d", "builtin")


def test_output_goes_to_stderr_line_by_line(
    take: Take, shop: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    take(shop, "sh -c 'echo one; echo two >&2; printf three'")
    assert capfd.readouterr() == ("", "one\ntwo\nthree\n")


def test_bytes_that_are_no_text_and_an_endless_line(
    take: Take, shop: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    take(shop, shlex.join([sys.executable, "-c", "import os; os.write(1, b'\\xff\\n' + b'x' * 10000)"]))
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "\\xff"
    assert [len(line) for line in lines[1:]] == [4096, 4096, 10000 - 2 * 4096]


def test_password_is_masked_in_what_it_prints(take: Take, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TargetError) as raised:
        take("postgresql+psycopg2://u:hunter2xyz@h/d", "sh -c 'cat $PGPASSFILE; exit 1'")
    assert "hunter2xyz" not in capfd.readouterr().err + str(raised.value)
    assert "***" in str(raised.value)


def test_what_the_command_leaves_running_is_ended(
    take: Take, shop: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    take(shop, f"sh -c 'sleep 1000 & echo $! > {tmp_path}/pid'")
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not alive(pid))


def test_stop_ends_a_command_with_all_that_it_has_started(
    take: Take, shop: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what does not listen to TERM."""
    monkeypatch.setattr(backup_command, "GRACE", 0.2)
    script = tmp_path / "dump"
    script.write_text("trap '' TERM; sleep 1000 & echo $! > $1.new; mv $1.new $1; wait")

    def stop() -> None:
        eventually((tmp_path / "pid").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Stopped, match="refresh-agent is stopping: backup: sh was ended by SIGKILL"):
        take(shop, f"sh {script} {tmp_path}/pid")
    thread.join()
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not alive(pid))


def test_time_that_is_up(shop: pathlib.Path, stopping: Stopping) -> None:
    with pytest.raises(Stopped, match=r"not finished within 0\.2 s"), stopping.during(0.2, lambda: None):
        backup.take(Database(f"sqlite:///{shop}"), "sleep 1000", OCCASION, stopping)


# --- where the password is -------------------------------------------------------------------------------


def url(dialect: str, password: str, place: str) -> str:
    return str(databases.URL.create(dialect, "u:1", password).render_as_string(hide_password=False)) + place


@pytest.mark.parametrize("dialect", ["postgresql+psycopg2", "mysql+pymysql"])
@pytest.mark.parametrize("place", ["@h:1/d", "@/d?host=/run/x"])
def test_password_is_in_a_private_file_alone(
    dialect: str, place: str, take: Take, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "another")
    monkeypatch.setenv("PGSERVICE", "another")
    monkeypatch.setenv("MYSQL_PWD", "another")
    command, seen = witness
    option = "" if dialect.startswith("postgresql") else "--defaults-extra-file={defaults_file}"
    take(url(dialect, AWKWARD, place), f"{command} {option}")
    found = seen()
    for text in (json.dumps(found["argv"]), json.dumps(found["environment"])):
        assert "ss:w" not in text
        assert "another" not in text
    ((content, *modes),) = found["files"].values()
    assert modes == [0o600, 0o700]
    assert "ss" in content


def test_environment_of_a_postgresql_command(take: Take, witness: Witness) -> None:
    command, seen = witness
    take(
        "postgresql+psycopg2://u:secret@h:5433/d?sslmode=require&sslrootcert=/ca.pem&application_name=x",
        f"{command} {{host}} {{port}} {{user}} {{database}}",
    )
    named = {name: value for name, value in seen()["environment"].items() if name.startswith("PG")}
    assert named.pop("PGPASSFILE").endswith("/pgpass")
    assert named == {
        "PGHOST": "h", "PGPORT": "5433", "PGUSER": "u", "PGDATABASE": "d", "PGSSLMODE": "require",
        "PGSSLROOTCERT": "/ca.pem", "PGAPPNAME": "x",
    }  # fmt: skip
    assert seen()["argv"][2:] == ["h", "5433", "u", "d"]


@pytest.mark.parametrize(
    ("place", "hosts", "ports"),
    [
        ("?host=a:1&host=b:2", "a,b", "1,2"),
        ("?host=/run/postgresql", "/run/postgresql", ""),
        ("?host=/run/postgresql&port=5433", "/run/postgresql", "5433"),
        ("", "", ""),
    ],
)
def test_hosts_in_the_query(place: str, hosts: str, ports: str, take: Take, witness: Witness) -> None:
    command, seen = witness
    take(f"postgresql+psycopg2://u@/d{place}", f"{command} {{host}} {{port}}")
    assert seen()["argv"][2:] == [hosts, ports]
    assert "PGPASSFILE" not in seen()["environment"]


def test_password_that_no_file_of_libpq_can_hold(take: Take) -> None:
    with pytest.raises(TargetError, match="cannot hold a password with a line break"):
        take("postgresql+psycopg2://u:a%0Ab@h/d", "true")
