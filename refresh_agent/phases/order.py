"""The four phases and where their hooks lie (os-refresh-config: PHASES, default_base_dir)."""

import os
from collections.abc import Mapping

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
