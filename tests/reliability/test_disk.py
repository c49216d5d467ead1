"""Disks that are really full or read-only, under the installed command: nothing runs, or everything does."""

import contextlib
import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.functional.node import COMMAND, Daemon, Node
from tests.waiting import eventually

PHASES = ("pre-configure", "configure", "post-configure", "migration")
WHOLE = [f"{phase}/10-a" for phase in PHASES]
FILL = 'dd if=/dev/zero of="{}/fill" bs=1k status=none 2>/dev/null || true'


@pytest.fixture
def node(node: Node) -> Node:
    for place in WHOLE:
        node.hook(place)
    node.metadata({"a": "x" * 3000})
    return node


class Step(NamedTuple):
    """What a command ended with, and what it said."""

    code: int
    said: str


class Disk:
    """A small file system of its own at ``mount_point``, which nobody else sees. Needs no root."""

    def __init__(self, node: Node, mount_point: pathlib.Path) -> None:
        self.node = node
        self.mount_point = mount_point
        mount_point.mkdir(mode=0o700, exist_ok=True)

    def arguments(self, script: str) -> list[str]:
        """Those of a process that mounts it, and then is that script. ``$@`` is the agent."""
        mount = f'mount -t tmpfs -o size=400k,mode=700 tmpfs "{self.mount_point}" && {script}'
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        agent = [COMMAND, "--config-file", str(self.node.config_file)]
        return ["unshare", "--mount", *user, "sh", "-c", mount, "sh", *agent]

    def steps(self, *commands: str) -> list[Step]:
        """Run these one after the other, each of them a refresh or what happens to the disk before it."""
        told = self.node.root / "told"
        told.mkdir()
        script = "; ".join(
            f'({command}) > "{told}/{number}" 2>&1; echo $?' for number, command in enumerate(commands)
        )
        ended = subprocess.run(self.arguments(script), capture_output=True, text=True, timeout=60)
        codes = [int(code) for code in ended.stdout.split()]
        assert len(codes) == len(commands), ended.stderr
        return [Step(code, (told / str(number)).read_text()) for number, code in enumerate(codes)]

    @contextlib.contextmanager
    def daemon(self) -> Iterator[Daemon]:
        log_file = self.node.root / "daemon.log"
        with log_file.open("ab") as log:
            arguments = self.arguments('exec "$@"')
            process = subprocess.Popen(arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield Daemon(process, log_file)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()

    def of(self, daemon: Daemon) -> pathlib.Path:
        """Where it is found from outside."""
        return pathlib.Path(f"/proc/{daemon.process.pid}/root{self.mount_point}")


ONCE = '"$@" --once'


def changed(node: Node) -> str:
    """The command that changes the metadata."""
    return f'echo \'{{"a": "y{"y" * 3000}"}}\' > "{node.metadata_file}"'


def check_text(step: Step, *words: str) -> None:
    assert "Traceback" not in step.said
    assert all(word in step.said for word in words), step.said


def test_full_before_the_run_nothing_runs_and_the_file_is_named(node: Node) -> None:
    disk = Disk(node, node.state)
    fill = FILL.format(node.state)
    free = f'rm "{node.state}/fill"'
    first, full, again, room = disk.steps(ONCE, f"{fill}; {changed(node)}; {ONCE}", ONCE, f"{free}; {ONCE}")
    assert [step.code for step in (first, full, again, room)] == [0, 5, 5, 0]
    for step in (full, again):
        check_text(step, f"{node.state}/")
        assert "No space left on device" in step.said or "full" in step.said
    assert node.ran() == WHOLE * 2


def test_full_in_the_middle_all_phases_run_to_their_end_and_the_run_is_made_again(node: Node) -> None:
    disk = Disk(node, node.state)
    node.hook("pre-configure/10-a", f'[ -e "{node.root}/filled" ] || {FILL.format(node.state)}')
    free = f'touch "{node.root}/filled"; rm "{node.state}/fill"'
    full, room, then = disk.steps(ONCE, f"{free}; {ONCE}", ONCE)
    assert [step.code for step in (full, room, then)] == [5, 0, 0]
    check_text(full, "the success is not recorded", f"{node.state}/journal.sqlite", "not recorded: ", "full")
    check_text(room, "was interrupted", "success in")
    assert node.ran() == WHOLE * 2
    assert "nothing changed" in then.said or "noop" in then.said


def test_a_run_that_fails_on_a_full_disk_leaves_the_node_known_to_be_quiesced(node: Node) -> None:
    disk = Disk(node, node.state)
    node.hook("pre-configure/10-a", FILL.format(node.state))
    node.hook("configure/10-a", f'[ -e "{node.root}/filled" ]')
    free = f'touch "{node.root}/filled"; rm "{node.state}/fill"; echo > "{node.base}/pre-configure.d/10-a"'
    failed, room = disk.steps(ONCE, f"{free}; {ONCE}")
    assert [step.code for step in (failed, room)] == [1, 0]
    check_text(failed, "not recorded: ", "the node is quiesced")
    check_text(room, "the node is quiesced", "success in")


def test_a_daemon_gets_over_a_disk_that_was_full(node: Node) -> None:
    disk = Disk(node, node.state)
    node.hook("pre-configure/10-a", f'[ -e "{node.root}/filled" ] || {FILL.format(node.state)}')
    with disk.daemon() as daemon:
        daemon.wait_for_log("the success is not recorded")
        daemon.wait_for_log("journal cannot be written: database or disk is full")
        daemon.wait_for_log("the next attempt is in")
        assert node.ran() == WHOLE
        (node.root / "filled").touch()
        (disk.of(daemon) / "fill").unlink()
        daemon.wait_for_log("success in")
        assert "Traceback" not in daemon.log()
        assert node.ran() == WHOLE * 2
        node.metadata({"a": 2})
        eventually(lambda: node.ran() == WHOLE * 3, 20)


@pytest.mark.parametrize("place", ["state", "cache"])
def test_a_daemon_gets_over_a_disk_that_others_have_filled_before_a_change(node: Node, place: str) -> None:
    disk = Disk(node, node.root / place)
    with disk.daemon() as daemon:
        daemon.wait_for_log("success in")
        subprocess.run(["sh", "-c", FILL.format(disk.of(daemon))], check=True)
        node.metadata({"a": "y" * 5000})
        daemon.wait_for_log(f"{disk.mount_point}/")
        daemon.wait_for_log("No space left on device")
        assert node.ran() == WHOLE
        (disk.of(daemon) / "fill").unlink()
        eventually(lambda: node.ran() == WHOLE * 2, 20)
        eventually(lambda: daemon.log().count("success in") == 2)
        assert "Traceback" not in daemon.log()


def test_a_daemon_that_finds_the_disk_full_as_it_starts_ends_and_says_why(node: Node) -> None:
    """Whoever starts it starts it again."""
    disk = Disk(node, node.cache)
    fill, free = FILL.format(node.cache), f'rm "{node.cache}/fill"'
    ended, room = disk.steps(f'{fill}; "$@"', f"{free}; {ONCE}")
    assert [step.code for step in (ended, room)] == [5, 0]
    check_text(ended, f"{node.cache}/heat_local.json", "the cache cannot be written: No space left on device")
    assert node.ran() == WHOLE


def test_a_cache_directory_that_is_full_at_the_end_is_told_and_the_run_counts(node: Node) -> None:
    disk = Disk(node, node.cache)
    node.hook("migration/10-a", FILL.format(node.cache))
    full, then = disk.steps(ONCE, ONCE)
    assert [step.code for step in (full, then)] == [0, 0]
    assert node.ran() == WHOLE
    assert node.outcomes() == ["success"]


@pytest.mark.parametrize("place", ["state", "cache"])
def test_read_only_nothing_runs_and_the_file_is_named(node: Node, place: str) -> None:
    disk = Disk(node, node.root / place)
    remount = f'mount -o remount,{{}} "{disk.mount_point}"'
    first, refused, writable = disk.steps(
        ONCE, f"{remount.format('ro')}; {changed(node)}; {ONCE}", f"{remount.format('rw')}; {ONCE}"
    )
    assert [step.code for step in (first, refused, writable)] == [0, 5, 0]
    check_text(refused, f"{disk.mount_point}/", "Read-only file system")
    assert node.ran() == WHOLE * 2
