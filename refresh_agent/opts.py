"""Every option, with help, unit and range; and the reading of files into one frozen Settings.

Reading is strict: an unknown option or group is an error that names the nearest known one, and all errors
of a configuration are told at once.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from refresh_agent import collectors, files, option_values, source_opts, target_opts
from refresh_agent.errors import ConfigError
from refresh_agent.model import (
    CollectorSettings,
    LogFormat,
    MetadataLimits,
    PhaseSettings,
    PollingSettings,
    RetrySettings,
    RunAtBoot,
    Settings,
    Suspicious,
    TrustMode,
)
from refresh_agent.option_values import Reader, hint
from refresh_agent.oslo import cfg
from refresh_agent.phases import order

CONFIG_FILE = "/etc/refresh-agent/refresh-agent.conf"
CONFIG_DIR = "/etc/refresh-agent/refresh-agent.conf.d"


def _seconds(name: str, default: float, text: str, minimum: float = 0) -> Any:
    return cfg.FloatOpt(name, default=default, min=minimum, help=text)


DEFAULT_OPTS = [
    cfg.StrOpt(
        "base_dir",
        sample_default=order.DEFAULT_BASE_DIR,
        help="Directory that holds pre-configure.d, configure.d, post-configure.d, migration.d, error.d and "
        "environment.d. If unset: $OS_REFRESH_CONFIG_BASE_DIR, else /opt/stack/os-config-refresh if only "
        "that exists, else /usr/libexec/os-refresh-config.",
    ),
    cfg.StrOpt(
        "state_dir",
        default="/var/lib/refresh-agent",
        help="Directory of the journal and of the last good content of every source. Only the agent's user "
        "can read it.",
    ),
    cfg.StrOpt(
        "lock_file",
        default="/run/os-refresh-config.lock",
        help="File that is locked during a refresh; os-refresh-config uses the same, so the two never run "
        "at once.",
    ),
    cfg.StrOpt(
        "run_at_boot",
        default=RunAtBoot.ALWAYS,
        choices=[
            (RunAtBoot.ALWAYS, "the first refresh after the node's boot runs the hooks in any case"),
            (RunAtBoot.CHANGED, "it does so only if something changed, or was left unfinished"),
        ],
        help="What a boot of the node means. Hooks may have set up what a boot undoes; where none has, they "
        "need not run for it.",
    ),
    cfg.StrOpt(
        "log_format",
        default=LogFormat.TEXT,
        choices=[
            (LogFormat.TEXT, "plain lines; where systemd's journal reads them, entries with fields"),
            (LogFormat.JSON, "a JSON object on each line, wherever it goes"),
        ],
        help="How the log is written to standard error.",
    ),
    cfg.MultiStrOpt(
        "collectors",
        default=["os_collect_config"],
        help="Where metadata comes from, in the order in which it is merged (later wins). May be given "
        "several times, or as a list with commas.",
    ),
    cfg.StrOpt(
        "cachedir",
        default="/var/lib/os-collect-config",
        help="Directory in which the agent keeps metadata for hooks as os-collect-config does. Not used "
        "while os_collect_config is among the collectors: then it belongs to os-collect-config.",
    ),
    cfg.StrOpt(
        "backup_cachedir",
        default="/var/run/os-collect-config",
        help="Directory that is kept as a copy of cachedir, with nothing else in it; os-apply-config and old "
        "hooks look there. Empty for no copy.",
    ),
    _seconds(
        "polling_interval",
        30,
        "Seconds between two polls of a source that has to be asked, and between two looks at the watched "
        "files without being woken; those cover changes that the kernel did not report.",
        minimum=0.1,
    ),
    _seconds(
        "min_polling_interval",
        1,
        "Seconds between two polls of a source right after it has changed; from poll to poll it doubles, up "
        "to polling_interval.",
        minimum=0.1,
    ),
    _seconds(
        "splay",
        0,
        "Seconds: the daemon's first refresh waits for a random part of this, so that many nodes that start "
        "together do not ask together.",
    ),
    cfg.MultiStrOpt(
        "deployment_key",
        default=["deployments"],
        help="Keys at the root of metadata that hold deployments; each deployment becomes a document of its "
        "own. May be given several times.",
    ),
]

DEBOUNCE_OPTS = [
    _seconds("quiet", 1, "Seconds without a further change after which changes are acted on."),
    _seconds("max_wait", 10, "Seconds after which changes are acted on even if they do not cease."),
]

PHASES_OPTS = [
    _seconds("run_timeout", 0, "Seconds that all phases together may take; 0 for no limit."),
    _seconds("phase_timeout", 0, "Seconds that one phase may take; 0 for no limit."),
    _seconds("hook_timeout", 0, "Seconds that one hook may take; 0 for no limit."),
    _seconds("error_timeout", 60, "Seconds that error.d as a whole may take; 0 for no limit."),
    _seconds("kill_grace", 10, "Seconds between TERM and KILL for a hook that has to end."),
    _seconds("stop_grace", 60, "Seconds that a running hook may go on when the agent is stopped."),
    cfg.StrOpt(
        "trust",
        default=TrustMode.ENFORCE,
        choices=[
            (TrustMode.ENFORCE, "the phase fails"),
            (TrustMode.WARN, "it is run, and a warning is logged"),
            (TrustMode.OFF, "nobody looks"),
        ],
        help="What becomes of a hook or a file of environment.d that somebody else than root or the "
        "agent's user may have written: the file, its interpreter, or a directory or link on the way to it.",
    ),
    cfg.IntOpt(
        "output_limit",
        default=2**20,
        min=0,
        help="Bytes of the end of each hook's output that are kept in the journal.",
    ),
    cfg.IntOpt(
        "parallel",
        default=1,
        min=1,
        max=64,
        help="How many hooks of one phase may run side by side: those with the same number in front of their "
        "names. The first that fails ends the others of its number; numbers still follow each other.",
    ),
]

RETRY_OPTS = [
    _seconds("initial", 1, "Seconds: the longest delay before the first retry; it doubles each time."),
    _seconds("maximum", 300, "Seconds: the longest delay before any retry."),
    cfg.IntOpt(
        "max_attempts",
        default=0,
        min=0,
        help="Attempts after which metadata that fails is held until it changes or an operator asks; 0 to "
        "try for ever.",
    ),
]

LIMITS = MetadataLimits()

LIMITS_OPTS = [
    cfg.IntOpt("metadata_bytes", default=LIMITS.bytes, min=1, help="Bytes that one document may have."),
    cfg.IntOpt(
        "metadata_depth",
        default=LIMITS.depth,
        min=1,
        max=250,
        help="How deep objects and lists may nest.",
    ),
    cfg.StrOpt(
        "suspicious",
        default=Suspicious.WARN,
        choices=[
            (Suspicious.WARN, "it is acted on, and a warning is logged"),
            (
                Suspicious.HOLD,
                "the last good metadata stands in until --once --force confirms it or it changes again",
            ),
            (Suspicious.OFF, "nobody looks"),
        ],
        help="What becomes of metadata that turned blank or lost all its deployments.",
    ),
]

JOURNAL_OPTS = [
    cfg.IntOpt("keep_runs", default=500, min=1, help="So many runs are kept in the journal."),
    cfg.FloatOpt("keep_days", default=90, min=0, help="Days after which a run is not kept in the journal."),
]

MIGRATIONS_OPTS = [
    cfg.ListOpt(
        "targets",
        default=[],
        help="Names of the databases to migrate after migration.d; each has a section [migration:NAME].",
    ),
]

GROUPS: Mapping[str, Sequence[Any]] = {
    "DEFAULT": DEFAULT_OPTS,
    "debounce": DEBOUNCE_OPTS,
    "phases": PHASES_OPTS,
    "retry": RETRY_OPTS,
    "limits": LIMITS_OPTS,
    "journal": JOURNAL_OPTS,
    "migrations": MIGRATIONS_OPTS,
}
"""Those of the sources are in source_opts, those of a target in target_opts."""


def list_opts() -> list[tuple[str, Sequence[Any]]]:
    """For oslo-config-generator: every group; ``migration:name`` stands for each target's own."""
    return [*GROUPS.items(), *source_opts.GROUPS.items(), (f"{target_opts.PREFIX}name", target_opts.OPTS)]


