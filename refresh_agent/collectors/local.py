"""Directories of JSON files that the operator keeps: every file is a document of its own.

os-collect-config: local.py. Its security rule holds: a directory must be owned by the agent's own user, and
neither it nor its files may be writable by everybody. Its order is that of the C locale over all directories.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from refresh_agent import files, metadata
from refresh_agent.collectors.reading import Reader
from refresh_agent.model import Document, MetadataLimits, Snapshot

NAME = "local"


class Local:
    def __init__(self, directories: Sequence[str], limits: MetadataLimits) -> None:
        self._directories = tuple(directories)
        self._reader = Reader(limits)

    def collect(self) -> Snapshot:
        """One document per file that is neither hidden nor a directory, named as the file."""
        found: list[tuple[str, str]] = []
        for directory in self._directories:
            try:
                if problem := _insecure(directory, os.stat(directory)):
                    return self._failed(problem)
                found += [(name, f"{directory}/{name}") for name in os.listdir(directory) if name[0] != "."]
            except FileNotFoundError:
                continue
            except OSError as error:
                return self._failed(f"{directory}: {files.reason(error)}")
        found.sort(key=lambda item: os.fsencode(item[0]))
        taken: set[str] = set()
        documents = []
        for name, path in found:
            if os.path.isdir(path):
                continue
            safe = metadata.safe_name(name, path, taken)
            taken.add(safe)
            documents.append(self._read(safe, path))
        self._reader.keep(path for _, path in found)
        watch = (*self._directories, *(path for _, path in found))
        if not documents:
            missing = f"{', '.join(self._directories)}: no metadata files"
            return Snapshot(NAME, watch=watch, error=missing, absent=True)
        return Snapshot(NAME, tuple(documents), watch)

    def _read(self, name: str, path: str) -> Document:
        try:
            if os.stat(path).st_mode & stat.S_IWOTH:
                return Document(name, None, error=f"{path}: is writable by everybody; refused")
            return Document(name, None, origin=path, digest=self._reader.digest(path))
        except OSError as error:
            return Document(name, None, error=f"{path}: {files.reason(error)}")

    def _failed(self, problem: str) -> Snapshot:
        return Snapshot(NAME, watch=self._directories, error=problem)


def build(options: Mapping[str, Any], limits: MetadataLimits) -> Local:
    return Local(options["path"], limits)


def _insecure(directory: str, status: os.stat_result) -> str:
    if status.st_uid != os.getuid():
        return f"{directory}: is owned by user {status.st_uid}, not by the agent's own; refused"
    if status.st_mode & stat.S_IWOTH:
        return f"{directory}: is writable by everybody; refused"
    return ""
