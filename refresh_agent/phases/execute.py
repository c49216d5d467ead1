"""The phases in order, hook by hook; stop at the first failure."""

import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from refresh_agent.lines import Listener
from refresh_agent.marks import HOOK_ID
from refresh_agent.model import (
    ByteSink,
    Command,
    Ending,
    Exit,
    Failure,
    HookEvent,
    HookResult,
    PhaseSettings,
    StartedHook,
    StopSignal,
    Stream,
    TrustMode,
)
from refresh_agent.phases import environment, order, run_parts, trust
from refresh_agent.phases.family import birth
from refresh_agent.phases.output import HeldBack, Output
from refresh_agent.phases.process import Process, ProcessRunner
from refresh_agent.redact import Masker, looks_secret

QUICK = 0.002
"""Seconds. What became of hooks that take no longer is told together, since telling is not much cheaper than
such a hook; that any other has begun is told as soon as so much time has passed."""

UNTOLD = 0.02
"""Seconds after which it is told at the latest, unless the agent itself waits for the processor."""

_DIGITS = frozenset("0123456789")


class Recorder(Protocol):
    """Is told what happens while it happens: it logs and journals."""

    def phase_began(self, phase: str, hooks: int) -> None: ...

    def phase_ended(self, phase: str, failure: Failure | None) -> None: ...

    def hooks_changed(self, events: Sequence[HookEvent]) -> None: ...

    def listener(self, phase: str, hook: str) -> Listener: ...

    def sourcing(self, phase: str, path: str) -> None: ...

    def note(self, phase: str, text: str) -> None: ...

    def warn(self, phase: str, text: str) -> None: ...


class Job(NamedTuple):
    """What the phases of one run need. ``env`` is the agent's own, ``run_env`` goes over environment.d.

    ``ids``: what marks the processes of each hook, REFRESH_AGENT_HOOK_ID.
    ``joined``: what hooks write to standard error is told with the rest, in the order in which it came.
    """

    settings: PhaseSettings
    env: Mapping[str, str]
    run_env: Mapping[str, str]
    runner: ProcessRunner
    recorder: Recorder
    stop: StopSignal
    mask: Masker
    ids: Iterator[str]
    joined: bool = True


def run_phases(job: Job, phases: Sequence[str]) -> Failure | None:
    """Run these phases; the first failure ends it and is returned."""
    budget = Budget(job.settings.run_timeout, "run_timeout")
    if not order.present(job.settings.base_dir, phases):
        job.recorder.note("", order.nothing_to_run(job.settings.base_dir))
    for phase in phases:
        if failure := run_phase(job, phase, (budget, Budget(job.settings.phase_timeout, "phase_timeout"))):
            return failure
    return None


def run_error_hooks(job: Job, failure: Failure) -> None:
    """error.d, told what failed, within ``error_timeout`` as a whole; its own failure changes nothing."""
    run_env = {
        **job.run_env,
        "REFRESH_AGENT_FAILED_PHASE": failure.phase,
        "REFRESH_AGENT_FAILED_HOOK": failure.hook,
        "REFRESH_AGENT_FAILED_STATUS": str(failure.status),
    }
    run_phase(
        job._replace(run_env=run_env), order.ERROR, (Budget(job.settings.error_timeout, "error_timeout"),)
    )


class Budget:
    """The time that a run, a phase or a hook may take; 0 seconds for as long as it likes."""

    def __init__(self, seconds: float, option: str) -> None:
        self.seconds = seconds
        self.option = option
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, at least a moment; infinite without a limit."""
        return max(0.001, self._until - time.monotonic()) if self.seconds else float("inf")

    def timeout(self) -> float:
        """``left`` as commands have it: 0 for none."""
        return self.left() if self.seconds else 0


def run_phase(job: Job, phase: str, budgets: Sequence[Budget]) -> Failure | None:
    """All hooks of one phase directory; none if it does not exist."""
    base_dir = job.settings.base_dir
    place = Place(phase, order.directory(base_dir, phase), os.path.join(base_dir, "environment.d"))
    return run_place(job, place, budgets) if os.path.lexists(place.directory) else None


class Place(NamedTuple):
    """A directory of hooks, the directory of variables for them, and the phase that they are told.

    ``always_sourced``: as by dib-run-parts, the variables are read even if there are no hooks.
    """

    phase: str
    directory: str
    environment: str
    always_sourced: bool = False


def run_place(job: Job, place: Place, budgets: Sequence[Budget]) -> Failure | None:
    """All hooks of one directory, a phase's or not."""
    phase = place.phase
    try:
        selection = run_parts.select(place.directory, run_parts.name_regex(job.env))
    except OSError as error:
        failure = Failure(phase, "", 1, f"{place.directory}: {error.strerror}")
        job.recorder.phase_began(phase, 0)
        job.recorder.phase_ended(phase, failure)
        return failure
    for skipped in selection.skipped:
        job.recorder.note(phase, f"{skipped.name} is not run: {skipped.reason}")
    job.recorder.phase_began(phase, len(selection.hooks))
    try:
        failed = _Phase(job, place, budgets).run(selection.hooks)
    except BaseException:
        job.runner.abandon()
        raise
    job.recorder.phase_ended(phase, failed)
    return failed


