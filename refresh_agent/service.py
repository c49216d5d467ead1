"""The oslo.service daemon: wait for a wake-up, let things settle, run a cycle.

One process: oslo.service's threading backend with its plain Launcher and SignalHandler. Its forking launcher
never passes a SIGHUP on, and sends it to running hooks. Signal handlers only set flags; the worker acts.
"""

import logging
import random
import signal
import sys
import threading
from collections.abc import Callable

# futurist imports eventlet if it is there: 230 ms, 10 MiB and a warning, for nothing.
sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]

from typing import NamedTuple, Protocol

from oslo_config import cfg

from refresh_agent import imports

# Libraries of its libraries import these for what is not used here: 4 MiB of 30.
with imports.lightly({"asyncio", "dateutil.tz", "xmlrpc.client"}):
    from oslo_service import backend

    if backend.get_backend_type() is None:
        backend.init_backend(backend.BackendType.THREADING)

    from oslo_service import service

from refresh_agent import keeper, log, systemd
from refresh_agent.backoff import Backoff
from refresh_agent.cycle import EDGES, Cycle, Edges, Result
from refresh_agent.errors import ConfigError, ExitCode, LockedError, RefreshAgentError, StateError
from refresh_agent.journal_file import since_boot
from refresh_agent.model import Settings, Trigger
from refresh_agent.phases import cgroup
from refresh_agent.phases.family import reap_orphans
from refresh_agent.plan import Request
from refresh_agent.presence import Presence
from refresh_agent.quiescence import Quiescence
from refresh_agent.redact import Masker
from refresh_agent.triggers import Watcher, scan
from refresh_agent.wakeup import Stop, Wakeup

LOG = logging.getLogger("refresh_agent")

LOOK_EVERY = 0.05
"""Seconds between two looks at files that are being written: each look reads them."""

LOCK_RETRY = 1.0
"""Seconds between two tries while another refresh holds the lock."""

