"""What has really happened on the node of the model, and what must hold of it whatever happens to the agent.

It hears of every hook as it begins and ends, from the stand-in that runs them, and reads what is on the disk
as any command would. It trusts the agent in nothing else.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from refresh_agent import metadata
from refresh_agent.journal import Journal
from refresh_agent.journal_file import Edge
from refresh_agent.model import Fingerprints, History, RunAtBoot, Trigger
from refresh_agent.phases import order
from tests.unit.support import LIMITS

ASKED_FOR = frozenset({Trigger.SIGNAL, Trigger.ONCE})
"""Triggers of what an operator has asked for; the others are what happens by itself."""

COURSE = (order.PRE_CONFIGURE, order.CONFIGURE, order.POST_CONFIGURE, order.MIGRATION)
"""What a run has to get through, in this order."""

DATABASES = "the databases"
"""Follows where the node has databases to migrate."""


class Violation(AssertionError):  # noqa: N818 - it is the model's word for it
    """Something that must never be; the text says what."""


@dataclass
class Run:
    """As its hooks have seen it. ``done``: what it has got through, in order. ``over``: nothing follows."""

    run_id: str
    documents: Fingerprints
    trigger: str
    attempt: int
    by_hand: bool
    done: list[str] = field(default_factory=list)
    failed: bool = False
    deferred: bool = False
    over: bool = False


class Last(NamedTuple):
    """What a refresh has to go on from: the newest run for documents, and how often these have failed.

    ``complete``: everything succeeded, and the node has these documents. ``attempts`` and ``failures``: as in
    model.Unfinished. ``booted``: the node has, since that run began.
    """

    documents: Fingerprints
    complete: bool
    attempts: int = 0
    failures: int = 0
    booted: bool = False


class Stopped(NamedTuple):
    """Where the newest run was killed in a hook."""

    run: Run
    phase: str


@dataclass
class Rules:
    """How the node is set up at this moment. ``max_attempts`` 0: never hold."""

    max_attempts: int = 0
    databases: bool = False
    paused: bool = False
    locked: bool = False
    run_at_boot: RunAtBoot = RunAtBoot.ALWAYS

    @property
    def course(self) -> tuple[str, ...]:
        return (*COURSE, DATABASES) if self.databases else COURSE


class Facts:
    """The truth. What contradicts it is kept in ``wrong``, for the agent may swallow what is raised.

    ``made``: there is a journal; ``written``: something was committed to it since the last check.
    """

    def __init__(self, state_dir: pathlib.Path, rules: Rules) -> None:
        self.rules = rules
        self.wrong: list[str] = []
        self.runs = 0
        self.boot = 1
        self.made = self.written = False
        self.quiesced = False
        self.run: Run | None = None
        self.last: Last | None = None
        self.stopped: Stopped | None = None
        self.committed: Fingerprints | None = None
        self._to_be_activated = False
        self._complete: Fingerprints = ()
        self._ever_complete: set[tuple[str, str]] = set()
        self._names_seen: set[str] = set()
        self._known: dict[bytes, str] = {}
        self._state_dir = str(state_dir)
        self._reader: Journal | None = None
        self._index = state_dir / "sources" / "heat_local.json"
        self._index_seen: tuple[int, int] = (0, 0)

    # --- what happens --------------------------------------------------------------------------------------

    def hook_begins(self, env: Mapping[str, str], *, by_hand: bool, others: object) -> None:
        """``others``: the hooks and workers of the node that still run."""
        run_id, phase = env["REFRESH_AGENT_RUN_ID"], env["REFRESH_AGENT_PHASE"]
        if others:
            self.violated(f"{phase} begins while {others} still runs")
        documents = self.documents_of(env.get("OS_CONFIG_FILES", ""))
        if self.run is None or self.run.run_id != run_id:
            self._run_begins(env, documents, by_hand=by_hand)
        run = self._current()
        if run.documents != documents and not by_hand:
            self.violated("the hooks of a run were given different documents")
        if phase == order.ERROR:
            if not run.failed:
                self.violated("error.d runs although nothing has failed")
            return
        self._follows(run, phase)
        if phase == order.PRE_CONFIGURE:
            self.quiesced = True
            self.check_quiesced()

    def hook_ended(self, phase: str, *, ok: bool) -> None:
        run = self._current()
        if phase == order.ERROR:
            return
        run.failed |= not ok
        if ok:
            self._got_through(run, phase)

    def databases_begin(self, run_id: str, others: object) -> None:
        if others:
            self.violated(f"databases are migrated while {others} still runs")
        run = self._current()
        if run.run_id != run_id:
            self.violated("the databases are migrated for another run than the hooks have run for")
        self._follows(run, DATABASES)

    def databases_ended(self, *, ok: bool, deferred: bool = False) -> None:
        run = self._current()
        run.failed |= not ok and not deferred
        run.deferred = deferred
        if ok:
            self._got_through(run, DATABASES)

    def killed(self, phase: str) -> None:
        """The agent, while a hook of this phase runs."""
        run = self._current()
        if not run.by_hand and phase != order.ERROR:
            self.stopped = Stopped(run, phase)

    def booted(self) -> None:
        self.boot += 1
        self.last = self.last and self.last._replace(booted=True)

    def work_over(self, *, certain: bool) -> None:
        """A process has done what it had to, with at most one run. ``certain``: nothing went wrong meanwhile
        but what hooks did, so that how it stands follows from them; else the journal is asked for that.
        """
        run = self.run
        if run is not None and run.over:
            run = None
        if run is not None:
            run.over = True
            self._to_be_activated = self.quiesced
        if not certain:
            if self.stopped is not None and self.stopped.run is not run:
                self.stopped = None  # another may have begun since, without a hook
            history = self.history()
            self.last = self._as_recorded(history)
            self._to_be_activated = history.quiesced is not None
        elif run is not None and not run.by_hand:
            self.last = self._after(run)
            complete = run.done == list(self.rules.course)
            if complete and self.history().committed != run.documents:
                self.violated("a run has succeeded, and is not committed")

    def _after(self, run: Run) -> Last:
        """How it stands after an undisturbed run."""
        if run.done == list(self.rules.course):
            return Last(run.documents, complete=True)
        same = self.last is not None and not self.last.complete and self.last.documents == run.documents
        before = self.last.failures if same and self.last is not None else 0
        return Last(run.documents, False, run.attempt - run.deferred, before + run.failed)

    def _as_recorded(self, history: History) -> Last | None:
        if self._reader is None:
            return None
        query = "SELECT boot_id FROM runs WHERE documents <> '[]' ORDER BY id DESC LIMIT 1"
        found = self._reader._db.execute(query).fetchone()
        booted = found is not None and found[0] != self.boot_id()
        if (unfinished := history.unfinished) is not None:
            return Last(unfinished.documents, False, unfinished.attempts, unfinished.failures, booted)
        return Last(history.committed, complete=True, booted=booted) if history.committed else None

    def boot_id(self) -> str:
        return f"boot {self.boot}"

    # --- what follows from it ------------------------------------------------------------------------------

    @property
    def owes_a_run(self) -> bool:
        """Whether the node has booted, and nothing has run since although it is to."""
        return self.last is not None and self.last.booted and self.rules.run_at_boot is RunAtBoot.ALWAYS

    def refreshed(self) -> None:
        """A refresh has come to its end, undisturbed."""
        if self.owes_a_run and not self.rules.paused and not self.rules.locked:
            self.violated("the first refresh after a boot has run nothing")

    def _run_begins(self, env: Mapping[str, str], documents: Fingerprints, *, by_hand: bool) -> None:
        run_id, trigger = env["REFRESH_AGENT_RUN_ID"], env["REFRESH_AGENT_TRIGGER"]
        if run_id in self._names_seen or (self.run is not None and not self.run.over):
            self.violated("the hooks of two runs take turns")
        if self.rules.paused:
            self.violated("a run begins although there is a pause")
        if self.rules.locked:
            self.violated("a run begins although another refresh holds the lock")
        run = Run(run_id, documents, trigger, int(env["REFRESH_AGENT_ATTEMPT"]), by_hand)
        if not by_hand:
            self._is_due(run)
            self._is_told_where_it_stopped(env.get("REFRESH_AGENT_INTERRUPTED", ""))
        self._names_seen.add(run_id)
        self.run, self.stopped = run, None
        self.runs += 1

    def _is_due(self, run: Run) -> None:
        last = self.last
        if last is None or last.documents != run.documents:
            return
        if self.owes_a_run:
            if run.trigger not in {Trigger.START, *ASKED_FOR}:
                self.violated(f"the first run after a boot has the trigger {run.trigger}")
        elif run.trigger not in ASKED_FOR:
            self._is_due_by_itself(run, last)
        before = 0 if last.complete else last.attempts
        if run.attempt != before + 1 and (self.owes_a_run or not last.complete):
            self.violated(f"attempt {run.attempt} follows number {before}")

    def _is_due_by_itself(self, run: Run, last: Last) -> None:
        if last.complete:
            if not self._to_be_activated:
                self.violated(f"a run ({run.trigger}) for what the node has already, and nobody asked for it")
            return
        limit = self.rules.max_attempts
        if limit and last.failures >= limit:
            self.violated(f"a run ({run.trigger}) after {last.failures} failures, which is to be held")
        if run.trigger != Trigger.RETRY:
            self.violated(f"what is tried again has the trigger {run.trigger}")

    def _is_told_where_it_stopped(self, told: str) -> None:
        if self.stopped is not None and told.partition("/")[0] != self.stopped.phase:
            self.violated(f"was interrupted in {self.stopped.phase}, and the next run is told {told!r}")

    def _follows(self, run: Run, what: str) -> None:
        """The course of a run has no way back, and no way around what failed."""
        if run.failed or run.over or run.done != list(self.rules.course[: len(run.done)]):
            self.violated(f"{what} begins after {run.done}, in a run that has failed or is over")
        elif what != self.rules.course[len(run.done)]:
            self.violated(f"{what} begins after {run.done}")

    def _got_through(self, run: Run, what: str) -> None:
        run.done.append(what)
        if what == order.POST_CONFIGURE:
            self.quiesced = False
        if run.done == list(self.rules.course) and not run.by_hand:
            self._complete = run.documents
            self._ever_complete.update(run.documents)

    def _current(self) -> Run:
        if self.run is None:
            raise Violation("something ends that has never begun")
        return self.run

    # --- what is on the disk -------------------------------------------------------------------------------

    def check(self) -> None:
        """After every step. Raises Violation, also if there was one that the agent has swallowed."""
        if self.written:
            self.written = False
            self._check_committed(self.history().committed)
            self.check_quiesced()
        self._check_store()
        if self.wrong:
            raise Violation(self.wrong[0])

    def check_quiesced(self) -> None:
        if self.quiesced and self.history().quiesced is None:
            self.violated("the node is quiesced, and the journal says nothing of it")

    def _check_committed(self, committed: Fingerprints | None) -> None:
        if committed == self.committed:
            return
        if committed != self._complete:
            self.violated(
                f"{committed} is committed, and the last that was run to its end is {self._complete}"
            )
        self.committed = committed

    def _check_store(self) -> None:
        """The sources' own note of what was committed; it may be late, but not wrong."""
        try:
            status = os.stat(self._index)
        except FileNotFoundError:
            return
        seen = status.st_ino, status.st_mtime_ns
        if seen == self._index_seen:
            return
        self._index_seen = seen
        noted = json.loads(self._index.read_bytes())["committed"]
        if not {(entry["name"], entry["fingerprint"]) for entry in noted} <= self._ever_complete:
            self.violated("the store has noted as committed what was never run to its end")

    def history(self) -> History:
        """As a command beside the daemon reads it; its connection stays open."""
        if not self.made:
            return History()
        if self._reader is None:
            self._reader = Journal(self._state_dir, Edge(boot_id=self.boot_id, agent="a reader"))
        return self._reader.history()

    def newest_good(self) -> Fingerprints | None:
        """What the agent has last seen that can be used; None if there was nothing yet."""
        try:
            kept = json.loads(self._index.read_bytes())["good"]
        except FileNotFoundError:
            return None
        return tuple((entry["name"], entry["fingerprint"]) for entry in kept) or None

    def documents_of(self, paths: str) -> Fingerprints:
        """What the files hold now that hooks are given, by name and fingerprint."""
        found = []
        for path in filter(None, paths.split(":")):
            raw = pathlib.Path(path).read_bytes()
            found.append((os.path.basename(path).removesuffix(".json"), self.fingerprint(raw)))
        return tuple(found)

    def fingerprint(self, raw: bytes) -> str:
        if raw not in self._known:
            self._known[raw] = metadata.fingerprint(metadata.parse(raw, LIMITS))
        return self._known[raw]

    def violated(self, text: str) -> None:
        self.wrong.append(text)
        raise Violation(text)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
