"""The bridge and what it needs of the agent: a runner, the rule of trust, a masker, an environment.

A run and the command ``db`` both go through here; neither ``db`` nor ``phases`` knows the other.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from refresh_agent.db import bridge
from refresh_agent.db.admission import secrets
from refresh_agent.db.worker.protocol import Order
from refresh_agent.lines import Listener
from refresh_agent.marks import HOOK_ID
from refresh_agent.model import Command, Exit, MigrationResult, Target, TrustMode
from refresh_agent.phases.output import Output
from refresh_agent.phases.process import ProcessRunner
from refresh_agent.phases.trust import Trust
from refresh_agent.redact import Masker


class Means(NamedTuple):
    """``log`` and ``warn`` hear of a target, "" for several at once, and a line that begins with its name.

    ``began`` hears of each worker's mark, pid and seconds (0 for no limit), ``ended`` of its end.
    """

    runner: ProcessRunner
    mask: Masker
    env: Mapping[str, str]
    trust: TrustMode
    log: Callable[[str, str], None]
    warn: Callable[[str, str], None]
    began: Callable[[str, int, float], None] = lambda _hook_id, _pid, _timeout: None
    ended: Callable[[str, Exit], None] = lambda _hook_id, _exit: None


def ask(order: Order, targets: Sequence[Target], means: Means) -> tuple[MigrationResult, ...]:
    """As ``bridge.ask``."""

    @functools.cache
    def rule(owners: frozenset[int]) -> Trust:
        return Trust(owners)

    def target_in(line: str) -> str:
        return next((target.name for target in targets if line.startswith(f"{target.name}: ")), "")

    surroundings = bridge.Surroundings(
        run=functools.partial(_run, means),
        log=lambda text: means.log(target_in(text), means.mask(text)),
        warn=lambda text: means.warn(target_in(text), means.mask(text)),
        env=means.env,
        objection=lambda path, owners: rule(owners).objection(path),
        program_objection=lambda path, owners: rule(owners).hook_objection(path, means.env),
        learn=means.mask.learn,
        trust=means.trust,
    )
    return bridge.ask(order, targets, surroundings)


def secrets_of(targets: Sequence[Target]) -> Iterator[str]:
    """Of the connections that are known by now."""
    for target in targets:
        yield from secrets(target.connection)


def _run(means: Means, command: Command, listener: Listener) -> Exit:
    """Marked and told as it begins: if this agent dies, the next one must not start a second."""
    hook_id = os.urandom(16).hex()
    output = Output(means.mask, 0, listener)
    process = means.runner.start(replace(command, env={**command.env, HOOK_ID: hook_id}), output)
    means.began(hook_id, process.pid, command.timeout)
    ended = means.runner.wait(process)
    output.flush()
    means.ended(hook_id, ended)
    return ended
