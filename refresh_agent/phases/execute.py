"""The phases in order, hook by hook; stop at the first failure."""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from refresh_agent.model import (
    Command,
    Ending,
    Exit,
    Failure,
    HookResult,
    LineSink,
    PhaseSettings,
    StartedHook,
    StopSignal,
    Stream,
    TrustMode,
)
from refresh_agent.phases import environment, order, run_parts, trust
from refresh_agent.phases.process import HOOK_ID, ignore_start
from refresh_agent.redact import Masker, looks_secret

HookRunner = Callable[[Command, LineSink, Callable[[int], None]], Exit]
"""ProcessRunner.run: also tells the pid as soon as there is one."""


class Recorder(Protocol):
    """Is told what happens while it happens: it logs and journals."""

    def phase_began(self, phase: str, hooks: int) -> None: ...

    def phase_ended(self, phase: str, failure: Failure | None) -> None: ...

    def hook_began(self, started: StartedHook) -> None: ...

    def hook_ended(self, result: HookResult) -> None: ...

    def line(self, phase: str, hook: str, stream: Stream, text: str) -> None: ...

    def note(self, phase: str, text: str) -> None: ...

    def warn(self, phase: str, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What the phases of one run need. ``env`` is the agent's own, ``run_env`` goes over environment.d."""

    settings: PhaseSettings
    env: Mapping[str, str]
    run_env: Mapping[str, str]
    runner: HookRunner
    recorder: Recorder
    stop: StopSignal
    mask: Masker


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


class _Phase:
    """The hooks of one phase directory, one after the other."""

    def __init__(self, job: Job, phase: str, budgets: Sequence[Budget]) -> None:
        self._job = job
        self._phase = phase
        self._budgets = budgets
        self._trust = trust.of_this_process()
        self._variables: Mapping[str, str] = job.env
        self._evaluated: object = None

    def run(self, hooks: Sequence[str]) -> Failure | None:
        """Until the first failure, or until a stop is requested."""
        for hook in hooks:
            if self._job.stop.requested:
                reason = "not started: the agent is stopping"
                return Failure(self._phase, hook, 143, reason, stopped=True)
            if error := self._evaluate_environment():
                return Failure(self._phase, "", 1, error, self._job.stop.requested)
            result = self._run_hook(hook)
            if not result.exit.ok:
                return _failure(result)
        return None

    def _evaluate_environment(self) -> str:
        """Read environment.d, once for the phase and again when it has changed: a hook may write there.

        Why it cannot be used; "" if it can.
        """
        directory = os.path.join(self._job.settings.base_dir, "environment.d")
        try:
            paths = environment.files(directory)
            state = environment.state(paths)
        except OSError as error:
            return f"{directory}: cannot be read: {error.strerror}"
        if state == self._evaluated:
            return ""
        for path in paths:
            if refusal := self._refusal(path, self._trust.objection(path)):
                return refusal
        evaluated = environment.evaluate(
            paths,
            {**self._job.env, **self._run_env(os.urandom(16).hex())},
            self._run_within,
            lambda stream, text: self._tell("environment.d", stream, self._job.mask(text)),
        )
        self._variables, self._evaluated = evaluated.variables, state
        self._job.mask.learn(value for name, value in evaluated.variables.items() if looks_secret(name))
        return evaluated.error

    def _run_env(self, hook_id: str) -> Mapping[str, str]:
        return {**self._job.run_env, "REFRESH_AGENT_PHASE": self._phase, HOOK_ID: hook_id}

    def _run_hook(self, hook: str) -> HookResult:
        recorder, tail = self._job.recorder, Tail(self._job.settings.output_limit)

        def sink(stream: Stream, text: str) -> None:
            masked = self._job.mask(text)
            tail.add(masked)
            self._tell(hook, stream, masked)

        hook_id = os.urandom(16).hex()

        def started(pid: int) -> None:
            recorder.hook_began(StartedHook(self._phase, hook, hook_id, pid))

        path = os.path.join(order.directory(self._job.settings.base_dir, self._phase), hook)
        command = Command(path, (path,), {**self._variables, **self._run_env(hook_id)})
        if refusal := self._refusal(path, self._trust.hook_objection(path, command.env)):
            ended = Exit(126, Ending.NOT_STARTED, 0.0, refusal)
        else:
            ended = self._run_within(command, sink, started)
        if ended.ending is Ending.NOT_STARTED:
            started(0)
        result = HookResult(self._phase, hook, ended, tail.bytes())
        recorder.hook_ended(result)
        return result

    def _tell(self, hook: str, stream: Stream, masked: str) -> None:
        self._job.recorder.line(self._phase, hook, stream, masked)

    def _run_within(
        self, command: Command, sink: LineSink, started: Callable[[int], None] = ignore_start
    ) -> Exit:
        """Run it in the time that is left; when that is not enough, the detail names the option."""
        of_hook = Budget(self._job.settings.hook_timeout, "hook_timeout")
        tightest = min((of_hook, *self._budgets), key=Budget.left)
        timeout = tightest.left() if tightest.seconds else 0
        ended = self._job.runner(replace(command, timeout=timeout), sink, started)
        if ended.ending is Ending.TIMEOUT:
            limit = f"{tightest.option} = {tightest.seconds:g} s"
            return replace(ended, detail=f"was ended: the time of [phases] {limit} was up")
        return ended

    def _refusal(self, path: str, objection: str) -> str:
        """What to do about an objection: the text if the phase has to fail, else ""."""
        mode = self._job.settings.trust
        if not objection or mode is TrustMode.OFF:
            return ""
        if mode is TrustMode.WARN:
            self._job.recorder.warn(self._phase, f"{path} is not to be trusted: {objection}")
            return ""
        return f"{path} is not to be trusted: {objection} ([phases] trust)"


def _failure(result: HookResult) -> Failure:
    ended = result.exit
    reason = ended.detail or f"failed with status {ended.status}"
    return Failure(result.phase, result.hook, ended.status, reason, ended.ending is Ending.STOPPED)


class Tail:
    """The end of an output, within a limit of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: deque[bytes] = deque()
        self._size = 0

    def add(self, text: str) -> None:
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        self._lines.append(line)
        self._size += len(line)
        while self._size > self._limit and self._lines:
            oldest = self._lines.popleft()
            self._size -= len(oldest)
            if not self._lines:  # it alone is longer than what may be kept
                end = oldest[len(oldest) - self._limit :].decode("utf-8", "ignore").encode()
                self._lines.append(end)
                self._size = len(end)
                break

    def bytes(self) -> bytes:
        return b"".join(self._lines)


def _present(job: Job, phases: Sequence[str]) -> bool:
    return any(os.path.lexists(order.directory(job.settings.base_dir, phase)) for phase in phases)


def _nothing_to_run(base_dir: str) -> str:
    if not os.path.isdir(base_dir):
        return f"{base_dir} does not exist: there are no hooks to run (see [DEFAULT] base_dir)"
    return f"{base_dir} has no phase directory ({order.PRE_CONFIGURE}.d, ...): there are no hooks to run"
