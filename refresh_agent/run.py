"""One run: from its beginning in the journal, through the phases and the databases, to its commit."""

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from refresh_agent import cache, config_files, log, metadata
from refresh_agent.errors import StateError
from refresh_agent.journal import Journal, Run
from refresh_agent.lines import Listener
from refresh_agent.marks import hook_ids
from refresh_agent.model import (
    Failure,
    History,
    MigrationOutcome,
    MigrationResult,
    RunOutcome,
    Settings,
    StopSignal,
    StoredDocument,
)
from refresh_agent.phases import execute, order
from refresh_agent.phases.environment import inherited
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.plan import Decision
from refresh_agent.recorder import RunRecorder, reported
from refresh_agent.redact import Masker, secrets_of_environment
from refresh_agent.sources import Sources

LOG = logging.getLogger("refresh_agent")

KEYS_SHOWN = 8
COMPARABLE = 4 * 2**20
"""Bytes up to which contents are compared key by key for the log; beyond, that would cost too much memory."""


MakeRunner = Callable[[StopSignal, Grace], ProcessRunner]
"""Makes what starts the hooks; tests that need thousands of runs start none."""


class Work(NamedTuple):
    """What a run works with. ``listener`` hears the hooks' output instead of the log.

    ``mask`` knows the secrets of earlier runs too, within limits: what a hook has left behind may still talk
    of them.
    """

    settings: Settings
    stop: StopSignal
    sources: Sources
    journal: Journal
    mask: Masker
    listener: Listener | None = None
    joined: bool = True
    runner: MakeRunner = ProcessRunner


class Finished(NamedTuple):
    """How a run ended; as text, the line that sums it up."""

    run_id: str
    outcome: RunOutcome
    failure: Failure | None
    migrations: tuple[MigrationResult, ...]
    seconds: float
    phases: int
    hooks: int
    quiesced: bool = False
    held: bool = False

    def __str__(self) -> str:
        counted = ((self.phases, "phase"), (self.hooks, "hook"), (len(self.migrations), "database"))
        counts = ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in counted)
        name = f"run {self.run_id[:8]}"
        if self.failure is None:
            return f"{name}: success in {self.seconds:.2f} s ({counts})"
        verb = "stopped" if self.failure.stopped else "failed"
        if self.outcome is RunOutcome.DEFERRED:
            verb = "deferred"
        text = f"{name}: {verb} after {self.seconds:.2f} s: {self.failure} ({counts})"
        return f"{text}; {self.standing}" if self.standing else text

    @property
    def standing(self) -> str:
        """What is not as it should be, and remains so."""
        quiesced = "the node is quiesced until a run gets through post-configure" if self.quiesced else ""
        held = "held until the metadata changes or an operator asks" if self.held else ""
        return "; ".join(filter(None, (quiesced, held)))


def carry_out(work: Work, decision: Decision, history: History) -> Finished:
    """Run for what the sources hold now; commit that, and only that, if everything succeeded.

    Raises StateError before the first hook, if the beginning cannot be recorded or the cache not written. A
    commit that cannot be recorded is an outcome: everything ran, and is to be run again.
    """
    return _carry_out(work, _Refresh(work), decision, history)


def carry_out_by_hand(work: Work, decision: Decision, history: History) -> Finished:
    """Run with what the sources last gave. Whether that succeeds says nothing about what is committed."""
    return _carry_out(work, _ByHand(work), decision, History(quiesced=history.quiesced))


def _carry_out(work: Work, purpose: "_Refresh", decision: Decision, history: History) -> Finished:
    began = time.monotonic()
    work.mask.next_run()
    work.mask.learn(purpose.secrets())
    present = order.present(work.settings.phases.base_dir, (order.PRE_CONFIGURE,))
    quiesces = order.PRE_CONFIGURE if present else ""
    run = work.journal.begin(decision, purpose.fingerprints, quiesces=quiesces)
    with log.about(run.run_id):
        words = (run.run_id[:8], decision.trigger, decision.attempt, decision.reason)
        LOG.info("run %s begins (%s, attempt %d): %s", *words)
        recorder = RunRecorder(work.journal, run, decision.attempt, work.listener)
        try:
            named = purpose.config_files()
        except StateError:
            with reported():
                work.journal.forget(run)  # nothing of it has happened
            raise
        run_env = {**named, **_run_environment(run, decision, history)}
        job = _job(work, run, run_env, recorder)
        outcome, failure, migrations = _phases_then_databases(work, job, recorder)
        activated = failure is None or recorder.activated
        held = purpose.is_held(outcome, decision)
        if failure is None:
            outcome, failure = purpose.succeeded(run)
        else:
            _fail(job, recorder, (outcome, failure), held=held)
            # Where that is not recorded, the run counts as interrupted, and is made again.
            held &= recorder.told_failure
    seconds = time.monotonic() - began
    quiesced = (present or history.quiesced is not None) and not activated
    counts = (recorder.phases, recorder.hooks)
    return Finished(run.run_id, outcome, failure, migrations, seconds, *counts, quiesced=quiesced, held=held)


