"""What a project sees of the machine while its options are looked for: one that does not exist.

Two such machines are shown, each to a process of its own. A default that differs between the two is one that
differs between any two machines, or from run to run.
"""

from __future__ import annotations

import functools
import getpass
import grp
import os
import platform
import pwd
import re
import socket
import sys
import sysconfig
import uuid
from typing import Any, Callable, NamedTuple

HOME = "/proc/nonexistent"
"""Not even root can make anything below it, so that no import leaves a file; and nothing is found there."""

SITE_PACKAGES = "/usr/lib/python/site-packages"
"""oslo-incubator: where a sample says that the project lies."""


class Machine(NamedTuple):
    """The names are valid ones, since types such as HostAddress look at them; memory goes by processors."""

    host: str
    user: str
    uid: int
    processors: int
    ipv4: str
    ipv6: str

    @property
    def full_name(self) -> str:
        return self.host + ".example.org"

    @property
    def home(self) -> str:
        return f"{HOME}/{self.user}"

    def environment(self) -> dict[str, str]:
        """Python looks at some of it before any module can."""
        return {"HOME": self.home, "USER": self.user, "LOGNAME": self.user, "HOSTNAME": self.full_name}


MACHINES = {
    "first": Machine("sample-node-one", "sample-user-one", 4001, 2, "198.51.100.213", "2001:db8:5a3e::213"),
    "second": Machine("sample-node-two", "sample-user-two", 4002, 16, "198.51.100.214", "2001:db8:5a3e::214"),
}


def pretend(machine: Machine) -> None:
    """From now on this process is on that machine, as far as Python code asks in the usual ways."""
    _hardware(machine)
    _user(machine)
    _names(machine)
    _lookups(machine)
    _addresses(machine)


def _hardware(machine: Machine) -> None:
    told = {"SC_NPROCESSORS_ONLN": machine.processors, "SC_NPROCESSORS_CONF": machine.processors}
    told |= dict.fromkeys(("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"), machine.processors << 18)
    by_number = {os.sysconf_names[name]: value for name, value in told.items()}
    answers: dict[Any, int] = {**told, **by_number}
    sysconf = os.sysconf
    _replace(os, "cpu_count", lambda: machine.processors)
    _replace(os, "process_cpu_count", lambda: machine.processors)
    _replace(os, "sched_getaffinity", lambda _pid: set(range(machine.processors)))
    _replace(os, "sysconf", lambda name: answers[name] if name in answers else sysconf(name))
    _replace(uuid, "getnode", lambda: 0x020000000000 + machine.uid)


def _user(machine: Machine) -> None:
    uid, gid = os.getuid(), os.getgid()
    by_uid, by_name, by_gid, by_group_name = pwd.getpwuid, pwd.getpwnam, grp.getgrgid, grp.getgrnam
    person = pwd.struct_passwd((machine.user, "x", machine.uid, machine.uid, "", machine.home, "/bin/sh"))
    people = grp.struct_group((machine.user, "x", machine.uid, []))
    for name in ("getuid", "geteuid", "getgid", "getegid", "getppid"):
        _replace(os, name, lambda: machine.uid)
    for name in ("getresuid", "getresgid"):
        _replace(os, name, lambda: (machine.uid,) * 3)
    _replace(os, "getgroups", lambda: [machine.uid])
    _replace(os, "getlogin", lambda: machine.user)
    _replace(getpass, "getuser", lambda: machine.user)
    _replace(pwd, "getpwnam", lambda asked: person if asked == machine.user else by_name(asked))
    _replace(grp, "getgrnam", lambda asked: people if asked == machine.user else by_group_name(asked))
    _replace(pwd, "getpwuid", lambda asked: person if asked in {uid, machine.uid} else by_uid(asked))
    _replace(grp, "getgrgid", lambda asked: people if asked in {gid, machine.uid} else by_gid(asked))


