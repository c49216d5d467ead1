"""The database bridge against alembic alone: nothing to do, many nodes at once, a large tree."""

import compileall
import contextlib
import json
import os
import pathlib
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmarks.measure import Figure, medians, quietly
from refresh_agent.databases import Means
from refresh_agent.databases import ask as ask_agent
from refresh_agent.db.worker import protocol
from refresh_agent.model import Target, TrustMode
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.redact import Masker
from refresh_agent.wakeup import Stop
from tests.integration import counted_tree, crowd, databases
from tests.integration.databases import Database

ROUNDS = 15
TARGETS = 8
TRIALS = 10
REVISIONS = 2000
SECONDS = 2

Options = Mapping[str, str]


# --- nothing to do ---------------------------------------------------------------------------------------


def unchanged(root: pathlib.Path, agent: pathlib.Path) -> Iterator[Figure]:
    """Databases at the head: what a refresh costs that has none to migrate. The peer is alembic's command.

    All under the same interpreter, and with every tree compiled.
    """
    python = str(agent / "bin" / "python")
    names = [f"target{number}" for number in range(TARGETS)]
    options = {name: _at_the_head(root / name, python) for name in names}
    first = {names[0]: options[names[0]]}
    alembic = [python, "-m", "alembic", "-c", first[names[0]]["alembic_config"], "upgrade", "head"]
    command = _command(root / "node", agent, first, "upgrade")
    with _asking() as ask:
        seen = medians(
            {
                "one": lambda: ask(first),
                "all": lambda: ask(options),
                "alembic": lambda: quietly(alembic),
                "command": lambda: quietly(command),
            },
            ROUNDS,
        )
    yield Figure(
        "1 database unchanged / alembic upgrade head",
        seen["one"] / seen["alembic"],
        1.25,
        "x",
        f"{_ms(seen['one'])} / {_ms(seen['alembic'])}, n = {ROUNDS}",
    )
    yield Figure(
        f"{TARGETS} databases unchanged / 1",
        seen["all"] / seen["one"],
        1.3,
        "x",
        f"{_ms(seen['all'])} / {_ms(seen['one'])}",
    )
    yield Figure(
        "refresh-agent db upgrade, unchanged / alembic upgrade head",
        seen["command"] / seen["alembic"],
        None,
        "x",
        f"{_ms(seen['command'])} / {_ms(seen['alembic'])}; the agent's own start is in it",
    )


def _at_the_head(folder: pathlib.Path, python: str) -> dict[str, str]:
    """The options of a target whose tree and database are in that new folder."""
    folder.mkdir()
    url = counted_tree.url(databases.SQLiteDatabase(folder / "database.db"))
    ini = counted_tree.write(folder / "tree", url)
    quietly([python, "-m", "alembic", "-c", str(ini), "upgrade", "head"])
    compileall.compile_dir(folder / "tree", quiet=1)
    return {"connection": url, "alembic_config": str(ini), "python": python}


@contextlib.contextmanager
def _asking() -> Iterator[Callable[[Mapping[str, Options]], None]]:
    """Asks the bridge for an upgrade of targets that have nothing to do, as a running agent does."""
    stop = Stop()
    means = Means(
        runner=ProcessRunner(stop, Grace()),
        mask=Masker(),
        env=os.environ,
        trust=TrustMode.ENFORCE,
        log=lambda _target, _line: None,
        warn=lambda _target, _line: None,
    )

    def ask(targets: Mapping[str, Options]) -> None:
        wanted = [_target(name, options) for name, options in targets.items()]
        for result in ask_agent(protocol.Order(protocol.UPGRADE), wanted, means):
            if result.outcome != protocol.UNCHANGED:
                raise RuntimeError(f"{result.target}: {result.outcome}: {result.message}")

    yield ask
    stop.close()


def _target(name: str, options: Options) -> Target:
    return Target(
        name=name,
        connection=options["connection"],
        python=options["python"],
        legacy_python="",
        alembic_config=options["alembic_config"],
    )


def _command(
    folder: pathlib.Path, agent: pathlib.Path, targets: Mapping[str, Options], *words: str
) -> list[str]:
    config = crowd.configure(folder, targets)
    return [str(agent / "bin" / "refresh-agent"), "--config-file", str(config), "db", *words]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


# --- many at once ----------------------------------------------------------------------------------------


