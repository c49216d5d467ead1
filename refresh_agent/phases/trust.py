"""Who may have written this file? What root executes or sources must be root's own, all the way down.

A path of which every component is trusted cannot be swapped by anybody else between this check and its use,
so it is then used by its path. The bar is OpenSSH's: every component is owned by root or the agent's user and
writable by nobody else; a sticky directory of root's, such as /tmp, is accepted, since in it nobody can
replace what is not theirs.
"""

import contextlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from refresh_agent.files import reason

LONGEST_FIRST_LINE = 256
"""Bytes; the kernel reads no more of it (BINPRM_BUF_SIZE)."""

MOST_NESTED = 4
"""Interpreters that are scripts themselves; the kernel follows no more."""

_ASSIGNMENT = re.compile("[A-Za-z_][A-Za-z0-9_]*=")

MOST_LINKS = 40
"""As the kernel: beyond, a path goes in circles."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The rule for one phase. ``owners``: the users whose files are trusted.

    Directories found to be good are remembered, and so are programs with all links on the way to them: that
    is sound, for nobody else can change them.
    """

    owners: frozenset[int]
    _good: set[str] = field(default_factory=set)
    _good_programs: set[str] = field(default_factory=set)

    def objection(self, path: str) -> str:
        """Why ``path``, or the directory or link on the way to it, is not to be trusted; "" if it is."""
        return self._walk(path)

    def hook_objection(self, path: str, env: Mapping[str, str]) -> str:
        """As ``objection``, for a program and what its first line makes the kernel start."""
        return self._walk(path) or self._objection_to_interpreters(path, env, MOST_NESTED)

    def _objection_to_interpreters(self, path: str, env: Mapping[str, str], nested: int) -> str:
        """An interpreter may be a script itself."""
        try:
            programs = interpreters(path, env)
        except InvolvedError as error:
            return f"its first line {error}"
        for program in programs:
            if program in self._good_programs:
                continue
            if found := self._walk(program):
                return f"its interpreter {found}"
            if nested and (found := self._objection_to_interpreters(program, env, nested - 1)):
                return found
            self._good_programs.add(program)
        return ""

    def _walk(self, path: str) -> str:
        """Component by component, following links as the kernel does."""
        try:
            if path.rpartition("/")[0] not in self._good:
                return self._walk_from_root(path)
            found, is_link = self._judge(path)
            return self._walk_from_root(path) if is_link and not found else found
        except OSError as error:  # a working directory that is gone, a link that went while it was read
            return f"{path}: {reason(error)}"

    def _walk_from_root(self, path: str) -> str:
        # Not abspath: behind a link, ".." leads elsewhere than the text says.
        whole = path if path.startswith("/") else os.path.join(os.getcwd(), path)
        done, todo, links = "/", whole.split("/")[1:], 0
        if found := self._judge("/")[0]:
            return found
        while todo:
            name = todo.pop(0)
            if name in {"", "."}:
                continue
            if name == "..":
                done = os.path.dirname(done)
                continue
            here = os.path.join(done, name)
            found, is_link = self._judge(here)
            if found:
                return found
            if not is_link:
                done = here
                continue
            links += 1
            if links > MOST_LINKS:
                return f"{path}: too many links"
            target = os.readlink(here)
            done = "/" if target.startswith("/") else done
            todo = [*target.split("/"), *todo]
        return ""

    def _judge(self, path: str) -> tuple[str, bool]:
        """What is to be said against one component, and whether it is a link."""
        if path in self._good:
            return "", False
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return "", False  # what is not there is not executed; trying to says so in its own words
        except OSError as error:
            return f"{path}: {reason(error)}", False
        if status.st_uid not in self.owners:
            return f"{path} is owned by user {status.st_uid}{_name_of_user(status.st_uid)}", False
        if writers := _others_who_may_write(status):
            return f"{path} is writable by {writers}", False
        if stat.S_ISDIR(status.st_mode):
            self._good.add(path)
        return "", stat.S_ISLNK(status.st_mode)


def _others_who_may_write(status: os.stat_result) -> str:
    """Nobody, in a sticky directory of root's; and a link has no mode of its own."""
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and status.st_uid == 0
    if sticky or stat.S_ISLNK(status.st_mode):
        return ""
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    return f"group {status.st_gid}{_name_of_group(status.st_gid)}" if status.st_mode & stat.S_IWGRP else ""


def _name_of_user(uid: int) -> str:
    import pwd  # noqa: PLC0415 - only for what is refused

    with contextlib.suppress(KeyError):
        return f" ({pwd.getpwuid(uid).pw_name})"
    return ""


def _name_of_group(gid: int) -> str:
    import grp  # noqa: PLC0415 - as above

    with contextlib.suppress(KeyError):
        return f" ({grp.getgrgid(gid).gr_name})"
    return ""


def of_this_process() -> Trust:
    """Files of root and of the user that the agent runs as."""
    return Trust(frozenset({0, os.geteuid()}))


class InvolvedError(Exception):
    """What a first line starts cannot be told from it."""


def interpreters(path: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """The programs that the first line of a script names; also what ``env`` would find on the PATH.

    Empty for a binary; bash for a script without a first line (dib-run-parts is bash, which runs it). Raises
    InvolvedError.
    """
    first = _first_line(path)
    if first.startswith(b"\x7fELF") or not first:
        return ()
    if not first.startswith(b"#!"):
        return ("/bin/bash",)
    # As the kernel reads it: up to a NUL; one word, and all the rest is one argument.
    line = os.fsdecode(first[2:].partition(b"\0")[0].replace(b"\t", b" ").strip(b" "))
    program, _, argument = line.partition(" ")
    if os.path.basename(program) != "env" or not argument:
        return (program,) if program else ()
    from shutil import which  # noqa: PLC0415 - 2 ms that few hooks need

    found = which(_started_by_env(argument.strip(" ")), path=env.get("PATH", os.defpath))
    return (program, found) if found else (program,)


def _started_by_env(argument: str) -> str:
    """The name of the program; env looks for it on the PATH."""
    if not argument.startswith("-"):
        return argument
    words = argument.removeprefix("-S").split()
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    plain = argument.startswith("-S") and "PATH=" not in argument and not set(argument) & set("'\"\\$")
    if not plain or not words or words[0].startswith("-"):
        raise InvolvedError("is too involved to tell what env starts; name the interpreter itself")
    return words[0]


def _first_line(path: str) -> bytes:
    """Empty if it cannot be read: the attempt to run it says why in its own words."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(file, LONGEST_FIRST_LINE).partition(b"\n")[0]
    except OSError:
        return b""
    finally:
        os.close(file)