class _Hook(NamedTuple):
    """One that runs."""

    started: StartedHook
    output: Output
    budget: Budget


class _Phase:
    """The hooks of one phase directory: one after the other, or those of one number side by side."""

    def __init__(self, job: Job, place: Place, budgets: Sequence[Budget]) -> None:
        self._job = job
        self._phase = place.phase
        self._budgets = budgets
        self._directory = place.directory
        self._environment = place.environment
        self._always_sourced = place.always_sourced
        self._trust = trust.of_this_process()
        self._variables: Mapping[str, str] = job.env
        self._evaluated: object = None
        self._running: dict[Process, _Hook] = {}
        self._untold: list[HookEvent] = []
        self._tell_by = 0.0

    def run(self, hooks: Sequence[str]) -> Failure | None:
        """Until the first failure, or until a stop is requested."""
        waiting = deque(hooks)
        failure = self._read_environment() if self._always_sourced else None
        while True:
            failure = failure or self._start_more(waiting)
            if not self._running:
                self.tell()
                return failure
            if failure and not failure.stopped:
                self._job.runner.cancel(f"was ended, since {failure.hook or 'environment.d'} failed")
            ended = self._next_ended()
            failure = failure or _failure(ended)

    def _start_more(self, waiting: deque[str]) -> Failure | None:
        """Start the next hook, and beside it those of its number, as many as may run."""
        while waiting and self._may_start(waiting[0]):
            if self._job.stop.requested:
                reason = "not started: the agent is stopping"
                return Failure(self._phase, waiting[0], 143, reason, stopped=True)
            if failure := self._read_environment():
                return failure
            if failure := self._start(waiting.popleft()):
                return failure
        return None

    def _may_start(self, hook: str) -> bool:
        if not self._running:
            return True
        if len(self._running) >= self._job.settings.parallel:
            return False
        number = _number(hook)
        beside = next(iter(self._running.values())).started.hook
        return number is not None and number == _number(beside)

    def _start(self, hook: str) -> Failure | None:
        """Its failure if it is refused."""
        path = f"{self._directory}/{hook}"
        hook_id = next(self._job.ids)
        env = {**self._variables, **self._run_env(hook_id)}
        if refusal := self._refusal(path, self._trust.hook_objection(path, env)):
            started = StartedHook(self._phase, hook, hook_id, 0)
            refused = HookResult(started, Exit(126, Ending.NOT_STARTED, 0.0, refusal))
            self._is_to_be_told(started)
            self._is_to_be_told(refused)
            return _failure(refused)
        budget = self._tightest_budget()
        command = Command(
            path, (path,), env, timeout=budget.timeout(), joined=self._job.joined, outlives=True
        )
        output = self._output(hook)
        process = self._job.runner.start(command, _AfterWhatIsUntold(self, output))
        started = StartedHook(self._phase, hook, hook_id, process.pid, birth(process.pid))
        self._running[process] = _Hook(started, output, budget)
        self._is_to_be_told(started)
        return None

    def _next_ended(self) -> HookResult:
        """Tells what is untold while hooks run, so that nothing of it lies between two of them."""
        ended = self._job.runner.next_ended(QUICK) if time.monotonic() < self._tell_by else None
        if ended is None:
            self.tell()
            ended = self._job.runner.next_ended()
        process, how = ended
        hook = self._running.pop(process)
        if how.ending is not Ending.HANDED_OVER:  # then it goes on in the middle of its line
            hook.output.flush()
        mask = self._job.mask
        how = how._replace(survivors=tuple(map(mask, how.survivors)), detail=mask(how.detail))
        result = HookResult(hook.started, _explained(how, hook.budget), hook.output.tail.bytes())
        self._is_to_be_told(result)
        return result

    def _is_to_be_told(self, event: HookEvent) -> None:
        if not self._untold:
            self._tell_by = time.monotonic() + UNTOLD
        self._untold.append(event)

    def tell(self) -> None:
        if self._untold:
            self._job.recorder.hooks_changed(self._untold)
            self._untold = []

    def _read_environment(self) -> Failure | None:
        """Read environment.d, once for the phase and again when it has changed: a hook may write there."""
        try:
            paths = environment.files(self._environment)
            state = environment.state(paths)
        except OSError as error:
            return self._unusable(f"{self._environment}: cannot be read: {error.strerror}")
        if state == self._evaluated:
            return None
        for path in paths:
            if refusal := self._refusal(path, self._trust.objection(path)):
                return self._unusable(refusal)
        self.tell()
        env = {**self._job.env, **self._run_env(next(self._job.ids))}
        written = HeldBack(self._output("environment.d"))
        evaluated = environment.evaluate(
            paths,
            env,
            self._run_within,
            written,
            lambda path: self._job.recorder.sourcing(self._phase, path),
        )
        self._variables, self._evaluated = evaluated.variables, state
        # Only now is it known what is secret in what the files have written.
        self._job.mask.learn(value for name, value in evaluated.variables.items() if looks_secret(name))
        written.flush()
        return self._unusable(evaluated.error, evaluated.status) if evaluated.error else None

    def _unusable(self, reason: str, status: int = 1) -> Failure:
        return Failure(self._phase, "", status, reason, self._job.stop.requested)

    def _run_env(self, hook_id: str) -> Mapping[str, str]:
        return {**self._job.run_env, "REFRESH_AGENT_PHASE": self._phase, HOOK_ID: hook_id}

    def _output(self, hook: str) -> Output:
        listener = self._job.recorder.listener(self._phase, hook)
        return Output(self._job.mask, self._job.settings.output_limit, listener)

    def _run_within(self, command: Command, sink: ByteSink) -> Exit:
        budget = self._tightest_budget()
        return _explained(self._job.runner.run(replace(command, timeout=budget.timeout()), sink), budget)

    def _tightest_budget(self) -> Budget:
        of_hook = Budget(self._job.settings.hook_timeout, "hook_timeout")
        return min((of_hook, *self._budgets), key=Budget.left)

    def _refusal(self, path: str, objection: str) -> str:
        """What to do about an objection: the text if the phase has to fail, else ""."""
        mode = self._job.settings.trust
        if not objection or mode is TrustMode.OFF:
            return ""
        if mode is TrustMode.WARN:
            self._job.recorder.warn(self._phase, f"{path} is not to be trusted: {objection}")
            return ""
        return f"{path} is not to be trusted: {objection} ([phases] trust)"


