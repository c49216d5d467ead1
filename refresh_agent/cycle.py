"""One refresh from start to finish: the same path for ``--once`` and the daemon."""

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from refresh_agent import cache, files, journal_file, lock, log, pause
from refresh_agent.errors import DamagedError, ExitCode, LockedError, StateError
from refresh_agent.journal import EDGE, HandedOver, Journal, sound
from refresh_agent.journal_file import Edge
from refresh_agent.model import (
    Failure,
    Fingerprints,
    History,
    MigrationResult,
    RunAtBoot,
    RunOutcome,
    Settings,
    StopSignal,
    Trigger,
)
from refresh_agent.phases import order
from refresh_agent.plan import Action, Decision, Request, activate, decide
from refresh_agent.polling import Polling
from refresh_agent.redact import Masker
from refresh_agent.sources import Sources

if TYPE_CHECKING:
    from refresh_agent import pollers, run
    from refresh_agent.lines import Listener

LOG = logging.getLogger("refresh_agent")


class Result(NamedTuple):
    """What became of a refresh. ``decision`` is None when it did not come to one.

    ``quiesced``: services of the node may be stopped. ``held``: it is not tried again by itself.
    """

    exit_code: ExitCode
    summary: str
    decision: Decision | None = None
    run_id: str = ""
    failure: Failure | None = None
    seconds: float = 0.0
    migrations: tuple[MigrationResult, ...] = ()
    stopped: bool = False
    quiesced: bool = False
    held: bool = False


class Edges(NamedTuple):
    """Where a refresh meets what it does not control. ``runner`` None: hooks are real processes."""

    journal: Edge = EDGE
    runner: "run.MakeRunner | None" = None


EDGES = Edges()

EXIT_CODES = {
    RunOutcome.SUCCESS: ExitCode.OK,
    RunOutcome.HOOK_FAILED: ExitCode.HOOK_FAILED,
    RunOutcome.MIGRATION_FAILED: ExitCode.MIGRATION_FAILED,
    RunOutcome.DEFERRED: ExitCode.LOCKED,
    RunOutcome.INTERRUPTED: ExitCode.HOOK_FAILED,
    RunOutcome.NOT_RECORDED: ExitCode.STATE,
}


ASKED = frozenset({Trigger.START, Trigger.SIGNAL, Trigger.ONCE})
"""A refresh for these is to see what the sources have now, not what they had at the last poll."""

AT_ONCE = frozenset({Trigger.START, Trigger.ONCE})
"""A process that begins with these has told nothing yet of what another has left."""

BY_HAND = Decision(Action.RUN, "run-phases was called", Trigger.ONCE)


