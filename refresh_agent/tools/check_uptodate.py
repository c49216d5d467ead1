"""Is the sample configuration of a project what its options say now? oslo-incubator's check_uptodate.sh."""

import argparse
import difflib
import os
import shlex
from collections.abc import Iterator, Sequence

from refresh_agent.errors import ConfigError, ExitCode
from refresh_agent.files import open_regular, reason
from refresh_agent.tools import program
from refresh_agent.tools.order import Order, fresh

ABOUT = """Compare PACKAGE.conf.sample with what generate_sample.sh would write; print the difference.

Nothing is written. The name of the project may also be given as the environment variable PROJECT_NAME."""


def command() -> int:
    return program.run(main)


def main(argv: Sequence[str] | None = None) -> int:
    """0 if it is current; 1 if it is not, or not there, or with --strict not sure; 2 for bad usage."""
    order = program.order(_parser(), argv)
    committed = _committed(order.path)
    if committed is None and order.project.package_path is not None:
        program.say(f"{order.path} is not there: {_remedy(order)}")
        return program.NOT_GOOD
    answer = fresh(order)
    program.tell(answer.troubles, order.strict)
    if not answer.options:
        program.say(f"no options were found in {order.project.name}")
        return program.NOT_GOOD
    if committed != answer.text:
        for line in _difference(committed or "", answer.text, order.path):
            print(line, end="")
        program.say(f"{order.path} is not up to date: {_advice(order, bool(answer.troubles))}")
        return program.NOT_GOOD
    return program.NOT_GOOD if order.strict and answer.troubles else ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    """check_uptodate.sh: the name of the project is PROJECT_NAME; others take it as an argument."""
    parser = program.parser(ABOUT)
    parser.set_defaults(package_name=os.environ.get("PROJECT_NAME") or None)
    parser.add_argument(
        "package_name", metavar="PROJECT_NAME", nargs="?", default=argparse.SUPPRESS, help="as -p"
    )
    return parser


def _committed(path: str) -> str | None:
    try:
        with open_regular(path) as file:
            return file.read().decode(errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {reason(error)}") from error


def _difference(committed: str, fresh_text: str, path: str) -> Iterator[str]:
    """As ``diff -u`` has it, and ``patch`` takes it: what writing the sample anew would change."""
    before, after = _lines(committed), _lines(fresh_text)
    yield from difflib.unified_diff(before, after, path, path, "as it is", "as the options say")


def _lines(text: str) -> list[str]:
    *whole, last = text.split("\n")
    return [f"{line}\n" for line in whole] + ([f"{last}\n\\ No newline at end of file\n"] if last else [])


def _advice(order: Order, incomplete: bool) -> str:
    if incomplete:
        return f"see first to what is missing (above), then {_remedy(order)}"
    return _remedy(order)


def _remedy(order: Order) -> str:
    return f"run {shlex.join([*program.generator(), *order.words])}"


if __name__ == "__main__":
    raise SystemExit(command())
