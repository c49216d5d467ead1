"""From configuration files to values: their text as it stands there, and what oslo.config makes of it.

What is wrong is collected, so that all of it can be told at once: file, group, option, and the value unless
that may hold a secret.
"""

import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from refresh_agent import files
from refresh_agent.errors import ConfigError
from refresh_agent.oslo import cfg, iniparser
from refresh_agent.redact import looks_secret

LARGEST = 2**24
"""Bytes of a configuration file; more of one does not count for its digest."""


HANDED_ON = frozenset({"cachedir", "state_dir"})
"""What is in these directories is named to hooks, in a list with colons."""


class Section(NamedTuple):
    """One group of one file, with the values as they stand there: one for each time that an option is given.

    A value of several lines has line feeds.
    """

    path: str
    group: str
    options: Mapping[str, Sequence[str]]


class Opened(NamedTuple):
    """All files: the paths from which oslo.config is to read them, and their groups as they stand there.

    ``own`` are the groups of our own files. ``defaults``: group and option → what counts if nobody sets it.
    """

    paths: list[str]
    sections: list[Section]
    own: list[Section]
    defaults: Mapping[tuple[str, str], Any]


def opened(paths: Sequence[str]) -> Opened:
    """Files that are all our own. Raises ConfigError with everything that cannot be read."""
    problems: list[str] = []
    sections = [section for path in paths for section in parsed(path, problems)]
    if problems:
        raise ConfigError("\n".join(problems))
    return Opened(list(paths), sections, sections, {})


def is_os_collect_configs(path: str) -> bool:
    """Whether a file is os-collect-config's own, by its name or by that of what a link leads to."""
    return any(
        os.path.basename(name) == "os-collect-config.conf"
        or os.path.basename(os.path.dirname(name)) == "os-collect-config.conf.d"
        for name in (os.path.abspath(path), os.path.realpath(path))
    )


def parsed(path: str, problems: list[str], *, private: bool = False) -> list[Section]:
    """The groups of one file, by oslo.config's own parser. ``private``: no message quotes from it."""
    sections: dict[str, dict[str, list[str]]] = {}
    try:
        _refuse_what_is_none(path)
        cfg.ConfigParser(path, sections).parse()
    except iniparser.ParseError as error:
        # oslo.config has no line to show when an option stands before the first group.
        line = (error.line or "").rstrip()
        quoted = f": {line.strip()!r}" if not private and _may_be_shown(line) else ""
        problems.append(f"{path}: line {error.lineno}: {error.msg}{quoted}")
    except UnicodeDecodeError:
        problems.append(f"{path}: is not UTF-8 text")
    except OSError as error:
        problems.append(f"{path}: cannot be read: {files.reason(error)}")
    found = [Section(path, group, options) for group, options in sections.items()]
    problems += _zero_bytes(found)
    return found


def _refuse_what_is_none(path: str) -> None:
    status = os.stat(path)
    if stat.S_ISFIFO(status.st_mode):
        raise OSError("it is a pipe, and configuration is read more than once; give it a file")
    if status.st_size > LARGEST:
        raise OSError(f"it has more than {LARGEST} bytes, so it is no configuration file")


def _may_be_shown(line: str) -> bool:
    """A line that is no assignment may be a part of a secret: a lost line of a key, a password alone."""
    is_words = line.startswith(("[", "=")) or " " in line.strip()
    return is_words and not line.startswith((" ", "\t")) and not looks_secret(line)


def _zero_bytes(sections: Iterable[Section]) -> Iterator[str]:
    """No path, URL or password can have one; found later, it would be an error in the middle of a refresh."""
    for section in sections:
        for option, values in section.options.items():
            if "\0" in option or any("\0" in value for value in values):
                yield f"{section.path}: [{section.group}] {option}: has a zero byte in it; write it anew"


