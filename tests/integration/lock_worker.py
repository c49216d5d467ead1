"""A worker as its lock sees it, run by either world's interpreter: takes the lock, then does what it is told.

lock_worker.py URL SECONDS NAME; an order a line on stdin, an answer a line on stdout.
"""

import os
import sys
from typing import Any

from refresh_agent.db.worker import locks
from refresh_agent.db.worker.database import Database
from refresh_agent.db.worker.faults import TargetError
from refresh_agent.db.worker.stopping import Stopping


def say(text: object) -> None:
    print(text, flush=True)


def contend(database: Database, mine: locks.Holder, folder: str) -> None:
    """Take the lock ten times; whoever is not alone in it says so."""
    inside = os.path.join(folder, "inside")
    for _ in range(10):
        with locks.held(database, mine, locks.Wait(60, lambda _text: None, lambda: False)):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            with open(os.path.join(folder, "times"), "a", encoding="utf-8") as times:
                times.write(f"{mine.target}\n")
            os.unlink(inside)


def admitted(database: Database, lock: locks.Lock) -> Any:
    connection = database.connect()
    lock.admit(connection.connection.dbapi_connection)
    return connection


def work(database: Database, lock: locks.Lock) -> None:
    """Until the end of stdin. ``sleep N``: let the server work for N seconds; ``stop N``: stop it after N."""
    for line in sys.stdin:
        order, _, rest = line.strip().partition(" ")
        if order == "verify":
            try:
                lock.verify()
                say("ours")
            except TargetError as fault:
                say(fault)
            continue
        connection = admitted(database, lock)
        function = "pg_sleep" if database.backend == "postgresql" else "SLEEP"
        say("begins")
        if order == "sleep":
            connection.exec_driver_sql(f"SELECT {function}({rest})")
            continue
        raw = connection.connection.dbapi_connection
        with Stopping() as stopping:
            say("watches")
            try:
                with stopping.during(float(rest), raw.cancel):
                    connection.exec_driver_sql("SELECT pg_sleep(60)")
            except TargetError as fault:
                say(fault)


def main() -> int:
    url, seconds, name = sys.argv[1:4]
    database = Database(url)
    mine = locks.Holder(f"host-of-{name}", os.getpid(), "3fa1c2d4", name, "2026-11-21T16:50:00Z")
    try:
        if len(sys.argv) > 4:
            contend(database, mine, sys.argv[4])
            return 0
        with locks.held(database, mine, locks.Wait(float(seconds), say, lambda: False)) as lock:
            say("held")
            work(database, lock)
    except TargetError as fault:
        say(f"{type(fault).__name__}: {fault}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