def _names(machine: Machine) -> None:
    own = {"", "localhost", machine.host, machine.full_name}
    uname, full_name = os.uname(), socket.getfqdn
    told = os.uname_result((uname.sysname, machine.host, "6.1.0", "#1", uname.machine))
    _replace(os, "uname", lambda: told)
    if hasattr(platform, "_uname_cache"):
        platform._uname_cache = None  # noqa: SLF001 - it may have been asked for, by our own imports
    _replace(socket, "gethostname", lambda: machine.host)
    _replace(socket, "getfqdn", lambda name="": machine.full_name if name in own else full_name(name))


def _lookups(machine: Machine) -> None:
    """Nobody else knows these names and addresses: without this, asking for them would fail."""
    own = {machine.host, machine.full_name, machine.ipv4, machine.ipv6}
    answer = (machine.full_name, [machine.host], [machine.ipv4])
    by_name, by_name_ex = socket.gethostbyname, socket.gethostbyname_ex
    by_address, info = socket.gethostbyaddr, socket.getaddrinfo

    def known(host: Any, *more: Any, **by_keyword: Any) -> Any:
        return info(machine.ipv4 if host in own else host, *more, **by_keyword)

    _replace(socket, "gethostbyname", lambda name: machine.ipv4 if name in own else by_name(name))
    _replace(socket, "gethostbyname_ex", lambda name: answer if name in own else by_name_ex(name))
    _replace(socket, "gethostbyaddr", lambda name: answer if name in own else by_address(name))
    _replace(socket, "getaddrinfo", known)


def _addresses(machine: Machine) -> None:
    """How "my address" is found out (oslo.utils): connect a datagram socket, which sends nothing; look."""
    connect, getsockname = socket.socket.connect, socket.socket.getsockname

    def connect_nowhere(self: socket.socket, address: Any) -> None:
        if self.type != socket.SOCK_DGRAM or self.family not in {socket.AF_INET, socket.AF_INET6}:
            connect(self, address)

    def own_name(self: socket.socket) -> Any:
        if self.type == socket.SOCK_DGRAM and self.family == socket.AF_INET:
            return (machine.ipv4, 40000)
        if self.type == socket.SOCK_DGRAM and self.family == socket.AF_INET6:
            return (machine.ipv6, 40000, 0, 0)
        return getsockname(self)

    _replace(socket.socket, "connect", connect_nowhere)
    _replace(socket.socket, "getsockname", own_name)


def _replace(owner: Any, name: str, function: Callable[..., Any]) -> None:
    """Not every Python has every one of them (process_cpu_count came with 3.13)."""
    original = getattr(owner, name, None)
    if original is not None:
        setattr(owner, name, functools.wraps(original)(function))


def neutral(machine: Machine, roots: list[str]) -> Callable[[str], str]:
    """A function that says of a text what is true on every machine.

    ``roots``: where the project lies. oslo-incubator: the project's own path and that of Python are told as
    they are on a node whose distribution has installed both.
    """
    words = {
        machine.home: "<home directory>",
        machine.full_name: "<host name>",
        machine.host: "<host name>",
        machine.user: "<user>",
        machine.ipv4: "<IP address>",
        machine.ipv6: "<IP address>",
    }
    paths = dict.fromkeys((sys.prefix, sys.base_prefix), "/usr")
    paths.update({sysconfig.get_path(name): "/usr/lib/python3" for name in ("stdlib", "platstdlib")})
    paths.update({sysconfig.get_path(name): SITE_PACKAGES for name in ("purelib", "platlib")})
    paths.update({sys.executable: "/usr/bin/python3"})
    paths.update(dict.fromkeys(roots, SITE_PACKAGES))
    # A literal default may well lie in one of these.
    ordered = sorted(paths.keys() - {"/", "/usr", "/usr/local"}, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, ordered))})(?![\w.-])")

    def neutralize(text: str) -> str:
        for own, word in words.items():
            text = text.replace(own, word)
        return pattern.sub(lambda found: paths[found.group()], text)

    return neutralize