class Cycle:
    """Built from one Settings; a reload builds another."""

    def __init__(
        self, settings: Settings, stop: StopSignal, edges: Edges = EDGES, mask: Masker | None = None
    ) -> None:
        self.settings = settings
        self._stop = stop
        self._edges = edges
        self._mask = mask or Masker()
        _private_directory(settings.state_dir)
        _private_directory(os.path.join(settings.state_dir, "sources"))
        self.sources = Sources(settings.state_dir, settings.collectors, settings.limits)
        self._pollers: pollers.Pollers | None = None

    def prepare(self) -> None:
        """Make the collectors, so that one that cannot be made is known now. Raises ConfigError."""
        for source in self.sources:
            source.collector  # noqa: B018 - made when it is first asked for

    def poll(self, changed: Callable[[], None]) -> None:
        """From now on ask the polled sources in threads; ``changed`` is called there, for what is new."""
        # Imported here: where nothing is polled, none of it is needed.
        from refresh_agent import pollers  # noqa: PLC0415

        polling, longest = self.settings.polling, self.settings.retry.maximum
        start = Polling.starting(polling.interval, polling.minimum, longest)
        if self.sources.polled:
            self._pollers = pollers.Pollers(self.sources.polled, start, changed)
            self._pollers.start()

    def close(self) -> None:
        """Another configuration is in force: what this one still collects is not stored."""
        self.sources.close()
        if self._pollers is not None:
            self._pollers.close()

    @property
    def paused(self) -> pause.Pause | None:
        return pause.read(self.settings.state_dir)

    @property
    def watch(self) -> tuple[str, ...]:
        """The paths of which a change may call for a refresh."""
        return (*self.sources.watch, pause.path_in(self.settings.state_dir))

    def trace(self) -> tuple[object, ...]:
        """How the journal's files look: it tells when another process has written to them."""
        return journal_file.trace(self.settings.state_dir)

    def _with_journal(self, work: Callable[[Journal], Result]) -> Result:
        """What ``work`` comes to, under the lock.

        Damage that shows only now shows before the first hook, or else is an outcome: with the journal that
        takes the damaged one's place, it begins once more.
        """
        with lock.held(self.settings.lock_file, self._edges.journal.agent):
            try:
                return self._work_with_journal(work)
            except DamagedError:
                return self._work_with_journal(work)

    def _work_with_journal(self, work: Callable[[Journal], Result]) -> Result:
        with sound(self.settings.state_dir, self._edges.journal) as journal:
            self._clean_up_after_a_crash(journal)
            return work(journal)

    def refresh(self, request: Request) -> Result:
        """Collect, decide and, if need be, run, all under the lock.

        Raises LockedError when another refresh is under way, StateError when nothing can be recorded.
        """
        return self._with_journal(lambda journal: self._refresh(journal, request))

    def _refresh(self, journal: Journal, request: Request) -> Result:
        history = journal.history()
        if self.settings.run_at_boot is RunAtBoot.CHANGED:
            history = history._replace(booted=False)
        if history.quiesced is not None and request.trigger in AT_ONCE:
            LOG.warning("the node is quiesced: %s", history.quiesced)
        result = self._decided(journal, request, history)
        return result if result.run_id else _as_it_stands(result, history)

    def _decided(self, journal: Journal, request: Request, history: History) -> Result:
        is_new = self._is_new(journal, history)
        if is_new:
            self._seed()
        self._collect(request)
        if self._stop.requested:
            return Result(ExitCode.OK, "stopped before anything was decided", stopped=True)
        if paused := self.paused:  # only now: what arrives meanwhile is stored
            return Result(ExitCode.PAUSED, str(paused))
        documents = self.sources.documents
        if not documents:
            return self._without_data(journal, request, history)
        fingerprints = tuple((document.name, document.fingerprint) for document in documents)
        if is_new:
            history = self._taken_over(journal, request, fingerprints)
        decision = decide(request, fingerprints, history)
        if not decision.runs:
            return self._nothing_to_run(decision)
        if missing := self._missing(request, fingerprints, history):
            held = decision._replace(action=Action.HOLD, reason=missing)
            return Result(ExitCode.NO_DATA, f"hold: {missing}", held)
        result = self._run(journal, decision, history)
        if self._pollers is not None:
            self._pollers.hurry()
        return result

    def _without_data(self, journal: Journal, request: Request, history: History) -> Result:
        """Nothing runs, unless all that ever ran was by hand and left the node quiesced: that once more."""
        quiesced = history.quiesced
        if quiesced is None or history != History(quiesced=quiesced):
            return Result(ExitCode.NO_DATA, f"no source has data: {self._problems()}")
        from refresh_agent import run  # noqa: PLC0415 - as below

        decision = activate(request, quiesced)._replace(failures=quiesced.attempt)
        work = self._work(journal, None, joined=not log.tells_streams())
        return _result(run.carry_out_by_hand(work, decision, history), decision)

    def _collect(self, request: Request) -> None:
        """Bring ``sources`` up to date. What a thread's answer comes too late for is a change of its own."""
        if self._pollers is not None:
            if request.trigger in ASKED:
                self._pollers.ask()
            self._pollers.wait(self.settings.max_wait, self._stop)
        elif self.sources.polled:
            from refresh_agent import pollers  # noqa: PLC0415 - as above

            pollers.collect_once(self.sources.polled, self._stop, confirmed=request.force)
        self.sources.collect(confirmed=request.force)
        self.sources.sweep()

    def _seed(self) -> None:
        """What os-collect-config had from sources that may give nothing now is what they have given."""
        listed = cache.names(self.settings.cachedir)
        for source in self.sources.polled:
            if source.name in listed and not source.documents:
                source.seed(cache.path_of(self.settings.cachedir, source.name))

    def _is_new(self, journal: Journal, history: History) -> bool:
        """Whether nothing was ever run here, so that the cache may be one that os-collect-config has left."""
        if not self.settings.keeps_cache or history != History():
            return False
        if self.sources.committed or journal_file.were_set_aside(self.settings.state_dir):
            return False  # it was, and only the journal is gone
        if journal.is_new and self.sources.documents:
            LOG.warning("%s: the journal is gone or was emptied; everything is run once more", journal.path)
            return False
        return True

    def _taken_over(self, journal: Journal, request: Request, documents: Fingerprints) -> History:
        """What os-collect-config has committed; if that is what there is now, it is so from now on."""
        committed = cache.committed(self.settings.cachedir, self.settings.limits, documents)
        if committed is not None and committed == documents:
            LOG.info("%s: taken over, and nothing changed since", self.settings.cachedir)
            reason = "os-collect-config has brought this onto the node"
            taken_over = Decision(Action.NOOP, reason, request.trigger)
            journal.commit(journal.begin(taken_over, documents), documents)
            self.sources.commit(self.sources.documents)
        return History(committed)

    def _missing(self, request: Request, documents: Fingerprints, history: History) -> str:
        """Why it would be wrong to run now, in words: a source that was switched to has not answered yet.

        Without what it is to give, hooks would take the node's configuration, its credentials too, for gone.
        """
        gone = dict(history.committed or ()).keys() - dict(documents).keys()
        unanswered = self.sources.unanswered
        if request.force or not gone or not unanswered:
            return ""
        why = f"{', '.join(sorted(gone))} would be dropped, but {'; '.join(unanswered)}"
        return f"{why}; wait for that, or run all the same with refresh-agent --once --force"

    def _nothing_to_run(self, decision: Decision) -> Result:
        if decision.trigger is Trigger.START and decision.action is Action.NOOP and self.settings.keeps_cache:
            # An agent that was killed right after its commit had no time for it.
            self._repair_cache()
        held = "; ".join(self.sources.held)
        if decision.action is Action.NOOP and held:
            return Result(ExitCode.HELD, f"hold: {held}", decision)
        held_by_plan = decision.action is Action.HOLD
        code = ExitCode.HELD if held_by_plan else ExitCode.OK
        return Result(code, f"{decision.action}: {decision.reason}", decision, held=held_by_plan)

    def _repair_cache(self) -> None:
        from refresh_agent.recorder import reported  # noqa: PLC0415 - only a start needs it

        contents = [(document.name, document.stored) for document in self.sources.documents]
        with reported():
            cache.repair(self.settings.cachedir, contents)
        with reported():
            cache.back_up(self.settings.cachedir, self.settings.backup_cachedir)

    def run_phases(self, listener: "Listener | None", *, joined: bool) -> Result:
        """The phases and the databases by hand, under the same lock, without asking what is due.

        What the hooks write goes to ``listener``, else to the log. Raises as ``refresh``.
        """
        return self._with_journal(lambda journal: self._run_phases(journal, listener, joined=joined))

    def _run_phases(self, journal: Journal, listener: "Listener | None", *, joined: bool) -> Result:
        if paused := self.paused:
            return _as_it_stands(Result(ExitCode.PAUSED, str(paused)), journal.history())
        base_dir = self.settings.phases.base_dir
        if not self.settings.targets and not order.present(base_dir):
            return Result(ExitCode.OK, order.nothing_to_run(base_dir))
        from refresh_agent import run  # noqa: PLC0415 - as below

        work = self._work(journal, listener, joined=joined)
        return _result(run.carry_out_by_hand(work, BY_HAND, journal.history()), BY_HAND)

    def _run(self, journal: Journal, decision: Decision, history: History) -> Result:
        # Imported here: to find that nothing changed, nothing of it is needed.
        from refresh_agent import run  # noqa: PLC0415

        work = self._work(journal, None, joined=not log.tells_streams())
        return _result(run.carry_out(work, decision, history), decision)

    def _work(self, journal: Journal, listener: "Listener | None", *, joined: bool) -> "run.Work":
        from refresh_agent import run  # noqa: PLC0415 - as above

        journal.prune(self.settings.keep_runs, self.settings.keep_days)
        work = run.Work(self.settings, self._stop, self.sources, journal, self._mask, listener, joined)
        return work._replace(runner=self._edges.runner) if self._edges.runner else work

    def _clean_up_after_a_crash(self, journal: Journal) -> None:
        """An agent that was killed leaves its run open, and its hook running: two must not run at once."""
        for run in journal.open_runs():
            from refresh_agent.phases.family import Leftovers, end_leftovers  # noqa: PLC0415 - as above

            leftovers = Leftovers(run.may_have_left, frozenset(run.running))
            if ended := end_leftovers(leftovers, self.settings.phases.kill_grace):
                LOG.warning("ended what an interrupted hook had left running: pids %s", ended)
        for hook_id, left in journal.open_workers():
            self._wait_for_worker(hook_id, left)
        for hook in journal.handed_over():
            self._wait_for_hook(journal, hook)
        for run_id in journal.close_interrupted():
            why = "the agent was killed, the node went down, or its end was not recorded"
            LOG.warning("run %s was interrupted: %s", run_id[:8], why, extra=log.of(run_id=run_id))

    def _wait_for_worker(self, hook_id: str, left: float) -> None:
        """A migration that is torn in the middle damages a database: it may finish, within its own time.

        ``left``: of that, in seconds.
        """
        from refresh_agent.phases.family import Leftovers, end_leftovers  # noqa: PLC0415 - as above

        worker = Leftovers(hook_id.__eq__)
        if not (pids := worker.find()):
            return
        if left > 0:
            raise LockedError(
                f"a database migration of an interrupted run still goes on (pids {sorted(pids)})"
            )
        LOG.warning(
            "the migration of an interrupted run has had its time; it is ended: pids %s", sorted(pids)
        )
        end_leftovers(worker, self.settings.phases.kill_grace)

    def _wait_for_hook(self, journal: Journal, hook: HandedOver) -> None:
        """Left to us by an agent that had to end before it; it may finish within its own time."""
        from refresh_agent.phases.family import Leftovers, end_leftovers, process_table  # noqa: PLC0415

        pid, began = hook.leader
        process = process_table().get(pid)
        if process is not None and process.began == began:
            if hook.left > 0:
                raise LockedError(
                    f"{hook.where} (pid {pid}) still runs: an earlier agent has left it to this one"
                )
            LOG.warning("%s, which was left to this agent, has had its time; it is ended", hook.where)
            leftovers = Leftovers(hook.hook_id.__eq__, frozenset([hook.leader]))
            end_leftovers(leftovers, self.settings.phases.kill_grace)
        LOG.info("%s, which was left to this agent, has ended", hook.where)
        journal.handed_over_has_ended(hook)

    def _problems(self) -> str:
        return "; ".join(problem.text for problem in self.sources.problems) or "none has given anything yet"


def _as_it_stands(result: Result, history: History) -> Result:
    """Nothing was run, so a quiesced node is one still."""
    if history.quiesced is None:
        return result
    return result._replace(summary=f"{result.summary}; the node is quiesced", quiesced=True)


def _result(finished: "run.Finished", decision: Decision) -> Result:
    return Result(
        EXIT_CODES[finished.outcome],
        str(finished),
        decision,
        finished.run_id,
        finished.failure,
        finished.seconds,
        finished.migrations,
        quiesced=finished.quiesced,
        held=finished.held,
    )


def _private_directory(path: str) -> None:
    try:
        files.make_directory(path, 0o700)
    except OSError as error:
        message = (
            f"{path}: the state directory cannot be made: {files.reason(error)}; see [DEFAULT] state_dir"
        )
        raise StateError(message) from error
