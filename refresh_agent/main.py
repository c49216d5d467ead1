"""From argv to one command and its exit code."""

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from refresh_agent import __version__, log
from refresh_agent.errors import ExitCode, RefreshAgentError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL")
"""WARN is os-refresh-config's word."""

COMMANDS = {
    "run-phases": "run the phases and migrate the databases now, as os-refresh-config; nothing is collected",
    "run-parts": "run the hooks of one directory, as dib-run-parts; no configuration is read",
    "collect": "collect once and print the merged metadata as JSON, secrets masked; nothing is stored or run",
    "db": "look after the databases by hand: db --help lists what can be done",
    "status": "what the agent is doing, and how the node stands; the exit code tells whether that is well",
    "pause": "from now on no run starts, until refresh-agent resume",
    "resume": "end a pause; a daemon refreshes at once",
    "check-config": "read the whole configuration as the daemon would, and say what is wrong with it",
}
"""Name and help; each is in a module of ``cli`` of that name, imported only when it is called."""

WITHOUT_CONFIGURATION = {"run-parts"}
WITH_ARGUMENTS = {"run-parts", "run-phases", "collect", "db", "pause"}


def command() -> int:
    """What the installed command calls: ``main``, with a process that is fit for it."""
    # Ctrl-C during the imports is no reason for a traceback. --once and the daemon set their own handlers.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_standard_streams()
    try:
        return main()
    finally:
        _ignore_signals()
        _let_go_of_streams()


def main(argv: Sequence[str] | None = None) -> int:
    """The installed command. Never shows a traceback: what went wrong is told in a line."""
    words = sys.argv[1:] if argv is None else argv
    parser = _parser(words)
    arguments = parser.parse_args(words)
    if arguments.force and not arguments.once:
        parser.error("--force goes with --once")
    if arguments.once and arguments.command:
        parser.error(f"--once and {arguments.command} do not go together")
    log.set_up(arguments.log_level)
    try:
        return _run(arguments)
    except RefreshAgentError as error:
        for line in str(error).splitlines():
            log.complain(f"error: {line}")
        return error.exit_code
    except Exception as error:  # the outermost edge: a fault of ours, told without a traceback
        logging.getLogger("refresh_agent").debug("internal error", exc_info=True)
        log.complain(f"internal error: {type(error).__name__}: {error}")
        return ExitCode.INTERNAL


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command in WITHOUT_CONFIGURATION:
        return int(_module(arguments.command).run(arguments))
    # Imported here: some commands need no configuration, and reading it is most of what a start costs.
    from refresh_agent import opts  # noqa: PLC0415

    location = opts.Location(tuple(arguments.config_file), tuple(arguments.config_dir))
    if arguments.command:
        return int(_module(arguments.command).run(location, arguments))
    if arguments.once:
        from refresh_agent.cli import loading, once  # noqa: PLC0415

        return once.run(loading.load(location), arguments)
    # Until the daemon can act on it; its first refresh is what a HUP in these moments asks for.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from refresh_agent import service  # noqa: PLC0415

    return service.run(opts.Configuration(location, os.environ))


def _module(name: str) -> Any:
    return importlib.import_module(f"refresh_agent.cli.{name.replace('-', '_')}")


class _Formatter(argparse.HelpFormatter):
    """With a width of its own: asking for the terminal's at every option costs 3 ms of each start."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """``words``: the command line. Only the command that is in it is given its arguments: they cost time."""
    parser = argparse.ArgumentParser(
        prog="refresh-agent",
        formatter_class=_Formatter,
        description="Restarts services and migrates their databases when the node's Heat configuration "
        "changes. Without a command: the daemon, in the foreground.",
    )
    parser.add_argument("--version", action="version", version=f"refresh-agent {__version__}")
    parser.add_argument("--once", action="store_true", help="refresh once, in the foreground, and end")
    parser.add_argument("--force", action="store_true", help="with --once: run even if nothing changed")
    parser.set_defaults(config_file=[], config_dir=[], log_level="INFO", json=False)
    _add_common(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, formatter_class=_Formatter)
        if name in words:
            _add_arguments(command, name)
    return parser


def _add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    if name not in WITHOUT_CONFIGURATION:
        _add_common(parser)
    if name in WITH_ARGUMENTS:
        for nested in _module(name).add_arguments(parser) or ():
            _add_common(nested)


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Options that may stand before and behind a command."""
    unset = argparse.SUPPRESS
    parser.add_argument(
        "--config-file", action="append", default=unset, metavar="PATH", help="instead of the default files"
    )
    parser.add_argument(
        "--config-dir", action="append", default=unset, metavar="DIR", help="*.conf files, read after those"
    )
    parser.add_argument("--log-level", choices=LOG_LEVELS, default=unset, help="default: INFO")
    parser.add_argument("--json", action="store_true", default=unset, help="print the result as JSON")


def _open_standard_streams() -> None:
    """Closed ones lead nowhere: else the next file that is opened would take their place."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    if sys.stdout is None or sys.stderr is None:
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the life of the process
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere


def _ignore_signals() -> None:
    """It is over, and how it ended is known. The interpreter takes back our handlers before its own end: a
    signal in those moments would take the place of the exit code.
    """
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _let_go_of_streams() -> None:
    """What could not be written until now cannot be: it must not change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
