"""The four phases and where their hooks lie (os-refresh-config: PHASES, default_base_dir)."""

import os
from collections.abc import Mapping, Sequence

PRE_CONFIGURE = "pre-configure"
CONFIGURE = "configure"
POST_CONFIGURE = "post-configure"
MIGRATION = "migration"

PHASES = (PRE_CONFIGURE, CONFIGURE, POST_CONFIGURE, MIGRATION)
"""In this order; the database bridge follows the migration hooks and reports under that phase too."""

ERROR = "error"
"""Not a phase of its own: error.d is run after a failure."""

DEFAULT_BASE_DIR = "/usr/libexec/os-refresh-config"
OLD_BASE_DIR = "/opt/stack/os-config-refresh"


def default_base_dir(environment: Mapping[str, str]) -> str:
    """The environment's, even if empty; the old directory if only that exists; else the default."""
    named = environment.get("OS_REFRESH_CONFIG_BASE_DIR")
    if named is not None:
        return named
    if os.path.isdir(OLD_BASE_DIR) and not os.path.isdir(DEFAULT_BASE_DIR):
        return OLD_BASE_DIR
    return DEFAULT_BASE_DIR


def directory(base_dir: str, phase: str) -> str:
    return os.path.join(base_dir, f"{phase}.d")


def present(base_dir: str, phases: Sequence[str] = PHASES) -> bool:
    """Whether at least one of them has a directory."""
    return any(os.path.lexists(directory(base_dir, phase)) for phase in phases)


def nothing_to_run(base_dir: str) -> str:
    """What is said where none has."""
    if not os.path.isdir(base_dir):
        return f"{base_dir} does not exist: there are no hooks to run (see [DEFAULT] base_dir)"
    return f"{base_dir} has no phase directory ({PRE_CONFIGURE}.d, ...): there are no hooks to run"
