"""The values that travel between the parts: frozen, without behaviour beyond what they hold.

Named tuples: every start pays for making these classes, and a dataclass costs seven times as much. What holds
a secret is a dataclass: its ``repr`` must not show it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


class Trigger(StrEnum):
    """Why a refresh was asked for; hooks see it in REFRESH_AGENT_TRIGGER."""

    START = "start"
    CHANGE = "change"
    SIGNAL = "signal"
    ONCE = "once"
    RETRY = "retry"


# --- settings: what opts.py makes of the configuration ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """One entry of ``collectors`` with the values of its group.

    ``options`` also holds ``deployment_key``: the root keys that hold deployments. ``secrets``: the values
    of its secret options.
    """

    name: str
    options: Mapping[str, Any] = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class Suspicious(StrEnum):
    """What becomes of metadata that turned blank or lost all its deployments."""

    WARN = "warn"
    HOLD = "hold"
    OFF = "off"


class MetadataLimits(NamedTuple):
    bytes: int = 64 * 2**20
    depth: int = 64
    suspicious: Suspicious = Suspicious.WARN


class PollingSettings(NamedTuple):
    """Seconds: between two polls, right after a change, and at random before the first."""

    interval: float = 30
    minimum: float = 1
    splay: float = 0


class TrustMode(StrEnum):
    """What becomes of a hook that somebody else may have written."""

    ENFORCE = "enforce"
    WARN = "warn"
    OFF = "off"


class PhaseSettings(NamedTuple):
    """Times in seconds, 0 for none; ``output_limit`` in bytes."""

    base_dir: str
    run_timeout: float = 0
    phase_timeout: float = 0
    hook_timeout: float = 0
    error_timeout: float = 60
    kill_grace: float = 10
    stop_grace: float = 60
    trust: TrustMode = TrustMode.ENFORCE
    output_limit: int = 2**20
    parallel: int = 1


class RetrySettings(NamedTuple):
    """Times in seconds; ``max_attempts`` 0 for no limit."""

    initial: float
    maximum: float
    max_attempts: int


class RunAtBoot(StrEnum):
    """Whether the node's boot alone is a reason to run."""

    ALWAYS = "always"
    CHANGED = "changed"


class LogFormat(StrEnum):
    """TEXT: lines for people, or the fields of systemd's journal where that is who reads them."""

    TEXT = "text"
    JSON = "json"


class Settings(NamedTuple):
    """The whole configuration, read once; a reload makes a new one. Times in seconds."""

    state_dir: str
    lock_file: str
    cachedir: str
    polling: PollingSettings
    collectors: tuple[CollectorSettings, ...]
    limits: MetadataLimits
    quiet: float
    max_wait: float
    phases: PhaseSettings
    retry: RetrySettings
    targets: tuple["Target", ...] = ()
    keep_runs: int = 500
    keep_days: float = 90.0
    backup_cachedir: str = ""
    run_at_boot: RunAtBoot = RunAtBoot.ALWAYS
    log_format: LogFormat = LogFormat.TEXT

    @property
    def keeps_cache(self) -> bool:
        """Whether the cache is the agent's to keep: not where os-collect-config runs and keeps it."""
        return all(entry.name != "os_collect_config" for entry in self.collectors)


# --- sources ---------------------------------------------------------------------------------------------


class Document(NamedTuple):
    """One JSON object as a collector found it: its bytes, or why there are none.

    A file need not be read by its collector: then there is a ``digest`` and neither ``raw`` nor ``error``.
    ``path`` is the file that another program keeps up to date (os-collect-config's cache); None when the
    agent itself collects and so writes the file that hooks read. ``origin`` is where it was found then, for
    messages. ``absent`` tells "not there" from "bad".
    """

    name: str
    raw: bytes | None
    path: str | None = None
    error: str = ""
    absent: bool = False
    origin: str = ""
    digest: str = ""


