"""Every option, with help, unit and range; and the reading of files into one frozen Settings.

Reading is strict: an unknown option or group is an error that names the nearest known one, and all errors
of a configuration are told at once.
"""

import math
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from refresh_agent import collectors, files, imports
from refresh_agent.db import targets
from refresh_agent.errors import ConfigError
from refresh_agent.model import (
    CollectorSettings,
    MetadataLimits,
    PhaseSettings,
    PollingSettings,
    RetrySettings,
    Settings,
    Target,
    TrustMode,
)
from refresh_agent.phases import order

# It has option types (URI, IP address) and drivers that need the first three: executing them is half of what
# importing it costs (48 of 90 ms), and --once is started by people and cron. It can do without oslo.log.
with imports.lightly({"netaddr", "rfc3986", "stevedore"}, absent={"oslo_log"}):
    from oslo_config import cfg, iniparser

CONFIG_FILE = "/etc/refresh-agent/refresh-agent.conf"
CONFIG_DIR = "/etc/refresh-agent/refresh-agent.conf.d"

TARGET_PREFIX = "migration:"


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
    _seconds(
        "polling_interval",
        30,
        "Seconds between two looks at the watched files without being woken; they cover changes that the "
        "kernel did not report.",
        minimum=1,
    ),
]

OS_COLLECT_CONFIG_OPTS = [
    cfg.StrOpt(
        "files_list",
        default="/var/run/os-collect-config/os_config_files.json",
        help="The list of files that a running os-collect-config keeps; it and the files are watched. "
        "os-collect-config writes them only if it has a command: give it command = /bin/true.",
    ),
]

HEAT_LOCAL_OPTS = [
    cfg.MultiStrOpt(
        "path",
        default=["/var/lib/heat-cfntools/cfn-init-data"],
        help="JSON files on the node, merged in this order. May be given several times.",
    ),
]

