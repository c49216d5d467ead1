"""A node whose journal is written here, for those who read it."""

from dataclasses import dataclass, field

from refresh_agent import journal_file, standing
from refresh_agent.journal import HookRecord, Journal, Run
from refresh_agent.journal_file import Edge
from refresh_agent.model import (
    Ending,
    Exit,
    Failure,
    Fingerprints,
    HookResult,
    RunOutcome,
    StartedHook,
    Trigger,
)
from refresh_agent.plan import Action, Decision
from refresh_agent.standing import Standing

A: Fingerprints = (("heat", "1"),)
AGENT = "0123abcd"
FAILURE = Failure("configure", "20-b", 42, "failed with status 42")


@dataclass
class Node:
    """A journal with a clock that tests set, and whether somebody works on a run."""

    state: str
    now: float = 1000.0
    works: bool = False
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.state, Edge(wall=lambda: self.now, agent=AGENT))

    def begin(self, failures: int = 0, documents: Fingerprints = A) -> Run:
        self.now += 10
        decision = Decision(Action.RUN, "changed: heat", Trigger.CHANGE, failures + 1, ("heat",), failures)
        return self.journal.begin(decision, documents, quiesces="pre-configure")

    def succeed(self) -> Run:
        run = self.begin()
        self.journal.commit(run, A)
        return run

    def fail(
        self, outcome: RunOutcome = RunOutcome.HOOK_FAILED, failures: int = 0, *, held: bool = False
    ) -> Run:
        run = self.begin(failures)
        self.journal.fail(run, outcome, FAILURE, held=held)
        return run

    def hook(self, run: Run, name: str, tail: bytes | None = None) -> None:
        """It has begun; with a ``tail``, it has ended too."""
        started = StartedHook("configure", name, f"{run.run_id}-1", 7)
        result = None if tail is None else HookResult(started, Exit(42, Ending.EXITED, 0.1), tail)
        self.journal.record_hooks(run, [HookRecord(1, self.now, started, result)])

    def read(self) -> Standing:
        return standing.read(self.state, lambda: AGENT if self.works else None)

    @property
    def path(self) -> str:
        return journal_file.path_in(self.state)
