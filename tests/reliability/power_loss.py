"""``make soak``: take the power away at any moment of real runs, and start from what the disk has then.

    .venvs/dev/bin/python -m tests.reliability.power_loss --seed 7 --count 20000

The installed command is run under strace, a story after the other. Then every prefix of what it wrote, and
samples in which what was not synced is lost or torn, are laid out where it was, and a refresh starts there.
What went wrong is printed, with the command that reproduces it, and exit code 1 if anything did.
"""

import argparse
import contextlib
import json
import logging
import os
import pathlib
import pickle
import random
import re
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator

from refresh_agent import pause
from refresh_agent.cycle import Cycle, Edges, Result
from refresh_agent.errors import ExitCode, RefreshAgentError
from refresh_agent.journal import Journal
from refresh_agent.model import ByteSink, Command, Ending, Exit, Trigger
from refresh_agent.phases.process import Process, ProcessRunner
from refresh_agent.plan import Request
from refresh_agent.wakeup import Stop
from tests.reliability.power_stories import (
    AFTERWARDS,
    FOLDERS,
    HOOKS,
    STORIES,
    Place,
    Record,
    Truth,
    hook_named,
    opened_copy,
    recorded,
    server,
)
from tests.reliability.syscalls import Disk, Image, Kind, Operation, StraceError, lay_out

# --- a start from an image ---------------------------------------------------------------------------------

CLEAR = re.compile(
    r"run [0-9a-f]{8} was interrupted: the agent was killed, the node went down, or its end was not recorded"
    r"|the node is quiesced: run [0-9a-f]{8} (was interrupted|failed)\b.*"
)
"""What a start after a power loss may warn of. That a file is damaged is not among it: none is to be."""


class Hooks(ProcessRunner):
    """Hooks that succeed without a process, if what they are to read is whole; ``started``: all of them."""

    def __init__(self, started: list[Command]) -> None:
        self._started = started
        self._over: deque[tuple[Process, Exit]] = deque()

    def start(self, command: Command, sink: ByteSink) -> Process:
        del sink
        for path in command.env["OS_CONFIG_FILES"].split(":"):
            json.loads(pathlib.Path(path).read_bytes())
        self._started.append(command)
        process = Process(command)
        self._over.append((process, Exit(0, Ending.EXITED, 0.0)))
        return process

    def next_ended(self, seconds: float | None = None) -> tuple[Process, Exit]:
        return self._over.popleft()


