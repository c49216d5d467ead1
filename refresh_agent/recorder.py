"""What a run tells the log, the journal and systemd while it goes on."""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence

from refresh_agent.errors import StateError
from refresh_agent.journal import Boundary, HookRecord, Journal, PhaseEnd, Run
from refresh_agent.lines import Lines, Listener
from refresh_agent.model import (
    Exit,
    Failure,
    HookEvent,
    HookResult,
    MigrationOutcome,
    MigrationResult,
    RunOutcome,
    StartedHook,
)
from refresh_agent.phases import order
from refresh_agent.systemd import status

LOG = logging.getLogger("refresh_agent")


class RunRecorder:
    """Tells the log and the journal what a run does.

    A journal that cannot be written in the middle of a run does not end the run: a quiesced node must be
    activated again. It is said; and if the end cannot be recorded either, the run is made again.
    """

    def __init__(self, journal: Journal, run: Run, attempt: int, listener: Listener | None) -> None:
        self.hooks = 0
        self.phases = 0
        self.told_failure = False
        """Whether the journal knows that the run has failed."""
        self._journal = journal
        self._run = run
        self._told = run.phase
        self._attempt = attempt
        self._listener = listener
        self._begun = 0
        self._over: PhaseEnd | None = None
        self._activated = False
        self._running: dict[str, HookRecord] = {}
        self._began: dict[str, float] = {}

    @property
    def run_id(self) -> str:
        return self._run.run_id

    @property
    def activated(self) -> bool:
        """Whether the run has got through post-configure."""
        return self._activated

    def phase_began(self, phase: str, hooks: int) -> None:
        self.phases += phase != order.ERROR
        self._began[phase] = time.monotonic()
        LOG.info("%s: begins, %d hook%s", phase, hooks, "" if hooks == 1 else "s")
        self._activated |= phase == order.MIGRATION  # it comes after post-configure
        if phase != self._told:
            self._boundary(phase)

    def phase_ended(self, phase: str, failure: Failure | None) -> None:
        seconds = time.monotonic() - self._began[phase]
        outcome = "done" if failure is None else "stopped" if failure.stopped else "failed"
        reason = "" if failure is None else f": {failure.reason}"
        LOG.info("%s: %s after %.2f s%s", phase, outcome, seconds, reason)
        self._over = PhaseEnd(phase, outcome)
        if phase == order.ERROR:
            self._boundary()

    def databases_begin(self) -> None:
        """They may take hours, in which all phases are over."""
        status("migrating databases")
        self._activated = True
        self._boundary()

    def _boundary(self, begun: str = "") -> None:
        """Written when the next phase begins, or with the run's end: one wait for the disk instead of two."""
        with reported():
            self._journal.record_boundary(self._run, Boundary(self._over, begun, self._activated))
        self._over = None

    def hooks_changed(self, events: Sequence[HookEvent]) -> None:
        for event in events:
            if isinstance(event, StartedHook):
                LOG.info("%s/%s: begins", event.phase, event.hook)
                status(f"running {event.phase}: {event.hook}, attempt {self._attempt}")
            else:
                self._log_end(event)
        records = [self._record(event) for event in events]
        with reported():
            self._journal.record_hooks(self._run, records)

    def _record(self, event: HookEvent) -> HookRecord:
        if isinstance(event, StartedHook):
            self._begun += 1
            record = HookRecord(self._begun, time.time(), event)
            self._running[event.hook_id] = record
            return record
        begun = self._running.pop(event.started.hook_id)
        return HookRecord(begun.position, begun.started_at, begun.started, event)

    def _log_end(self, result: HookResult) -> None:
        ended, started = result.exit, result.started
        self.hooks += started.phase != order.ERROR
        level = logging.INFO if ended.ok else logging.ERROR
        words = "done" if ended.ok else ended.detail or f"failed with status {ended.status}"
        LOG.log(level, "%s/%s: %s after %.2f s", started.phase, started.hook, words, ended.seconds)
        if ended.survivors:
            left = ", ".join(ended.survivors)
            LOG.warning("%s/%s: left running in the background: %s", started.phase, started.hook, left)

    def listener(self, phase: str, hook: str) -> Listener:
        return self._listener or Lines(lambda _stream, text: LOG.info("%s/%s| %s", phase, hook, text))

    def sourcing(self, phase: str, path: str) -> None:
        LOG.debug("%s: reads %s", phase, path)

    def note(self, phase: str, text: str) -> None:
        LOG.info("%s%s%s", phase, ": " if phase else "", text)

    def warn(self, phase: str, text: str) -> None:
        LOG.warning("%s: %s", phase, text)

    def worker_began(self, hook_id: str, pid: int, timeout: float) -> None:
        with reported():
            self._journal.worker_began(self._run, hook_id, pid, timeout)

    def worker_ended(self, hook_id: str, ended: Exit) -> None:
        with reported():
            self._journal.worker_ended(hook_id, ended)

    def migrated(self, result: MigrationResult) -> None:
        if result.ok:
            way = " -> ".join(dict.fromkeys((result.before, result.after)))
            LOG.info("migration: %s: %s, %s after %.2f s", result.target, way, result.outcome, result.seconds)
        else:
            level = logging.WARNING if result.outcome is MigrationOutcome.DEFERRED else logging.ERROR
            LOG.log(level, "migration: %s (%s after %.2f s)", result.message, result.outcome, result.seconds)
        with reported():
            self._journal.migrated(self._run, result)

    def failed(self, outcome: RunOutcome, failure: Failure, *, held: bool, begun: str) -> None:
        """``begun``: the phase that begins with that, if one does."""
        with reported():
            self._journal.fail(self._run, outcome, failure, held=held, begun=begun)
            self._over = None
            self._told = begun
            self.told_failure = True


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """What cannot be recorded is said, and no reason to end."""
    try:
        yield
    except StateError as error:
        LOG.error("not recorded: %s", error)  # noqa: TRY400