def _section_hint(group: str, known: Sequence[str]) -> str:
    if group.startswith(target_opts.PREFIX):
        return (
            f"; add {group.removeprefix(target_opts.PREFIX)} to [migrations] targets, or remove the section"
        )
    return hint(group, known)


class Location(NamedTuple):
    """Which files to read; those of the defaults need not exist."""

    config_files: tuple[str, ...] = ()
    config_dirs: tuple[str, ...] = ()

    def files(self) -> list[str]:
        """In the order in which they override each other. Raises ConfigError for one that cannot be read."""
        found = list(self.config_files) or [path for path in (CONFIG_FILE,) if os.path.exists(path)]
        directories = list(self.config_dirs)
        if not self.config_files and not self.config_dirs and os.path.isdir(CONFIG_DIR):
            directories.append(CONFIG_DIR)
        for directory in directories:
            try:
                names = sorted(name for name in os.listdir(directory) if name.endswith(".conf"))
            except OSError as error:
                raise ConfigError(f"{directory}: cannot be read: {files.reason(error)}") from error
            found += [os.path.join(directory, name) for name in names]
        return found

    def watch(self) -> tuple[str, ...]:
        """The files and directories of which a change calls for reading them again; they need not exist.

        And the links in those directories: a change of what they lead to is no change of the directory.
        """
        given = (*self.config_files, *self.config_dirs)
        if not self.config_files:
            given = (CONFIG_FILE, *(self.config_dirs or (CONFIG_DIR,)))
        inside = [path for name in given for path in option_values.configuration_in(name)]
        return (*given, *(path for path in inside if os.path.islink(path)))

    def digest(self) -> str:
        """Of the names and contents of all files now; one that cannot be read counts as such."""
        return option_values.digest(self.watch())