class Heard(logging.Handler):
    """Warnings that a power loss does not explain."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info or not CLEAR.fullmatch(text):
            self.lines.append(f"the log says: {text}")


class Restart:
    """Starts from images of one record, in its place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._root = place.node.root
        self._settings = place.settings
        self._stop = Stop()

    def problems(self, image: Image, truth: Truth) -> list[str]:
        """What is not as it has to be, before and after a refresh that starts from there."""
        lay_out(image, self._root, FOLDERS)
        self._place.stand_at(truth.step)
        logger, heard = logging.getLogger("refresh_agent"), Heard()
        logger.addHandler(heard)
        logger.propagate = False
        try:
            return [*self._found(truth), *self._started(truth), *self._ended(truth), *heard.lines]
        except (RefreshAgentError, OSError, ValueError) as error:
            return [f"does not start: {type(error).__name__}: {error}", *heard.lines]
        finally:
            logger.removeHandler(heard)
            logger.propagate = True

    def _found(self, truth: Truth) -> Iterator[str]:
        """Before anything has been done about it."""
        yield from torn_files(self._root)
        with opened_copy(self._root) as journal:
            journal.check()
            history = journal.history()
            known = {run_id for (run_id,) in journal._db.execute("SELECT run_id FROM runs")}
        if history.committed not in truth.committed:
            yield f"committed is {history.committed}, which is none of {truth.committed}"
        if forgotten := set(truth.begun) - known:
            yield f"forgotten: runs {sorted(forgotten)}, whose hooks had begun"
        if truth.quiesced is not None and (history.quiesced is not None) is not truth.quiesced:
            yield f"quiesced is {history.quiesced}, not {truth.quiesced}"
        if truth.paused is not None and (self._pause is not None) is not truth.paused:
            yield f"the pause is {self._pause}, not {truth.paused}"

    @property
    def _pause(self) -> pause.Pause | None:
        return pause.read(str(self._root / "state"))

    def _started(self, truth: Truth) -> Iterator[str]:
        if (found := self._pause) is not None:
            if found.since is None:
                yield f"the pause is damaged: {found}"
            result, hooks = self._refreshed()
            if result.exit_code is not ExitCode.PAUSED or hooks:
                yield f"{result.summary} after {len(hooks)} hooks, in a pause"
            pause.end(str(self._root / "state"))
        result, hooks = self._refreshed()
        if result.exit_code is not ExitCode.OK:
            yield f"the refresh ends with {result.exit_code}: {result.summary}"
        if hooks and [hook_named(os.path.relpath(each.path, self._root)) for each in hooks] != list(HOOKS):
            yield f"only part of the hooks have run: {hooks}"
        if hooks and truth.is_interrupted and hooks[0].env["REFRESH_AGENT_ATTEMPT"] != "2":
            yield f"the run that was interrupted is made again as attempt {result.decision}"
        again, hooks = self._refreshed()
        if again.exit_code is not ExitCode.OK or hooks:
            yield f"a second refresh is not idle: {again.summary}"

    def _refreshed(self) -> tuple[Result, list[Command]]:
        started: list[Command] = []
        cycle = Cycle(self._settings, self._stop, Edges(AFTERWARDS, lambda _stop, _grace: Hooks(started)))
        try:
            return cycle.refresh(Request(Trigger.START)), started
        finally:
            cycle.close()

    def _ended(self, truth: Truth) -> Iterator[str]:
        yield from torn_files(self._root)
        yield from self._out_of_date(truth)
        with contextlib.closing(Journal(str(self._root / "state"), AFTERWARDS)) as journal:
            history = journal.history()
        if truth.newest and history.committed != truth.newest:
            yield f"in the end {history.committed} is committed, not {truth.newest}"
        if history.unfinished is not None or history.quiesced is not None:
            yield f"in the end the journal says {history}"

    def _out_of_date(self, truth: Truth) -> Iterator[str]:
        """Cache files that are not what was committed, or that are nobody's."""
        names = [name for name, _ in truth.newest]
        for folder in ("cache", "backup"):
            wanted = {f"{name}.json{suffix}" for name in names for suffix in ("", ".orig", ".last")}
            found = {path.name for path in (self._root / folder).iterdir()} - {"os_config_files.json"}
            if names and found != wanted:
                yield f"{folder} holds {sorted(found)}"
            for name in names if found == wanted else ():
                path = self._root / folder / f"{name}.json"
                if path.read_bytes() != path.with_name(f"{name}.json.last").read_bytes():
                    yield f"{path} is not what was committed"


def torn_files(root: pathlib.Path) -> Iterator[str]:
    """Cache files that are not whole, and names in a list of what is not there."""
    for folder in (root / "cache", root / "backup"):
        for path in sorted(folder.glob("[!.]*.json*")):
            try:
                content = json.loads(path.read_bytes())
            except ValueError:
                yield f"{path} is torn"
                continue
            if path.name == "os_config_files.json":
                missing = [each for each in content if not (folder / pathlib.Path(each).name).is_file()]
                yield from (f"{path} lists {each}, which is not there" for each in missing)


# --- prefixes and samples ----------------------------------------------------------------------------------


Found = Iterator[tuple[str, list[str]]]
"""Where the power went, as the options of this program have it and in words, and what was wrong then."""


def every_prefix(record: Record, restart: Restart) -> Found:
    """Power goes when all that was written so far has reached the disk, as if the agent had been killed."""
    disk, truth = Disk(), Truth(record)
    for number, operation in enumerate(record.operations):
        disk.apply(operation)
        truth.see(operation)
        yield f"--prefix {number}  # {_told(operation)}", restart.problems(disk.as_written(), truth)


