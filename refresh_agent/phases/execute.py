"""The phases in order, hook by hook; stop at the first failure."""

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from refresh_agent.lines import Listener
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
    TrustMode,
)
from refresh_agent.phases import environment, order, run_parts, trust
from refresh_agent.phases.family import HOOK_ID
from refresh_agent.phases.output import Output
from refresh_agent.phases.process import Process, ProcessRunner
from refresh_agent.redact import Masker, looks_secret

_DIGITS = frozenset("0123456789")


class Recorder(Protocol):
    """Is told what happens while it happens: it logs and journals."""

    def phase_began(self, phase: str, hooks: int) -> None: ...

    def phase_ended(self, phase: str, failure: Failure | None) -> None: ...

    def hooks_changed(self, events: Sequence[HookEvent]) -> None: ...

    def listener(self, phase: str, hook: str) -> Listener: ...

    def note(self, phase: str, text: str) -> None: ...

    def warn(self, phase: str, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What the phases of one run need. ``env`` is the agent's own, ``run_env`` goes over environment.d.

    ``joined``: what hooks write to standard error is told with the rest, in the order in which it came.
    """

    settings: PhaseSettings
    env: Mapping[str, str]
    run_env: Mapping[str, str]
    runner: ProcessRunner
    recorder: Recorder
    stop: StopSignal
    mask: Masker
    joined: bool = True


def run_phases(job: Job, phases: Sequence[str]) -> Failure | None:
    """Run these phases; the first failure ends it and is returned."""
    budget = Budget(job.settings.run_timeout, "run_timeout")
    if not _present(job, phases):
        job.recorder.note("", _nothing_to_run(job.settings.base_dir))
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
        replace(job, run_env=run_env), order.ERROR, (Budget(job.settings.error_timeout, "error_timeout"),)
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
    directory = order.directory(job.settings.base_dir, phase)
    if not os.path.lexists(directory):
        return None
    try:
        selection = run_parts.select(directory, run_parts.name_regex(job.env))
    except OSError as error:
        failure = Failure(phase, "", 1, f"{directory}: {error.strerror}")
        job.recorder.phase_began(phase, 0)
        job.recorder.phase_ended(phase, failure)
        return failure
    for skipped in selection.skipped:
        job.recorder.note(phase, f"{skipped.name} is not run: {skipped.reason}")
    job.recorder.phase_began(phase, len(selection.hooks))
    failed = _Phase(job, phase, budgets).run(selection.hooks)
    job.recorder.phase_ended(phase, failed)
    return failed


@dataclass(frozen=True, slots=True)
class _Hook:
    """One that runs."""

    started: StartedHook
    output: Output
    budget: Budget


class _Phase:
    """The hooks of one phase directory: one after the other, or those of one number side by side."""

    def __init__(self, job: Job, phase: str, budgets: Sequence[Budget]) -> None:
        self._job = job
        self._phase = phase
        self._budgets = budgets
        self._directory = order.directory(job.settings.base_dir, phase)
        self._environment = os.path.join(job.settings.base_dir, "environment.d")
        self._trust = trust.of_this_process()
        self._variables: Mapping[str, str] = job.env
        self._evaluated: object = None
        self._running: dict[Process, _Hook] = {}
        self._untold: list[HookEvent] = []

    def run(self, hooks: Sequence[str]) -> Failure | None:
        """Until the first failure, or until a stop is requested."""
        waiting = deque(hooks)
        failure: Failure | None = None
        while True:
            failure = failure or self._start_more(waiting)
            # Now, while the next hook runs: nothing of it lies between two hooks.
            self._tell()
            if not self._running:
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
            if error := self._evaluate_environment():
                return Failure(self._phase, "", 1, error, self._job.stop.requested)
            if failure := self._start(waiting.popleft()):
                return failure
        return None

    def _may_start(self, hook: str) -> bool:
        if not self._running:
            return True
        number = _number(hook)
        beside = next(iter(self._running.values())).started.hook
        free = len(self._running) < self._job.settings.parallel
        return free and number is not None and number == _number(beside)

    def _start(self, hook: str) -> Failure | None:
        """Its failure if it is refused."""
        path = f"{self._directory}/{hook}"
        hook_id = os.urandom(16).hex()
        env = {**self._variables, **self._run_env(hook_id)}
        if refusal := self._refusal(path, self._trust.hook_objection(path, env)):
            started = StartedHook(self._phase, hook, hook_id, 0)
            refused = HookResult(started, Exit(126, Ending.NOT_STARTED, 0.0, refusal))
            self._untold += [started, refused]
            return _failure(refused)
        budget = self._tightest_budget()
        command = Command(path, (path,), env, timeout=budget.timeout(), joined=self._job.joined)
        output = self._output(hook)
        process = self._job.runner.start(command, output)
        started = StartedHook(self._phase, hook, hook_id, process.pid)
        self._running[process] = _Hook(started, output, budget)
        self._untold.append(started)
        return None

    def _next_ended(self) -> HookResult:
        process, how = self._job.runner.next_ended()
        hook = self._running.pop(process)
        hook.output.flush()
        result = HookResult(hook.started, _explained(how, hook.budget), hook.output.tail.bytes())
        self._untold.append(result)
        return result

    def _tell(self) -> None:
        if self._untold:
            self._job.recorder.hooks_changed(self._untold)
            self._untold = []

    def _evaluate_environment(self) -> str:
        """Read environment.d, once for the phase and again when it has changed: a hook may write there.

        Why it cannot be used; "" if it can.
        """
        try:
            paths = environment.files(self._environment)
            state = environment.state(paths)
        except OSError as error:
            return f"{self._environment}: cannot be read: {error.strerror}"
        if state == self._evaluated:
            return ""
        for path in paths:
            if refusal := self._refusal(path, self._trust.objection(path)):
                return refusal
        env = {**self._job.env, **self._run_env(os.urandom(16).hex())}
        output = self._output("environment.d")
        evaluated = environment.evaluate(paths, env, self._run_within, output)
        output.flush()
        self._variables, self._evaluated = evaluated.variables, state
        self._job.mask.learn(value for name, value in evaluated.variables.items() if looks_secret(name))
        return evaluated.error

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
    return replace(ended, detail=f"was ended: the time of [phases] {limit} was up")


def _failure(result: HookResult) -> Failure | None:
    ended, started = result.exit, result.started
    if ended.ok:
        return None
    reason = ended.detail or f"failed with status {ended.status}"
    return Failure(started.phase, started.hook, ended.status, reason, ended.ending is Ending.STOPPED)


def _present(job: Job, phases: Sequence[str]) -> bool:
    return any(os.path.lexists(order.directory(job.settings.base_dir, phase)) for phase in phases)


def _nothing_to_run(base_dir: str) -> str:
    if not os.path.isdir(base_dir):
        return f"{base_dir} does not exist: there are no hooks to run (see [DEFAULT] base_dir)"
    return f"{base_dir} has no phase directory ({order.PRE_CONFIGURE}.d, ...): there are no hooks to run"
