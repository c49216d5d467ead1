"""os-collect-config's own configuration file, which heat-agents' hook writes from Heat metadata.

So it can say what os-collect-config's options say and nothing else: what metadata holds must not switch off
``trust``. Its values are literal, a dollar sign too. What the agent has no use for, and what nobody knows, is
passed over.
"""

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from refresh_agent.errors import ConfigError
from refresh_agent.option_values import Opened, Section, is_os_collect_configs, parsed

COLLECTORS = ("heat_local", "ec2", "cfn", "heat", "request", "local", "zaqar")
"""What it collects from unless told otherwise."""

_KEYSTONE = frozenset({"auth_url", "user_id", "password", "project_id", "region_name"})

OPTIONS: Mapping[str, frozenset[str]] = {
    "DEFAULT": frozenset(
        {
            "backup_cachedir",
            "cachedir",
            "collectors",
            "command",
            "deployment_key",
            "min_polling_interval",
            "polling_interval",
            "splay",
        }
    ),
    "cfn": frozenset(
        {
            "access_key_id",
            "ca_certificate",
            "deployment_key",
            "heat_metadata_hint",
            "metadata_url",
            "path",
            "secret_access_key",
            "stack_name",
            "timeout",
        }
    ),
    "ec2": frozenset({"metadata_url", "timeout"}),
    "heat": _KEYSTONE | {"stack_id", "resource_name"},
    "heat_local": frozenset({"path"}),
    "local": frozenset({"path"}),
    "request": frozenset({"metadata_url", "timeout"}),
    "zaqar": _KEYSTONE | {"queue_id", "use_websockets", "ssl_certificate_validation", "ca_file"},
}

NOTHING = frozenset({"true", "/bin/true", "/usr/bin/true", ":"})

_PLAIN = re.compile(r"[\w./+-]+")


def opened(paths: Sequence[str], stack: contextlib.ExitStack) -> Opened:
    """Files, ours and os-collect-config's at least one, in the order in which they override each other.

    What the result's paths lead to is there until the end of ``stack``. Raises ConfigError with everything
    that cannot be read.
    """
    problems: list[str] = []
    found = Opened([], [], [], {})
    foreign: list[Section] = []
    for path in paths:
        if is_os_collect_configs(path):
            sections = taken_over(parsed(path, problems, private=True))
            foreign += sections
            found.paths.append(stack.enter_context(handed_on(sections)))
        else:
            sections = parsed(path, problems)
            found.own.extend(sections)
            found.paths.append(path)
        found.sections.extend(sections)
    try:
        found = found._replace(defaults=defaults(foreign))
    except ConfigError as error:
        problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def taken_over(sections: Sequence[Section]) -> list[Section]:
    """What counts of its groups. An option without a value is not set: the hook leaves such lines behind."""
    taken = []
    for path, name, options in sections:
        # oslo.config does not distinguish Heat and heat either.
        group = name if name == "DEFAULT" else name.lower()
        known = OPTIONS.get(group, frozenset())
        given = {
            option: [value for value in options[option] if value] for option in options if option in known
        }
        taken.append(Section(path, group, {option: values for option, values in given.items() if values}))
    return taken


@contextlib.contextmanager
def handed_on(sections: Sequence[Section]) -> Iterator[str]:
    """A path from which oslo.config reads these, and their values as they are. Not on any disk."""
    descriptor = os.memfd_create("os-collect-config.conf")
    try:
        with open(descriptor, "w", closefd=False) as file:  # in the encoding in which oslo.config reads
            for section in sections:
                file.write(f"[{section.group}]\n")
                for option, values in section.options.items():
                    file.writelines(f"{option} = {_literally(value)}\n" for value in values)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _literally(value: str) -> str:
    r"""As oslo.config has to find it: it takes off one pair of quotes, and a dollar sign behind a backslash
    is one. Further lines are indented.
    """
    first, *more = value.replace("$", r"\$").split("\n")
    return "\n ".join([f'"{first}"', *more])


def defaults(sections: Sequence[Section]) -> dict[tuple[str, str], Any]:
    """Group and option → the value if nobody sets it: what os-collect-config does, and what its command says.

    Raises ConfigError for a command that the agent does not stand in for.
    """
    found: dict[tuple[str, str], Any] = {("DEFAULT", "collectors"): list(COLLECTORS)}
    given = [
        (section.path, section.options["command"][-1]) for section in sections if "command" in section.options
    ]
    if given:
        path, command = given[-1]
        try:
            found |= _of_command(command)
        except ValueError as error:
            raise ConfigError(f"{path}: [DEFAULT] command: {error}") from None
    return found


def _of_command(command: str) -> dict[tuple[str, str], Any]:
    """What os-refresh-config was told to do. Raises ValueError, which quotes no more than a program."""
    try:
        words = shlex.split(command)
    except ValueError:
        raise ValueError(f"has a quotation without an end; {_ADVICE}") from None
    if not words or (words[0] in NOTHING and len(words) == 1):
        return {}
    program = os.path.basename(words[0])
    if program == "os-refresh-config":
        return _arguments(words[1:])
    if program == "refresh-agent" and words[1:2] == ["run-phases"]:
        return _arguments(words[2:])
    name = f"{words[0]} is" if _PLAIN.fullmatch(words[0]) else "it is"
    raise ValueError(f"{name} neither os-refresh-config nor a command that does nothing; {_ADVICE}")


_ADVICE = (
    "refresh-agent runs the hooks itself, so make what else has to be done a hook in configure.d or "
    "post-configure.d, and set command = os-refresh-config"
)


def _arguments(words: Sequence[str]) -> dict[tuple[str, str], Any]:
    """os-refresh-config's options, as far as they say how the hooks are run. Raises ValueError."""
    found: dict[tuple[str, str], Any] = {}
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option not in {"--timeout", "--lockfile", "--log-level"}:
            raise ValueError(f"only --timeout, --lockfile and --log-level may follow the program; {_ADVICE}")
        if not equals:
            value = next(rest, "")
        if option == "--timeout":
            if not value.isdecimal():
                raise ValueError("--timeout takes a number of seconds, such as --timeout 14400")
            found["phases", "run_timeout"] = float(value)
        elif option == "--lockfile":
            found["DEFAULT", "lock_file"] = value
    return found