class Configuration(NamedTuple):
    """Where a daemon's settings come from, again and again."""

    location: Location
    environment: Mapping[str, str]

    def load(self) -> Settings:
        return load(self.location, self.environment)

    def watch(self) -> tuple[str, ...]:
        return self.location.watch()

    def digest(self) -> str:
        return self.location.digest()


def load(location: Location, environment: Mapping[str, str]) -> Settings:
    """Read and judge the whole configuration. Raises ConfigError with every problem, one a line."""
    with contextlib.ExitStack() as stack:
        opened = _opened(location.files(), stack)
        conf = cfg.ConfigOpts()
        for group, options in GROUPS.items():
            conf.register_opts(options, _group(group))
        for (group, name), value in opened.defaults.items():
            conf.set_default(name, value, _group(group))
        try:
            conf(args=[], project="refresh-agent", default_config_files=opened.paths, default_config_dirs=[])
        except (cfg.Error, OSError, ValueError) as error:  # all of them could be read just before
            names = ", ".join(dict.fromkeys(section.path for section in opened.sections))
            raise ConfigError(f"{names}: one of them changed while it was read; try again") from error
    return _Reading(conf, opened).settings(environment)


def _opened(paths: Sequence[str], stack: contextlib.ExitStack) -> option_values.Opened:
    if not any(option_values.is_os_collect_configs(path) for path in paths):
        return option_values.opened(paths)
    from refresh_agent import occ_config  # noqa: PLC0415 - only who has such a file pays for it

    return occ_config.opened(paths, stack)


def _group(name: str) -> str | None:
    """As oslo.config names it."""
    return None if name == "DEFAULT" else name


