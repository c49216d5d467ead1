"""What can go wrong with the agent itself, each with the exit code that tells a script so.

A hook that fails or a database that cannot be migrated is a result, not an exception: it travels in the
dataclasses of ``model``. An exception means that the machinery could not do its part.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every command; frozen, since scripts rely on them."""

    OK = 0
    HOOK_FAILED = 1
    USAGE = 2
    NO_DATA = 3
    MIGRATION_FAILED = 4
    STATE = 5
    PAUSED = 6
    HELD = 7
    LOCKED = 11
    INTERNAL = 70


class RefreshAgentError(Exception):
    """The root: its text is what the operator reads, one problem a line, and never a traceback."""

    exit_code = ExitCode.INTERNAL


class ConfigError(RefreshAgentError):
    """The configuration or the command line is wrong; names the file, the option and what to do."""

    exit_code = ExitCode.USAGE


class StateError(RefreshAgentError):
    """The journal, the source store, the cache or the lock file cannot be read or written."""

    exit_code = ExitCode.STATE


class DamagedError(StateError):
    """What the journal holds is not what an agent has written: disk, file system or somebody's hand."""


class LockedError(RefreshAgentError):
    """Another refresh, ours or os-refresh-config's, holds the lock."""

    exit_code = ExitCode.LOCKED
