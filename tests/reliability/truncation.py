"""Every state and cache file cut, filled with zeros, with garbage: the agent starts, and nothing is lost.

    .venvs/dev/bin/python -m tests.reliability.truncation --seed 7

cuts every file that fits into a page at every byte, and the larger ones, which are SQLite's, at ``--count``
places. What went wrong is told with the command that reproduces it; exit code 1 then.
"""

import argparse
import json
import logging
import pathlib
import random
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from refresh_agent import metadata, pause
from refresh_agent.collectors import Collector
from refresh_agent.cycle import Cycle, Edges, Result
from refresh_agent.errors import ExitCode, RefreshAgentError
from refresh_agent.journal import Journal
from refresh_agent.model import CollectorSettings, Document, Fingerprints, RunAtBoot, Snapshot, Trigger
from refresh_agent.plan import Request
from refresh_agent.wakeup import Stop
from tests.reliability.faults import Faults, Hooks, Killed, in_memory
from tests.unit.support import Tree, write_json

PAGE = 4096
PHASES = ("pre-configure", "configure", "post-configure")
WHOLE = [f"{phase}/10-a" for phase in PHASES]
NAME = "request"
FOLDERS = ("state", "cache", "backup")
HEADER = 100
"""Bytes at the beginning of a file that say what the rest is; SQLite's has that many."""

FLIPS = 6
"""Bits that are turned in the header of each file, and as many in all of it."""

THOROUGH = 20
"""So many times as many, where every byte is cut."""


class Cuts(NamedTuple):
    """At how many places: of a file larger than a page, and of one that is not. All, if there are no more."""

    large: int = 4000
    small: int = PAGE


class Situation(StrEnum):
    """What the agent was at when it went."""

    DONE = "all was done"
    FAILED = "the last run had failed"
    KILLED = "it was killed in a run"


class How(StrEnum):
    CUT = "cut"
    ZEROS = "zeros"
    GARBAGE = "garbage"
    FLIP = "flip"


class Damage(NamedTuple):
    """From byte ``first`` up to ``last``. A cut has only the first, a flip turns the bit ``last`` of it."""

    how: How
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.how}:{self.first}:{self.last}"

    def of(self, content: bytes) -> bytes:
        """The content with this damage; the same one each time."""
        before, hit, after = content[: self.first], content[self.first : self.last], content[self.last :]
        match self.how:
            case How.CUT:
                return before
            case How.ZEROS:
                return before + bytes(len(hit)) + after
            case How.GARBAGE:
                return before + random.Random(self.first).randbytes(len(hit)) + after
        turned = [byte ^ 1 << self.last for byte in content[self.first : self.first + 1]]
        return before + bytes(turned) + content[self.first + 1 :]


def damages(size: int, chance: random.Random, cuts: int) -> Iterator[Damage]:
    """For a file of that size. ``cuts``: at so many places at most, but at ends and page borders anyway."""
    places = {0, size - 1}
    places |= {page + by for page in range(0, size, PAGE) for by in (-1, 0, 1) if 0 <= page + by < size}
    rest = [place for place in range(size) if place not in places]
    places |= set(chance.sample(rest, min(len(rest), max(0, cuts - len(places)))))
    yield from (Damage(How.CUT, place, 0) for place in sorted(places))
    spans = {(0, size)} | {(page, min(page + PAGE, size)) for page in range(0, size, PAGE)}
    yield from (Damage(how, *span) for span in sorted(spans) for how in (How.ZEROS, How.GARBAGE))
    flips = FLIPS * (1 if cuts < size else THOROUGH)
    for bits in (min(size, HEADER) * 8, size * 8):
        for bit in sorted(chance.sample(range(bits), min(bits, flips))):
            yield Damage(How.FLIP, *divmod(bit, 8))