class _AfterWhatIsUntold:
    """A sink: that a hook has begun is told before what it says; not so what it has left behind, which has a
    thread of its own.
    """

    def __init__(self, phase: _Phase, output: Output) -> None:
        self._phase = phase
        self._output = output
        self._thread = threading.get_ident()
        self.take = output.take

    def __call__(self, stream: Stream, data: bytes) -> None:
        if threading.get_ident() == self._thread:
            self._phase.tell()
        self._output(stream, data)


def _number(hook: str) -> tuple[int, tuple[int, str]] | None:
    """What hooks that may run side by side have in common (dib-run-parts: "identical numbers may be
    parallelized later"); None without a number.
    """
    return run_parts.sort_key(hook)[:2] if hook.removeprefix("-")[:1] in _DIGITS else None


def _explained(ended: Exit, budget: Budget) -> Exit:
    """When the time was not enough, the detail names the option."""
    if ended.ending is not Ending.TIMEOUT:
        return ended
    limit = f"{budget.option} = {budget.seconds:g} s"
    return ended._replace(detail=f"was ended: the time of [phases] {limit} was up")


def _failure(result: HookResult) -> Failure | None:
    ended, started = result.exit, result.started
    if ended.ok:
        return None
    reason = ended.detail or f"failed with status {ended.status}"
    return Failure(started.phase, started.hook, ended.status, reason, ended.stopped)
