"""What the bridge is given instead of importing it: the layers keep ``db`` and ``phases`` apart."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from refresh_agent.lines import Listener
from refresh_agent.model import Command, Exit, TrustMode

WorkerRunner = Callable[[Command, Listener], Exit]
"""Runs a worker to its end; the listener hears it."""

Objection = Callable[[str, frozenset[int]], str]
"""Why the file at this path is not to be trusted, if these users' files are; "" if it is."""


@dataclass(frozen=True)
class Surroundings:
    """What workers run in. ``env`` is their environment as it is, but for those of other users.

    ``log`` gets the progress and whatever the workers print, line by line, each with the target's name first.
    ``warn`` hears what the operator should look at; None for ``log``. ``program_objection`` is for what is
    started as a program, and includes its interpreter; None for ``objection``. ``learn`` hears the secrets of
    connections that are known only now.
    """

    run: WorkerRunner
    log: Callable[[str], None]
    env: Mapping[str, str] = field(repr=False)
    objection: Objection
    learn: Callable[[Iterable[str]], None]
    program_objection: Objection | None = None
    trust: TrustMode = TrustMode.ENFORCE
    warn: Callable[[str], None] | None = None