class _Given(Collector):
    """Gives what the file holds, as a source does that is asked: its deployments are documents, too."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def collect(self) -> Snapshot:
        document = Document(NAME, self._path.read_bytes())
        return Snapshot(NAME, (document,), (str(self._path),), deployment_keys=("deployments",))


Image = dict[pathlib.Path, bytes]
"""Files and what is in them."""


class Node(Tree):
    """Its hooks are only noted."""

    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self.hooks = Hooks()
        self.stop = Stop()
        self.newest = 0
        for place in WHOLE:
            self.hook(place)

    def change(self) -> None:
        self.newest += 1
        deployments = [{"name": name, "config": {"b": self.newest}} for name in ("first", "second")]
        write_json(self.metadata, {"a": self.newest, "deployments": deployments})

    def cycle(self, faults: Faults | None = None, agent: str = "an agent") -> Cycle:
        entry = CollectorSettings(NAME, {"deployment_key": ["deployments"]})
        settings = self.settings(
            collectors=(entry,),
            backup_cachedir=str(self.root / "backup"),
            run_at_boot=RunAtBoot.CHANGED,  # a run would make good what a start has to without one
        )
        edge = (faults or Faults()).edge(agent, "this boot" if agent == "an agent" else "the next boot")
        cycle = Cycle(settings, self.stop, Edges(edge, self.hooks.runner))
        for source in cycle.sources:
            source.__dict__["collector"] = _Given(self.metadata)  # in the place of one that asks a server
        return cycle

    def refresh(self, trigger: Trigger = Trigger.CHANGE) -> Result:
        return self.cycle(agent="the next agent").refresh(Request(trigger))

    def live(self, situation: Situation) -> None:
        """Up to the situation, from nothing."""
        for _ in range(2):
            self.change()
            assert self.cycle().refresh(Request(Trigger.CHANGE)).exit_code is ExitCode.OK
        if situation is Situation.DONE:
            return
        self.change()
        self.hooks.failing = frozenset({WHOLE[1]})
        assert self.cycle().refresh(Request(Trigger.CHANGE)).exit_code is ExitCode.HOOK_FAILED
        if situation is Situation.KILLED:
            faults = Faults()
            self.hooks = Hooks(began=lambda noted: faults.kill() if noted.place == WHOLE[1] else None)
            try:
                self.cycle(faults).refresh(Request(Trigger.RETRY))
            except Killed:
                return
            raise AssertionError("it was to be killed")
        self.hooks = Hooks()

    def image(self) -> Image:
        """Every state and cache file."""
        paths = (path for folder in FOLDERS for path in sorted((self.root / folder).rglob("*")))
        return {path: path.read_bytes() for path in paths if path.is_file()}

    def lay_out(self, image: Image) -> None:
        for folder in FOLDERS:
            shutil.rmtree(self.root / folder, ignore_errors=True)
        for path, content in image.items():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o600)
        self.hooks = Hooks()

    def fingerprints(self) -> Fingerprints:
        """What is to be committed."""
        content = json.loads(self.metadata.read_bytes())
        deployments = [
            (each["name"], metadata.fingerprint(each["config"])) for each in content["deployments"]
        ]
        return ((NAME, metadata.fingerprint(content)), *deployments)

    def set_aside(self) -> list[str]:
        return sorted(path.name for path in self.state.glob("*.damaged-*"))


class Case(NamedTuple):
    """``path`` below the node's folder. ``changes``: the metadata did, right before."""

    situation: Situation
    path: str
    damage: Damage
    changes: bool
    paused: bool

    def __str__(self) -> str:
        return f"{self.situation.name}/{self.path}/{self.damage}/{self.changes:d}{self.paused:d}"

    @classmethod
    def of(cls, text: str) -> "Case":
        """From what ``str`` makes of it."""
        situation, rest = text.split("/", 1)
        path, damage, flags = rest.rsplit("/", 2)
        how, first, last = damage.split(":")
        hurt = Damage(How(how), int(first), int(last))
        return cls(Situation[situation], path, hurt, flags[0] == "1", flags[1] == "1")


