"""What wakes the service when a file changes: inotify, and what a rescan compares. They carry no data."""

import logging
import os
from collections.abc import Callable, Iterable

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

LOG = logging.getLogger("refresh_agent.triggers")

EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]
"""Not those of mere reading: the agent reads these files itself."""


MOST_PASSES = 8
"""Of arming the watches while directories come and go; the rescan covers the rest."""


class Watcher:
    """Wakes when one of some paths changes, whether or not it, or its directory, exists yet."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._observer: BaseObserver | None = None
        self._watches: dict[str, tuple[tuple[int, int], ObservedWatch]] = {}
        self._handler = _Handler(self)
        self._lost: set[str] = set()
        self.paths: frozenset[str] = frozenset()

    def watch(self, paths: Iterable[str]) -> None:
        """From now on watch these. Call it before reading them, and again after every wake-up: what was
        missing may be there now, and a directory that was made anew needs a new watch.
        """
        given = [os.path.abspath(path) for path in paths]
        # What a link leads to as well: inotify tells of that only under its own name.
        self.paths = frozenset((*given, *(os.path.realpath(path) for path in given)))
        for _ in range(MOST_PASSES):
            wanted = self._wanted()
            for directory in set(self._watches) - wanted:
                self._drop(directory)
            kept = [self._keep(directory) for directory in wanted]
            # Directories come and go meanwhile; one that nobody watches would be missed.
            if all(kept) and wanted == self._wanted():
                break

    def close(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()

    def gone(self, path: str) -> None:
        """What was watched there is not there any more, even if a new directory has the same inode."""
        if self._concerns(path):
            self._lost.add(path)

    def changed(self, paths: Iterable[str]) -> None:
        """An event names ``paths``. Called in the observer's thread."""
        if any(self._concerns(path) for path in paths):
            self._wake()

    def _wanted(self) -> set[str]:
        return {directory for path in self.paths for directory in _directories(path)}

    def _concerns(self, path: str) -> bool:
        return (
            path in self.paths
            or os.path.dirname(path) in self.paths
            or any(watched.startswith(f"{path}/") for watched in self.paths)
        )

    def _keep(self, directory: str) -> bool:
        """See to it that the directory is watched; False if it has just gone."""
        try:
            status = os.stat(directory)
        except OSError:
            self._drop(directory)
            return False
        identity = (status.st_dev, status.st_ino)
        known = self._watches.get(directory)
        if known is not None and known[0] == identity and directory not in self._lost:
            return True
        self._drop(directory)
        if self._observer is None:
            self._observer = Observer()
            self._observer.start()
        try:
            watch = self._observer.schedule(self._handler, directory, event_filter=EVENTS)
        except FileNotFoundError:
            return False
        except OSError as error:
            LOG.warning(
                "%s cannot be watched (%s); changes there are seen at the next rescan", directory, error
            )
            return True
        self._watches[directory] = (identity, watch)
        return True

    def _drop(self, directory: str) -> None:
        self._lost.discard(directory)
        _, watch = self._watches.pop(directory, (None, None))
        if watch is not None and self._observer is not None:
            self._observer.unschedule(watch)


class _Handler(FileSystemEventHandler):
    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def on_any_event(self, event: FileSystemEvent) -> None:
        source, destination = os.fsdecode(event.src_path), os.fsdecode(event.dest_path)
        if isinstance(event, (DirDeletedEvent, FileDeletedEvent, DirMovedEvent)):
            # Also "file": the kernel does not always say that what was watched was a directory.
            self._watcher.gone(source)
        self._watcher.changed(path for path in (source, destination) if path)


Signature = tuple[str, tuple[int, ...]]


def scan(paths: Iterable[str]) -> tuple[Signature, ...]:
    """What a rescan compares: path, inode, size, times and mode, also of what a directory holds.

    Nothing is opened. It finds what inotify lost, and what it cannot see (a link's other end, a network
    file system).
    """
    found = []
    for path in sorted(set(paths)):
        found.append(_signature(path))
        try:
            found += [_signature(f"{path}/{name}") for name in sorted(os.listdir(path))]
        except OSError:
            continue
    return tuple(found)


def _signature(path: str) -> Signature:
    try:
        status = os.stat(path)
    except OSError:
        return path, ()
    # The time of change too: a chmod may make a file readable, or no longer to be trusted.
    return path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _directories(path: str) -> Iterable[str]:
    """What to watch for ``path``: itself if it is a directory, and the nearest existing one above."""
    if os.path.isdir(path):
        yield path
    above = os.path.dirname(path)
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    yield above
