"""``refresh-agent db``: the databases by hand."""

import argparse
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from refresh_agent import databases, log, opts
from refresh_agent.cli import db_text
from refresh_agent.cli.loading import load
from refresh_agent.cli.output import say, say_json
from refresh_agent.cli.stopping import stop_on_signals
from refresh_agent.db.worker import protocol
from refresh_agent.errors import ConfigError, ExitCode
from refresh_agent.model import MigrationOutcome, MigrationResult, PhaseSettings, Target
from refresh_agent.option_values import hint
from refresh_agent.phases.environment import inherited
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.redact import Masker, secrets_of_environment, shown
from refresh_agent.wakeup import Stop

LOG = logging.getLogger("refresh_agent")


class Action(NamedTuple):
    """``revision``: how often the command line names one, as argparse's nargs; "" for never.

    ``alone``: where several databases are configured, one has to be named.
    """

    operation: str
    text: str
    revision: str = ""
    alone: bool = False


OPTIONAL, NEEDED = "?", "1"

ACTIONS = {
    "status": Action(protocol.STATUS, "where the database is, and what an upgrade would do"),
    "upgrade": Action(protocol.UPGRADE, "upgrade to REVISION, or where the configuration says", OPTIONAL),
    "downgrade": Action(protocol.DOWNGRADE, "downgrade to REVISION", NEEDED, alone=True),
    "version": Action(protocol.SHOW_VERSION, "print where the database is"),
    "stamp": Action(
        protocol.STAMP, "write down that the schema is at REVISION; nothing is migrated", NEEDED, alone=True
    ),
    "revision": Action(protocol.REVISION, "make a new revision in the alembic tree", alone=True),
    "check": Action(protocol.CHECK, "compare models, tree and database"),
    "sql": Action(protocol.SQL, "print the SQL of an upgrade; nothing is executed", OPTIONAL),
    "unlock": Action(protocol.UNLOCK, "free the lock of somebody who is known to be gone", alone=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> Iterable[argparse.ArgumentParser]:
    """Return the parsers of the actions, which take the common options too."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    formatter = parser.formatter_class
    parsers = {
        name: actions.add_parser(name, help=action.text, description=action.text, formatter_class=formatter)
        for name, action in ACTIONS.items()
    }
    for name, each in parsers.items():
        each.set_defaults(revision=None, message="", autogenerate=False, resume=False)
        each.add_argument("--target", metavar="NAME", help="only this one of [migrations] targets")
        nargs = ACTIONS[name].revision
        if nargs:
            text = "of alembic, or a version of the legacy repository"
            kwargs: dict[str, Any] = {"nargs": "?"} if nargs == OPTIONAL else {}
            each.add_argument("revision", metavar="REVISION", type=_revision, help=text, **kwargs)
    for name in ("upgrade", "downgrade"):
        parsers[name].add_argument(
            "--resume", action="store_true", help="go on in the middle of a revision that stopped half-way"
        )
    made = parsers["revision"]
    made.add_argument(
        "-m", "--message", metavar="TEXT", type=_title, required=True, help="what the revision is for"
    )
    made.add_argument(
        "--autogenerate", action="store_true", help="fill it with what the models have and the database lacks"
    )
    return parsers.values()


def _title(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; say what the revision is for")
    return text


def _revision(text: str) -> str:
    if not text or text != "".join(text.split()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a revision")
    return text


def run(location: opts.Location, arguments: argparse.Namespace) -> int:
    """0, or 4 if it failed, was refused, or ``check`` has found something; 11 if somebody else holds the
    lock; 128+N if signal N came before the end.
    """
    settings = load(location)
    action = ACTIONS[arguments.action]
    targets = _chosen(settings.targets, action, arguments)
    by_hand = f"hand{os.urandom(2).hex()}"  # in place of a run's id, for whoever has to wait
    order = protocol.Order(
        action.operation, by_hand, arguments.message, arguments.autogenerate, arguments.resume
    )
    stop = stop_on_signals()
    mask = Masker([*secrets_of_environment(os.environ), *databases.secrets_of(settings.targets)])
    results = databases.ask(order, targets, _means(settings.phases, stop, mask))
    _tell(action, results, mask, as_json=arguments.json)
    return _exit_code(results, stop)


def _chosen(known: Sequence[Target], action: Action, arguments: argparse.Namespace) -> Sequence[Target]:
    """Raises ConfigError."""
    names = [target.name for target in known]
    if not known:
        raise ConfigError(
            "db: no database is configured: [migrations] targets is empty; name them there, and give each a"
            " section [migration:NAME]"
        )
    if arguments.target is None and action.alone and len(known) > 1:
        raise ConfigError(
            f"db {arguments.action}: of which one? Add --target with one of: {', '.join(names)}"
        )
    if arguments.target is not None and arguments.target not in names:
        raise ConfigError(
            f"db: [migrations] targets has no {arguments.target!r}{hint(arguments.target, names)}; it has:"
            f" {', '.join(names)}"
        )
    chosen = [target for target in known if arguments.target in {None, target.name}]
    if arguments.revision is None:
        return chosen
    return [replace(target, revision=arguments.revision) for target in chosen]


def _means(phases: PhaseSettings, stop: Stop, mask: Masker) -> databases.Means:
    return databases.Means(
        runner=ProcessRunner(stop, Grace(phases.kill_grace, phases.stop_grace)),
        mask=mask,
        env=inherited(os.environ),
        trust=phases.trust,
        log=lambda target, text: LOG.info("%s", text, extra=log.of(target=target)),
        warn=lambda target, text: LOG.warning("%s", text, extra=log.of(target=target)),
    )


def _tell(action: Action, results: Sequence[MigrationResult], mask: Masker, *, as_json: bool) -> None:
    for result in results:
        if not result.ok:
            level = logging.WARNING if result.outcome is MigrationOutcome.DEFERRED else logging.ERROR
            about = log.of(target=result.target)
            LOG.log(level, "%s (%s)", mask(result.message), result.outcome, extra=about)
    if as_json:
        say_json([_as_json(result) for result in results])
        return
    if action.operation == protocol.SQL:
        for text in db_text.sql(results):
            say(mask(text))
        return
    for result in results:
        for line in db_text.lines(action.operation, result):
            say(mask(shown(line)))


def _as_json(result: MigrationResult) -> dict[str, Any]:
    """The report's entries beside the result's own."""
    fields = result._asdict()
    report = fields.pop("report")
    return {**fields, **report}


def _exit_code(results: Sequence[MigrationResult], stop: Stop) -> int:
    outcomes = {result.outcome for result in results}
    if MigrationOutcome.STOPPED in outcomes and stop.requested:
        return 128 + stop.signal
    deferred = MigrationOutcome.DEFERRED in outcomes
    bad = any(not result.ok for result in results if result.outcome is not MigrationOutcome.DEFERRED)
    if bad or any(result.report.get("problems") for result in results):
        return ExitCode.MIGRATION_FAILED
    return ExitCode.LOCKED if deferred else ExitCode.OK
