"""A sample is the same on every machine, and to write it or to check it leaves nothing behind."""

import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig

import pytest

from tests.functional.projects import (
    BOTH,
    Project,
    Tools,
    defining,
    either_way,
    everything,
    listing,
    options_of,
    state,
)
from tests.processes import alive
from tests.waiting import eventually

NOSY = r"""
import getpass, multiprocessing, os, pathlib, platform, pwd, socket, sys, tempfile, uuid
from oslo_config import cfg
from oslo_utils import netutils

home = os.path.expanduser("~")
values = {
    "os_password": os.environ.get("OS_PASSWORD", "none"),
    "language": os.environ.get("LANG", "none"),
    "columns": os.environ.get("COLUMNS", "none"),
    "host": socket.gethostname(),
    "host_by_uname": os.uname().nodename,
    "host_by_platform": platform.node(),
    "host_by_environment": os.environ.get("HOSTNAME"),
    "full_host": socket.getfqdn(),
    "endpoint": "http://%s:8080/" % socket.gethostname(),
    "home": home,
    "home_file": os.path.join(home, ".shop", "key"),
    "home_by_pathlib": str(pathlib.Path.home()),
    "home_by_user": pwd.getpwuid(os.getuid()).pw_dir,
    "user": getpass.getuser(),
    "user_by_environment": os.environ.get("USER"),
    "user_by_id": pwd.getpwuid(os.geteuid()).pw_name,
    "user_id": os.getuid(),
    "workers": os.cpu_count(),
    "more_workers": 2 * multiprocessing.cpu_count(),
    "usable_workers": len(os.sched_getaffinity(0)),
    "my_ip": netutils.get_my_ipv4(),
    "my_ipv6": netutils.get_my_ipv6(),
    "unique": str(uuid.uuid4()),
    "process": os.getpid(),
    "temporary": tempfile.gettempdir(),
    "file": os.path.abspath(__file__),
    "state": os.path.join(os.path.dirname(os.path.dirname(__file__)), "state"),
    "interpreter": sys.executable,
    "prefix": sys.prefix,
    "library": os.path.dirname(os.path.dirname(cfg.__file__)),
    "here": os.getcwd(),
    "program": sys.argv[0],
}
OPTS = [cfg.StrOpt(name, default=str(value), help="One.") for name, value in values.items()]
OPTS += [
    cfg.ListOpt("some", default=list(set("abcdefgh")), help="A set has no order."),
    cfg.DictOpt("places", default={"home": home, "fixed": "x"}, help="One value of two."),
    cfg.MultiStrOpt("hosts", default=[socket.gethostname(), "fixed"], help="One of two."),
    cfg.HostAddressOpt("address", default=socket.gethostname(), help="A type that looks at it."),
    cfg.IntOpt("count", default=os.cpu_count(), min=1, help="A number."),
]
cfg.CONF.register_opts(OPTS)
"""

VARIES = "<depends on the machine>"
PACKAGES = "/usr/lib/python/site-packages"
TOLD = {
    "os_password": "none",
    "language": "none",
    "columns": "none",
    "endpoint": "http://<host name>:8080/",
    "home_file": "<home directory>/.shop/key",
    "my_ip": "<IP address>",
    "my_ipv6": "<IP address>",
    "file": f"{PACKAGES}/shop/nosy.py",
    "state": f"{PACKAGES}/state",
    "interpreter": "/usr/bin/python3",
    "prefix": "/usr",
    "library": PACKAGES,
    "here": PACKAGES,
    "program": "oslo-config-generator",
    "temporary": "/tmp",
    "some": "a,b,c,d,e,f,g,h",
    "address": "<host name>",
    **dict.fromkeys(
        ("host", "host_by_uname", "host_by_platform", "host_by_environment", "full_host"), "<host name>"
    ),
    **dict.fromkeys(("home", "home_by_pathlib", "home_by_user"), "<home directory>"),
    **dict.fromkeys(("user", "user_by_environment", "user_by_id"), "<user>"),
    **dict.fromkeys(("user_id", "workers", "more_workers", "usable_workers", "unique", "process"), VARIES),
    "count": VARIES,
}

