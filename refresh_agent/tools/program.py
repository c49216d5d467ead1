"""The command line that both commands share, and how they talk."""

import argparse
import contextlib
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from refresh_agent import __version__
from refresh_agent.errors import ConfigError, ExitCode, RefreshAgentError
from refresh_agent.files import reason
from refresh_agent.tools import generator_rc
from refresh_agent.tools.order import FORMATS, Order, interpreter
from refresh_agent.tools.project import destination, read
from refresh_agent.tools.sampling import Trouble

NOT_GOOD = 1
"""Exit code: the sample is not what it should be, or would not be."""

CALLED = "CONFIG_SAMPLE_CALLED"
"""Environment variable in which the shell scripts say by which path they were called."""


ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


def run(main: Callable[[], int]) -> int:
    """What the installed command calls: ``main``, with what went wrong told in a line."""
    for number in ENDING:
        signal.signal(number, _end)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ``| head`` is no reason for a traceback
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would let go of who has ended
    _open_standard_streams()
    try:
        return _flushed(main())
    except RefreshAgentError as error:
        say(f"error: {error}")
        return error.exit_code
    except OSError as error:  # every other file is read and written where its own message is
        say(f"error: standard output or the current directory cannot be used: {reason(error)}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the exit tries again
        return ExitCode.USAGE


def _flushed(code: int) -> int:
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


def _end(number: int, _frame: object) -> None:
    """Those that were started end with us, and without a word."""
    raise SystemExit(128 + number)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """What would end us meanwhile does it afterwards: no half of anything stays."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _open_standard_streams() -> None:
    """A caller may have closed them: no file of ours is to take their places."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def order(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> Order:
    """The command line, read. Exits with 2 if it cannot be; raises ConfigError."""
    given = parser.parse_args(argv)
    project = read(given.base_dir or os.curdir, given.package_name)
    return Order(
        project=project,
        path=_near(destination(project, given.output_dir)),
        modules=given.module,
        libraries=given.library,
        rc_files=_rc_files(given.rc),
        form=given.format,
        python=interpreter(given.python, os.environ),
        strict=given.strict,
        words=_words(given),
    )


PYTHON = "default: that of the active virtual environment, or this one"


def parser(about: str) -> argparse.ArgumentParser:
    """generate_sample.sh's command line, and what came since."""
    made = argparse.ArgumentParser(
        prog=_name(), description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    one: dict[str, Any] = {"type": _given}
    more: dict[str, Any] = {"action": "append", "default": []}
    add("-b", "--base-dir", metavar="DIR", **one, help="the project's directory (default: the current one)")
    add("-p", "--package-name", metavar="NAME", **one, help="its package (default: the project's own name)")
    add(
        "-o", "--output-dir", metavar="DIR", **one, help="where the sample is (default: etc/ or etc/PACKAGE/)"
    )
    add("-m", "--module", metavar="MOD", type=_module, **more, help="a further module with options")
    add("-l", "--library", metavar="LIB", type=_library, **more, help="a library whose options to add")
    add("--format", choices=FORMATS, default="ini", help="what to write (default: %(default)s)")
    add("--strict", action="store_true", help="every warning is an error")
    add("--python", metavar="PATH", **one, help=f"the interpreter that can import the project ({PYTHON})")
    add("--rc", metavar="FILE", **more, help=f"read this, too, besides {generator_rc.NAME}")
    add("--version", action="version", version=f"%(prog)s of refresh-agent {__version__}")
    return made


def _given(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("nothing is given")
    return text


def _library(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a library; each has an -l of its own")
    return text


def _module(text: str) -> str:
    if not all(part.isidentifier() for part in text.split(".")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a module's full name, such as shop.web")
    return text


def _near(path: str) -> str:
    """As a person would write it who stands in the current directory."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def _rc_files(given: Sequence[str]) -> list[str]:
    for path in given:
        if not os.path.isfile(path):
            raise ConfigError(
                f"{path} is not a file: --rc takes a shell script, as {generator_rc.NAME} is one"
            )
    called = os.environ.get(CALLED)
    beside = [str(pathlib.Path(called).with_name(generator_rc.NAME))] if called else []
    return [*beside, *given]


def _words(given: argparse.Namespace) -> list[str]:
    """The options that ask for the same sample again; what is the default is not among them."""
    flags = {"-b": given.base_dir, "-p": given.package_name, "-o": given.output_dir, "--python": given.python}
    flags["--format"] = None if given.format == "ini" else given.format
    many = {"-m": given.module, "-l": given.library, "--rc": given.rc}
    words = [word for flag, value in flags.items() if value for word in (flag, value)]
    return words + [word for flag, values in many.items() for value in values for word in (flag, value)]


def _name() -> str:
    return os.path.basename(os.environ.get(CALLED) or sys.argv[0])


def generator() -> list[str]:
    """How to write a sample, by the way that we were called."""
    called = os.environ.get(CALLED)
    if called:
        python = [f"PYTHON={os.environ['PYTHON']}"] if os.environ.get("PYTHON") else []
        script = os.path.join(os.path.dirname(called) or os.curdir, "generate_sample.sh")
        return [*(["env"] if python else []), *python, script]
    if sys.argv[0].endswith(".py"):
        return [os.path.basename(sys.executable), "-m", "refresh_agent.tools.generate_sample"]
    return ["refresh-agent-config-sample"]


def tell(troubles: Sequence[Trouble], strict: bool) -> None:
    kind = "error" if strict else "warning"
    for trouble in troubles:
        where = f" ({trouble.where})" if trouble.where else ""
        say(f"{kind}: {trouble.what}{where}: {trouble.why}; {trouble.outcome}")


def say(text: str) -> None:
    print(f"{_name()}: {text}", file=sys.stderr)
