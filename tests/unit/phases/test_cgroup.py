"""Where the agent's control group is delegated to it, each hook has one of its own: real groups, as root."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from refresh_agent.marks import HOOK_ID
from refresh_agent.model import Command, Ending, Trigger
from refresh_agent.phases import cgroup, family
from refresh_agent.phases.process import Grace, ProcessRunner
from tests.processes import alive
from tests.unit.phases.shop import Shop
from tests.unit.serving import Node
from tests.waiting import eventually

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
"""
ONE = "29 23 0:26 {root} {place} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
SERVICE = "0::/system.slice/refresh-agent.service\n"

LEAVES = (
    "(setsid env -i /bin/bash -c 'trap \"\" TERM; echo $$ > {root}/new; mv {root}/new {root}/pid; {then}' &)"
)
"""Leaves the session, its parent and its environment; deaf to TERM."""


def leaves(root: pathlib.Path, then: str = "while :; do sleep 0.05; done") -> str:
    return LEAVES.format(root=root, then=then)


# --- where a group is --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cgroups", "mounts", "directory"),
    [
        (SERVICE, ONE.format(root="/", place="/sys/fs/cgroup"), "/sys/fs/cgroup" + SERVICE[3:-1]),
        ("1:cpu:/a\n0::/b\n", HYBRID, "/sys/fs/cgroup/unified/b"),
        ("0::/\n", HYBRID, "/sys/fs/cgroup/unified"),
        ("0::/a/b\n", ONE.format(root="/a", place="/sys/fs/cgroup"), "/sys/fs/cgroup/b"),
        ("0::/a\n", ONE.format(root="/a", place="/sys/fs/cgroup"), "/sys/fs/cgroup"),
        ("0::/a\n", ONE.format(root="/", place=r"/c\040d"), "/c d/a"),
        ("0::/a\n", ONE.format(root="/", place="/old") + ONE.format(root="/", place="/new"), "/new/a"),
        ("0::/ab\n", ONE.format(root="/a", place="/sys/fs/cgroup"), ""),
        ("0::/a\n", ONE.format(root="/../..", place="/sys/fs/cgroup"), ""),
        ("0::/../a\n", ONE.format(root="/", place="/sys/fs/cgroup"), ""),
        ("4:memory:/a\n", HYBRID, ""),
        ("0::/a\n", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", ""),
        ("", "", ""),
    ],
)
def test_the_directory_of_a_group_is_where_its_part_of_the_hierarchy_is_mounted(
    cgroups: str, mounts: str, directory: str
) -> None:
    assert cgroup.directory(cgroups, mounts) == directory


# --- a unit as systemd makes it ----------------------------------------------------------------------------


def here() -> str:
    """The directory of the group that this process is in."""
    cgroups, mounts = (pathlib.Path(f"/proc/self/{name}").read_text() for name in ("cgroup", "mountinfo"))
    return cgroup.directory(cgroups, mounts)


def move(directory: pathlib.Path, pid: int = 0) -> None:
    (directory / "cgroup.procs").write_text(str(pid or os.getpid()))


@pytest.fixture
def unit() -> Iterator[pathlib.Path]:
    """A control group that this process is in while the test runs."""
    before = pathlib.Path(here() or "/nowhere")
    made = before / f"refresh-agent-test-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        reason = f"takes root, and a writable hierarchy of control groups, version 2: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        move(made)
        cgroup.own.cache_clear()
        yield made
    finally:
        move(before)
        cgroup.own.cache_clear()
        (made / "cgroup.kill").write_text("1")
        eventually(lambda: not cgroup.Group(str(made)).populated)
        for path, _, _ in os.walk(made, topdown=False):
            os.rmdir(path)


@pytest.fixture
def delegated(unit: pathlib.Path) -> pathlib.Path:
    os.setxattr(unit, "trusted.delegate", b"1")
    return unit


@pytest.fixture
def contained(delegated: pathlib.Path, shop: Shop) -> Shop:
    """Its hooks have groups below ``delegated``."""
    assert cgroup.own() is not None
    shop.runner = ProcessRunner(shop.stop, Grace(kill=0.3, stop=0.3))
    del delegated
    return shop


def groups(unit: pathlib.Path) -> list[str]:
    return sorted(path.name for path in unit.iterdir() if path.is_dir())


def swept(unit: pathlib.Path) -> bool:
    """Whether no hook's group is left; what was killed just now may take its time."""
    cgroup.sweep()
    return not groups(unit)