def samples(record: Record, restart: Restart, seed: int, numbers: Iterable[int]) -> Found:
    """Power goes at random moments, and of what was not synced then any part is there."""
    count = len(record.operations)
    moments: dict[int, list[int]] = {}
    for number in numbers:
        moments.setdefault(_chance(seed, number).randrange(count), []).append(number)
    disk, truth = Disk(), Truth(record)
    for moment, operation in enumerate(record.operations):
        disk.apply(operation)
        truth.see(operation)
        for number in moments.get(moment, ()):
            chance = _chance(seed, number)
            chance.randrange(count)
            where = f"--seed {seed} --sample {number}  # operation {moment}: {_told(operation)}"
            yield where, restart.problems(disk.after_power_loss(chance), truth)


def _chance(seed: int, number: int) -> random.Random:
    return random.Random(f"{seed}-{number}")


def _told(operation: Operation) -> str:
    return " ".join(filter(None, (operation.kind, operation.path, operation.other)))


def without_syncs(record: Record) -> Record:
    """As if nothing had ever waited for the disk; then these tests have to fail."""
    return record._replace(operations=tuple(each for each in record.operations if each.kind is not Kind.SYNC))


# --- the long form -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def scratch(root: pathlib.Path | None = None) -> Iterator[pathlib.Path]:
    """A folder, in memory if there is one there; or that of a record, whose files name it."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = root or pathlib.Path(tempfile.mkdtemp(prefix="refresh-agent-power-loss-", dir=memory))
    path.mkdir(exist_ok=True)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _whole_story(story: str, seed: int, count: int) -> int:
    """Its number of images that went wrong."""
    with scratch() as root, server(root) as port:
        place = Place(root, story, port)
        record = recorded(place, story)
        restart = Restart(place)
        wrong = _tell(every_prefix(record, restart), record)
        wrong += _tell(samples(record, restart, seed, range(count)), record)
        print(f"{story}: {len(record.operations)} prefixes, {count} samples, {wrong} wrong", flush=True)
    return wrong


def _tell(found: Found, record: Record) -> int:
    wrong, kept = 0, ""
    for where, problems in found:
        if problems:
            wrong += 1
            kept = kept or _kept(record)
            command = f"python -m tests.reliability.power_loss --record {kept} {where}"
            print("\n    ".join((f"WRONG: {command}", *problems)), file=sys.stderr)
    return wrong


def _kept(record: Record) -> str:
    descriptor, path = tempfile.mkstemp(prefix="refresh-agent-power-loss-", suffix=".record")
    with open(descriptor, "wb") as file:
        pickle.dump(record, file)
    return path


def _again(path: str, seed: int, prefix: int | None, sample: int) -> int:
    """One image of a record that was kept."""
    record: Record = pickle.loads(pathlib.Path(path).read_bytes())
    with scratch(pathlib.Path(record.root)) as root, server(root) as port:
        restart = Restart(Place(root, record.story, port))
        found = (
            every_prefix(record, restart) if prefix is not None else samples(record, restart, seed, [sample])
        )
        for number, (where, problems) in enumerate(found):
            if prefix in {None, number}:
                print("\n    ".join((where, *(problems or ["nothing is wrong"]))))
                return 1 if problems else 0
    return 2


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Take the power away from runs, and start from what is there."
    )
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="default: a new one")
    parser.add_argument("--count", type=int, default=20000, help="samples of all stories; default: 20000")
    parser.add_argument("--record", default="", help="one that was kept: try one image of it again")
    parser.add_argument("--prefix", type=int, help="with --record: that much of it, all of it on the disk")
    parser.add_argument("--sample", type=int, default=0, help="with --record: the sample of that number")
    arguments = parser.parse_args()
    if arguments.record:
        return _again(arguments.record, arguments.seed, arguments.prefix, arguments.sample)
    print(f"power loss: {arguments.count} samples, --seed {arguments.seed}", flush=True)
    try:
        wrong = sum(_whole_story(story, arguments.seed, arguments.count // len(STORIES)) for story in STORIES)
    except StraceError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