def hint(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that nobody knows."""
    import difflib  # noqa: PLC0415 - only bad configuration needs it

    close = difflib.get_close_matches(name, list(known), 1, 0.4)
    return f"; did you mean {close[0]}?" if close else ""


def digest(paths: Iterable[str]) -> str:
    """Of the names and contents of files, and of the ``*.conf`` files of directories, as they are now.

    What is missing or cannot be read counts as such. Never raises.
    """
    import hashlib  # noqa: PLC0415 - commands that only read configuration start without it

    whole = hashlib.sha256()
    for path in paths:
        for file in (path, *configuration_in(path)):
            content, fault = _content(file)
            for part in (file.encode("utf-8", "surrogatepass"), content, fault.encode()):
                whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()


def configuration_in(path: str) -> list[str]:
    """The files of a directory that are read, in their order; none if it is no directory."""
    try:
        return [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".conf")]
    except (OSError, ValueError):
        return []


def _content(path: str) -> tuple[bytes, str]:
    """What is in a file, and why that cannot be told."""
    try:
        return files.read_regular(path, LARGEST), ""
    except OSError as error:
        return b"", files.reason(error)
    except ValueError:
        return b"", "is no path"


def names_of(options: Iterable[Any]) -> set[str]:
    """All names that a file may use for these options; a third party's may have old ones."""
    return {
        name for option in options for name in (option.dest, *(old.name for old in option.deprecated_opts))
    }


class Reader:
    """Takes values out of oslo.config, and collects what is wrong with them."""

    def __init__(self, conf: Any, sections: Sequence[Section], problems: list[str]) -> None:
        """``sections``: of all files, in the order in which they override each other."""
        self._conf = conf
        self._sections = sections
        self.problems = problems

    def group(self, group: str, options: Sequence[Any]) -> dict[str, Any]:
        """All values of a group; a bad one is noted, and stands as its default."""
        values = {}
        for option in options:
            holder = self._conf if group == "DEFAULT" else self._conf[group]
            try:
                values[option.dest] = _finite(holder[option.dest])
            except (cfg.Error, ValueError, RecursionError) as error:
                values[option.dest] = option.default
                self.wrong(group, option, self._fault(group, option, error))
        return values

    def wrong(self, group: str, option: Any, text: str) -> None:
        """Note what is wrong with an option, with the place of the value that counts."""
        place, value = self._given(group, option)
        shown = "" if value is None or is_private(option) else f" = {_one_line(value)}"
        self.problems.append(f"{place}[{group}] {option.dest}{shown}: {text}")

    def require_absolute(self, group: str, option: Any, value: Any) -> None:
        """A daemon's working directory is nobody's business; an empty path would be it. Unset is None."""
        for path in value if isinstance(value, list) else [value]:
            if path is not None and not os.path.isabs(path):
                quoted = "" if self._is_put_together(group, option) else f"{path!r} "
                self.wrong(group, option, f"{quoted}is not an absolute path")
            elif path is not None and ":" in path and option.dest in HANDED_ON:
                self.wrong(group, option, "has a colon in it, which ends a path in OS_CONFIG_FILES")

    def _given(self, group: str, option: Any) -> tuple[str, str | None]:
        """Where the value stands that counts, as the beginning of a message, and what it is there."""
        variable = f"OS_{group}__{option.dest}".upper()  # oslo.config's rule
        if variable in os.environ:
            return f"${variable}: ", os.environ[variable]
        for section in reversed(self._sections):
            if section.group == group and option.dest in section.options:
                return f"{section.path}: ", section.options[option.dest][-1]
        return "", None

    def _is_put_together(self, group: str, option: Any) -> bool:
        """Whether another option's value is part of it: a secret, perhaps."""
        return "$" in (self._given(group, option)[1] or "")

    def _fault(self, group: str, option: Any, error: Exception) -> str:
        """oslo.config's words for it, which may hold the value: not for what may be secret."""
        if isinstance(error, (cfg.NoSuchOptError, cfg.TemplateSubstitutionError)):
            return "a $ in it names an option that does not exist; write $$ for the character itself"
        if isinstance(error, RecursionError):
            return "a $ in it names the option itself; write $$ for the character itself"
        if is_private(option) or self._is_put_together(group, option):
            return "its value cannot be used"
        return f"is not valid: {_one_line(str(error).rpartition('is not valid: ')[2])}"


def is_private(option: Any) -> bool:
    """Whether no message may show its value. A URL may have a password or a signature in it."""
    return bool(option.secret) or f"_{option.dest}".endswith("_url")


def _one_line(value: str) -> str:
    return " ".join(value.splitlines())


def _finite(value: Any) -> Any:
    """oslo.config's float options take "nan" and "inf", which no clock ever reaches."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is not valid: not a finite number")
    return value