def _fail(job: execute.Job, recorder: RunRecorder, ended: tuple[RunOutcome, Failure], *, held: bool) -> None:
    """Tell it, and let error.d have its say if it is a failure."""
    outcome, failure = ended
    followed = not failure.stopped and outcome is not RunOutcome.DEFERRED
    present = followed and order.present(job.settings.base_dir, (order.ERROR,))
    recorder.failed(outcome, failure, held=held, begun=order.ERROR if present else "")
    if followed:
        execute.run_error_hooks(job, failure)


class _Refresh:
    """What a run is for: the documents that the sources hold now."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._documents = work.sources.documents
        self.fingerprints = tuple((document.name, document.fingerprint) for document in self._documents)

    def secrets(self) -> Iterator[str]:
        """What must not show up in the log or the journal: the metadata's secrets and the databases'."""
        yield from secrets_of_environment(os.environ)
        if self._work.settings.targets:
            from refresh_agent import databases  # noqa: PLC0415 - as in _migrate

            yield from databases.secrets_of(self._work.settings.targets)
        for entry in self._work.settings.collectors:
            yield from entry.secrets
        for document in self._documents:
            yield from self._work.sources.secrets(document)
        # What was committed too: a hook that changes a password may name the old one.
        for document in self._work.sources.committed:
            with contextlib.suppress(StateError):  # gone, and nothing but this needs it
                yield from self._work.sources.secrets(document)

    def config_files(self) -> Mapping[str, str]:
        """Put the documents where hooks read them: OS_CONFIG_FILES. Raises StateError."""
        _log_changed_keys(self._work.sources, self._documents)
        return _config_files(self._work, self._documents)

    def is_held(self, outcome: RunOutcome, decision: Decision) -> bool:
        """Whether it has failed so often now that it is not tried again by itself."""
        limit = self._work.settings.retry.max_attempts
        return bool(limit) and outcome.is_failure and decision.failures + 1 >= limit

    def succeeded(self, run: Run) -> tuple[RunOutcome, Failure | None]:
        try:
            self._work.journal.commit(run, self.fingerprints)
        except StateError as error:
            return _not_recorded(error)
        with reported():
            self._work.sources.commit(self._documents)
        with reported():
            self._commit_cache()
        return RunOutcome.SUCCESS, None

    def _commit_cache(self) -> None:
        settings = self._work.settings
        if settings.keeps_cache:
            cache.commit(settings.cachedir, _contents(self._documents))
            cache.back_up(settings.cachedir, settings.backup_cachedir)


class _ByHand(_Refresh):
    """No documents: hooks get the files that the caller names, or else those of the last collection."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.fingerprints = ()
        # What they held at the last collection may have been replaced since, and removed.
        self._documents = tuple(
            document if os.path.isfile(document.live) else document._replace(live="")
            for document in self._documents
        )
        self._named = os.environ.get("OS_CONFIG_FILES")

    def secrets(self) -> Iterator[str]:
        yield from super().secrets()
        live = (document.live for document in self._documents)
        for path in filter(None, (*(self._named or "").split(":"), *live)):
            yield from config_files.secrets_of(path, self._work.settings.limits)

    def config_files(self) -> Mapping[str, str]:
        if self._named is not None:
            return {"OS_CONFIG_FILES": self._named}
        return _config_files(self._work, self._documents) if self._documents else {}

    def is_held(self, outcome: RunOutcome, decision: Decision) -> bool:
        del outcome, decision
        return False  # nobody tries it again by itself anyway

    def succeeded(self, run: Run) -> tuple[RunOutcome, Failure | None]:
        try:
            self._work.journal.succeed(run)
        except StateError as error:
            return _not_recorded(error)
        return RunOutcome.SUCCESS, None


def _not_recorded(error: StateError) -> tuple[RunOutcome, Failure]:
    return RunOutcome.NOT_RECORDED, Failure("", "", 0, f"the success is not recorded: {error}")


