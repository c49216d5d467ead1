"""A cache directory; what the tests of the cache start from."""

import json
import os
import pathlib
from typing import Any

from refresh_agent import cache, metadata
from tests.unit.support import LIMITS


class Cache:
    """A cache directory and its backup; ``contents`` stores documents as the source store does."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.path = root / "cache"
        self.backup = root / "backup"
        (root / "stored").mkdir()

    def contents(self, **documents: str) -> list[tuple[str, str]]:
        found = []
        for name, text in documents.items():
            path = self.root / "stored" / f"{name}-{metadata.digest(text.encode())[:16]}.json"
            path.write_text(text)
            found.append((name, str(path)))
        return found

    def write(self, **documents: str) -> tuple[str, ...]:
        return cache.write(str(self.path), self.contents(**documents))

    def commit(self, **documents: str) -> None:
        cache.commit(str(self.path), self.contents(**documents))

    def run(self, **documents: str) -> None:
        """What becomes of the cache in a run that succeeds."""
        self.write(**documents)
        self.back_up()
        self.commit(**documents)
        self.back_up()

    def back_up(self) -> None:
        cache.back_up(str(self.path), str(self.backup))

    def takeover(self) -> Any:
        return cache.committed(str(self.path), LIMITS)

    def listed(self) -> list[str]:
        """What the list names, without the directory."""
        paths = json.loads((self.path / "os_config_files.json").read_text())
        assert {os.path.dirname(path) for path in paths} <= {str(self.path)}
        return [os.path.basename(path) for path in paths]


def held(directory: pathlib.Path) -> dict[str, str]:
    """File name → content."""
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


def inodes(directory: pathlib.Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in directory.iterdir()}
