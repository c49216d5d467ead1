"""Kill the installed command at random moments, in a storm of signals and changes; see what comes of it.

    .venvs/dev/bin/python -m tests.reliability.kills --seed 7 --count 500

Two nodes side by side. A line of summary; what went wrong, how to see it again, and then exit code 1.
"""

import argparse
import contextlib
import fcntl
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from refresh_agent import files
from refresh_agent.journal import Journal
from tests.functional.node import COMMAND
from tests.reliability.traced_tree import HOOKS, LINES, LINGERING, TracedTree, judge, read_note, succeeded
from tests.waiting import eventually

SIDE_BY_SIDE = 2
ROUND = 25
"""Kills until the agent is left alone, and everything has to come right."""

CAME_RIGHT = 30.0
"""Seconds that this may take."""

DAEMON: tuple[str, ...] = ()
COMMANDS = (("--once",), ("--once", "--force"), ("run-phases",))

STARTING, CLEANING, AT_A_NOTE, RUNNING, LATER = "starting", "cleaning", "at a note", "running", "later"
MOMENTS = (STARTING, CLEANING, AT_A_NOTE, AT_A_NOTE, AT_A_NOTE, RUNNING, RUNNING, LATER)
"""When to kill: while it starts, while it cleans up after the last kill, at some note of a hook, while hooks
run (most of that time is that of the one that lingers), or later.
"""

SECONDS = {STARTING: 0.3, CLEANING: 0.15, AT_A_NOTE: 0.05, RUNNING: 1.0, LATER: 1.5}
"""How long after that, at the most."""

MOMENT_SECONDS = 3.0
"""How long to wait for it."""

KILL, TERM, HUP = signal.SIGKILL, signal.SIGTERM, signal.SIGHUP
ENDS = ((KILL,),) * 8 + ((TERM,), (TERM, KILL), (HUP, TERM), (TERM, TERM))
STORM = (signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)

FORBIDDEN = (
    "Traceback",
    "internal error",
    "damaged",
    "set aside",
    "not recorded:",
    "Fatal Python",
    "ignored in",
)
"""Nothing that these kills do is a reason to say so in the log."""

CODES = {True: {0, -KILL}, False: {0, 1, 3, 11, 128 + HUP, 128 + TERM, -KILL}}
"""By whether it is the daemon."""

UNPREPARED = {-HUP, -TERM, -signal.SIGPIPE}
"""The interpreter itself starts: whoever signals it then ends it."""


@dataclass
class Tally:
    """``where``: the kills by what the agent was doing; ``out_of_reach``: see ``Judgement``."""

    where: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    out_of_reach: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.where += other.where
        self.runs += other.runs
        self.out_of_reach += other.out_of_reach
        self.problems += other.problems

    def __str__(self) -> str:
        where = ", ".join(f"{number} {place}" for place, number in sorted(self.where.items()))
        runs = ", ".join(f"{number} {outcome}" for outcome, number in sorted(self.runs.items()))
        return f"{self.where.total()} kills ({where}); runs: {runs}; {self.out_of_reach} hooks out of reach"


class Life(NamedTuple):
    """A process of the agent's, from its start. ``pidfd``: by its number another could be hit."""

    process: subprocess.Popen[bytes]
    pidfd: int
    log_file: pathlib.Path
    is_daemon: bool

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def log(self) -> str:
        return self.log_file.read_text()


class Weather:
    """Changes the metadata and sends signals, at random, until the ``with`` ends."""

    def __init__(self, tree: TracedTree, seed: int) -> None:
        self.tree = tree
        self.lives: list[Life] = []
        self._chance = random.Random(seed)
        self._number = 0
        self._over = threading.Event()

    @contextlib.contextmanager
    def blowing(self) -> Iterator[None]:
        self._over.clear()
        thread = threading.Thread(target=self._blow)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def change(self) -> int:
        """The number in the new metadata."""
        self._number += 1
        self.tree.metadata({"n": self._number})
        return self._number

    def _blow(self) -> None:
        while not self._over.wait(self._chance.uniform(0.01, 0.3)):
            self.tree.roll(self._chance.choice(LINGERING), self._chance.uniform(0, 0.05))
            chosen = self._chance.random()
            if chosen < 0.6:
                self.change()
            elif chosen < 0.63:
                self.tree.metadata_file.write_text('{"n": ')
            elif chosen < 0.66:
                self._kill_the_hook()
            else:
                number = self._chance.choice(STORM)
                for life in tuple(self.lives):
                    life.signal(number)

    def _kill_the_hook(self) -> None:
        """The one that runs, in the middle of whatever it does."""
        last = next(
            (note for note in map(read_note, reversed(self.tree.notes())) if note.what != "alive"), None
        )
        if last is not None and last.what == "begin":
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(int(last.more))
                try:
                    if int(last.more) in self.tree.processes():
                        signal.pidfd_send_signal(pidfd, KILL)
                finally:
                    os.close(pidfd)


