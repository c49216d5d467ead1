"""``refresh-agent run-parts``: the hooks of one directory, with dib-run-parts' command line and messages."""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence

from refresh_agent.cli.passing_on import PassedOn, one_place, write
from refresh_agent.cli.stopping import stop_on_signals
from refresh_agent.errors import ConfigError
from refresh_agent.marks import hook_ids
from refresh_agent.model import Failure, HookEvent, MetadataLimits, PhaseSettings, StartedHook, TrustMode
from refresh_agent.phases import execute, run_parts
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.redact import Masker, secrets_of_environment, shown

NAME = "dib-run-parts"
"""In front of every message, whatever the command was called as: who reads them looks for that."""

FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", metavar="DIR", help="directory of hooks")
    parser.add_argument("--list", action="store_true", help="print what would be run, and end")
    parser.add_argument(
        "--trust",
        choices=[mode.value for mode in TrustMode],
        default=TrustMode.ENFORCE.value,
        help="what becomes of a hook that somebody else may have written (default: enforce)",
    )
    parser.set_defaults(usage=parser.format_usage)


def run(arguments: argparse.Namespace) -> int:
    """The failing hook's own status, else 1 for any other failure; 128+N if signal N came before the end."""
    if arguments.config_file or arguments.config_dir or arguments.json:
        raise ConfigError("run-parts knows no --config-file, --config-dir and --json: see its --help")
    directory = arguments.directory
    if directory is None or not os.path.isdir(directory):
        if directory is not None:
            _say(f"Scripts directory [{directory}] must exist and be a directory")
        sys.stderr.write(arguments.usage())
        return FAILED
    return _list(directory) if arguments.list else _run(directory, TrustMode(arguments.trust))


def _list(directory: str) -> int:
    try:
        selection = run_parts.select(directory, run_parts.name_regex(os.environ))
    except OSError as error:
        _say(f"{directory}: {error.strerror}")
        return FAILED
    write(1, b"".join(os.fsencode(f"{directory}/{hook}\n") for hook in selection.hooks))
    return 0


def _run(directory: str, trust: TrustMode) -> int:
    stop = stop_on_signals()
    settings = PhaseSettings(directory, trust=trust, output_limit=0)
    narrator = _Narrator(directory)
    job = execute.Job(
        settings=settings,
        env=os.environ,
        run_env={},
        runner=ProcessRunner(stop, Grace(settings.kill_grace, settings.stop_grace)),
        recorder=narrator,
        stop=stop,
        mask=Masker(_secrets()),
        ids=hook_ids(os.urandom(16).hex()),
        joined=one_place(),
    )
    name = _basename(directory)
    # The kernel's "..": behind a link, another directory than the one that the path names.
    place = execute.Place(name.removesuffix(".d"), directory, f"{directory}/../environment.d", True)
    failure = execute.run_place(job, place, ())
    if failure is not None:
        _say(_told(failure))
    narrator.tell_profile(name)
    if failure is None:
        return 0
    return 128 + stop.signal if failure.stopped else failure.status


def _secrets() -> Iterator[str]:
    """Of the environment, and of the metadata that it names."""
    yield from secrets_of_environment(os.environ)
    for path in filter(None, os.environ.get("OS_CONFIG_FILES", "").split(":")):
        from refresh_agent import config_files  # noqa: PLC0415 - rarely needed here

        yield from config_files.secrets_of(path, MetadataLimits())


def _basename(directory: str) -> str:
    return os.path.basename(directory.rstrip("/")) or "/"


def _told(failure: Failure) -> str:
    """There is no configuration here, so what it says of that is said of the option."""
    reason = failure.reason.replace("([phases] trust)", "(--trust)")
    return f"{failure.hook}: {reason}" if failure.hook else reason


class _Narrator:
    """An ``execute.Recorder`` with dib-run-parts' messages."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._seconds: dict[str, float] = {}

    def phase_began(self, phase: str, hooks: int) -> None:
        """Nothing is said of it."""

    def phase_ended(self, phase: str, failure: Failure | None) -> None:
        """Nothing is said of it."""

    def hooks_changed(self, events: Sequence[HookEvent]) -> None:
        for event in events:
            if isinstance(event, StartedHook):
                _say(f"Running {self._directory}/{event.hook}")
                continue
            hook, ended = event.started.hook, event.exit
            self._seconds[hook] = ended.seconds
            if ended.ok:
                _say(f"{hook} completed")
            if ended.survivors:
                _say(f"{hook}: left running in the background: {', '.join(ended.survivors)}")

    def listener(self, phase: str, hook: str) -> PassedOn:  # noqa: ARG002 - the protocol's
        return PassedOn()

    def sourcing(self, phase: str, path: str) -> None:  # noqa: ARG002
        _say(f"Sourcing environment file {path}")

    def note(self, phase: str, text: str) -> None:
        """What is not run is not told here."""

    def warn(self, phase: str, text: str) -> None:  # noqa: ARG002
        _say(f"warning: {text}")

    def tell_profile(self, name: str) -> None:
        _say("----------------------- PROFILING -----------------------")
        for line in ("", f"Target: {name}", "", f"{'Script':40} {'Seconds':>9}", f"{'-' * 39:40} {'-' * 10}"):
            _say(line)
        _say("")
        for hook in sorted(self._seconds, key=os.fsencode):
            _say(f"{hook:40} {self._seconds[hook]:10.3f}")
        _say("")
        _say("--------------------- END PROFILING ---------------------")


def _say(text: str) -> None:
    """One line, whatever it quotes. The date is that of date(1) in the C locale."""
    date = time.strftime("%a %b %e %H:%M:%S %Z %Y")
    write(2, f"{NAME} {date} {shown(text)}\n".encode("utf-8", "backslashreplace"))
