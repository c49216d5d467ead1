"""The sources: what they give is judged, stored durably, and handed out as documents.

A source that fails, gives bad content or gives what looks like an accident costs nothing: its last good
content stands in.
"""

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from refresh_agent import collectors, files, metadata
from refresh_agent.collectors.checking import checked, described
from refresh_agent.errors import ConfigError, StateError
from refresh_agent.intake import Intake, Problem, Rules, family_of, text_of, told
from refresh_agent.model import (
    CollectorSettings,
    Document,
    MetadataLimits,
    Snapshot,
    StoredDocument,
    Suspicious,
)
from refresh_agent.redact import Masker, secrets_in
from refresh_agent.seen import Seen, SeenFile, SeenProblem
from refresh_agent.store import Documents, Kept, Store, forget

LOG = logging.getLogger("refresh_agent.sources")

NOT_ANSWERED = Problem("has not answered yet")
NOTHING_YET = "has given nothing yet"


class Collected(NamedTuple):
    """What became of a collection. ``retry_after``: seconds, if the server asked for it."""

    changed: bool = False
    failed: bool = False
    retry_after: float = 0.0


class Peek(NamedTuple):
    """What a source gives, as hooks would merge it, and what is wrong with it."""

    contents: Sequence[metadata.Content]
    problems: Sequence[Problem]