class Snapshot(NamedTuple):
    """What one source gave at one moment; ``error`` when the source as a whole could not be read.

    ``watch``: the paths of which a change calls for another collection; none where a source is polled.
    ``unconfigured``: the options that it needs are not set, so that there is nobody to ask; an ``error`` says
    which. ``unchanged``: it has nothing newer than what it gave last, which therefore still stands.
    ``deployment_keys``: root keys whose deployments are to become documents of their own.
    ``retry_after``: seconds for which the server asked not to be asked again.
    """

    source: str
    documents: tuple[Document, ...] = ()
    watch: tuple[str, ...] = ()
    error: str = ""
    absent: bool = False
    unconfigured: bool = False
    unchanged: bool = False
    deployment_keys: tuple[str, ...] = ()
    retry_after: float = 0.0


class StoredDocument(NamedTuple):
    """A document of which the store holds a good copy.

    ``stored`` is that copy's path. ``live`` is the other program's file while it holds the same good
    content, else empty. ``fingerprint`` is of the content (key order and white space do not count),
    ``digest`` of the bytes. ``parent``: the document whose deployment it is the configuration of, if it is
    one. ``blank`` and ``deployments`` tell later whether what follows it looks like an accident.
    """

    source: str
    name: str
    stored: str
    fingerprint: str
    digest: str
    live: str = ""
    parent: str = ""
    blank: bool = False
    deployments: int = 0


Fingerprints = tuple[tuple[str, str], ...]
"""Documents by (name, fingerprint) in the order in which hooks merge them: a configuration's identity."""


# --- runs ------------------------------------------------------------------------------------------------


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


ByteSink = Callable[[Stream, bytes], None]
"""Gets a process's output as it comes, in pieces that end anywhere."""


class Ending(StrEnum):
    """How a process came to its end. CANCELLED: what ran beside it failed.

    HANDED_OVER: it has not. It has had systemd stop or restart the agent, and goes on without it.
    """

    EXITED = "exited"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    NOT_STARTED = "not started"
    HANDED_OVER = "handed over"


@dataclass(frozen=True, slots=True)
class Command:
    """A process to run. ``stdin`` is all that it can read; ``timeout`` in seconds, 0 for none.

    ``joined``: what it writes to standard error comes as standard output, so that its order is kept.
    ``kill_grace``: seconds between TERM and KILL, infinity for no KILL; None for the runner's. What it leaves
    behind at its end has the runner's. ``outlives``: if it has the agent stopped, it goes on without it.
    """

    path: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    stdin: bytes = field(default=b"", repr=False)
    timeout: float = 0
    joined: bool = False
    kill_grace: float | None = None
    outlives: bool = False


class Exit(NamedTuple):
    """How it ended. ``status`` as a shell has it: 0-255, 128+n for signal n, 126/127 for not started.

    ``survivors``: what it has left running, as "name (pid)". ``left``: the seconds for which what was handed
    over may go on; infinity for as long as it likes.
    """

    status: int
    ending: Ending
    seconds: float
    detail: str = ""
    survivors: tuple[str, ...] = ()
    left: float = 0.0

    @property
    def stopped(self) -> bool:
        """Whether nothing was wrong with it: the agent ends."""
        return self.ending in {Ending.STOPPED, Ending.HANDED_OVER}

    @property
    def ok(self) -> bool:
        return self.ending is Ending.EXITED and self.status == 0


class StopSignal(Protocol):
    """Becomes readable, and true, when the agent is asked to stop."""

    @property
    def requested(self) -> bool: ...

    def fileno(self) -> int: ...


Runner = Callable[[Command, ByteSink], Exit]
"""Runs a process to its end. The parts that need one are given it, so that tests can give another."""


class RunOutcome(StrEnum):
    """INTERRUPTED: the agent was asked to stop, was killed, or lost the node under it.

    DEFERRED: everything went well but for a database that somebody else is migrating.
    """

    SUCCESS = "success"
    HOOK_FAILED = "hook failed"
    MIGRATION_FAILED = "migration failed"
    DEFERRED = "deferred"
    INTERRUPTED = "interrupted"
    NOT_RECORDED = "not recorded"

    @property
    def is_failure(self) -> bool:
        """Whether the run came to a bad end by itself, so that it counts for [retry] max_attempts."""
        return self in {RunOutcome.HOOK_FAILED, RunOutcome.MIGRATION_FAILED}