def crowds(root: pathlib.Path, agent: pathlib.Path) -> Iterator[Figure]:
    """As many nodes as upgrade one empty database; the peer is as many of alembic's command."""
    yield from _crowd("sqlite", root / "sqlite", agent, _files(root / "sqlite"))
    with databases.postgresql() as server:
        yield from _crowd("postgresql", root / "postgresql", agent, server.create)
    with databases.mariadb() as server:
        yield from _crowd("mariadb", root / "mariadb", agent, server.create)


def _files(folder: pathlib.Path) -> Callable[[], Database]:
    folder.mkdir()
    numbers = iter(range(sys.maxsize))
    return lambda: databases.SQLiteDatabase(folder / f"{next(numbers)}.db")


def _crowd(
    backend: str, folder: pathlib.Path, agent: pathlib.Path, make: Callable[[], Database]
) -> Iterator[Figure]:
    ours = [_trial(folder / f"ours{number}", make, agent) for number in range(TRIALS)]
    theirs = [_trial(folder / f"theirs{number}", make, None) for number in range(TRIALS)]
    for told in ours:
        if told.words:
            print(told.words, file=sys.stderr)
    yield Figure(
        f"{backend}: of {crowd.SIZE} at once fail, in {TRIALS} trials",
        sum(told.failed for told in ours),
        0,
        "",
        f"alembic alone: {_failures(theirs)}",
    )
    yield Figure(
        f"{backend}: trials with a revision not applied exactly once",
        sum(not told.once for told in ours),
        0,
        "",
        f"alembic alone: {sum(not told.once for told in theirs)} of {TRIALS}",
    )


def _trial(folder: pathlib.Path, make: Callable[[], Database], agent: pathlib.Path | None) -> crowd.Told:
    """Without an ``agent`` alembic's. The interpreter is that of the benchmarks: it has the drivers."""
    database = make()
    url = counted_tree.url(database)
    ini = counted_tree.write(folder / "tree", url)
    if agent is None:
        commands = crowd.theirs(sys.executable, ini)
    else:
        options = {"connection": url, "alembic_config": str(ini), "python": sys.executable}
        commands = crowd.ours(folder, str(agent / "bin" / "refresh-agent"), options)
    told = crowd.trial(commands, url)
    database.drop()
    return told


def _failures(trials: Sequence[crowd.Told]) -> str:
    failed = [told.failed for told in trials]
    return f"{sum(failed)}, in {sum(map(bool, failed))} of {TRIALS} trials"


# --- a large tree ----------------------------------------------------------------------------------------


def large_tree(root: pathlib.Path, agent: pathlib.Path) -> Iterator[Figure]:
    """The status of a database half-way up a long tree; the peer is alembic's list of what is to come."""
    python = str(agent / "bin" / "python")
    database = databases.SQLiteDatabase(root / "database.db")
    url = counted_tree.url(database)
    ini = _write_long(root / "tree", url)
    middle = REVISIONS // 2
    with contextlib.closing(sqlite3.connect(database.path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (_name(middle),))
    options = {"connection": url, "alembic_config": str(ini), "python": python}
    status = _command(root / "node", agent, {"large": options}, "status", "--json")
    history = [python, "-m", "alembic", "-c", str(ini), "history", "-r", "current:head"]
    (told,) = json.loads(quietly(status))
    if len(told["pending"]) != REVISIONS - middle:
        raise RuntimeError(f"{len(told['pending'])} revisions are pending, not {REVISIONS - middle}")
    seen = medians({"ours": lambda: quietly(status), "theirs": lambda: quietly(history)}, 5)
    yield Figure(
        f"db status of a tree of {REVISIONS} revisions",
        seen["ours"],
        SECONDS,
        "s",
        f"{len(told['pending'])} pending; alembic history -r current:head: {seen['theirs']:.2f} s, n = 5",
    )


def _write_long(path: pathlib.Path, url: str) -> pathlib.Path:
    ini = counted_tree.write(path, url)
    versions = path / "versions"
    for file in versions.iterdir():
        file.unlink()
    for number in range(1, REVISIONS + 1):
        down = _name(number - 1) if number > 1 else None
        (versions / f"{_name(number)}_step.py").write_text(
            f'"""Step {number}."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n\n'
            f"revision = {_name(number)!r}\ndown_revision = {down!r}\n\n\ndef upgrade():\n"
            f'    op.add_column("things", sa.Column("c{number}", sa.Integer))\n\n\ndef downgrade():\n'
            f'    op.drop_column("things", "c{number}")\n'
        )
    compileall.compile_dir(path, quiet=1)
    return ini


def _name(number: int) -> str:
    return f"{number:012x}"
