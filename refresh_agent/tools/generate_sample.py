"""Write the sample configuration of a project: oslo-incubator's generate_sample.sh."""

import os
import stat
from collections.abc import Sequence

from refresh_agent.errors import ConfigError, ExitCode
from refresh_agent.files import reason, refuse_special, write_durably
from refresh_agent.tools import program
from refresh_agent.tools.order import Order, fresh

ABOUT = """Write PACKAGE.conf.sample with every option of a project, as oslo-config-generator would.

The options are those of the project's entry points of the group oslo.config.opts or, if it declares
none, those that its modules define. For that they are imported, by the interpreter that --python names."""


def command() -> int:
    return program.run(main)


def main(argv: Sequence[str] | None = None) -> int:
    """0; 1 if no options were found, or with --strict if something is missing; 2 for bad usage."""
    order = program.order(program.parser(ABOUT), argv)
    answer = fresh(order)
    program.tell(answer.troubles, order.strict)
    if order.strict and answer.troubles:
        program.say(f"{order.path} was left as it is, for --strict was given")
        return program.NOT_GOOD
    if not answer.options:
        program.say(f"no options were found in {order.project.name}: {order.path} was left as it is")
        return program.NOT_GOOD
    _write(order, answer.text)
    program.say(f"{order.path}: {answer.options} options")
    return ExitCode.OK


def _write(order: Order, text: str) -> None:
    """A file that is there already keeps its mode; a link stays one; a device is no place for a file."""
    path = os.path.realpath(order.path)
    try:
        with program.uninterrupted():
            write_durably(path, text.encode(), _mode(path))
    except OSError as error:
        raise ConfigError(f"{order.path} cannot be written: {reason(error)}") from error


def _mode(path: str) -> int:
    if not os.path.exists(path):
        return 0o644
    mode = os.stat(path).st_mode
    refuse_special(mode, path)
    return stat.S_IMODE(mode)


if __name__ == "__main__":
    raise SystemExit(command())