class _Reading:
    """One configuration while it is judged."""

    def __init__(self, conf: Any, opened: option_values.Opened) -> None:
        self._conf = conf
        self._own = opened.own
        self._problems: list[str] = []
        self._reader = Reader(conf, opened.sections, self._problems)
        self._sources: dict[str, Sequence[Any] | None] = {}
        self._unloadable: set[str] = set()

    def settings(self, environment: Mapping[str, str]) -> Settings:
        """Raises ConfigError with every problem."""
        names = list(dict.fromkeys(self._group("migrations")["targets"]))
        for name in names:
            self._conf.register_opts(target_opts.OPTS, f"{target_opts.PREFIX}{name}")
        self._find_unknown(names)
        default, debounce, retry, limits, phases, journal = (
            self._group(group) for group in ("DEFAULT", "debounce", "retry", "limits", "phases", "journal")
        )
        self._judge(default, debounce, phases)
        keys = tuple(key for key in default["deployment_key"] if key) or ("deployments",)
        chosen = self._collectors(default["collectors"], keys)
        databases = [target_opts.read(name, self._reader) for name in names]
        if self._problems:
            raise ConfigError("\n".join(self._problems))
        interval = default["polling_interval"]
        return Settings(
            state_dir=os.path.abspath(default["state_dir"]),
            lock_file=os.path.abspath(default["lock_file"]),
            cachedir=os.path.abspath(default["cachedir"]),
            backup_cachedir=os.path.abspath(default["backup_cachedir"]) if default["backup_cachedir"] else "",
            polling=PollingSettings(
                interval, min(default["min_polling_interval"], interval), default["splay"]
            ),
            collectors=chosen,
            limits=MetadataLimits(
                limits["metadata_bytes"], limits["metadata_depth"], Suspicious(limits["suspicious"])
            ),
            quiet=debounce["quiet"],
            max_wait=debounce["max_wait"],
            phases=PhaseSettings(
                base_dir=_from_here(default["base_dir"] or order.default_base_dir(environment)),
                **{**phases, "trust": TrustMode(phases["trust"])},
            ),
            retry=RetrySettings(retry["initial"], retry["maximum"], retry["max_attempts"]),
            keep_runs=journal["keep_runs"],
            keep_days=journal["keep_days"],
            run_at_boot=RunAtBoot(default["run_at_boot"]),
            log_format=LogFormat(default["log_format"]),
            targets=tuple(target for target in databases if target is not None),
        )

    def _group(self, group: str) -> dict[str, Any]:
        return self._reader.group(group, GROUPS[group])

    def _judge(
        self, default: Mapping[str, Any], debounce: Mapping[str, Any], phases: Mapping[str, Any]
    ) -> None:
        """What a value's type alone does not say."""
        for option in DEFAULT_OPTS:
            value = default[option.dest]
            if option.dest in {"state_dir", "lock_file", "cachedir", "base_dir"} or (
                option.dest == "backup_cachedir" and value
            ):
                self._reader.require_absolute("DEFAULT", option, value)
        for name in ("cachedir", "state_dir"):
            backup = default["backup_cachedir"]
            if backup and _overlap(backup, default[name]):
                self._problems.append(
                    f"[DEFAULT] backup_cachedir is, holds, or is in {name}; all of it is replaced, so give "
                    "it a directory of its own"
                )
        if debounce["max_wait"] < debounce["quiet"]:
            self._problems.append(
                "[debounce] max_wait is shorter than quiet; give it at least the same value"
            )
        if phases["kill_grace"] == 0:
            self._problems.append("[phases] kill_grace must be more than 0")

    def _find_unknown(self, names: Sequence[str]) -> None:
        """What our own files hold that nobody reads: most likely misspelt, so not to be passed over."""
        of_targets = {f"{target_opts.PREFIX}{name}" for name in names}
        for path, group, given in self._own:
            if group.startswith(target_opts.PREFIX) and not given:
                continue  # the bare heading of the sample file
            options = target_opts.OPTS if group in of_targets else GROUPS.get(group) or self._source(group)
            if options is None:
                if group not in self._unloadable:
                    near = _section_hint(group, (*GROUPS, *source_opts.GROUPS, *of_targets))
                    self._problems.append(f"{path}: [{group}] is not a known group{near}")
                continue
            known = option_values.names_of(options)
            self._problems += [
                f"{path}: [{group}] {option} is not a known option{hint(option, known)}"
                for option in given
                if option not in known
            ]

    def _source(self, name: str) -> Sequence[Any] | None:
        """The options of a collector, which oslo.config knows from now on; None if there is none."""
        if name not in self._sources:
            options = None
            try:
                options = source_opts.options_of(name, GROUPS)
            except ConfigError as error:
                self._problems.append(str(error))
                self._unloadable.add(name)
            self._conf.register_opts(options or (), _group(name))
            self._sources[name] = options
        return self._sources[name]

    def _collectors(self, values: Sequence[str], keys: tuple[str, ...]) -> tuple[CollectorSettings, ...]:
        names = dict.fromkeys(name for value in values for name in value.replace(",", " ").split())
        chosen = []
        for name in names:
            options = self._source(name)
            if options is not None:
                chosen.append(source_opts.settings(name, options, self._reader, keys))
            elif name not in self._unloadable:
                near = hint(name, collectors.known())
                self._problems.append(f"[DEFAULT] collectors: there is no collector {name!r}{near}")
        if not names:
            self._problems.append("[DEFAULT] collectors is empty; name at least one")
        return tuple(chosen)


def _from_here(path: str) -> str:
    """Absolute. Not abspath: behind a link, ".." leads elsewhere than the text says."""
    return os.path.join(os.getcwd(), path).rstrip("/") or "/"


def _overlap(one: str, other: str) -> bool:
    """Whether one directory is, or is inside, the other."""
    paths = [os.path.realpath(path) for path in (one, other)]
    return os.path.commonpath(paths) in paths