class Trial:
    """Tries cases, on one node."""

    def __init__(self, root: pathlib.Path) -> None:
        self.node = Node(root)
        self._lives: dict[Situation, tuple[int, Image]] = {}

    def close(self) -> None:
        self.node.stop.close()

    def paths(self, situation: Situation) -> list[tuple[str, int]]:
        """Of all files, with their sizes."""
        _, image = self._life(situation)
        return [(str(path.relative_to(self.node.root)), len(content)) for path, content in image.items()]

    def cases(self, situation: Situation, seed: int, cuts: Cuts) -> Iterator[Case]:
        """Half of them with a change, a quarter of them while the node is paused; where the file tells of a
        pause, all. What the situation is tells only the journal.
        """
        for path, size in self.paths(situation):
            if situation is not Situation.DONE and "journal" not in path:
                continue
            chance = random.Random(f"{seed} {situation} {path}")
            for damage in damages(size, chance, cuts.large if size > PAGE else cuts.small):
                number = zlib.crc32(f"{seed} {path} {damage}".encode())
                paused = path.endswith("paused.json") or number % 4 == 0
                yield Case(situation, path, damage, number % 8 < 4, paused)

    def try_case(self, case: Case) -> None:
        """Raises AssertionError."""
        node = self.node
        newest, image = self._life(case.situation)
        node.newest = newest - 1
        node.change()
        node.lay_out(image)
        if not case.paused:
            pause.end(str(node.state))
        path = node.root / case.path
        path.write_bytes(case.damage.of(image[path]))
        if case.changes:
            node.change()
        if case.paused:
            self._stays_paused()
        self._comes_to_its_end(due=case.changes or case.situation is not Situation.DONE)
        self._comes_to_rest()

    def _life(self, situation: Situation) -> tuple[int, Image]:
        """The newest metadata, and the files of the node, which then was paused."""
        if situation not in self._lives:
            self.node.lay_out({})
            self.node.newest = 0
            self.node.live(situation)
            pause.begin(str(self.node.state), "a test", 1.0)
            self._lives[situation] = self.node.newest, self.node.image()
        return self._lives[situation]

    def _stays_paused(self) -> None:
        result = self.node.refresh(Trigger.START)
        assert result.exit_code is ExitCode.PAUSED, result
        assert not self.node.hooks.noted
        pause.end(str(self.node.state))

    def _comes_to_its_end(self, *, due: bool) -> None:
        node = self.node
        result = node.refresh(Trigger.START)
        assert result.exit_code is ExitCode.OK, result
        noted = [noted.place for noted in node.hooks.noted]
        assert noted == WHOLE or (noted == [] and not due), noted
        assert {noted.content for noted in node.hooks.noted} <= {node.newest}
        journal = Journal(str(node.state))
        try:
            history = journal.history()
        finally:
            journal.close()
        assert (history.committed, history.unfinished, history.quiesced) == (node.fingerprints(), None, None)
        self._is_well_kept()

    def _is_well_kept(self) -> None:
        node = self.node
        (source,) = node.cycle().sources
        stored = tuple((document.name, document.fingerprint) for document in source.documents)
        assert stored == node.fingerprints()
        contents = [source.content(document) for document in source.documents]
        for folder in ("cache", "backup"):
            files = [node.root / folder / f"{name}.json" for name, _ in stored]
            assert [json.loads(file.read_bytes()) for file in files] == contents
            listed = json.loads((node.root / folder / "os_config_files.json").read_bytes())
            assert listed == [str(node.cache / file.name) for file in files]

    def _comes_to_rest(self) -> None:
        node = self.node
        noted, aside = len(node.hooks.noted), node.set_aside()
        result = node.refresh()
        assert (result.exit_code, result.run_id) == (ExitCode.OK, "")
        assert (len(node.hooks.noted), node.set_aside()) == (noted, aside)


def soak(seed: int, cuts: Cuts, cases: Sequence[Case]) -> Counter[str]:
    """All cases, or those; what went wrong is printed. Counts them by situation, and those that did."""
    counts: Counter[str] = Counter()
    with in_memory() as folder:
        trial = Trial(folder)
        for situation in Situation:
            for case in cases or trial.cases(situation, seed, cuts):
                if case.situation is situation:
                    counts[situation] += 1
                    counts["wrong"] += not _went_well(trial, case)
        trial.close()
    return counts


def _went_well(trial: Trial, case: Case) -> bool:
    try:
        trial.try_case(case)
    except (AssertionError, RefreshAgentError) as error:
        print(f"WRONG: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"  python -m tests.reliability.truncation --case '{case}'", file=sys.stderr)
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Damage every state and cache file, and see what becomes of it."
    )
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="default: a new one")
    parser.add_argument("--count", type=int, default=Cuts().large, help="cuts of each large file")
    parser.add_argument("--case", action="append", type=Case.of, default=[], help="as it was told; only that")
    arguments = parser.parse_args()
    logging.getLogger("refresh_agent").setLevel(logging.CRITICAL)
    print(f"truncation: --seed {arguments.seed}", flush=True)
    counts = soak(arguments.seed, Cuts(arguments.count), arguments.case)
    told = ", ".join(f"{counts[situation]} when {situation}" for situation in Situation)
    print(f"damaged {told}; {counts['wrong']} went wrong")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
