"""``oslo.config.generator.rc``: a shell script that says what else belongs into a sample."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from refresh_agent.errors import ConfigError
from refresh_agent.tools.project import Project

NAME = "oslo.config.generator.rc"
VARIABLES = {
    "OSLO_CONFIG_GENERATOR_EXTRA_MODULES": "modules",
    "OSLO_CONFIG_GENERATOR_EXTRA_LIBRARIES": "libraries",
    "OSLO_CONFIG_GENERATOR_EXCLUDED_FILES": "excluded",
}

SCRIPT = r"""
tell() {
    local variable words
    for variable in OSLO_CONFIG_GENERATOR_EXTRA_{MODULES,LIBRARIES} OSLO_CONFIG_GENERATOR_EXCLUDED_FILES; do
        local -n value=$variable
        words=("${value[@]}")
        [[ $(declare -p "$variable") =~ ^declare\ -[^\ ]*a ]] || words=($value)
        [ ${#words[@]} -eq 0 ] || printf "$variable=%s\0" "${words[@]}"
        unset -n value
        unset "$variable"
    done 2>/dev/null
}
[ $# -gt 0 ] || { set -f; tell; }
for rc_file; do
    bash -n "$rc_file" || exit 2
    set +f
    source "$rc_file" >&2
    set +eu -f
    tell
done
printf '\0'
env -0
"""
"""As generate_sample.sh reads it: words of a string, or the items of an array. Several files add up."""

SHELL_VARIABLES = {"_", "SHLVL", "PWD", "OLDPWD"}


@dataclass(frozen=True)
class Extras:
    """``environment``: what the file has exported for the modules that are imported."""

    modules: list[str] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def extras(project: Project, files: Sequence[str], environment: Mapping[str, str]) -> Extras:
    """What these files and the project's own say, or else the ``environment``. Raises ConfigError."""
    own = os.path.join(project.base, "tools", "config", NAME)
    paths = [os.path.realpath(path) for path in (*files, own) if os.path.exists(path)]
    for path in paths:
        if not os.path.isfile(path):
            raise ConfigError(f"{path} cannot be read: it is not a regular file")
    if not paths and not set(VARIABLES) & set(environment):
        return Extras()
    own_rc = {"BASH_ENV", "ENV"}  # bash itself would read them
    given = {name: value for name, value in environment.items() if name not in own_rc}
    given |= {"BASEDIR": project.base, "PACKAGENAME": project.name}
    return _parse(_sourced(list(dict.fromkeys(paths)), given), given)


def _sourced(paths: list[str], environment: dict[str, str]) -> str:
    names = " and ".join(paths) or "OSLO_CONFIG_GENERATOR_… of the environment"
    try:
        ended = subprocess.run(
            ["bash", "-c", SCRIPT, "bash", *paths],  # noqa: S607 - wherever the user's bash is
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError as error:
        raise ConfigError(f"{names} cannot be read: there is no bash to read it with") from error
    if ended.returncode or b"\0\0" not in b"\0" + ended.stdout:
        raise ConfigError(f"{names} cannot be read: bash ended with {ended.returncode} while it read it")
    return ended.stdout.decode(errors="surrogateescape")


def _parse(answer: str, before: Mapping[str, str]) -> Extras:
    told, _, exported = ("\0" + answer).partition("\0\0")
    words: dict[str, list[str]] = {name: [] for name in VARIABLES.values()}
    for assignment in filter(None, told.split("\0")):
        variable, _, word = assignment.partition("=")
        words[VARIABLES[variable]].append(word)
    after = dict(each.split("=", 1) for each in exported.split("\0") if "=" in each)
    changed = {name: value for name, value in after.items() if before.get(name) != value}
    environment = {name: value for name, value in changed.items() if name not in SHELL_VARIABLES}
    return Extras(words["modules"], words["libraries"], words["excluded"], environment)