class Killer:
    """One node, and all that happens to it."""

    def __init__(self, root: pathlib.Path, seed: int) -> None:
        self.tree = TracedTree(root)
        self.tally = Tally()
        self._chance = random.Random(seed)
        self._weather = Weather(self.tree, seed + 1)
        self._weather.change()
        self._logs: list[pathlib.Path] = []

    def round(self, kills: int) -> None:
        """So many kills, then peace; what went wrong is in ``tally.problems``."""
        try:
            with self._weather.blowing():
                for _ in range(kills):
                    self._live_and_die()
            self._come_right()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            self._wrong(f"it did not come right: {error}")

    def close(self) -> None:
        """Whatever went wrong, nothing of it runs on."""
        for pid in self.tree.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, KILL)

    def last_words(self) -> str:
        """What the last ones have logged."""
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in self._logs[-4:])

    def _wrong(self, what: str) -> None:
        self.tally.problems.append(f"kill {self.tally.where.total()}: {what}")

    def _live_and_die(self) -> None:
        newest, notes = self._newest_run(), len(self.tree.notes())
        arguments = self._chance.choice(COMMANDS) if self._chance.random() < 0.2 else DAEMON
        first = self._start(arguments)
        lives = [first]
        if arguments == DAEMON and self._chance.random() < 0.15:
            time.sleep(self._chance.uniform(0, 0.4))
            lives.append(self._start(self._chance.choice(COMMANDS)))
            self._chance.shuffle(lives)
        self._wait_for_the_moment(first, notes)
        for life in lives:
            self._end(life, self._chance.choice(ENDS))
        self.tally.where[self._where(first, newest)] += 1
        self._check()

    def _start(self, arguments: Sequence[str]) -> Life:
        log_file = self.tree.root / f"log.{len(self._logs)}"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [COMMAND, "--config-file", str(self.tree.config_file), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._logs.append(log_file)
        life = Life(process, os.pidfd_open(process.pid), log_file, not arguments)
        self._weather.lives.append(life)
        return life

    def _wait_for_the_moment(self, life: Life, notes: int) -> None:
        """``notes``: how many there were when it was started."""
        moment = self._chance.choice(MOMENTS)
        more = self._chance.randrange(1, 2 * len(HOOKS)) if moment == AT_A_NOTE else 1
        with contextlib.suppress(AssertionError):  # nothing has changed, so that it runs nothing
            if moment == CLEANING:
                eventually(lambda: life.has_ended or life.log(), MOMENT_SECONDS)
            elif moment in {AT_A_NOTE, RUNNING}:
                eventually(lambda: life.has_ended or len(self.tree.notes()) >= notes + more, MOMENT_SECONDS)
        time.sleep(self._chance.uniform(0, SECONDS[moment]))

    def _end(self, life: Life, numbers: Sequence[int]) -> None:
        for number in numbers:
            life.signal(number)
            time.sleep(self._chance.uniform(0, 0.02) if len(numbers) > 1 else 0)
        code = life.process.wait(20)
        self._weather.lives.remove(life)
        os.close(life.pidfd)
        said = life.log()
        if code not in CODES[life.is_daemon] and (said or code not in UNPREPARED):
            self._wrong(f"{life.process.args!r} ended with {code} after {numbers}")
        for word in FORBIDDEN:
            if word in said:
                self._wrong(f"{life.log_file.name} says {word!r}:\n{said}")

    def _newest_run(self) -> int:
        return int((self.tree.rows("SELECT ifnull(max(id), 0) FROM runs") or [(0,)])[0][0])

    def _where(self, life: Life, newest: int) -> str:
        """What was going on when it died. ``newest``: the last run that had begun when it was born."""
        still_open = self.tree.rows("SELECT id, run_id FROM runs WHERE outcome IS NULL ORDER BY id DESC")
        if not still_open:
            return "idle" if life.log() else "start-up"
        number, run = still_open[0]
        if number <= newest:
            return "cleaning up" if life.log() else "start-up"
        notes = [note for note in map(read_note, self.tree.notes()) if note.run == run]
        if notes and notes[-1].what != "end":
            return notes[-1].place.partition("/")[0]
        return "between"

    def _check(self) -> None:
        """What holds at every moment, also while nobody is there to do anything about it."""
        marked = self.tree.marker.exists()
        if not self._newest_run():
            return
        with contextlib.closing(Journal(str(self.tree.state))) as journal:
            quiesced = journal.history().quiesced
        if marked and quiesced is None:
            self._wrong("the node is quiesced, and the journal does not say so")
        for run in self._committed():
            if not succeeded(self.tree.notes(), run):
                self._wrong(f"run {run[:8]} is committed, but not every hook of it came to its end")

    def _committed(self) -> list[str]:
        return [run for (run,) in self.tree.rows("SELECT run_id FROM committed JOIN runs ON runs.id = run")]

    def _come_right(self) -> None:
        """The agent is let alone; what it was told last is what it has to end with."""
        self.tree.roll("no", 0.01)
        newest = self._weather.change()
        life = self._start(DAEMON)
        try:
            eventually(lambda: self._has_committed(newest), CAME_RIGHT)
        finally:
            self._end(life, (TERM,))
        judgement = judge(self.tree.notes(), self.tree.recorded())
        self.tally.out_of_reach = judgement.out_of_reach
        self.tally.runs = Counter(str(outcome) for outcome in self.tree.outcomes())
        for problem in (*judgement.violations, *self._not_as_it_should_be()):
            self._wrong(problem)

    def _has_committed(self, number: int) -> bool:
        saw = {f"saw {run} configure/10-see {number}" for run in self._committed()}
        return bool(saw & set(self.tree.notes()))

    def _not_as_it_should_be(self) -> Iterator[str]:
        """After a success, when nothing runs any more."""
        with contextlib.closing(Journal(str(self.tree.state))) as journal:
            history = journal.history()
        if history.quiesced is not None or history.unfinished is not None or self.tree.marker.exists():
            yield f"something is left to be done: {history}"
        if self.tree.written_file.read_text().split() != [str(line) for line in range(1, LINES + 1)]:
            yield "configure/20-write was not run to its end"
        with contextlib.closing(sqlite3.connect(self.tree.state / "journal.sqlite")) as db:
            if (found := db.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                yield f"the journal: {found}"
        for folder in (self.tree.state, self.tree.cache, self.tree.root / "backup"):
            for path in folder.rglob("*"):
                if files.TEMPORARY.fullmatch(path.name) or ".damaged-" in path.name:
                    yield f"left over: {path}"
        with self.tree.lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield "the run lock is held"
        with contextlib.suppress(AssertionError):  # 20-background's child, which it leaves behind on purpose
            eventually(lambda: not self.tree.processes(), 2)
        yield from (f"still runs: {pid} {words}" for pid, words in self.tree.processes().items())


def storm(root: pathlib.Path, seed: int, count: int) -> Tally:
    """So many kills on one node, in rounds, until something goes wrong."""
    root.mkdir()
    killer = Killer(root, seed)
    try:
        for begun in range(0, count, ROUND):
            killer.round(min(ROUND, count - begun))
            if killer.tally.problems:
                killer.tally.problems.append(killer.last_words())
                break
    finally:
        killer.close()
    return killer.tally


def side_by_side(folder: pathlib.Path, seed: int, count: int) -> Tally:
    """So many kills, shared by the nodes."""
    tallies: list[Tally] = []

    def one(number: int) -> None:
        root = folder / f"node-{number}"
        tally = Tally(problems=[f"node {number} broke off, see above"])
        try:
            tally = storm(root, seed + number * 1000, count // SIDE_BY_SIDE)
        finally:
            tallies.append(tally)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(SIDE_BY_SIDE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill the agent, and see what comes of it.")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="default: a new one")
    parser.add_argument("--count", type=int, default=500, help="kills; default: 500")
    arguments = parser.parse_args()
    print(f"kills: --seed {arguments.seed} --count {arguments.count}", flush=True)
    # Whoever runs this under nohup does not mean the programs that are started here.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="refresh-agent-kills-"))
    began = time.monotonic()
    tally = side_by_side(folder, arguments.seed, arguments.count)
    print(f"{tally}; {time.monotonic() - began:.0f} s")
    if not tally.problems:
        shutil.rmtree(folder)
        return 0
    print("\n".join(tally.problems))
    print(
        f"all of it is in {folder}; once more: python -m tests.reliability.kills"
        f" --seed {arguments.seed} --count {arguments.count}"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