OTHER_HOST = """
import os, socket, sys
socket.sethostname("another-host-7")
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Project:
    made = Project(tmp_path)
    made.file("shop/nosy.py", NOSY)
    return made


@either_way
def test_defaults_that_hold_on_one_machine_only_are_told_in_words(
    tmp_path: pathlib.Path, tools: Tools
) -> None:
    project = Project(tmp_path, tools)
    project.file("shop/nosy.py", NOSY)
    assert project.generate("--strict").stderr.count("\n") == 1
    text = project.sample.read_text()
    found = options_of(text)["DEFAULT"]
    assert {name: found[name] for name in TOLD} == TOLD
    assert "#places = fixed:x,home:<home directory>\n" in text
    assert "#hosts = <host name>\n#hosts = fixed\n" in text
    assert set(found) - set(TOLD) == {"places", "hosts"}
    for own in (socket.gethostname(), str(project.place), sys.prefix, sys.base_prefix):
        assert own not in text
    assert getpass.getuser() not in text.replace("user", "")
    assert os.path.expanduser("~") not in text


def other_environment(place: pathlib.Path) -> dict[str, str]:
    """Everything in it is another's; what finds programs stays."""
    home, temporary = place / "another home", place / "another tmp"
    home.mkdir()
    temporary.mkdir()
    return {
        **dict.fromkeys(("HOME", "XDG_CONFIG_HOME"), str(home)),
        **dict.fromkeys(("USER", "LOGNAME", "OS_USERNAME", "HOSTNAME", "OS_PASSWORD"), "zaphod"),
        **dict.fromkeys(("LANG", "LANGUAGE"), "tr_TR.UTF-8"),
        **dict.fromkeys(("COLUMNS", "PYTHONHASHSEED"), "40"),
        "LC_ALL": "C",
        "TMPDIR": str(temporary),
        "TZ": "Asia/Tokyo",
        "PYTHONOPTIMIZE": "2",
    }


def test_the_environment_makes_no_difference(project: Project) -> None:
    project.generate()
    before = state(project.sample)
    project.check(env=other_environment(project.place))
    project.generate("-b", project.base, cwd=project.home, env=other_environment(project.home))
    assert state(project.sample)[0] == before[0]


def test_the_place_makes_no_difference(project: Project, tmp_path: pathlib.Path) -> None:
    """Neither the tree's, nor a link to it, nor the directory that the tools are called from."""
    project.generate()
    moved = tmp_path / "quite" / "another" / "place"
    shutil.copytree(project.base, moved)
    project.check(cwd=moved)
    link = tmp_path / "link"
    link.symlink_to(moved)
    project.check("--base-dir", link, cwd=tmp_path)
    project.check("-b", os.path.relpath(moved, project.home), cwd=project.home)


def test_the_virtual_environment_makes_no_difference(project: Project) -> None:
    """This one has the packages of the tests' own, at another place."""
    project.file("shop/tells.py", "import sys\nprint(sys.prefix, file=sys.stderr)  # Opt(\n")
    assert project.generate().stderr.splitlines()[0] == sys.prefix
    environment = project.place / "another environment"
    python = environment / "bin" / "python"
    packages = pathlib.Path(sysconfig.get_path("purelib"))
    linked = environment / packages.relative_to(sys.prefix)
    for directory in (python.parent, linked):
        directory.mkdir(parents=True)
    python.symlink_to(pathlib.Path(sys.base_prefix, "bin", "python3"))
    (environment / "pyvenv.cfg").write_text(f"home = {sys.base_prefix}/bin\n")
    for each in packages.iterdir():
        if each.suffix != ".pth":
            (linked / each.name).symlink_to(each)
    assert project.check("--python", python).stderr == f"{environment}\n"
    project.tools = BOTH["commands"]
    assert project.check(env={"VIRTUAL_ENV": str(environment)}).stderr == f"{environment}\n"


def test_the_host_name_makes_no_difference(project: Project) -> None:
    project.generate()
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    elsewhere = ["unshare", "--uts", *user, sys.executable, "-c", OTHER_HOST]
    assert project.run(*elsewhere, "uname", "-n").stdout == "another-host-7\n"
    project.run(*elsewhere, project.tools.check)
    project.run(*elsewhere, project.tools.generate)
    assert "another-host-7" not in project.sample.read_text()


def test_the_number_of_processors_makes_no_difference(project: Project) -> None:
    project.generate()
    one = str(min(os.sched_getaffinity(0)))
    project.run("taskset", "--cpu-list", one, project.tools.check)


WRITES = """
import os, pathlib, tempfile
from oslo_config import cfg
for path in (pathlib.Path.home() / ".shop", pathlib.Path(os.path.expanduser("~/.cache/shop"))):
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        continue
    raise RuntimeError(f"{path} could be made")
import shop.deep.options
cfg.CONF.register_opts([cfg.StrOpt("coins")])
"""