def group_of(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/cgroup").read_text().rpartition("/")[2].strip()


def test_a_hook_runs_in_a_group_of_its_own_that_is_gone_afterwards(
    contained: Shop, delegated: pathlib.Path
) -> None:
    assert contained.run("exec tail -n1 /proc/self/cgroup").ok
    assert contained.lines[-1][1].endswith(f"/{delegated.name}/hook-the-hook")
    assert groups(delegated) == []
    assert here() == str(delegated)


def test_without_delegation_there_are_no_groups(unit: pathlib.Path, shop: Shop) -> None:
    shop.runner = ProcessRunner(shop.stop, Grace(kill=0.3, stop=0.3))
    assert shop.run("cat /proc/self/cgroup").ok
    assert shop.lines[-1][1].endswith(f"/{unit.name}")
    assert groups(unit) == []


def test_an_agent_that_a_hook_calls_makes_no_groups_in_the_hooks(contained: Shop) -> None:
    ask = "from refresh_agent.phases import cgroup; print(cgroup.own())"
    assert contained.run(f'{sys.executable} -c "{ask}"').ok
    assert contained.lines[-1][1] == "None"


# --- what nothing else finds -------------------------------------------------------------------------------


def test_who_has_left_session_parent_and_environment_is_ended_at_the_time_out(
    contained: Shop, delegated: pathlib.Path
) -> None:
    ended = contained.run(f"{leaves(contained.root)}; sleep 60", timeout=1)
    assert ended.ending is Ending.TIMEOUT
    assert not alive(contained.pid())
    assert groups(delegated) == []


HOPS = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
open("{root}/pid", "w").write(str(os.getpid()))
while True:
    time.sleep(0.001)
    if os.fork():
        os._exit(0)
"""


def test_who_is_another_process_at_each_look_is_ended_too(contained: Shop, delegated: pathlib.Path) -> None:
    (contained.root / "hops.py").write_text(HOPS.format(root=contained.root))
    body = f"(env -i {sys.executable} {contained.root}/hops.py &); sleep 60"
    ended = contained.run(body, timeout=1)
    assert ended.ending is Ending.TIMEOUT
    assert contained.pid()
    assert groups(delegated) == []


def test_groups_that_a_hook_has_made_are_part_of_its_own(contained: Shop, delegated: pathlib.Path) -> None:
    own = f"{delegated}/hook-the-hook"
    body = f"mkdir -p {own}/a/b; echo $$ > {own}/a/b/cgroup.procs; {leaves(contained.root)}; sleep 60"
    assert contained.run(body, timeout=1).ending is Ending.TIMEOUT
    assert not alive(contained.pid())
    assert groups(delegated) == []


def test_something_unforeseen_leaves_nothing_of_it(contained: Shop, delegated: pathlib.Path) -> None:
    path = contained.script(
        f"{leaves(contained.root)}; until [ -e {contained.root}/pid ]; do :; done; echo up; sleep 60"
    )
    command = Command(str(path), (str(path),), {"PATH": os.environ["PATH"], HOOK_ID: "the-hook"})

    def fail(*_: object) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        contained.runner.run(command, fail)
    eventually(lambda: not alive(contained.pid()))
    eventually(lambda: swept(delegated))


def test_what_the_hook_of_a_killed_agent_has_left_is_found_by_the_next(
    delegated: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Also if that agent died before it could record anything of the hook."""
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/bash\n{leaves(tmp_path)}; exec env -i sleep 60\n")
    hook.chmod(0o755)
    run = textwrap.dedent(
        f"""
        from refresh_agent.model import Command
        from refresh_agent.phases.process import Grace, ProcessRunner
        from refresh_agent.wakeup import Stop
        command = Command("{hook}", ("{hook}",), {{"PATH": "/usr/bin:/bin", "{HOOK_ID}": "the-hook"}})
        ProcessRunner(Stop(), Grace()).run(command, lambda *_: None)
        """
    )
    with subprocess.Popen([sys.executable, "-c", run]) as agent:
        pid = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
        agent.kill()
    assert alive(pid)
    assert family.end_leftovers(family.Leftovers("another".__eq__), 0) == ()
    assert pid in family.end_leftovers(family.Leftovers("the-hook".__eq__), 0.1)
    assert not alive(pid)
    eventually(lambda: swept(delegated))


def test_who_is_another_process_at_each_look_is_ended_by_the_next_agent_too(
    contained: Shop, delegated: pathlib.Path
) -> None:
    """No look finds the one that runs by then; only the group has it for sure."""
    group = delegated / "hook-of-a-killed-agent"
    group.mkdir()
    (contained.root / "hops.py").write_text(HOPS.format(root=contained.root))
    enter_and_hop = f"echo 0 > {group}/cgroup.procs; exec env -i {sys.executable} {contained.root}/hops.py"
    with subprocess.Popen(["/bin/sh", "-c", enter_and_hop]):
        assert contained.pid()
    family.end_leftovers(family.Leftovers("of-a-killed-agent".__eq__), 0.1)
    assert not cgroup.Group(str(group)).populated
    eventually(lambda: swept(delegated))


# --- what a hook leaves running ----------------------------------------------------------------------------


def test_the_group_of_a_daemon_stays_until_its_end(contained: Shop, delegated: pathlib.Path) -> None:
    wait = f"until [ -e {contained.root}/pid ]; do sleep 0.01; done"
    ended = contained.run(f"{leaves(contained.root, 'exec sleep 60')} > /dev/null 2>&1; {wait}", timeout=10)
    daemon = contained.pid()
    assert ended.ok
    assert ended.survivors == (f"sleep ({daemon})",)
    cgroup.sweep()
    assert groups(delegated) == [group_of(daemon)] == ["hook-the-hook"]
    os.kill(daemon, signal.SIGKILL)
    os.waitpid(daemon, 0)
    ProcessRunner(contained.stop, Grace())  # the next run begins
    assert groups(delegated) == []


def test_the_daemon_need_not_run_again_to_remove_it(delegated: pathlib.Path, tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path)
    node.agent._refresh(Trigger.START)
    (delegated / "hook-ended-since").mkdir()
    node.agent._rescan(0)
    assert (node.runs(), groups(delegated)) == (1, [])


def test_what_is_swept_was_a_hooks_and_is_empty(delegated: pathlib.Path) -> None:
    for name in (
        "hook-old",
        "hook-made/its/own",
        "hook-full/its",
        "somebodys",
        "hook-",
        "hook-a.b",
        "hooks-a",
    ):
        (delegated / name).mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as process:
        move(delegated / "hook-full", process.pid)
        cgroup.sweep()
        kept = ["hook-", "hook-a.b", "hook-full", "hooks-a", "somebodys"]
        assert groups(delegated) == kept
        assert (delegated / "hook-full/its").exists()
        process.kill()


# --- no group ----------------------------------------------------------------------------------------------


def test_a_group_that_cannot_be_had_is_no_reason_not_to_run(contained: Shop, delegated: pathlib.Path) -> None:
    (delegated / "cgroup.max.descendants").write_text("0")
    assert contained.run("cat /proc/self/cgroup").ok
    assert contained.lines[-1][1].endswith(f"/{delegated.name}")
    assert contained.run("sleep 60", timeout=0.1).ending is Ending.TIMEOUT


def test_a_group_that_takes_no_process_does_not_stay(tmp_path: pathlib.Path) -> None:
    with cgroup.Group(str(tmp_path)).for_hook("the-hook") as group:
        assert group is None
    assert groups(tmp_path) == []


def test_the_group_of_a_hook_that_cannot_be_started_does_not_stay(
    contained: Shop, delegated: pathlib.Path
) -> None:
    assert contained.run_file(contained.root / "missing").ending is Ending.NOT_STARTED
    assert groups(delegated) == []
    assert here() == str(delegated)


@pytest.mark.parametrize("hook_id", ["", "../escape", "a/b", ".", "a\n", "x" * 201])
def test_a_mark_that_is_no_name_makes_no_group(
    contained: Shop, delegated: pathlib.Path, hook_id: str
) -> None:
    assert contained.run("cat /proc/self/cgroup", REFRESH_AGENT_HOOK_ID=hook_id).ok
    assert contained.lines[-1][1].endswith(f"/{delegated.name}")
    assert groups(delegated) == []


def test_an_agent_that_is_in_a_hooks_group_does_not_kill_itself(delegated: pathlib.Path) -> None:
    (delegated / "hook-x").mkdir()
    kill = textwrap.dedent(
        f"""
        from refresh_agent.phases.cgroup import Group
        group = Group("{delegated}/hook-x")
        group.enter()
        group.kill()
        """
    )
    assert subprocess.run([sys.executable, "-c", kill], check=False).returncode == 0


def test_an_agent_that_cannot_return_to_its_group_says_so_and_tries_it_again(
    delegated: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = cgroup.Group(str(delegated))
    with own.for_hook("the-hook") as group:
        own.path = "/nowhere"
    assert caplog.messages == [
        "/nowhere: the agent cannot return to its control group: No such file or directory"
    ]
    assert group is not None
    assert here() == group.path
    with cgroup.Group(str(delegated)).for_hook("next"):
        pass
    assert here() == str(delegated)


def test_what_a_thread_of_ours_starts_meanwhile_is_not_the_hooks(delegated: pathlib.Path) -> None:
    with (
        cgroup.Group(str(delegated)).for_hook("the-hook") as group,
        subprocess.Popen(["sleep", "60"]) as mount,
    ):
        assert group is not None
        move(delegated)
        assert group.populated
        assert group.pids() == set()
        group.kill()
        assert mount.poll() is None
        mount.kill()
