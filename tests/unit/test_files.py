"""Reading with a limit, and files that are complete at every moment."""

import errno
import os
import pathlib
import socket
import tempfile
import threading

import pytest

from refresh_agent import files
from tests.unit.support import looping_link, open_descriptors


def test_it_reads_one_byte_more_than_the_limit_so_that_too_large_can_be_told(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert files.read_regular(str(path), 100) == b"0123456789"
    assert files.read_regular(str(path), 10) == b"0123456789"
    assert files.read_regular(str(path), 4) == b"01234"


def test_a_fifo_is_refused_and_does_not_block(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="is not a regular file"):
        files.read_regular(str(tmp_path / "fifo"), 10)


def test_a_fifo_with_a_writer_is_refused_too(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    try:
        os.write(writer, b"{}")
        with pytest.raises(OSError, match="is not a regular file"):
            files.read_regular(str(path), 10)
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("directory", "Is a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("dangling", "No such file or directory"),
        ("missing", "No such file or directory"),
        ("device", "is not a regular file"),
        ("socket", "No such device or address"),
        ("below a file", "Not a directory"),
    ],
)
def test_what_cannot_be_read_is_told_in_words(tmp_path: pathlib.Path, kind: str, words: str) -> None:
    path = tmp_path / "x"
    if kind == "directory":
        path.mkdir()
    elif kind == "loop":
        looping_link(path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "device":
        path = pathlib.Path("/dev/null")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "below a file":
        path.write_text("")
        path /= "y"
    with pytest.raises(OSError) as caught:  # noqa: PT011
        files.read_regular(str(path), 10)
    assert files.reason(caught.value) == words


@pytest.mark.parametrize("kind", ["directory", "fifo", "file", "missing"])
def test_reading_leaves_no_descriptor_open(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "file":
        path.write_text("{}")
    before = open_descriptors()
    for _ in range(20):
        try:
            files.read_regular(str(path), 10)
        except OSError:
            continue
    assert open_descriptors() == before


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_what_is_written_has_its_mode_whatever_the_umask(tmp_path: pathlib.Path, umask: int) -> None:
    path = tmp_path / "file"
    os.umask(umask)
    files.write_durably(str(path), b"one")
    files.write_durably(str(tmp_path / "open"), b"", 0o644)
    os.umask(0o022)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o644
    assert path.read_bytes() == b"one"


def test_a_reader_never_sees_half_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    contents = {b"a" * 300_000, b"b" * 200_000}
    files.write_durably(str(path), min(contents))
    seen, done = set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        for content in contents:
            files.write_durably(str(path), content)
    done.set()
    reader.join()
    assert seen <= contents


def test_a_file_that_is_open_keeps_its_content(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    files.write_durably(str(path), b"old")
    with path.open("rb") as reader:
        files.write_durably(str(path), b"new")
        assert reader.read() == b"old"


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: pathlib.Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "inside").touch()
    with pytest.raises(OSError, match="directory"):  # a rename onto a directory that is not empty
        files.write_durably(str(tmp_path / "target"), b"new")
    assert os.listdir(tmp_path) == ["target"]


def test_a_link_is_replaced_and_not_followed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "file").symlink_to("elsewhere")
    files.write_durably(str(tmp_path / "file"), b"ours")
    assert (tmp_path / "elsewhere").read_text() == "theirs"
    assert not (tmp_path / "file").is_symlink()


def test_the_longest_name_can_be_written(tmp_path: pathlib.Path) -> None:
    files.write_durably(str(tmp_path / ("n" * 255)), b"x")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"x"


class TestCopying:
    def test_the_copy_is_whole_and_private(self, tmp_path: pathlib.Path) -> None:
        content = os.urandom(3 * 2**20 + 17)
        (tmp_path / "source").write_bytes(content)
        os.umask(0)
        files.copy(str(tmp_path / "source"), str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == content
        assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600

    def test_to_another_file_system(self, tmp_path: pathlib.Path) -> None:
        shared = pathlib.Path("/dev/shm")  # a memory file system wherever there is one
        if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("this machine has one file system only")
        with tempfile.TemporaryDirectory(dir=shared) as there:
            (tmp_path / "source").write_bytes(b"x" * 100_000)
            files.copy(str(tmp_path / "source"), f"{there}/copy")
            files.copy(f"{there}/copy", str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == b"x" * 100_000

    def test_where_the_kernel_cannot_copy_by_itself(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def torn(reading: int, writing: int, count: int) -> int:
            assert os.write(writing, os.read(reading, 10)) == 10
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "copy_file_range", torn)
        (tmp_path / "source").write_bytes(b"0123456789" * 3)
        files.copy(str(tmp_path / "source"), str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == b"0123456789" * 3

    def test_what_cannot_be_copied_leaves_nothing(self, tmp_path: pathlib.Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for name in ("fifo", "missing"):
            with pytest.raises(OSError, match=r"is not a regular file|No such file"):
                files.copy(str(tmp_path / name), str(tmp_path / "copy"))
        assert os.listdir(tmp_path) == ["fifo"]

    def test_what_cannot_be_written_is_named(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "source").write_text("x")
        with pytest.raises(OSError, match="No such file") as caught:
            files.copy(str(tmp_path / "source"), str(tmp_path / "nowhere" / "copy"))
        assert caught.value.filename == str(tmp_path / "nowhere" / "copy")


class TestLinking:
    def test_the_file_has_two_names_and_the_old_one_is_gone(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "a").write_text("new")
        (tmp_path / "b").write_text("old")
        assert files.link(str(tmp_path / "a"), str(tmp_path / "b"))
        assert (tmp_path / "a").samefile(tmp_path / "b")
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]

    def test_what_is_one_file_already_stays_so(self, tmp_path: pathlib.Path) -> None:
        """Renaming one name of a file to another of its names does nothing at all."""
        (tmp_path / "a").write_text("new")
        for _ in range(2):
            assert files.link(str(tmp_path / "a"), str(tmp_path / "b"))
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]

    def test_where_there_are_no_links_nothing_happens(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "b").write_text("old")
        assert not files.link(str(tmp_path / "missing"), str(tmp_path / "b"))
        assert not files.link("/proc/self/status", str(tmp_path / "b"))
        assert (tmp_path / "b").read_text() == "old"
        assert os.listdir(tmp_path) == ["b"]

    def test_what_cannot_be_replaced_is_named(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "a").write_text("new")
        (tmp_path / "b").mkdir()
        with pytest.raises(OSError, match="directory") as caught:
            files.link(str(tmp_path / "a"), str(tmp_path / "b"))
        assert caught.value.filename == str(tmp_path / "b")
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_writing_leaves_no_descriptor_open(tmp_path: pathlib.Path) -> None:
    before = open_descriptors()
    for number in range(10):
        files.write_durably(str(tmp_path / "file"), b"%d" % number)
    assert open_descriptors() == before


def test_a_directory_that_is_not_there_cannot_be_synced(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.sync_directory(str(tmp_path / "missing"))