LOCAL_OPTS = [
    cfg.MultiStrOpt(
        "path",
        default=["/var/lib/os-collect-config/local-data"],
        help="Directories of JSON files; every file is a source of its own. May be given several times. "
        "They must be owned by the agent's user and must not be writable by everybody.",
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

LIMITS_OPTS = [
    cfg.IntOpt("metadata_bytes", default=64 * 2**20, min=1, help="Bytes that one document may have."),
    cfg.IntOpt("metadata_depth", default=64, min=1, max=500, help="How deep objects and lists may nest."),
]

JOURNAL_OPTS = [
    cfg.IntOpt("keep_runs", default=500, min=1, help="So many runs are kept in the journal."),
    cfg.FloatOpt("keep_days", default=90, min=0, help="Days after which a run is not kept in the journal."),
]

MIGRATIONS_OPTS = [
    cfg.ListOpt(
        "targets",
        default=[],
        help="Names of the databases to migrate after post-configure succeeded; each has a section "
        "[migration:NAME].",
    ),
]

TARGET_OPTS = [
    cfg.StrOpt("connection", secret=True, help="SQLAlchemy URL of the database."),
    cfg.StrOpt("alembic_config", help="Path of the service's alembic.ini. This or alembic_location."),
    cfg.StrOpt(
        "alembic_location",
        help="Alembic's script location: a directory, or PACKAGE:PATH. This or alembic_config.",
    ),
    cfg.StrOpt("migrate_repository", help="Directory of the sqlalchemy-migrate repository, if there is one."),
    cfg.ListOpt(
        "legacy_versions",
        default=[],
        help="Which sqlalchemy-migrate version equals which alembic revision: 86:c6214ca60943, ...",
    ),
    cfg.StrOpt(
        "python",
        sample_default="the agent's own",
        help="Interpreter under which the alembic tree runs.",
    ),
    cfg.StrOpt(
        "legacy_python",
        sample_default="as python",
        help="Interpreter under which the sqlalchemy-migrate repository runs, if it is another one: "
        "sqlalchemy-migrate cannot live beside SQLAlchemy 2.",
    ),
    cfg.ListOpt("python_path", default=[], help="Directories put in front of the import path."),
    cfg.StrOpt("revision", default="head", help="Alembic revision to upgrade to."),
    _seconds("timeout", 3600, "Seconds that the migration of this database may take; 0 for no limit."),
]

GROUPS: Mapping[str, Sequence[Any]] = {
    "DEFAULT": DEFAULT_OPTS,
    "os_collect_config": OS_COLLECT_CONFIG_OPTS,
    "heat_local": HEAT_LOCAL_OPTS,
    "local": LOCAL_OPTS,
    "debounce": DEBOUNCE_OPTS,
    "phases": PHASES_OPTS,
    "retry": RETRY_OPTS,
    "limits": LIMITS_OPTS,
    "journal": JOURNAL_OPTS,
    "migrations": MIGRATIONS_OPTS,
}


def list_opts() -> list[tuple[str, Sequence[Any]]]:
    """For oslo-config-generator: every group; ``migration:name`` stands for each target's own."""
    return [*GROUPS.items(), (f"{TARGET_PREFIX}name", TARGET_OPTS)]


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


def load(location: Location, environment: Mapping[str, str]) -> Settings:
    """Read and judge the whole configuration. Raises ConfigError with every problem, one a line."""
    paths = location.files()
    problems: list[str] = []
    sections = [section for path in paths for section in _parsed(path, problems)]
    if problems:
        raise ConfigError("\n".join(problems))
    conf = cfg.ConfigOpts()
    for group, options in GROUPS.items():
        conf.register_opts(options, None if group == "DEFAULT" else group)
    conf(args=[], project="refresh-agent", default_config_files=paths, default_config_dirs=[])
    reader = _Reader(conf, sections, problems)
    names = reader.group("migrations", MIGRATIONS_OPTS)["targets"]
    for name in names:
        conf.register_opts(TARGET_OPTS, f"{TARGET_PREFIX}{name}")
    problems += _unknown(sections, names)
    settings = reader.settings(names, environment)
    if problems or settings is None:
        raise ConfigError("\n".join(problems))
    return settings


class _Section(NamedTuple):
    """One group of one file, with the values as they stand there."""

    path: str
    group: str
    options: Mapping[str, Sequence[str]]


def _parsed(path: str, problems: list[str]) -> list[_Section]:
    """Sections and option names of one file, by oslo.config's own parser."""
    sections: dict[str, dict[str, list[str]]] = {}
    try:
        _refuse_pipe(path)
        cfg.ConfigParser(path, sections).parse()
    except iniparser.ParseError as error:
        problems.append(f"{path}: line {error.lineno}: {error.msg}: {error.line.strip()!r}")
    except UnicodeDecodeError:
        problems.append(f"{path}: is not UTF-8 text")
    except OSError as error:
        problems.append(f"{path}: cannot be read: {files.reason(error)}")
    return [_Section(path, group, options) for group, options in sections.items()]


def _refuse_pipe(path: str) -> None:
    if stat.S_ISFIFO(os.stat(path).st_mode):
        raise OSError("it is a pipe, and configuration is read more than once; give it a file")


def _unknown(sections: Sequence[_Section], names: Sequence[str]) -> Iterator[str]:
    """What the files hold that nobody reads: most likely misspelt, so not to be passed over."""
    known = {group: {option.dest for option in options} for group, options in GROUPS.items()}
    known |= {f"{TARGET_PREFIX}{name}": {option.dest for option in TARGET_OPTS} for name in names}
    for section in sections:
        if section.group.startswith(TARGET_PREFIX) and not section.options:
            continue  # the bare heading of the sample file
        if section.group not in known:
            yield f"{section.path}: [{section.group}] is not a known group{_hint(section.group, known)}"
            continue
        for option in section.options:
            if option not in known[section.group]:
                hint = _hint(option, known[section.group])
                yield f"{section.path}: [{section.group}] {option} is not a known option{hint}"


def _hint(name: str, known: Any) -> str:
    if name.startswith(TARGET_PREFIX):
        return f"; add {name.removeprefix(TARGET_PREFIX)} to [migrations] targets, or remove the section"
    import difflib  # noqa: PLC0415 - only bad configuration needs it

    close = difflib.get_close_matches(name, known, 1, 0.4)
    return f"; did you mean {close[0]}?" if close else ""


class _Reader:
    """Takes values out of oslo.config, and collects what is wrong with them."""

    def __init__(self, conf: Any, sections: Sequence[_Section], problems: list[str]) -> None:
        self._conf = conf
        self._sections = sections
        self._problems = problems

    def group(self, group: str, options: Sequence[Any]) -> dict[str, Any]:
        """All values of a group; a bad one is noted, and stands as its default."""
        values = {}
        holder = self._conf if group == "DEFAULT" else self._conf[group]
        for option in options:
            try:
                values[option.dest] = _finite(getattr(holder, option.dest))
            except (cfg.Error, ValueError) as error:
                values[option.dest] = option.default
                self._problems.append(f"{self._place(group, option)}: {_fault(option, error)}")
        return values

    def _place(self, group: str, option: Any) -> str:
        """Where the value stands that counts, and what it is unless that is secret."""
        for section in reversed(self._sections):
            if section.group == group and option.dest in section.options:
                value = "" if option.secret else f" = {section.options[option.dest][-1]}"
                return f"{section.path}: [{group}] {option.dest}{value}"
        return f"[{group}] {option.dest}"

    def settings(self, names: Sequence[str], environment: Mapping[str, str]) -> Settings | None:
        default, debounce, retry, limits, phases, journal = (
            self.group(group, GROUPS[group])
            for group in ("DEFAULT", "debounce", "retry", "limits", "phases", "journal")
        )
        self._require_absolute("DEFAULT", default, ("state_dir", "lock_file", "cachedir", "base_dir"))
        if debounce["max_wait"] < debounce["quiet"]:
            self._problems.append(
                "[debounce] max_wait is shorter than quiet; give it at least the same value"
            )
        if phases["kill_grace"] == 0:
            self._problems.append("[phases] kill_grace must be more than 0")
        chosen = self._collectors(default["collectors"])
        databases = [self._target(name) for name in dict.fromkeys(names)]
        if self._problems:
            return None
        return Settings(
            state_dir=os.path.abspath(default["state_dir"]),
            lock_file=os.path.abspath(default["lock_file"]),
            cachedir=os.path.abspath(default["cachedir"]),
            polling=PollingSettings(default["polling_interval"]),
            collectors=chosen,
            limits=MetadataLimits(limits["metadata_bytes"], limits["metadata_depth"]),
            quiet=debounce["quiet"],
            max_wait=debounce["max_wait"],
            phases=PhaseSettings(
                base_dir=_from_here(default["base_dir"] or order.default_base_dir(environment)),
                **{**phases, "trust": TrustMode(phases["trust"])},
            ),
            retry=RetrySettings(retry["initial"], retry["maximum"], retry["max_attempts"]),
            keep_runs=journal["keep_runs"],
            keep_days=journal["keep_days"],
            targets=tuple(target for target in databases if target is not None),
        )

    def _require_absolute(self, group: str, values: Mapping[str, Any], names: Sequence[str]) -> None:
        """A daemon's working directory is nobody's business; an empty path would be it. Unset is None."""
        for name in names:
            for path in values[name] if isinstance(values[name], list) else [values[name]]:
                if path is not None and not os.path.isabs(path):
                    self._problems.append(f"[{group}] {name}: {path!r} is not an absolute path")

    def _collectors(self, values: Sequence[str]) -> tuple[CollectorSettings, ...]:
        names = dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip())
        chosen = []
        for name in names:
            if name not in collectors.BUILT_IN and name not in collectors.known():
                hint = _hint(name, collectors.known())
                self._problems.append(f"[DEFAULT] collectors: there is no collector {name!r}{hint}")
                continue
            options = self.group(name, GROUPS[name]) if name in GROUPS else {}
            self._require_absolute(name, options, [key for key in ("files_list", "path") if key in options])
            chosen.append(CollectorSettings(name, options))
        if not names:
            self._problems.append("[DEFAULT] collectors is empty; name at least one")
        return tuple(chosen)

    def _target(self, name: str) -> Target | None:
        """None, and the problems noted, if the section cannot be made sense of."""
        group = f"{TARGET_PREFIX}{name}"
        known = len(self._problems)
        values = self.group(group, TARGET_OPTS)
        if len(self._problems) > known:
            return None
        legacy_versions: tuple[tuple[int, str], ...] = ()
        try:
            legacy_versions = targets.parse_legacy_versions(values["legacy_versions"])
        except ValueError as error:
            self._problems.append(f"[{group}] {error}")
            return None
        python = values["python"] or sys.executable
        target = Target(
            name=name,
            connection=values["connection"] or "",
            python=python,
            legacy_python=values["legacy_python"] or python,
            alembic_config=values["alembic_config"] or "",
            alembic_location=values["alembic_location"] or "",
            migrate_repository=values["migrate_repository"] or "",
            legacy_versions=legacy_versions,
            python_path=tuple(values["python_path"]),
            revision=values["revision"],
            timeout=values["timeout"],
        )
        self._problems += [f"[{group}] {problem}" for problem in targets.problems(target)]
        return target


def _from_here(path: str) -> str:
    """Absolute. Not abspath: behind a link, ".." leads elsewhere than the text says."""
    return os.path.join(os.getcwd(), path).rstrip("/") or "/"


def _finite(value: Any) -> Any:
    """oslo.config's float options take "nan" and "inf", which no clock ever reaches."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is not valid: not a finite number")
    return value


def _fault(option: Any, error: Exception) -> str:
    """oslo.config's words for it, which may hold the value: not for a secret option."""
    if isinstance(error, (cfg.NoSuchOptError, cfg.TemplateSubstitutionError)):
        return "a $ in it names an option that does not exist; write $$ for the character itself"
    if option.secret:
        return "its value cannot be used"
    return f"is not valid: {str(error).rpartition('is not valid: ')[2]}"
