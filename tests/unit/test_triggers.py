"""Real inotify: events are waited for with a deadline; that none came, by one that comes later."""

import contextlib
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import pytest

from refresh_agent.triggers import Watcher, scan
from tests.unit.support import open_descriptors, write_json
from tests.waiting import eventually


class Bell:
    """Counts the wake-ups."""

    def __init__(self) -> None:
        self.rung = 0

    def ring(self) -> None:
        self.rung += 1


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def watcher(bell: Bell) -> Iterator[Watcher]:
    watcher = Watcher(bell.ring)
    yield watcher
    watcher.close()


def rings(bell: Bell, action: Callable[[], object]) -> None:
    """``action`` wakes, in the end."""
    before = bell.rung
    action()
    eventually(lambda: bell.rung > before)


def settle(bell: Bell, watcher: Watcher, file: pathlib.Path) -> int:
    """Until an event of ``file`` has come through: what was before it has come through too."""
    assert str(file) in watcher.paths
    rings(bell, lambda: file.write_text("{}"))
    return bell.rung


def test_a_file_that_is_replaced_by_rename_wakes(
    tmp_path: pathlib.Path, bell: Bell, watcher: Watcher
) -> None:
    path = write_json(tmp_path / "a.json", {})
    watcher.watch([str(path)])
    rings(bell, lambda: write_json(path, {"x": 1}))
    rings(bell, lambda: path.write_text("{}"))
    rings(bell, path.unlink)
    rings(bell, lambda: path.write_text("{}"))


def test_a_file_moved_away_wakes(tmp_path: pathlib.Path, bell: Bell, watcher: Watcher) -> None:
    path = write_json(tmp_path / "in" / "a.json", {})
    watcher.watch([str(path)])
    rings(bell, lambda: path.rename(tmp_path / "a.json"))
    rings(bell, lambda: (tmp_path / "a.json").rename(path))


def test_a_file_in_a_watched_directory_wakes(tmp_path: pathlib.Path, bell: Bell, watcher: Watcher) -> None:
    directory = tmp_path / "local-data"
    directory.mkdir()
    watcher.watch([str(directory)])
    rings(bell, lambda: (directory / "new").write_text("{}"))
    rings(bell, (directory / "new").unlink)


def test_a_file_beside_a_watched_one_does_not_wake(
    tmp_path: pathlib.Path, bell: Bell, watcher: Watcher
) -> None:
    path = write_json(tmp_path / "a.json", {})
    marker = write_json(tmp_path / "b.json", {})
    watcher.watch([str(path)])
    for number in range(20):
        write_json(tmp_path / f"other-{number}.json", {})
    path.read_text()
    assert bell.rung == 0
    watcher.watch([str(path), str(marker)])
    rings(bell, lambda: write_json(marker, {"x": 1}))


def test_reading_does_not_wake(tmp_path: pathlib.Path, bell: Bell, watcher: Watcher) -> None:
    """The agent reads the files itself: it would wake itself for ever."""
    path = write_json(tmp_path / "d" / "a.json", {})
    watcher.watch([str(path), str(path.parent)])
    before = bell.rung
    for _ in range(50):
        path.read_text()
        os.listdir(path.parent)
    assert bell.rung == before
    rings(bell, lambda: write_json(path, {"x": 1}))


def test_a_path_whose_directories_do_not_exist_yet_is_waited_for(
    tmp_path: pathlib.Path, bell: Bell, watcher: Watcher
) -> None:
    path = tmp_path / "one" / "two" / "a.json"
    watcher.watch([str(path)])
    rings(bell, (tmp_path / "one").mkdir)
    watcher.watch([str(path)])
    rings(bell, (tmp_path / "one" / "two").mkdir)
    watcher.watch([str(path)])
    rings(bell, lambda: path.write_text("{}"))


def test_a_directory_that_is_deleted_and_made_again_is_watched_again(
    tmp_path: pathlib.Path, bell: Bell, watcher: Watcher
) -> None:
    path = write_json(tmp_path / "d" / "a.json", {})
    watcher.watch([str(path)])
    for number in range(3):
        rings(bell, lambda: shutil.rmtree(path.parent))
        watcher.watch([str(path)])
        rings(bell, path.parent.mkdir)
        watcher.watch([str(path)])
        rings(bell, lambda: path.write_text("{}"))
        rings(bell, lambda n=number: write_json(path, {"x": n}))  # type: ignore[misc]