def _phases_then_databases(
    work: Work, job: execute.Job, recorder: RunRecorder
) -> tuple[RunOutcome, Failure | None, tuple[MigrationResult, ...]]:
    """Databases only after every phase succeeded, migration.d included."""
    failure = execute.run_phases(job, order.PHASES)
    if failure is not None:
        return (RunOutcome.INTERRUPTED if failure.stopped else RunOutcome.HOOK_FAILED), failure, ()
    migrations = _migrate(work, job, recorder)
    bad = [result for result in migrations if not result.ok]
    # What is deferred comes last: a failure beside it is one all the same.
    bad.sort(key=lambda result: result.outcome is MigrationOutcome.DEFERRED)
    if not bad:
        return RunOutcome.SUCCESS, None, migrations
    worst = bad[0]
    outcome = _OUTCOMES.get(worst.outcome, RunOutcome.MIGRATION_FAILED)
    stopped = outcome is RunOutcome.INTERRUPTED
    reason = f"{worst.outcome}: {worst.message}"
    failure = Failure(order.MIGRATION, f"migration:{worst.target}", 1, reason, stopped)
    return outcome, failure, migrations


_OUTCOMES = {
    MigrationOutcome.STOPPED: RunOutcome.INTERRUPTED,
    MigrationOutcome.DEFERRED: RunOutcome.DEFERRED,
}
"""Of a run with such a migration; any other that is not ok fails it."""


def _migrate(work: Work, job: execute.Job, recorder: RunRecorder) -> tuple[MigrationResult, ...]:
    if not work.settings.targets:
        return ()
    # Imported here: a node without databases to migrate need not pay for it.
    from refresh_agent import databases  # noqa: PLC0415
    from refresh_agent.db.worker import protocol  # noqa: PLC0415

    recorder.databases_begin()
    means = databases.Means(
        runner=job.runner,
        mask=job.mask,
        env=job.env,
        trust=work.settings.phases.trust,
        log=functools.partial(recorder.database, logging.INFO),
        warn=functools.partial(recorder.database, logging.WARNING),
        began=recorder.worker_began,
        ended=recorder.worker_ended,
    )
    results = databases.ask(protocol.Order(protocol.UPGRADE, recorder.run_id), work.settings.targets, means)
    for result in results:
        recorder.migrated(result)
    return results


def _job(work: Work, run: Run, run_env: Mapping[str, str], recorder: RunRecorder) -> execute.Job:
    phases = work.settings.phases
    runner = work.runner(work.stop, Grace(phases.kill_grace, phases.stop_grace))
    env = inherited(os.environ)
    ids = hook_ids(run.run_id)
    return execute.Job(phases, env, run_env, runner, recorder, work.stop, work.mask, ids, work.joined)


def _run_environment(run: Run, decision: Decision, history: History) -> dict[str, str]:
    variables = {
        "REFRESH_AGENT_RUN_ID": run.run_id,
        "REFRESH_AGENT_TRIGGER": str(decision.trigger),
        "REFRESH_AGENT_ATTEMPT": str(decision.attempt),
        "REFRESH_AGENT_CHANGED": ":".join(decision.changed),
    }
    last = history.unfinished or history.quiesced
    if last is not None and last.interrupted and last.phase:
        variables["REFRESH_AGENT_INTERRUPTED"] = "/".join(filter(None, (last.phase, last.hook)))
    return variables


def _config_files(work: Work, documents: tuple[StoredDocument, ...]) -> Mapping[str, str]:
    return {"OS_CONFIG_FILES": ":".join(_paths_for_hooks(work, documents))}


def _paths_for_hooks(work: Work, documents: tuple[StoredDocument, ...]) -> tuple[str, ...]:
    """Where os-collect-config runs, its cache is its own and is not written to."""
    if not work.settings.keeps_cache:
        return tuple(document.live or document.stored for document in documents)
    cachedir = work.settings.cachedir
    paths = cache.write(cachedir, _contents(documents))
    with reported():  # a copy that cannot be made is no reason for the node to stand still
        cache.back_up(cachedir, work.settings.backup_cachedir)
    return paths


def _contents(documents: tuple[StoredDocument, ...]) -> cache.Contents:
    return [(document.name, document.stored) for document in documents]


def _log_changed_keys(sources: Sources, documents: tuple[StoredDocument, ...]) -> None:
    before = {document.name: document for document in sources.committed}
    for document in documents:
        old = before.get(document.name)
        if old is None or old.fingerprint == document.fingerprint:
            continue
        if max(_size(old.stored), _size(document.stored)) > COMPARABLE:
            continue
        with contextlib.suppress(StateError):  # gone meanwhile; it is only for the log
            keys = metadata.diff(sources.content(old), sources.content(document))
            first = ", ".join(keys[:KEYS_SHOWN])
            more = f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
            LOG.info("changed in %s: %s%s", document.name, first, more)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
