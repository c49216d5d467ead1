"""What a run tells the log, the journal and systemd while it goes on."""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence

from refresh_agent import log
from refresh_agent.errors import StateError
from refresh_agent.journal import Boundary, HookRecord, Journal, PhaseEnd, Run
from refresh_agent.lines import Listener
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
from refresh_agent.phases.output import line_by_line
from refresh_agent.systemd import PULSE

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
        text, about = "%s: begins, %d hook%s", log.of(phase=phase)
        LOG.info(text, phase, hooks, "" if hooks == 1 else "s", extra=about)
        self._activated |= phase == order.MIGRATION  # it comes after post-configure
        if phase != self._told:
            self._boundary(phase)

    def phase_ended(self, phase: str, failure: Failure | None) -> None:
        seconds = time.monotonic() - self._began[phase]
        outcome = "done" if failure is None else "stopped" if failure.stopped else "failed"
        reason = "" if failure is None else f": {failure.reason}"
        LOG.info("%s: %s after %.2f s%s", phase, outcome, seconds, reason, extra=log.of(phase=phase))
        self._over = PhaseEnd(phase, outcome)
        if phase == order.ERROR:
            self._boundary()

    def databases_begin(self) -> None:
        """They may take hours, in which all phases are over."""
        PULSE.doing("migrating databases", f"attempt {self._attempt}")
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
                about = log.of(phase=event.phase, hook=event.hook)
                LOG.info("%s/%s: begins", event.phase, event.hook, extra=about)
            else:
                self._log_end(event)
        records = [self._record(event) for event in events]
        if running := [record.started for record in self._running.values()]:
            names = ", ".join(started.hook for started in running)
            PULSE.doing(f"running {running[0].phase}: {names}", f"attempt {self._attempt}")
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
        where, about = f"{started.phase}/{started.hook}", log.of(phase=started.phase, hook=started.hook)
        LOG.log(level, "%s: %s after %.2f s", where, words, ended.seconds, extra=about)
        if ended.survivors:
            left = ", ".join(ended.survivors)
            LOG.warning("%s: left running in the background: %s", where, left, extra=about)

    def listener(self, phase: str, hook: str) -> Listener:
        return self._listener or line_by_line(self.run_id, phase, hook)

    def sourcing(self, phase: str, path: str) -> None:
        LOG.debug("%s: reads %s", phase, path, extra=log.of(phase=phase))

    def note(self, phase: str, text: str) -> None:
        LOG.info("%s%s%s", phase, ": " if phase else "", text, extra=log.of(phase=phase))

    def warn(self, phase: str, text: str) -> None:
        LOG.warning("%s: %s", phase, text, extra=log.of(phase=phase))

    def database(self, level: int, target: str, text: str) -> None:
        """``text`` has the name of ``target`` in front, which is empty if it is about several."""
        LOG.log(level, "%s: %s", order.MIGRATION, text, extra=log.of(phase=order.MIGRATION, target=target))

    def worker_began(self, hook_id: str, pid: int, timeout: float) -> None:
        with reported():
            self._journal.worker_began(self._run, hook_id, pid, timeout)

    def worker_ended(self, hook_id: str, ended: Exit) -> None:
        with reported():
            self._journal.worker_ended(hook_id, ended)

    def migrated(self, result: MigrationResult) -> None:
        if result.ok:
            level, way = logging.INFO, " -> ".join(dict.fromkeys((result.before, result.after)))
            text = f"{result.target}: {way}, {result.outcome} after {result.seconds:.2f} s"
        else:
            level = logging.WARNING if result.outcome is MigrationOutcome.DEFERRED else logging.ERROR
            text = f"{result.message} ({result.outcome} after {result.seconds:.2f} s)"
        self.database(level, result.target, text)
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