def test_a_directory_that_was_replaced_between_two_looks_is_watched_again(
    tmp_path: pathlib.Path, bell: Bell, watcher: Watcher
) -> None:
    """That it was moved away is seen at the next look; from then on the new one is watched, not the old."""
    path = write_json(tmp_path / "d" / "a.json", {})
    watcher.watch([str(path)])
    assert watcher._observer is not None
    (old,) = watcher._observer.emitters
    path.parent.rename(tmp_path / "old")
    path.parent.mkdir()
    watcher.watch([str(path)])
    rings(bell, lambda: path.write_text("{}"))
    (new,) = watcher._observer.emitters
    assert new is not old
    eventually(lambda: not old.is_alive())


def test_what_is_no_longer_watched_does_not_wake(
    tmp_path: pathlib.Path, bell: Bell, watcher: Watcher
) -> None:
    old, new = write_json(tmp_path / "o" / "a.json", {}), write_json(tmp_path / "n" / "a.json", {})
    watcher.watch([str(old)])
    rings(bell, lambda: old.write_text("{}"))
    watcher.watch([str(new)])
    settle(bell, watcher, new)
    assert not watcher._concerns(str(old))
    assert {str(new.parent)} == watcher._wanted()


def test_watching_the_same_again_and_again_costs_no_descriptors(
    tmp_path: pathlib.Path, bell: Bell, watcher: Watcher
) -> None:
    paths = [str(write_json(tmp_path / "d" / "a.json", {})), str(tmp_path / "missing" / "b")]
    watcher.watch(paths)
    rings(bell, lambda: write_json(pathlib.Path(paths[0]), {"x": 1}))
    before = open_descriptors()
    for number in range(30):
        watcher.watch(paths)
        watcher.watch([paths[number % 2]])
    watcher.watch(paths)
    eventually(lambda: open_descriptors() <= before)


def test_a_directory_that_cannot_be_watched_is_told_and_left_to_the_rescan(
    tmp_path: pathlib.Path, watcher: Watcher, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_json(tmp_path / "a.json", {})
    watcher.watch([str(path)])
    assert watcher._observer is not None

    def no_space(*_: object, **__: object) -> None:  # the kernel's limit of watches cannot be reached safely
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(watcher._observer, "schedule", no_space)
    watcher.watch([str(tmp_path / "other" / "b"), str(write_json(tmp_path / "d" / "c", {}))])
    assert f"{tmp_path / 'd'} cannot be watched" in log.text
    assert [record.levelno for record in log.records] == [logging.WARNING]


def test_a_directory_that_goes_while_it_is_being_watched_is_no_error(
    tmp_path: pathlib.Path, bell: Bell, watcher: Watcher
) -> None:
    watcher._keep(str(tmp_path / "gone"))
    path = write_json(tmp_path / "a.json", {})
    watcher.watch([str(path)])
    rings(bell, lambda: path.write_text("{}"))


def test_closing_without_ever_watching_is_fine(bell: Bell) -> None:
    Watcher(bell.ring).close()


# --- the rescan --------------------------------------------------------------------------------------------


def test_a_scan_sees_content_replacement_removal_and_arrival(tmp_path: pathlib.Path) -> None:
    file, directory = tmp_path / "a.json", tmp_path / "d"
    paths = [str(file), str(directory)]
    seen = [scan(paths)]

    def changed() -> bool:
        seen.append(scan(paths))
        return seen[-1] != seen[-2]

    assert not changed()
    file.write_text("{}")
    assert changed()
    file.write_text("{  }")
    assert changed()
    write_json(file, {"abc": 1})
    assert changed()
    directory.mkdir()
    assert changed()
    (directory / "x").write_text("1")
    assert changed()
    (directory / "x").write_text("2 ")
    assert changed()
    (directory / "x").unlink()
    assert changed()
    file.unlink()
    assert changed()
    assert not changed()


def test_a_scan_follows_links(tmp_path: pathlib.Path) -> None:
    """The other end of a link is what inotify does not see."""
    target = tmp_path / "there" / "a.json"
    write_json(target, {})
    (tmp_path / "a.json").symlink_to(target)
    before = scan([str(tmp_path / "a.json")])
    write_json(target, {"x": 1})
    assert scan([str(tmp_path / "a.json")]) != before


def test_a_scan_opens_nothing(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert len(scan([str(tmp_path / "fifo"), str(tmp_path), str(tmp_path / "missing")])) == 4


def test_a_scan_does_not_depend_on_the_order_of_the_paths(tmp_path: pathlib.Path) -> None:
    write_json(tmp_path / "d" / "b", {})
    write_json(tmp_path / "d" / "a", {})
    paths = [str(tmp_path / "d"), str(tmp_path / "x")]
    with contextlib.chdir(tmp_path):
        assert scan(paths) == scan(reversed(paths))
