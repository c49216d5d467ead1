"""The machine that a project sees while its options are looked for, and what is said of it in the sample."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

import pytest

from refresh_agent.tools.sampler.identity import MACHINES, SITE_PACKAGES, neutral

FIRST, SECOND = MACHINES["first"], MACHINES["second"]

ASK = """
import getpass, grp, json, multiprocessing, os, platform, pwd, socket, sys, uuid
from refresh_agent.tools.sampler.identity import MACHINES, pretend

pretend(MACHINES[sys.argv[1]])


def mine(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((address, 80))
        return asking.getsockname()[0]


def fails(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        return True
    return False


with socket.socket() as server, socket.socket() as client:
    server.bind(("127.0.0.1", 0))
    server.listen()
    client.connect(server.getsockname())
    loopback = client.getsockname()[0]

print(json.dumps({
    "host": [socket.gethostname(), os.uname().nodename, os.uname()[1]],
    "platform": platform.node(),
    "full name": [socket.getfqdn(), socket.getfqdn("localhost"), os.environ["HOSTNAME"]],
    "user": [getpass.getuser(), os.getlogin(), pwd.getpwuid(os.getuid()).pw_name, os.environ["USER"],
             os.environ["LOGNAME"], grp.getgrgid(os.getgid()).gr_name,
             pwd.getpwnam(getpass.getuser()).pw_name, grp.getgrnam(getpass.getuser()).gr_name],
    "home": [os.path.expanduser("~"), os.environ["HOME"], pwd.getpwuid(os.geteuid())[5]],
    "node": uuid.getnode(),
    "uid": [os.getppid(), os.getuid(), os.geteuid(), os.getgid(), os.getegid(),
            pwd.getpwuid(os.getuid()).pw_uid, *os.getresuid(), *os.getresgid(), *os.getgroups()],
    "processors": [os.cpu_count(), multiprocessing.cpu_count(), len(os.sched_getaffinity(0)),
                   os.sysconf("SC_NPROCESSORS_ONLN"), os.sysconf("SC_NPROCESSORS_CONF"),
                   os.sysconf(os.sysconf_names["SC_NPROCESSORS_ONLN"])],
    "memory": [os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")],
    "ipv4": [socket.gethostbyname(socket.gethostname()), socket.gethostbyname(socket.getfqdn()),
             socket.gethostbyname_ex(socket.gethostname())[2][0],
             socket.gethostbyaddr(socket.gethostname())[2][0],
             socket.getaddrinfo(socket.gethostname(), 80)[0][4][0], mine(socket.AF_INET, "192.0.2.1")],
    "ipv6": [mine(socket.AF_INET6, "2001:db8::1")] if socket.has_ipv6 else [],
    "others": [pwd.getpwuid(1).pw_uid, os.sysconf("SC_PAGE_SIZE"), socket.gethostbyname("localhost"),
               loopback, grp.getgrgid(1).gr_gid, pwd.getpwnam("root").pw_uid, grp.getgrnam("root").gr_gid,
               socket.gethostbyaddr("127.0.0.1")[2][0]],
    "nothing can be left behind": fails(os.makedirs, os.path.expanduser("~/.cache")),
}))
"""


def seen(machine: str) -> dict[str, Any]:
    """By a process of its own: what it pretends it cannot take back."""
    environment = {**os.environ, **MACHINES[machine].environment()}
    told = subprocess.run(
        [sys.executable, "-c", ASK, machine],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    answer: dict[str, Any] = json.loads(told.stdout)
    return answer


@pytest.mark.parametrize("name", list(MACHINES))
def test_however_a_project_asks_it_sees_the_machine_that_does_not_exist(name: str) -> None:
    told, machine = seen(name), MACHINES[name]
    assert set(told["host"]) == {machine.host}
    assert set(told["full name"]) == {machine.full_name}
    assert set(told["user"]) == {machine.user}
    assert set(told["home"]) == {machine.home}
    assert set(told["uid"]) == {machine.uid}
    assert set(told["processors"]) == {machine.processors}
    assert set(told["memory"]) == {machine.processors * 2**18}
    assert told["node"] == 2 * 2**40 + machine.uid  # of those that nobody makes
    assert set(told["ipv4"]) == {machine.ipv4}
    assert set(told["ipv6"]) <= {machine.ipv6}
    assert told["others"] == [1, os.sysconf("SC_PAGE_SIZE"), "127.0.0.1", "127.0.0.1", 1, 0, 0, "127.0.0.1"]
    assert told["nothing can be left behind"] is True


@pytest.mark.parametrize("name", list(MACHINES))
def test_what_was_asked_before_it_pretends_is_not_remembered(name: str) -> None:
    assert seen(name)["platform"] == MACHINES[name].host


def test_the_two_machines_have_nothing_in_common() -> None:
    assert not set(FIRST) & set(SECOND)
    assert FIRST.home != SECOND.home
    for own, other in ((FIRST, SECOND), (SECOND, FIRST)):
        assert not any(
            str(word) in str(theirs) for word in own for theirs in (other.host, other.user, other.home)
        )


# --- words -------------------------------------------------------------------------------------------------


@pytest.fixture
def told() -> Callable[[str], str]:
    return neutral(FIRST, ["/a/the tree/src", "/a/the tree"])


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_every_word_of_a_machine_has_another_one_that_holds_everywhere(machine: Any) -> None:
    told = neutral(machine, [])
    assert told(machine.host) == told(machine.full_name) == "<host name>"
    assert told(f"http://{machine.full_name}:80/{machine.user}") == "http://<host name>:80/<user>"
    assert told(f"{machine.home}/.cache:{machine.home}") == "<home directory>/.cache:<home directory>"
    assert told(f"[{machine.ipv6}]:80 {machine.ipv4}") == "[<IP address>]:80 <IP address>"
    assert told(told(machine.full_name)) == "<host name>"


def test_what_only_the_other_machine_says_is_not_known(told: Callable[[str], str]) -> None:
    assert told(SECOND.host) == SECOND.host


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a/the tree", SITE_PACKAGES),
        ("/a/the tree/src/shop", f"{SITE_PACKAGES}/shop"),
        ("/a/the tree/shop/x.py", f"{SITE_PACKAGES}/shop/x.py"),
        ("file:///a/the tree/x,/a/the tree/y", f"file://{SITE_PACKAGES}/x,{SITE_PACKAGES}/y"),
        ("/a/the trees/x", "/a/the trees/x"),
        ("/a/the tree-2", "/a/the tree-2"),
        ("/a/the", "/a/the"),
        ("/a/the tree/srcs/x", f"{SITE_PACKAGES}/srcs/x"),
        ("", ""),
        ("/", "/"),
        ("/usr", "/usr"),
        ("/usr/libfoo", "/usr/libfoo"),
        ("a text (with) [signs]", "a text (with) [signs]"),
    ],
)
def test_the_projects_own_path_is_told_as_if_it_were_installed(
    told: Callable[[str], str], text: str, expected: str
) -> None:
    assert told(text) == expected


@pytest.mark.parametrize(
    ("root", "text", "expected"),
    [
        ("/usr/lib", "/usr/lib/x", f"{SITE_PACKAGES}/x"),
        ("/usr/lib", "/usr/libfoo", "/usr/libfoo"),
        ("/", "file:///etc//x/", "file:///etc//x/"),
        ("/usr", "/usr/share/x", "/usr/share/x"),
        ("/usr/local", "/usr/local/share/x", "/usr/local/share/x"),
        (
            "/srv/shop",
            "see /srv/shop, or PATH=/srv/shop:/x",
            f"see {SITE_PACKAGES}, or PATH={SITE_PACKAGES}:/x",
        ),
        ("/srv/shop", "/srv/shop.d /srv/shop_2", "/srv/shop.d /srv/shop_2"),
        ("/a+b(c", "/a+b(c/x", f"{SITE_PACKAGES}/x"),
        ("/a.b", "/axb/c", "/axb/c"),
    ],
)
def test_a_path_ends_where_a_directory_does_and_is_taken_literally(
    root: str, text: str, expected: str
) -> None:
    assert neutral(FIRST, [root])(text) == expected


def test_a_path_begins_where_it_does(told: Callable[[str], str]) -> None:
    assert told("/data/a/the tree/x") == "/data/a/the tree/x"


def test_pythons_own_paths_are_told_as_those_of_a_system(
    told: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(f"{sys.prefix}/share/x") == "/usr/share/x"
    assert told(sys.executable) == "/usr/bin/python3"
    assert told(f"{sysconfig.get_path('purelib')}/shop/x") == f"{SITE_PACKAGES}/shop/x"
    assert told(f"{sysconfig.get_path('stdlib')}/json") == "/usr/lib/python3/json"
    assert told(f"{sys.prefix}-2/x") == f"{sys.prefix}-2/x"
    monkeypatch.setattr(sys, "base_prefix", "/opt/python")
    assert neutral(FIRST, [])("/opt/python/lib") == "/usr/lib"


def test_the_longest_path_counts() -> None:
    """An environment may lie in the tree, and the tree in an environment."""
    inside = neutral(FIRST, [os.path.dirname(sys.prefix)])
    assert inside(f"{sys.prefix}/bin") == "/usr/bin"
    outside = neutral(FIRST, [f"{sys.prefix}/src/shop"])
    assert outside(f"{sys.prefix}/src/shop/x") == f"{SITE_PACKAGES}/x"
