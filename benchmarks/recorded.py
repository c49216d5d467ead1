"""The agent's phases with and without a journal: what it costs to know, after a power loss, what was done.

Run by the agent's own Python. ``recorded.py run BASE_DIR [STATE_DIR]`` prints the seconds from the beginning
of a run to its commit; without STATE_DIR nothing is recorded. ``recorded.py fill STATE_DIR RUNS`` adds so
many runs to a journal, each of 4 phases of 4 hooks with some output, for what is committed there.
"""

import itertools
import logging
import os
import sys
import time
from typing import Any

from refresh_agent.journal import Boundary, HookRecord, Journal, PhaseEnd, Run
from refresh_agent.marks import hook_ids
from refresh_agent.model import Ending, Exit, Fingerprints, HookResult, PhaseSettings, StartedHook, Trigger
from refresh_agent.phases import execute, order
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.plan import Action, Decision
from refresh_agent.recorder import RunRecorder
from refresh_agent.redact import Masker
from refresh_agent.wakeup import Stop

DECISION = Decision(Action.RUN, "changed: heat_local", Trigger.CHANGE, changed=("heat_local",))
DOCUMENTS: Fingerprints = (("heat_local", "0" * 64),)
HOOKS_IN_PHASE = 4
OUTPUT = b"some output of a hook, as it is kept\n" * 8


class Nothing:
    """In place of a journal: whatever it is told, it forgets."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: Run(0, "0" * 32, order.PRE_CONFIGURE)


def run(base_dir: str, state_dir: str = "") -> float:
    logging.basicConfig(level=logging.INFO)
    journal: Any = Journal(state_dir) if state_dir else Nothing()
    stop, settings = Stop(), PhaseSettings(base_dir)
    runner = ProcessRunner(stop, Grace())
    began = time.perf_counter()
    run = journal.begin(DECISION, DOCUMENTS, quiesces=order.PRE_CONFIGURE)
    recorder = RunRecorder(journal, run, DECISION.attempt, None)
    ids = hook_ids(run.run_id)
    job = execute.Job(settings, dict(os.environ), {}, runner, recorder, stop, Masker(), ids)
    failure = execute.run_phases(job, order.PHASES)
    journal.commit(run, DOCUMENTS)
    journal.close()
    assert failure is None, failure
    return time.perf_counter() - began


def fill(state_dir: str, runs: int) -> None:
    journal = Journal(state_dir)
    documents = journal.history().committed or DOCUMENTS
    for _ in range(runs):
        run = journal.begin(DECISION, documents, quiesces=order.PHASES[0])
        positions, ids = itertools.count(1), hook_ids(run.run_id)
        for before, phase in zip(("", *order.PHASES), order.PHASES, strict=False):
            if before:
                journal.record_boundary(run, Boundary(PhaseEnd(before, "done"), phase))
            journal.record_hooks(
                run, [_hook(next(positions), phase, next(ids)) for _ in range(HOOKS_IN_PHASE)]
            )
        journal.commit(run, documents)
    journal.prune(runs, 90)
    journal.close()


def _hook(position: int, phase: str, hook_id: str) -> HookRecord:
    started = StartedHook(phase, f"{position:02d}-hook", hook_id, position)
    result = HookResult(started, Exit(0, Ending.EXITED, 0.1), OUTPUT)
    return HookRecord(position, time.time(), started, result)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        print(run(*sys.argv[2:]))
    else:
        fill(sys.argv[2], int(sys.argv[3]))
