"""The digest of configuration: what the daemon compares to know whether to read it again."""

import os
import pathlib

import pytest

from refresh_agent.opts import Location
from tests.unit.support import looping_link


@pytest.fixture
def location(tmp_path: pathlib.Path) -> Location:
    (tmp_path / "agent.conf").write_text("[debounce]\nquiet = 1\n")
    (tmp_path / "agent.conf.d").mkdir()
    (tmp_path / "agent.conf.d" / "10-a.conf").write_text("[retry]\ninitial = 1\n")
    return Location((str(tmp_path / "agent.conf"),), (str(tmp_path / "agent.conf.d"),))


def test_the_digest_is_the_same_until_something_changes(location: Location, tmp_path: pathlib.Path) -> None:
    before = location.digest()
    text = (tmp_path / "agent.conf").read_bytes()
    (tmp_path / "agent.conf").write_bytes(text)  # as the hook does at every run
    os.utime(tmp_path / "agent.conf", (1, 1))
    (tmp_path / "agent.conf.d" / "10-a.conf.bak").write_text("not read")
    assert location.digest() == before


def test_every_change_of_what_is_read_changes_the_digest(location: Location, tmp_path: pathlib.Path) -> None:
    file, directory = tmp_path / "agent.conf", tmp_path / "agent.conf.d"
    seen = [location.digest()]
    file.write_text("[debounce]\nquiet = 2\n")
    seen.append(location.digest())
    (directory / "20-b.conf").write_text("")
    seen.append(location.digest())
    (directory / "20-b.conf").rename(directory / "30-b.conf")
    seen.append(location.digest())
    (directory / "30-b.conf").unlink()
    (directory / "10-a.conf").unlink()
    seen.append(location.digest())
    directory.rmdir()
    seen.append(location.digest())
    file.unlink()
    seen.append(location.digest())
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("kind", ["missing", "directory", "loop", "pipe", "device", "bytes", "zero"])
def test_what_cannot_be_read_counts_as_such_and_nothing_waits(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "agent.conf"
    if kind == "directory":
        path.mkdir()
    elif kind == "loop":
        looping_link(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "bytes":
        path.write_bytes(b"\xff\0\xff")
    name = f"{path}\0" if kind == "zero" else str(path)
    digest = Location((name,)).digest()
    assert digest == Location((name,)).digest()
    path.unlink(missing_ok=True) if kind != "directory" else path.rmdir()
    path.write_text("[debounce]\n")
    if kind != "zero":
        assert Location((name,)).digest() != digest


def test_names_need_not_be_text(tmp_path: pathlib.Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.conf")
    pathlib.Path(name).write_text("")
    assert Location((name,)).digest() != Location((str(tmp_path / "x"),)).digest()
    assert Location((), (str(tmp_path),)).digest()
