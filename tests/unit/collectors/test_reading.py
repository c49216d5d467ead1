"""Files that are looked at again and again: what is read, and what need not be."""

import hashlib
import os
import pathlib
import time

import pytest

from refresh_agent import files
from refresh_agent.collectors.reading import Reader
from tests.unit.support import LIMITS

OLD = time.time() - 60


class Counted:
    """Counts how often a file was really read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = 0
        read = files.digest

        def digest(file: object) -> str:
            self.reads += 1
            return read(file)  # type: ignore[arg-type]

        monkeypatch.setattr(files, "digest", digest)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.fixture
def file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A file that was last written to a while ago, as far as the reader's clock tells."""
    path = tmp_path / "data"
    path.write_bytes(b"one")
    monkeypatch.setattr(time, "time", lambda: path.stat().st_ctime + 60)
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_that_looks_the_same_is_not_read_again(file: pathlib.Path, counted: Counted) -> None:
    reader = Reader(LIMITS)
    assert {reader.digest(str(file)) for _ in range(3)} == {sha256(b"one")}
    assert counted.reads == 1


def test_a_replaced_file_is_read_although_its_size_and_time_are_the_same(
    file: pathlib.Path, counted: Counted
) -> None:
    reader = Reader(LIMITS)
    reader.digest(str(file))
    status = file.stat()
    other = file.with_name("other")
    other.write_bytes(b"two")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(file)
    assert reader.digest(str(file)) == sha256(b"two")
    assert counted.reads == 2


def test_a_file_written_in_place_with_its_old_time_is_read(file: pathlib.Path) -> None:
    reader = Reader(LIMITS)
    reader.digest(str(file))
    status = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert reader.digest(str(file)) == sha256(b"two")


def test_a_file_that_was_just_written_may_be_written_to_again_within_the_same_tick(
    tmp_path: pathlib.Path, counted: Counted
) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"one")
    reader = Reader(LIMITS)
    reader.digest(str(path))
    reader.digest(str(path))
    assert counted.reads == 2


def test_what_is_too_large_is_not_read(file: pathlib.Path, counted: Counted) -> None:
    with pytest.raises(OSError, match=r"is larger than \[limits\] metadata_bytes \(2 bytes\)"):
        Reader(LIMITS._replace(bytes=2)).digest(str(file))
    assert counted.reads == 0


def test_files_that_are_gone_are_forgotten(file: pathlib.Path, counted: Counted) -> None:
    reader = Reader(LIMITS)
    reader.digest(str(file))
    reader.keep([])
    reader.digest(str(file))
    assert counted.reads == 2
