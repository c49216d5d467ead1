"""May this target be touched now? Its connection is known, its user exists, its files are to be trusted."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote, unquote_plus

from refresh_agent.db import connection, targets, trees, users
from refresh_agent.db.surroundings import Surroundings
from refresh_agent.db.worker.masking import secrets_of
from refresh_agent.lines import Lines
from refresh_agent.model import Command, Stream, Target, TrustMode

LOCATE = """
import sys
sys.path[:] = sys.argv[2:] + [path for path in sys.path if path]
import importlib.util, json
spec = importlib.util.find_spec(sys.argv[1])
print(json.dumps(list(spec.submodule_search_locations or ()) if spec else []))
"""
"""Finds a package without importing it; not in the working directory, which is nobody's choice."""

LOCATE_SECONDS = 60.0

MOST_WARNINGS = 10
"""About one target; a tree of a thousand revisions is wrong as a whole, as a rule."""


class RefusedError(Exception):
    """Why a target is not touched. The text is the message."""


@dataclass(frozen=True)
class Admitted:
    """A target that a worker may be given: ``target`` has its connection; ``user`` is None for our own."""

    target: Target
    user: users.Account | None

    @property
    def name(self) -> str:
        return self.target.name


def secrets(url: str) -> Iterator[str]:
    """What of a connection must not show up anywhere, as it stands there and as a driver gets it."""
    for secret in filter(None, secrets_of(url)):
        yield from {secret, unquote(secret), unquote_plus(secret)}


def admit(target: Target, surroundings: Surroundings) -> Admitted:
    """Raises RefusedError. Nothing of the target has been executed then, but what was found to be good."""
    target = _connected(target, surroundings)
    try:
        user = users.account(target.user)
        users.command_line(user)
    except users.UserError as error:
        raise RefusedError(str(error)) from error
    admitted = Admitted(target, user)
    if surroundings.trust is not TrustMode.OFF:
        _judge(admitted, surroundings)
    return admitted


def missing_program(target: Target) -> str:
    """Why a program that an upgrade may need besides ``python`` cannot be started; "" if it can."""
    legacy = target.legacy_python if target.migrate_repository else ""
    for option, path in (("legacy_python", legacy), ("backup", targets.backup_program(target.backup))):
        if path and not os.path.isfile(path):
            return f"{option}: {path} does not exist; install it, or correct the option"
        if path and not os.access(path, os.X_OK):
            return f"{option}: {path} is not executable; make it so, or correct the option"
    return ""


def _connected(target: Target, surroundings: Surroundings) -> Target:
    if not target.connection_from:
        return target
    try:
        url = connection.read(target.connection_from)
    except connection.UnknownConnectionError as error:
        raise RefusedError(f"connection_from: {error}") from error
    surroundings.learn(tuple(secrets(url)))
    found = replace(target, connection=url)
    for problem in targets.problems_of_connection(found):
        option, _, text = problem.partition(": ")
        here = f"connection_from: {target.connection_from}: [{connection.GROUP}] {option}: {text}"
        raise RefusedError(here if option == connection.OPTION else problem)
    return found


def _judge(admitted: Admitted, surroundings: Surroundings) -> None:
    """What it executes: all of it is looked at before any of it is executed."""
    owners = frozenset({0, os.geteuid(), *((admitted.user.uid,) if admitted.user else ())})
    warn = surroundings.warn or surroundings.log
    for count, objection in enumerate(_objections(admitted, owners, surroundings)):
        text = f"{objection} ([phases] trust); {_remedy(admitted)}"
        if surroundings.trust is TrustMode.ENFORCE:
            raise RefusedError(f"what it would execute is not to be trusted: {text}")
        if count == MOST_WARNINGS:
            warn(f"{admitted.name}: and there is more of that")
            return
        warn(f"{admitted.name}: what it executes is not to be trusted: {text}")


def _remedy(admitted: Admitted) -> str:
    user = f" or to {admitted.user.name}" if admitted.user else ""
    return f"give it to root{user}, and take others' right to write (chown, chmod go-w)"


def _objections(admitted: Admitted, owners: frozenset[int], surroundings: Surroundings) -> Iterator[str]:
    target = admitted.target
    of_program = surroundings.program_objection or surroundings.objection
    yield from filter(None, (of_program(path, owners) for path in trees.programs(target)))

    def locate(package: str) -> Sequence[str]:
        return _located(package, admitted, surroundings)

    try:
        for path in trees.suspects(target, owners, locate):
            if objection := surroundings.objection(path, owners):
                yield objection
    except trees.TreeError as error:
        raise RefusedError(str(error)) from error


def _located(package: str, admitted: Admitted, surroundings: Surroundings) -> Sequence[str]:
    """Where the target's interpreter finds it; nowhere, if that fails: the worker then says why."""
    target = admitted.target
    answers: list[str] = []
    argv = (
        *users.command_line(admitted.user), target.python, "-c", LOCATE, package, *target.python_path
    )  # fmt: skip
    command = Command(
        argv[0], argv, users.environment(admitted.user, surroundings.env), timeout=LOCATE_SECONDS
    )
    listener = Lines(lambda stream, text: answers.append(text) if stream is Stream.STDOUT else None, 2**16)
    ended = surroundings.run(command, listener)
    listener.flush()
    if not ended.ok or not answers:
        return ()
    try:
        found = json.loads(answers[-1])
    except ValueError:
        return ()
    return [path for path in found if isinstance(path, str)] if isinstance(found, list) else ()
