"""The user as whom a worker runs: how it is started as that one, and with which environment."""

import os
from collections.abc import Mapping
from typing import NamedTuple

SETPRIV_IN = ("/usr/bin", "/bin")

KEPT = frozenset({"PATH", "LANG", "TZ"})
"""What another user's process gets of the agent's environment, besides LC_*: the rest may be root's alone."""

_READ, _PASS = 4, 1


class UserError(Exception):
    """Why nothing can be run as that user. The text is the message, beginning with the option."""


class Account(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str
    groups: tuple[int, ...]


def account(name: str) -> Account | None:
    """The user of that name; None for the agent's own, for which nothing is to be done. Raises UserError."""
    if not name:
        return None
    import pwd  # noqa: PLC0415 - few targets have a user

    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"user: there is no user {name!r} on this node; correct it, or add the user"
        ) from error
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise UserError(
            f"user: only root can migrate as {name}, and refresh-agent runs as user {os.geteuid()}; start it"
            f" as root, or as {name}"
        )
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, groups)


def command_line(user: Account | None) -> tuple[str, ...]:
    """What is put in front of a command so that it runs as ``user``. Raises UserError."""
    if user is None:
        return ()
    programs = (os.path.join(directory, "setpriv") for directory in SETPRIV_IN)
    setpriv = next((path for path in programs if os.access(path, os.X_OK)), "")
    if not setpriv:
        raise UserError(
            f"user: {user.name} needs setpriv, which is neither in {' nor in '.join(SETPRIV_IN)}; install"
            " util-linux"
        )
    return (setpriv, f"--reuid={user.uid}", f"--regid={user.gid}", "--init-groups")


def environment(user: Account | None, env: Mapping[str, str]) -> Mapping[str, str]:
    """``env`` as it is for the agent's own user; for another one, little of it and that user's own."""
    if user is None:
        return env
    kept = {name: value for name, value in env.items() if name in KEPT or name.startswith("LC_")}
    return {**kept, "HOME": user.home, "USER": user.name, "LOGNAME": user.name}


def obstacle(user: Account, path: str) -> str:
    """Which part of ``path``, links followed, keeps ``user`` from reading the file, by owner and mode; "" if
    none does.
    """
    real = os.path.realpath(path)
    names = real.split("/")
    parents = ["/".join(names[:count]) or "/" for count in range(1, len(names))]
    for part, needed in [*((parent, _PASS) for parent in parents), (real, _READ)]:
        try:
            status = os.stat(part)
        except OSError:
            return part
        if not _allowed(user, status) & needed:
            return part
    return ""


def _allowed(user: Account, status: os.stat_result) -> int:
    """The three bits of the mode that count for ``user``."""
    if status.st_uid == user.uid:
        return status.st_mode >> 6 & 7
    if status.st_gid in user.groups:
        return status.st_mode >> 3 & 7
    return status.st_mode & 7