LEVELS = {
    ExitCode.OK: logging.INFO,
    ExitCode.NO_DATA: logging.WARNING,
    ExitCode.PAUSED: logging.WARNING,
    ExitCode.HELD: logging.WARNING,
    ExitCode.LOCKED: logging.WARNING,
}
"""How loudly the outcome of a refresh is told; the others are errors."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Configuration(Protocol):
    """Where settings come from. ``watch``: the paths of which a change may change them; ``digest`` tells."""

    def load(self) -> Settings: ...

    def watch(self) -> tuple[str, ...]: ...

    def digest(self) -> str: ...


def run(configuration: Configuration) -> int:
    """The daemon, until SIGTERM or SIGINT; its exit code. Raises RefreshAgentError if it cannot start."""
    stop = Stop()
    agent = Agent(configuration, stop)
    handler = service.SignalHandler()
    handler.add_handlers(("SIGTERM", "SIGINT"), lambda number, _frame: stop.request(number))
    handler.add_handler("SIGHUP", lambda _number, _frame: agent.wakeup.because(Trigger.SIGNAL))
    launcher = service.Launcher(cfg.ConfigOpts(), restart_method="mutate")
    # Only the main thread runs Python's handlers, and only a signal of its own wakes it from its wait: the
    # other threads inherit this mask, so that the kernel can give signals to nobody else.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    launcher.launch_service(agent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    agent.wait()
    launcher.stop()
    launcher.wait()
    if agent.error is not None:
        raise agent.error
    return ExitCode.OK


class Means(NamedTuple):
    """What the daemon's life depends on besides its configuration; tests give others.

    ``now``: seconds since boot. ``chance``: a random number in [0, 1).
    """

    now: Callable[[], float] = since_boot
    chance: Callable[[], float] = random.random
    watcher: Callable[[Callable[[], None]], Watcher] = Watcher
    edges: Edges = EDGES


MEANS = Means()


class Timers(NamedTuple):
    """When the worker looks again without being woken; None for not at all. In seconds since boot."""

    quiescence: Quiescence
    backoff: Backoff
    rescan: float
    lock: tuple[float, Trigger] | None = None
    look: float | None = None

    def next_due(self) -> float:
        times = [self.rescan, self.quiescence.due_at(), self.backoff.not_before, self.look]
        if self.lock is not None:
            times.append(self.lock[0])
        return min(moment for moment in times if moment is not None)


class Agent(service.ServiceBase):  # type: ignore[misc]
    """The worker. ``start`` runs in the launcher's thread and is the whole life of the daemon."""

    def __init__(self, configuration: Configuration, stop: Stop, means: Means = MEANS) -> None:
        self._configuration = configuration
        self._stop = stop
        self._means = means
        self._now = means.now
        self.wakeup = Wakeup(stop)
        self._watcher = means.watcher(lambda: self.wakeup.because(Trigger.CHANGE))
        self._presence = Presence()
        self._mask = Masker()
        self._ended = threading.Event()
        self.error: RefreshAgentError | None = None
        self._digest = configuration.digest()
        settings = configuration.load()
        log.use(settings.log_format)  # for what may be wrong with the rest, too
        self._use(settings)
        self._errors = 0
        self._looked = 0.0
        self._scanned: object = None
        self._seen: object = None
        self._trace: object = None
        self._waiting = False
        self._asked_for = False
        self._paused = False
        self._last_told = ""

    def start(self) -> None:
        try:
            self._live()
        except RefreshAgentError as error:
            self.error = error
        except Exception as error:
            LOG.debug("internal error", exc_info=True)
            self.error = RefreshAgentError(f"internal error: {type(error).__name__}: {error}")
        finally:
            try:
                systemd.stopping("nothing runs any more", 0)
                keeper.leave_behind(self._mask, self._settings.log_format)
                self._presence.end()
                self._watcher.close()
            finally:
                self._ended.set()

    def stop(self, graceful: bool = False) -> None:
        del graceful
        self._stop.request(signal.SIGTERM)

    def wait(self) -> None:
        self._ended.wait()

    def reset(self) -> None:
        """oslo.service's word for a reload."""
        self.wakeup.because(Trigger.SIGNAL)

    def _use(self, settings: Settings) -> None:
        """Raises ConfigError or StateError, and then what was used before still is."""
        cycle = Cycle(settings, self._stop, self._means.edges, self._mask)
        cycle.prepare()
        self._cycle = cycle
        self._settings = settings
        log.use(settings.log_format)
        retry = settings.retry
        self._timers = Timers(
            Quiescence(settings.quiet, settings.max_wait),
            Backoff(retry.initial, retry.maximum),
            self._now() + settings.polling.interval,
        )

    def _poll(self) -> None:
        self._cycle.poll(lambda: self.wakeup.because(Trigger.CHANGE))

    def _live(self) -> None:
        LOG.info("refresh-agent starts: collectors %s", _names(self._settings))
        self._presence.begin(self._settings.state_dir)
        self._watcher.watch(self._watched())
        systemd.notify("READY=1")
        self._status("starting the first refresh")
        self._splay()
        self._poll()
        self._refresh(Trigger.START)
        while not self._stop.requested:
            reasons = self.wakeup.wait(self._timers.next_due() - self._now())
            if not self._stop.requested:
                self._turn(reasons)
        LOG.info("refresh-agent ends (signal %d)", self._stop.signal)

    def _splay(self) -> None:
        """A fleet that was switched on at once need not ask at once. A HUP ends the wait."""
        seconds = self._settings.polling.splay * self._means.chance()
        if seconds:
            text = f"the first refresh is in {seconds:.1f} s ([DEFAULT] splay)"
            LOG.info("%s", text)
            self._status(text)
            self.wakeup.wait(seconds)

    def _turn(self, reasons: set[Trigger]) -> None:
        """See to one wake-up: by a signal, a file, or because a timer is due."""
        moment = self._now()
        if Trigger.SIGNAL in reasons:
            self._reload()
            self._refresh(Trigger.SIGNAL)
            return
        if self._paused and not self._cycle.paused:
            self._refresh(Trigger.RETRY)
            return
        if Trigger.CHANGE in reasons and self._timers.look is None:
            self._timers = self._timers._replace(look=max(moment, self._looked + LOOK_EVERY))
        if self._timers.look is not None and moment >= self._timers.look:
            self._touched(moment)
        if moment >= self._timers.rescan:
            self._rescan(moment)
        timers = self._timers
        if timers.lock is not None and moment >= timers.lock[0]:
            self._refresh(timers.lock[1])
        elif timers.quiescence.due(moment):
            self._refresh(Trigger.CHANGE)
        elif timers.backoff.due(moment):
            self._refresh(Trigger.RETRY)

    def _touched(self, moment: float) -> bool:
        """Something happened to a watched file: whether it changed anything, and if so, let it settle.

        os-collect-config rewrites its files at every poll; what is the same again must not delay a change.
        """
        if not self._paused and (paused := self._cycle.paused):
            self._paused = True  # so that its end is noticed, also if nothing was due meanwhile
            self._status(str(paused))
        # A directory may have come or gone; what is missing now wakes us when it appears.
        self._watcher.watch(self._watched())
        self._timers = self._timers._replace(look=None)
        # A configuration that changed is read by the next refresh, once it has settled, too; a retry is one.
        reconfigured = (
            self._configuration.digest() != self._digest and self._timers.backoff.not_before is None
        )
        seen = self._cycle.sources.look()
        self._looked = self._now()
        if seen == self._seen and not reconfigured:
            return False
        self._seen = seen
        self._timers = self._timers._replace(quiescence=self._timers.quiescence.touched(moment))
        return True

    def _rescan(self, moment: float) -> None:
        """Look for what the kernel did not report, and bury what hooks have left behind and has ended."""
        reap_orphans()
        cgroup.sweep()
        watched = self._watched()
        self._timers = self._timers._replace(rescan=moment + self._settings.polling.interval)
        self._watcher.watch(watched)
        if self._was_disturbed():
            self._refresh(Trigger.RETRY)
            return
        scanned = scan(watched)
        if scanned == self._scanned:
            return
        self._scanned = scanned
        if self._touched(moment):
            LOG.info("the rescan found a change")

    def _was_disturbed(self) -> bool:
        """Whether another process has made a run, and may have left it unfinished, or the node quiesced;
        unless there will be a refresh anyway.
        """
        waits = self._timers.lock is not None or self._timers.backoff.not_before is not None or self._paused
        return not waits and self._cycle.trace() != self._trace

    def _watched(self) -> tuple[str, ...]:
        return (*self._cycle.watch, *self._configuration.watch())

    def _reload(self) -> None:
        """New settings between two cycles; the old ones stay if the new are bad."""
        old = self._cycle
        # First the digest, then the content: what is written in between is seen as another change.
        self._digest = self._configuration.digest()
        try:
            self._use(self._configuration.load())
        except (ConfigError, StateError) as error:
            for line in str(error).splitlines():
                LOG.error("the configuration is not reloaded, the old one stays: %s", line)  # noqa: TRY400
            return
        LOG.info("configuration reloaded: collectors %s", _names(self._settings))
        self._presence.move(self._settings.state_dir)
        old.close()
        self._poll()

    def _refresh(self, trigger: Trigger) -> None:
        """One cycle, and when to look again after it.

        Metadata may carry new credentials, which a hook writes into a configuration file: that is followed
        here, and is no reason to run.
        """
        if self._configuration.digest() != self._digest:
            self._reload()
        if self._asked_for:
            trigger = Trigger.SIGNAL  # and not done yet: the lock was held, or the state could not be used
        self._asked_for = trigger is Trigger.SIGNAL
        self._timers = self._timers._replace(
            quiescence=self._timers.quiescence.settled(),
            backoff=self._timers.backoff.cleared(),
            lock=None,
            look=None,
        )
        systemd.PULSE.doing("refreshing")
        self._presence.tell("refreshing")
        # Before the content is read: a change after this is a change from what is read now.
        self._watcher.watch(self._watched())
        self._scanned = scan(self._watched())
        try:
            result = self._cycle.refresh(Request(trigger, max_attempts=self._settings.retry.max_attempts))
        except LockedError as error:
            self._wait_for_lock(trigger, error)
            return
        except StateError as error:
            if trigger is Trigger.START:
                raise
            LOG.error("%s", error)  # noqa: TRY400
            self._errors += 1
            self._try_again_after(self._errors, str(error))
            return
        self._waiting = False
        self._trace = self._cycle.trace()
        self._paused = result.exit_code is ExitCode.PAUSED
        self._asked_for &= self._paused  # then it is still to be done
        self._seen = self._cycle.sources.seen
        self._watch_anew()
        self._told(result)

    def _wait_for_lock(self, trigger: Trigger, error: LockedError) -> None:
        if not self._waiting:
            LOG.info("%s; waiting for it", error)
        self._waiting = True
        self._status(f"waiting: {error}")
        self._timers = self._timers._replace(lock=(self._now() + LOCK_RETRY, trigger))

    def _watch_anew(self) -> None:
        """The collection may have named new paths; what changed in them before they were watched counts."""
        watched = self._watcher.paths
        self._watcher.watch(self._watched())
        if self._watcher.paths != watched:
            self.wakeup.because(Trigger.CHANGE)

    def _told(self, result: Result) -> None:
        decision = result.decision
        if decision is None or result.run_id or result.exit_code is not ExitCode.OK:
            level = LEVELS.get(result.exit_code, logging.ERROR)
            asked = decision is not None and decision.trigger is Trigger.SIGNAL
            if asked or result.summary != self._last_told:
                LOG.log(level, "%s", result.summary, extra=log.of(run_id=result.run_id))
            self._last_told = result.summary
        else:
            LOG.log(
                logging.INFO if decision.trigger is Trigger.START else logging.DEBUG, "%s", result.summary
            )
        self._errors = 0
        if result.exit_code is ExitCode.LOCKED:
            self._try_again_later(result)
        elif result.held or self._paused:
            self._status(result.summary)
        elif decision is not None and result.run_id and result.exit_code is not ExitCode.OK:
            # What could not be recorded has not counted as a failure, and was an attempt all the same.
            unrecorded = result.exit_code is ExitCode.STATE
            failures = decision.attempt if unrecorded else decision.failures + 1
            self._try_again_after(failures, result.summary)
        else:
            self._status(f"waiting for a change; last: {result.summary}")

    def _try_again_after(self, failures: int, last: str) -> None:
        if not self._stop.requested:
            seconds = self._back_off(failures)
            times = f"{failures} time{'' if failures == 1 else 's'} in a row"
            self._status(f"failed {times}; the next attempt waits {seconds:.0f} s; last: {last}", seconds)

    def _try_again_later(self, result: Result) -> None:
        """Somebody else migrates a database. That is no failure, but asking at once is of no use either."""
        if not self._stop.requested:
            attempt = result.decision.attempt if result.decision else 1
            seconds = self._back_off(attempt, self._settings.retry.initial)
            text = f"deferred; the next attempt waits {seconds:.0f} s; last: {result.summary}"
            self._status(text, seconds)

    def _status(self, text: str, seconds: float | None = None) -> None:
        """What it does now, for systemctl and for ``refresh-agent status``. ``seconds``: as in Presence."""
        systemd.PULSE.done(text)
        self._presence.tell(text, seconds)

    def _back_off(self, failures: int, at_least: float = 0) -> float:
        """Try again by the back-off, in so many seconds; a change starts it anew, since its first attempt is
        number 1.
        """
        moment = self._now()
        backoff = self._timers.backoff.failed(moment, failures, self._means.chance())
        seconds = max((backoff.not_before or moment) - moment, at_least)
        self._timers = self._timers._replace(backoff=backoff._replace(not_before=moment + seconds))
        LOG.info("the next attempt is in %.1f s, or when something changes", seconds)
        return seconds


def _names(settings: Settings) -> str:
    return ", ".join(entry.name for entry in settings.collectors)
