"""Power loss: whatever part of what was written has reached the disk, the next start goes on from there."""

import contextlib
import itertools
import pathlib
import random
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.reliability import power_loss
from tests.reliability.power_loss import Restart, every_prefix, samples, scratch, without_syncs
from tests.reliability.power_stories import FOLDERS, STORIES, Place, recorded, server
from tests.reliability.syscalls import SECTOR, Disk, Kind, Operation, StraceError, lay_out, record

SEED = 6
SAMPLES = {"changes": 60, "trouble": 50, "deployments": 30, "a pause first": 10}


class Told:
    """A story that was recorded, and its place."""

    def __init__(self, root: pathlib.Path, story: str, port: int) -> None:
        self.place = Place(root, story, port)
        self.record = recorded(self.place, story)
        self.restart = Restart(self.place)


@pytest.fixture(scope="module")
def tell() -> Iterator[Callable[[str], Told]]:
    """A story is recorded once, for all the tests."""
    known: dict[str, Told] = {}
    with scratch() as root, contextlib.ExitStack() as servers:

        def told(story: str) -> Told:
            if story not in known:
                place = root / story
                place.mkdir()
                known[story] = Told(place, story, servers.enter_context(server(place)))
            return known[story]

        yield told


def wrong(found: power_loss.Found) -> dict[str, list[str]]:
    return {where: problems for where, problems in found if problems}


# --- the product -------------------------------------------------------------------------------------------


def test_every_moment_of_two_runs_is_one_to_start_from(tell: Callable[[str], Told]) -> None:
    told = tell("changes")
    assert not wrong(every_prefix(told.record, told.restart))


@pytest.mark.parametrize("story", STORIES)
def test_so_is_what_is_left_when_that_which_was_not_synced_is_lost_or_torn(
    story: str, tell: Callable[[str], Told]
) -> None:
    told = tell(story)
    assert not wrong(samples(told.record, told.restart, SEED, range(SAMPLES[story])))


def test_the_installed_command_goes_on_from_there_too(tell: Callable[[str], Told]) -> None:
    told = tell("changes")
    chance = random.Random(SEED)
    moments = sorted(chance.sample(range(len(told.record.operations)), 4))
    disk, operations = Disk(), iter(told.record.operations)
    told.place.stand_at(len(told.place.steps) - 1)
    for before, moment in itertools.pairwise([0, *moments]):
        for operation in itertools.islice(operations, moment - before):
            disk.apply(operation)
        lay_out(disk.after_power_loss(chance), told.place.node.root, FOLDERS)
        done = told.place.node.once()
        assert done.returncode == 0, done.stderr
        assert told.place.node.outcomes()[-1] == "success"


# --- the proof can fail ------------------------------------------------------------------------------------


def test_if_nothing_were_synced_this_would_be_found_out(tell: Callable[[str], Told]) -> None:
    told = tell("changes")
    found = wrong(samples(without_syncs(told.record), told.restart, SEED, range(40)))
    words = " ".join(problem for problems in found.values() for problem in problems)
    for problem in ("forgotten: runs", "is torn", "quiesced is None"):
        assert problem in words


@pytest.mark.parametrize("what", ["state/journal.sqlite-wal", "state", "."])
def test_that_one_kind_of_sync_is_missing_would_be_found_out_too(
    what: str, tell: Callable[[str], Told]
) -> None:
    told = tell("changes")
    kept = (each for each in told.record.operations if (each.kind, each.path) != (Kind.SYNC, what))
    lame = told.record._replace(operations=tuple(kept))
    assert wrong(samples(lame, told.restart, SEED, range(40)))


def test_where_strace_is_not_permitted_that_is_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strace = tmp_path / "strace"
    strace.write_text("#!/bin/sh\necho 'strace: ptrace(PTRACE_SEIZE): Operation not permitted' >&2\nexit 1\n")
    strace.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(StraceError, match=r"Operation not permitted.*does not permit ptrace"):
        record(["true"], tmp_path, ())
    strace.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StraceError, match="install the system package strace"):
        record(["true"], tmp_path, ())


# --- the recording, and the disk ---------------------------------------------------------------------------