class Failure(NamedTuple):
    """Where a run came to its end. ``hook`` may be empty: a phase can fail as a whole.

    ``stopped``: nothing was wrong, the agent was asked to stop.
    """

    phase: str
    hook: str
    status: int
    reason: str
    stopped: bool = False

    def __str__(self) -> str:
        where = "/".join(part for part in (self.phase, self.hook) if part)
        return f"{where}: {self.reason}" if where else self.reason


class StartedHook(NamedTuple):
    """A hook that runs now. ``hook_id`` marks its processes (REFRESH_AGENT_HOOK_ID); pid 0: never started.

    ``began``: when its process did, in the kernel's ticks since boot; 0 if it had ended before it was seen.
    """

    phase: str
    hook: str
    hook_id: str
    pid: int
    began: int = 0


@dataclass(frozen=True, slots=True)
class HookResult:
    """How a hook ended; ``tail`` is the end of its output, as it was written but for masked secrets."""

    started: StartedHook
    exit: Exit
    tail: bytes = field(default=b"", repr=False)


HookEvent = StartedHook | HookResult
"""What recorders are told, in its order."""


class Unfinished(NamedTuple):
    """The last run, if it did not succeed: for which documents, how often tried, and where it stopped.

    ``attempts`` and ``failures`` leave out what was deferred; ``failures`` are those of the attempts that
    failed by themselves: not stopped, not interrupted. ``deferred``: the last run was.
    """

    documents: Fingerprints
    attempts: int
    failures: int
    interrupted: bool
    phase: str = ""
    hook: str = ""
    deferred: bool = False

    @property
    def where(self) -> str:
        return (
            f"in {self.phase}{'/' if self.hook else ''}{self.hook}"
            if self.phase
            else "before its first phase"
        )


class Quiesced(NamedTuple):
    """Services may be stopped: a run entered pre-configure, and none since got through post-configure.

    ``since``: wall clock. The rest is of the newest of these runs; where it stopped is empty while it runs.
    """

    since: float
    run_id: str
    attempt: int
    interrupted: bool
    phase: str = ""
    hook: str = ""

    def __str__(self) -> str:
        how = "was interrupted" if self.interrupted else "failed"
        where = "/".join(filter(None, (self.phase, self.hook)))
        return f"run {self.run_id[:8]} {how}{f' in {where}' if where else ''}"


class History(NamedTuple):
    """What the journal knows before a decision. ``committed`` is None when no run ever succeeded.

    ``booted``: the node has, since the newest run for documents began.
    """

    committed: Fingerprints | None = None
    unfinished: Unfinished | None = None
    quiesced: Quiesced | None = None
    booted: bool = False


# --- databases -------------------------------------------------------------------------------------------


class Destructive(StrEnum):
    """What becomes of a migration that drops tables or columns."""

    ALLOW = "allow"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Target:
    """A database to migrate: one ``[migration:NAME]`` section."""

    name: str
    connection: str = field(repr=False)
    python: str
    legacy_python: str
    alembic_config: str = ""
    alembic_location: str = ""
    migrate_repository: str = ""
    legacy_versions: tuple[tuple[int, str], ...] = ()
    python_path: tuple[str, ...] = ()
    revision: str = "head"
    timeout: float = 3600.0
    connection_from: str = ""
    user: str = ""
    lock_timeout: float = 3600.0
    statement_timeout: float = 0.0
    destructive: Destructive = Destructive.WARN
    backup: str = ""


class MigrationOutcome(StrEnum):
    """DEFERRED: somebody else migrates that database, and did so for the whole of ``lock_timeout``."""

    DONE = "done"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"
    STOPPED = "stopped"
    DEFERRED = "deferred"


class MigrationResult(NamedTuple):
    """What became of one target. ``before`` and ``after`` read like "migrate 2", "alembic 3fa1", "empty".

    ``report`` is what an operation found out: the worker's JSON, as it is.
    """

    target: str
    outcome: MigrationOutcome
    before: str = ""
    after: str = ""
    message: str = ""
    seconds: float = 0.0
    report: Mapping[str, Any] = {}

    @property
    def ok(self) -> bool:
        return self.outcome in {MigrationOutcome.DONE, MigrationOutcome.UNCHANGED}
