"""Which files of a directory are hooks, and in what order: dib-run-parts' rules."""

import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

DEFAULT_REGEX = r"^[0-9A-Za-z_-]+$"
"""No dot: neither 10-hook.sh nor 10-hook~ nor .10-hook is run (dib-run-parts: allowed_regex)."""

_DEFAULT = re.compile(DEFAULT_REGEX)
_NUMBER = re.compile(r"[ \t]*(-?)([0-9]*)(?:\.([0-9]*))?")


class Skipped(NamedTuple):
    """A file that is not run, and why."""

    name: str
    reason: str


class Selection(NamedTuple):
    """The hooks of a directory in the order in which they run, and what an author may miss among them."""

    hooks: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()


def name_regex(environment: Mapping[str, str]) -> str:
    """RUN_PARTS_REGEX if it is set and not empty."""
    return environment.get("RUN_PARTS_REGEX") or DEFAULT_REGEX


def select(directory: str, regex: str = DEFAULT_REGEX) -> Selection:
    """The executable regular files, also behind links, whose names match. Raises OSError.

    ``regex`` is a POSIX extended one; EINVAL if it is not. A name with a line break never matches.
    dib-run-parts: ``find -maxdepth 1 -xtype f -executable``, ``grep -E``, ``LANG=C sort -n``.
    """
    with os.scandir(directory) as entries:
        found = {entry.name: _unfit(entry) for entry in entries}
    candidates = {name: reason for name, reason in found.items() if reason is not None}
    allowed = _allowed((name for name in candidates if "\n" not in name), regex)
    hooks = (name for name in allowed if not candidates[name])
    skipped = (
        Skipped(name, reason if name in allowed else f"its name does not match {regex}")
        for name, reason in candidates.items()
        if reason or name not in allowed
    )
    return Selection(
        tuple(sorted(hooks, key=sort_key)), tuple(sorted(skipped, key=lambda item: sort_key(item.name)))
    )


def sort_key(name: str) -> tuple[int, tuple[int, str], bytes]:
    """``LANG=C sort -n``: by the number in front, none counts as 0, ``-5`` is negative; ties by bytes."""
    match = _NUMBER.match(name)
    sign, whole, fraction = match.groups() if match else ("", "", None)
    magnitude = (int(whole or 0), (fraction or "").rstrip("0"))
    if sign and magnitude != (0, ""):
        # Negated digit by digit, with a mark behind the last: -1.5 comes before -1.
        negated = "".join(chr(ord("9") - int(digit) + ord("0")) for digit in magnitude[1])
        return -1, (-magnitude[0], f"{negated}~"), os.fsencode(name)
    return (0 if magnitude == (0, "") else 1), magnitude, os.fsencode(name)


def _unfit(entry: os.DirEntry[str]) -> str | None:
    """Why it is not a hook whatever its name; "" if nothing speaks against it, None if nobody would ask."""
    try:
        status = entry.stat()
    except OSError:
        return "it is a link that leads nowhere" if entry.is_symlink() else None
    if not stat.S_ISREG(status.st_mode):
        return None
    if not os.access(entry.path, os.X_OK, effective_ids=True):
        return "it is not executable"
    return ""


def _allowed(names: Iterable[str], regex: str) -> Collection[str]:
    if regex == DEFAULT_REGEX:  # means the same to Python and to grep
        return {name for name in names if _DEFAULT.search(name)}
    from refresh_agent.phases import ere  # noqa: PLC0415 - subprocess: 8 ms that only this needs

    return ere.matching(names, regex)