def test_what_is_replayed_is_what_the_command_left(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os\n"
        f"a, b, c = ({str(tmp_path)!r} + '/folder/' + name for name in 'abc')\n"
        "os.mkdir(os.path.dirname(a))\n"
        "with open(a, 'wb', 0) as file:\n"
        "    file.write(b'one')\n"
        "    os.pwrite(file.fileno(), b'two', 5)\n"
        "    os.ftruncate(file.fileno(), 7)\n"
        "    os.fsync(file.fileno())\n"
        "os.link(a, b)\nos.rename(a, c)\nos.unlink(b)\n"
        "with open(b, 'wb', 0) as copy, open(c, 'rb', 0) as file:\n"
        "    os.copy_file_range(file.fileno(), copy.fileno(), 2)\n"
        "    os.sendfile(copy.fileno(), file.fileno(), None, 100)\n"
        "raise SystemExit(3)\n"
    )
    done = record([sys.executable, str(program)], tmp_path, ("folder",))
    disk = Disk()
    for operation in done:
        disk.apply(operation)
    image = disk.as_written()
    assert {path: entry.content for path, entry in image.items()} == {
        "folder": None,
        "folder/b": b"one\0\0tw",
        "folder/c": b"one\0\0tw",
    }
    assert all((tmp_path / path).read_bytes() == image[path].content for path in ("folder/b", "folder/c"))
    assert done[-1] == Operation(Kind.END, "", 3)
    assert [each.path for each in done if each.kind is Kind.SYNC] == ["folder/a"]


def operations(*lines: str) -> list[Operation]:
    """``write a 3 x``: 3 sectors of x at the beginning of a; the others as they are called."""
    made = []
    for line in lines:
        kind, path, *words = line.split()
        if kind == "write":
            made.append(Operation(Kind.WRITE, path, data=words[1].encode() * int(words[0]) * SECTOR))
        else:
            made.append(Operation(Kind(kind), path, 0o600, words[0] if words else ""))
    return made


def possible(*lines: str) -> set[tuple[tuple[str, bytes | None], ...]]:
    """What the disk may have after that and a power loss; each sector as the letter in it."""
    disk = Disk()
    for operation in operations(*lines):
        disk.apply(operation)
    images = (disk.after_power_loss(random.Random(seed)) for seed in range(300))
    return {
        tuple(
            (path, entry.content[::SECTOR] if entry.content is not None else None)
            for path, entry in image.items()
        )
        for image in images
    }


def test_what_was_synced_is_there() -> None:
    assert possible("create a", "write a 2 x", "fsync a", "fsync .") == {(("a", b"xx"),)}


def test_of_what_was_written_since_any_sector_may_be_there() -> None:
    seen = possible("create a", "write a 2 x", "fsync a", "fsync .", "write a 2 y")
    assert seen == {(("a", content),) for content in (b"xx", b"xy", b"yx", b"yy")}


def test_a_size_that_was_not_synced_may_be_the_old_or_the_new() -> None:
    seen = possible("create a", "fsync .", "write a 2 x")
    assert seen == {(("a", content),) for content in (b"", b"\0\0", b"x\0", b"\0x", b"xx")}


def test_a_name_is_there_when_its_directory_was_synced() -> None:
    assert possible("create a", "fsync a") == {(), (("a", b""),)}
    assert possible("mkdir d", "create d/a", "fsync d") == {(), (("d", None), ("d/a", b""))}


def test_names_come_in_their_order() -> None:
    seen = possible("create a", "fsync .", "create b", "unlink a")
    assert seen == {(("a", b""),), (("a", b""), ("b", b"")), (("b", b""),)}


def test_a_rename_may_be_there_before_the_data() -> None:
    made = "create a", "write a 1 o", "fsync a", "fsync .", "create t", "write t 1 n", "rename t a"
    contents = {content for image in possible(*made) for path, content in image if path == "a"}
    assert contents == {b"o", b"n", b"", b"\0"}
    synced = (*made[:-1], "fsync t", made[-1])
    assert {content for image in possible(*synced) for path, content in image if path == "a"} == {b"o", b"n"}
