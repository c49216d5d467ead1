"""``refresh-agent check-config``: what the daemon would say of its configuration."""

import argparse

from refresh_agent import opts
from refresh_agent.cli.loading import load
from refresh_agent.cli.output import say, say_json
from refresh_agent.errors import ConfigError, ExitCode
from refresh_agent.option_values import is_os_collect_configs


def run(location: opts.Location, arguments: argparse.Namespace) -> int:
    """0 and the files read, or 2 and every problem."""
    problems: list[str] = []
    paths: list[str] = []
    try:
        paths = location.files()
        load(location)
    except ConfigError as error:
        problems = str(error).splitlines()
    if arguments.json:
        say_json({"files": paths, "problems": problems})
    elif problems:
        raise ConfigError("\n".join(problems))
    else:
        read = ", ".join(_told(path) for path in paths) if paths else "no file, so all defaults"
        say(f"The configuration is good ({read}).")
    return ExitCode.USAGE if problems else ExitCode.OK


def _told(path: str) -> str:
    return f"{path}: os-collect-config's own options" if is_os_collect_configs(path) else path
