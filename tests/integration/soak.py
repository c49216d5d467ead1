"""``make soak-databases``: kill migrations at random moments; the next run has to bring them to their end.

    .venvs/dev/bin/python -m tests.integration.soak --kills 200 sqlite postgresql mysql

A line of summary for each backend; what went wrong, with all that was said, and exit code 1 if anything did.
"""

import argparse
import contextlib
import itertools
import pathlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterator

from tests.integration import databases
from tests.integration.kills import MakeDatabase, Soak, Tally
from tools import environments


@contextlib.contextmanager
def _sqlite(folder: pathlib.Path) -> Iterator[MakeDatabase]:
    numbers = itertools.count()
    yield lambda: databases.SQLiteDatabase(folder / f"{next(numbers)}.db")


@contextlib.contextmanager
def _postgresql(_folder: pathlib.Path) -> Iterator[MakeDatabase]:
    with databases.postgresql() as server:
        yield server.create


@contextlib.contextmanager
def _mysql(_folder: pathlib.Path) -> Iterator[MakeDatabase]:
    with databases.mariadb() as server:
        yield server.create


BACKENDS: dict[str, Callable[[pathlib.Path], contextlib.AbstractContextManager[MakeDatabase]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mysql": _mysql,
}


def soak(backend: str, kills: int, seed: int) -> Tally:
    """So many kills on one backend, under both worlds' interpreters in turn."""
    pythons = (sys.executable, str(environments.ensure("legacy") / "bin" / "python"))
    with tempfile.TemporaryDirectory(prefix="refresh-agent-soak-") as folder:
        path = pathlib.Path(folder)
        with BACKENDS[backend](path) as make:
            return Soak(make, path, pythons, seed).run(backend, kills)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill migrations, and see what the next run makes of it.")
    parser.add_argument("backends", nargs="*", metavar="BACKEND", help=f"default: {' '.join(BACKENDS)}")
    parser.add_argument("--kills", type=int, default=200, help="of each backend; default: 200")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="default: a new one")
    arguments = parser.parse_args()
    if unknown := set(arguments.backends) - set(BACKENDS):
        parser.error(f"no such backend: {', '.join(sorted(unknown))}; there are {', '.join(BACKENDS)}")
    print(f"soak: {arguments.kills} kills of each backend, --seed {arguments.seed}", flush=True)
    wrong = 0
    for backend in arguments.backends or BACKENDS:
        tally = soak(backend, arguments.kills, arguments.seed)
        print(tally, flush=True)
        for text in tally.wrong:
            print(f"  WRONG: {text}", file=sys.stderr)
        wrong += len(tally.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