@either_way
@pytest.mark.parametrize("words", [(), ("--strict", "--format", "yaml"), ("-m", "not_there")])
def test_nothing_is_left_behind(tmp_path: pathlib.Path, tools: Tools, words: tuple[str, ...]) -> None:
    """Neither in the tree, nor at home, nor among temporary files; whatever the answer is."""
    project = Project(tmp_path, tools)
    project.file("shop/writes.py", WRITES)
    project.file("shop/deep/options.py", defining("notes"))
    before = everything(tmp_path)
    project.check(*words, status=1)
    assert everything(tmp_path) == before
    assert "could be made" not in project.generate(*words).stderr
    after = everything(tmp_path)
    assert {path for path in after if after[path] != before.get(path, b"?")} == {str(project.sample)}
    project.check(*words)
    project.file("shop/new.py", defining("new"))
    after = everything(tmp_path)
    project.check(*words, status=1)
    assert everything(tmp_path) == after


MEETING = """
import os, signal
with open("../arrived", "a") as file:
    file.write(f"{os.getpid()}\\n")
signal.pause()
# Opt(
"""


class Checking:
    """A check, both of whose processes are in the middle of an import that does not end."""

    def __init__(self, project: Project) -> None:
        project.file("shop/meeting.py", MEETING)
        project.sample.write_text("old\n")
        os.mkfifo(project.place / "arrived")
        self._place = project.place
        self._before = everything(project.place)
        with open(os.open(project.place / "arrived", os.O_RDWR)) as arrived:
            self.process = subprocess.Popen(
                [project.tools.check],
                cwd=project.base,
                env=project.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._pids = [int(arrived.readline()) for _ in range(2)]

    def has_left_nothing(self) -> None:
        """Not even a process, or a last word."""
        try:
            eventually(lambda: not any(alive(pid) for pid in self._pids))
        finally:
            for pid in filter(alive, self._pids):
                os.kill(pid, signal.SIGKILL)
            told = self.process.communicate()
        assert told == ("", "")
        assert everything(self._place) == self._before


@either_way
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_check_that_is_ended_leaves_nothing_behind(
    tmp_path: pathlib.Path, tools: Tools, number: signal.Signals
) -> None:
    checking = Checking(Project(tmp_path, tools))
    checking.process.send_signal(number)
    assert checking.process.wait() == (-number if number == signal.SIGKILL else 128 + number)
    checking.has_left_nothing()


@either_way
def test_ctrl_c_ends_a_check_without_a_word(tmp_path: pathlib.Path, tools: Tools) -> None:
    """The terminal tells all processes that are in the foreground."""
    checking = Checking(Project(tmp_path, tools))
    os.killpg(checking.process.pid, signal.SIGINT)
    assert checking.process.wait() == 128 + signal.SIGINT
    checking.has_left_nothing()


PROCESSORS = """
import os
from oslo_config import cfg

bounded = cfg.IntOpt("bounded", default=os.cpu_count(){0}, help="So many.")
cfg.CONF.register_opts([bounded, cfg.StrOpt("other", default="same", help="Not so.")], group="numbers")
"""


@pytest.mark.parametrize(
    "bounds", [", min=1", ", min=3", ", max=8", " // 4, min=1", " * 2, max=16", " and min(os.cpu_count(), 4)"]
)
def test_a_number_that_follows_from_the_processors_may_have_bounds(project: Project, bounds: str) -> None:
    project.file("shop/till.py", PROCESSORS.replace("{0}", bounds))
    numbers = project.options("--strict")["numbers"]
    assert numbers == {"bounded": "<depends on the machine>", "other": "same"}


def test_what_no_machine_agrees_on_is_told_with_its_reason(project: Project) -> None:
    project.file("shop/till.py", PROCESSORS.replace("{0}", ", max=5"))
    told = project.generate().stderr
    assert "cannot import shop.till on every machine (shop/till.py, line" in told
    assert "DefaultValueError" in told
    project.generate("--strict", status=1)


@pytest.mark.parametrize("form", ["ini", "yaml", "json"])
def test_where_libraries_are_found_does_not_matter(project: Project, form: str) -> None:
    project.file("shop/till.py", defining("coins"))
    places = [project.place / name for name in ("some", "others")]
    for place, name in zip(places, ("lib_b", "lib_a"), strict=True):
        meta = place / f"{name}-1.dist-info"
        meta.mkdir(parents=True)
        (place / f"{name}.py").write_text(listing(f"of_{name}"))
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (meta / "entry_points.txt").write_text(f"[oslo.config.opts]\n{name} = {name}:list_opts\n")
    samples = set()
    for order in (places, places[::-1]):
        project.generate(
            "--format", form, "-l", "lib_a", "-l", "lib_b", env={"PYTHONPATH": ":".join(map(str, order))}
        )
        samples.add(project.sample.read_text())
    assert len(samples) == 1
    assert all(f"of_{name}" in samples.copy().pop() for name in ("lib_a", "lib_b"))
