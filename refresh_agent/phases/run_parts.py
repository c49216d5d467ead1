"""Which files of a directory are hooks, and in what order: dib-run-parts' rules."""

import errno
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_REGEX = r"^[0-9A-Za-z_-]+$"
"""No dot: neither 10-hook.sh nor 10-hook~ nor .10-hook is run (dib-run-parts: allowed_regex)."""

_NUMBER = re.compile(r"[ \t]*(-?)([0-9]*)(?:\.([0-9]*))?")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not run, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The hooks of a directory in the order in which they run, and what an author may miss among them."""

    hooks: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()


def name_regex(environment: Mapping[str, str]) -> str:
    """RUN_PARTS_REGEX if it is set and not empty."""
    return environment.get("RUN_PARTS_REGEX") or DEFAULT_REGEX


def select(directory: str, regex: str = DEFAULT_REGEX) -> Selection:
    """The executable regular files, also behind links, whose names match. Raises OSError.

    dib-run-parts: ``find -maxdepth 1 -xtype f -executable``, ``grep -E``, ``LANG=C sort -n``.
    """
    try:
        allowed = re.compile(regex)
    except re.error as error:
        message = f"RUN_PARTS_REGEX {regex!r} is not a regular expression: {error}"
        raise OSError(errno.EINVAL, message) from error
    hooks, skipped = [], []
    with os.scandir(directory) as entries:
        for entry in entries:
            reason = _unfit(entry)
            if reason is None:
                continue
            if "\n" in entry.name or not allowed.search(entry.name):
                reason = f"its name does not match {regex}"
            if reason:
                skipped.append(Skipped(entry.name, reason))
            else:
                hooks.append(entry.name)
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