class Source:
    """One source: its collector, and what the store holds of it.

    A polled one collects in a thread of its own, while the worker reads what is stored.
    """

    def __init__(
        self, name: str, build: Callable[[], collectors.Collector], directory: str, rules: Rules
    ) -> None:
        self.name = name
        self._build = build
        self.watch: tuple[str, ...] = ()
        self.problems: tuple[Problem, ...] = (NOT_ANSWERED,)
        self.unconfigured = False
        self._left_out: tuple[Problem, ...] = ()
        self._rules = rules
        self._store = Store(directory, name, rules.limits)
        self._sightings = SeenFile(directory, name)
        self._asking = threading.Lock()
        self._closed = False
        self._seen = ""
        self._noticed = _told_apart(self.documents)

    @functools.cached_property
    def collector(self) -> collectors.Collector:
        """Made when it is first needed: it may need libraries that take longer to load than all the rest.

        Raises ConfigError if it cannot be made.
        """
        try:
            return self._build()
        except ConfigError:
            raise
        except BaseException as error:  # noqa: BLE001 - a collector may be anybody's
            text = f"[DEFAULT] collectors: {self.name}: it cannot be made: {described(error)}"
            raise ConfigError(text) from None

    @property
    def polled(self) -> bool:
        return isinstance(self.collector, collectors.Polled)

    @property
    def documents(self) -> Documents:
        """The newest good documents, in the source's order."""
        return self._store.kept.good

    @property
    def committed(self) -> Documents:
        """The documents of the last commit, for comparison."""
        return self._store.kept.committed

    @property
    def held(self) -> str:
        """Why newer documents are held back; empty if none are."""
        return self._store.kept.reason

    def look(self) -> str:
        """What it gives now, as a digest; nothing is stored, nothing is said. A polled one is not asked."""
        if self.polled:
            return _told_apart(self.documents)
        snapshot = self._ask()
        self.watch = snapshot.watch
        return _digest(snapshot)

    def seen(self, documents: Iterable[StoredDocument]) -> str:
        """What ``look`` would have given when it held these ``documents``."""
        return _told_apart(documents) if self.polled else self._seen

    def collect(self, *, confirmed: bool = False) -> Collected:
        """Ask the collector, and store durably what is new. Raises StateError if that cannot be written.

        ``confirmed``: what looks like an accident is none.
        """
        with self._asking:
            asked = time.time()
            snapshot = self._ask()
            self.watch = snapshot.watch
            self._seen = "" if self.polled else _digest(snapshot)
            try:
                durable = self._keep(snapshot, confirmed=confirmed)
            except StateError as error:
                self._note(asked, failure=str(error))
                raise
            except Exception as error:  # noqa: BLE001 - it must not end the thread: nobody would ask again
                LOG.error("source %s: internal error: %s", self.name, described(error))  # noqa: TRY400
                self._note(asked, failure=f"internal error: {described(error)}")
                return Collected(failed=True)
            # Not what was stored just now: another process may have stored it, and never have run it.
            before, self._noticed = self._noticed, _told_apart(self.documents)
            self._answer(snapshot, durable=durable)
            self._note(asked, answered=durable)
        failed = bool(snapshot.error) and not snapshot.absent
        return Collected(before != self._noticed, failed, snapshot.retry_after)

    def seed(self, path: str) -> None:
        """Until it gives something itself, it gave what is in this file: another program asked it before.

        What a queue gave then is not in there any more. Raises StateError.
        """
        keys = self._rules.deployment_keys
        document = Document(self.name, None, origin=path)
        with self._store.changing():
            if self._closed or self._store.kept != Kept():
                return  # it has given something since
            intake = Intake(Snapshot(self.name, (document,), deployment_keys=keys), self._store, self._rules)
            self._store.save(Kept(intake.documents, deployment_keys=keys).learning(intake.secrets))
        for problem in intake.problems:
            LOG.warning("source %s: %s", self.name, problem.text)

    def take(self) -> Documents:
        """The newest good documents, to be acted on: what differs from them is a change."""
        with self._store.changing():  # another process may have stored something newer, and run for it
            taken = self.documents
        self._noticed = _told_apart(taken)
        return taken

    def commit(self, documents: Sequence[StoredDocument]) -> None:
        """Remember what a run has brought onto the node. Raises StateError."""
        with self._store.changing():
            kept = self._store.kept._replace(committed=tuple(documents))
            if self.unconfigured and not documents:
                kept = Kept()  # another source has taken its place: it must not stand in for that one later
            self._store.save(kept)

    def sweep(self, in_use: Iterable[StoredDocument]) -> None:
        """Remove what nobody needs any more. Only who holds the run lock may: a run reads these files."""
        with self._store.changing():
            self._store.sweep(in_use)

    def secrets(self, document: StoredDocument) -> tuple[str, ...]:
        """Those of a stored document. Raises StateError if it is gone."""
        found = dict(self._store.kept.secrets).get(document.digest)
        return tuple(secrets_in(self.content(document))) if found is None else found

    def content(self, document: StoredDocument) -> dict[str, Any]:
        """The stored content. Raises StateError if it is gone."""
        limits = self._rules.limits
        try:
            return metadata.parse(files.read_regular(document.stored, limits.bytes), limits)
        except OSError as error:
            raise StateError(f"{document.stored}: cannot be read: {files.reason(error)}") from error
        except metadata.MetadataError as error:
            raise StateError(f"{document.stored}: {error}") from error

    def peek(self) -> Peek:
        """What it gives now, or what stands in for it; nothing is stored, and the source is told nothing."""
        snapshot = self._ask()
        if snapshot.unconfigured:
            return Peek([], [told(f"source {self.name}: {snapshot.error}", (), absent=True)])
        if snapshot.unchanged:
            return Peek([self.content(document) for document in self.documents], [])
        if snapshot.error:
            return self._stand_in(self.documents, snapshot.error, absent=snapshot.absent)
        found = [self._peek(document, snapshot.deployment_keys) for document in snapshot.documents]
        contents = [content for peek in found for content in peek.contents]
        return Peek(contents, [problem for peek in found for problem in peek.problems])

    def _peek(self, document: Document, deployment_keys: Sequence[str]) -> Peek:
        last = family_of(self.documents, document.name)
        if document.error:
            return self._stand_in(last, document.error, absent=document.absent)
        try:
            content = metadata.parse_text(text_of(document, self._rules.limits), self._rules.limits)
        except metadata.MetadataError as error:
            return self._stand_in(last, f"{document.name}: {error}", absent=False)
        exploded = metadata.explode(content, deployment_keys)
        return Peek([content, *(each.config for each in exploded if not each.problem)], [])

    def _stand_in(self, last: Documents, problem: str, *, absent: bool) -> Peek:
        contents = [self.content(document) for document in last]
        return Peek(contents, [told(f"source {self.name}: {problem}", last, absent=absent)])

    def close(self) -> None:
        """Nothing is stored from now on: another configuration is in force."""
        self._closed = True

    def let_go(self) -> None:
        """Nothing is asked any more either: the collector may close its connections."""
        if isinstance(self.collector, collectors.Polled):
            self._tell_collector(self.collector.close)

    def _ask(self) -> Snapshot:
        try:
            return checked(self.collector.collect())._replace(source=self.name)
        except ConfigError:
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            problem = f"its collector failed: {type(error).__name__}"
            LOG.debug("source %s: %s", self.name, described(error))
            return Snapshot(self.name, watch=self.watch, error=problem)

    def _answer(self, snapshot: Snapshot, *, durable: bool) -> None:
        """Tell the collector what became of what it gave."""
        if not isinstance(self.collector, collectors.Polled):
            return
        if snapshot.unchanged and not self.documents:
            self._tell_collector(self.collector.forget)
        elif durable:
            self._tell_collector(self.collector.stored)

    def _tell_collector(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - as above
            LOG.warning("source %s: its collector failed: %s", self.name, described(error))

    def _keep(self, snapshot: Snapshot, *, confirmed: bool) -> bool:
        """Store what is good; whether all that was given is in the store now."""
        problems: list[Problem] = []
        with self._store.changing():
            if self._closed:
                return False
            self.unconfigured = snapshot.unconfigured
            intake = Intake(snapshot, self._store, self._rules)
            kept = self._judged(snapshot, intake, problems, confirmed=confirmed)
            self._store.save(kept)
        if kept.reason:
            problems.append(Problem(_held_back(kept.reason)))
        self._tell(tuple(dict.fromkeys(problems)))
        return not snapshot.error and not intake.rejected

    def _judged(
        self, snapshot: Snapshot, intake: Intake, problems: list[Problem], *, confirmed: bool
    ) -> Kept:
        """What is to be kept after this snapshot."""
        kept = self._store.kept
        if confirmed and kept.held:
            kept = kept._replace(good=kept.held, held=(), reason="")
        if snapshot.error:
            problems.append(_explained(snapshot, kept.good))
            return kept._replace(good=tuple(document._replace(live="") for document in kept.good))
        if snapshot.unchanged:
            problems += self._left_out if kept.good else [Problem(NOTHING_YET, expected=not kept.committed)]
            return kept
        problems += intake.problems
        self._left_out = tuple(intake.problems)
        good = intake.documents
        kept = kept._replace(deployment_keys=snapshot.deployment_keys)
        reason = "" if confirmed else self._suspicion(kept.good, good)
        if reason and self._rules.limits.suspicious is Suspicious.HOLD:
            return kept._replace(held=good, reason=reason).learning(intake.secrets)
        if reason:
            how = "it is used all the same ([limits] suspicious = warn)"
            LOG.warning("source %s: %s; %s", self.name, reason, how)
        return kept._replace(good=good, held=(), reason="").learning(intake.secrets)

    def _suspicion(self, before: Documents, after: Documents) -> str:
        """The first document that looks like an accident, and why; empty if none does."""
        if self._rules.limits.suspicious is Suspicious.OFF:
            return ""
        known = {document.name: document for document in before if not document.parent}
        for document in after:
            old = known.get(document.name)
            if old is not None and not document.parent:
                reason = metadata.suspicion(_shape(old), _shape(document))
                if reason:
                    return f"{document.name} {reason}"
        return ""

    def _note(self, asked: float, *, answered: bool = False, failure: str = "") -> None:
        """For ``status``. ``asked``: wall clock, seconds."""
        if self._closed:
            return
        found = (Problem(failure),) if failure else self.problems
        mask = Masker(self._rules.secrets if found else ())
        problems = tuple(SeenProblem(mask(problem.text), problem.expected) for problem in found)
        self._sightings.note(Seen(asked, asked if answered else None, self._every(), problems))

    def _every(self) -> float | None:
        """Seconds: the least between two polls; None if it is not polled."""
        try:
            return float(self.collector.every) if isinstance(self.collector, collectors.Polled) else None
        except Exception:  # noqa: BLE001 - a collector may be anybody's
            return 0.0

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        """Say what is wrong once, not at every collection."""
        for problem in problems:
            if problem not in self.problems:
                level = logging.INFO if problem.expected else logging.WARNING
                LOG.log(level, "source %s: %s", self.name, problem.text)
        for problem in self.problems:
            if problem not in problems and problem != NOT_ANSWERED:
                LOG.info("source %s: no longer so: %s", self.name, problem.text)
        self.problems = problems


class Sources:
    """All configured sources, in the order in which their documents are merged."""

    def __init__(self, state_dir: str, settings: Sequence[CollectorSettings], limits: MetadataLimits):
        self._directory = os.path.join(state_dir, "sources")
        self._all = [_source(entry, self._directory, limits) for entry in settings]
        self._taken = [source.documents for source in self._all]
        self.seen: tuple[str, ...] = ()
        """What ``look`` would have given at the last collection."""

    def __iter__(self) -> Iterator[Source]:
        return iter(self._all)

    @property
    def polled(self) -> tuple[Source, ...]:
        """Those that have to be asked; each may be asked in a thread of its own."""
        return tuple(source for source in self._all if source.polled)

    def collect(self, *, confirmed: bool = False) -> None:
        """Collect from those that need not be polled, and take what all of them hold now.

        What is wrong with one does not stop the others. ``confirmed``: what looks like an accident is none.
        Raises StateError.
        """
        for source in self._all:
            if not source.polled:
                source.collect(confirmed=confirmed)
        self._take()

    def _take(self) -> None:
        taken = [source.take() for source in self._all]
        self.seen = tuple(source.seen(found) for source, found in zip(self._all, taken, strict=True))
        self._taken = self._in_force(taken)

    def _in_force(self, taken: list[Documents]) -> list[Documents]:
        """The documents of each source; of one whose options were removed only until another takes its place.

        A source that had nothing before and has something now is that; one that was there all along (ec2) is
        not. That nobody is to be asked any more is an accident.
        """
        if not any(
            source.polled and found and not source.unconfigured and not source.committed
            for source, found in zip(self._all, taken, strict=True)
        ):
            return taken
        return [() if source.unconfigured else found for source, found in zip(self._all, taken, strict=True)]

    def look(self) -> tuple[str, ...]:
        """What all sources give now, to compare with ``seen``: writers rewrite files without a change."""
        return tuple(source.look() for source in self._all)

    @property
    def documents(self) -> Documents:
        """Those of the last collection; a name that two sources use is made unique for the later one."""
        return _named(self._taken)

    @property
    def committed(self) -> Documents:
        return _named(source.committed for source in self._all)

    @property
    def watch(self) -> tuple[str, ...]:
        return tuple(path for source in self._all for path in source.watch)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(problem for source in self._all for problem in source.problems)

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Why which sources have never given anything, although they may have something to give."""
        return tuple(
            f"source {source.name}: {problem.text}"
            for source, taken in zip(self._all, self._taken, strict=True)
            for problem in source.problems
            if not source.unconfigured and not taken and (not problem.expected or problem.text == NOTHING_YET)
        )

    @property
    def held(self) -> tuple[str, ...]:
        """Why which sources' newest content is held back."""
        return tuple(f"source {source.name}: {source.held}" for source in self._all if source.held)

    def commit(self, documents: Iterable[StoredDocument]) -> None:
        """``documents``: those of the run that succeeded. Raises StateError."""
        done = tuple(documents)
        for source in self._all:
            source.commit([document for document in done if document.source == source.name])
        forget(self._directory, {source.name for source in self._all})

    def sweep(self) -> None:
        """Remove what neither the store nor the run that begins needs. Raises StateError."""
        for source, taken in zip(self._all, self._taken, strict=True):
            source.sweep(taken)

    def content(self, document: StoredDocument) -> dict[str, Any]:
        """The stored content. Raises StateError if it is gone."""
        return self._of(document).content(document)

    def secrets(self, document: StoredDocument) -> tuple[str, ...]:
        """The secrets in it. Raises StateError if it is gone."""
        return self._of(document).secrets(document)

    def close(self) -> None:
        """Another configuration is in force: nothing of this one is stored any more."""
        for source in self._all:
            source.close()

    def _of(self, document: StoredDocument) -> Source:
        return next(source for source in self._all if source.name == document.source)


def _explained(snapshot: Snapshot, last: Documents) -> Problem:
    """Why there is nothing from the source, and what that means for the hooks."""
    if snapshot.unconfigured and last:
        return Problem(f"{snapshot.error}; what it gave last counts until another source takes its place")
    return told(snapshot.error, last, absent=snapshot.absent)


def _source(entry: CollectorSettings, directory: str, limits: MetadataLimits) -> Source:
    deployment_keys = tuple(entry.options.get("deployment_key", ("deployments",)))
    rules = Rules(limits, deployment_keys, entry.secrets)
    return Source(entry.name, lambda: collectors.build(entry, limits), directory, rules)


def _named(groups: Iterable[Documents]) -> Documents:
    taken: set[str] = set()
    named = []
    for document in (document for group in groups for document in group):
        name = document.name
        if name in taken:
            name = metadata.safe_name(name, f"{document.source}/{name}", taken)
        taken.add(name)
        named.append(document._replace(name=name))
    return tuple(named)


def _told_apart(documents: Iterable[StoredDocument]) -> str:
    return repr([(document.name, document.fingerprint) for document in documents])


def _shape(document: StoredDocument) -> metadata.Shape:
    return metadata.Shape(document.blank, document.deployments)


def _held_back(reason: str) -> str:
    return (
        f"{reason}: it is held back, and its last good content stays in use ([limits] suspicious = hold); "
        "confirm it with refresh-agent --once --force, or wait for newer metadata"
    )


def _digest(snapshot: Snapshot) -> str:
    parts = [
        (
            document.name,
            document.path,
            document.error or document.digest or metadata.digest(document.raw or b""),
        )
        for document in snapshot.documents
    ]
    return metadata.digest(repr((snapshot.error, parts)).encode())
