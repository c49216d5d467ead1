"""Many nodes that migrate one database at once, each with the installed command; and alembic alone."""

import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.exc import DatabaseError

from tests.integration import counted_tree

SIZE = 8
SECONDS = 120

PLACES = {"base_dir": "hooks", "state_dir": "state", "lock_file": "lock", "cachedir": "cache"}


class Ended(NamedTuple):
    status: int
    output: str


class Told(NamedTuple):
    """How many processes failed, what they said, and whether every revision was applied, and once."""

    failed: int
    words: str
    once: bool


def trial(commands: Sequence[Sequence[str]], connection: str) -> Told:
    """Start all at once on an empty database, and look at it when the last one has ended."""
    ended = _together(commands)
    failures = [one for one in ended if one.status]
    return Told(len(failures), "\n".join(one.output for one in failures), _is_whole(connection))


def _together(commands: Sequence[Sequence[str]]) -> list[Ended]:
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for command in commands
    ]
    try:
        outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
    return [Ended(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def _is_whole(connection: str) -> bool:
    try:
        return counted_tree.count(connection) == counted_tree.WHOLE
    except DatabaseError:  # tables are missing
        return False


def ours(folder: pathlib.Path, agent: str, options: Mapping[str, str]) -> list[list[str]]:
    """``refresh-agent db upgrade`` on as many nodes; ``options`` are those of the target."""
    return [_node(folder / f"node{number}", agent, {"counted": options}) for number in range(SIZE)]


def theirs(python: str, ini: pathlib.Path) -> list[list[str]]:
    return [[python, "-m", "alembic", "-c", str(ini), "upgrade", "head"]] * SIZE


def _node(folder: pathlib.Path, agent: str, targets: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [agent, "--config-file", str(configure(folder, targets)), "db", "upgrade"]


def configure(folder: pathlib.Path, targets: Mapping[str, Mapping[str, str]]) -> pathlib.Path:
    """The configuration file of a node in a new folder, which has nothing but these databases."""
    folder.mkdir(parents=True)
    lines = [
        "[DEFAULT]",
        "collectors = heat_local",
        *(f"{name} = {folder}/{place}" for name, place in PLACES.items()),
        "[migrations]",
        f"targets = {','.join(targets)}",
    ]
    for name, options in targets.items():
        lines += [f"[migration:{name}]", *(f"{option} = {value}" for option, value in options.items())]
    path = folder / "refresh-agent.conf"
    path.write_text("\n".join([*lines, ""]))
    return path
