"""The files that a running os-collect-config keeps: named, in order, in its os_config_files.json."""

import json
import os
from collections.abc import Mapping
from typing import Any

from refresh_agent import files, metadata
from refresh_agent.collectors.reading import Reader
from refresh_agent.model import Document, MetadataLimits, Snapshot

NAME = "os_collect_config"

LIST_LIMIT = 2**20
"""Bytes; a list of thousands of paths stays far below."""


class OsCollectConfig:
    def __init__(self, files_list: str, limits: MetadataLimits) -> None:
        self._files_list = files_list
        self._reader = Reader(limits)

    def collect(self) -> Snapshot:
        """One document per listed file, in the list's order, named as the file without its ``.json``."""
        try:
            paths = _parse_list(files.read_regular(self._files_list, LIST_LIMIT))
        except OSError as error:
            absent = isinstance(error, FileNotFoundError)
            return self._without_list(files.reason(error), absent=absent)
        except ValueError as error:
            return self._without_list(str(error), absent=False)
        if not paths:
            return self._without_list("names no files", absent=True)
        names: set[str] = set()
        documents = []
        for path in paths:
            name = metadata.safe_name(os.path.basename(path).removesuffix(".json"), path, names)
            names.add(name)
            documents.append(self._document(name, path))
        self._reader.keep(paths)
        return Snapshot(NAME, tuple(documents), (self._files_list, *paths))

    def _document(self, name: str, path: str) -> Document:
        """The file's content under ``name``, or the reason why there is none."""
        try:
            return Document(name, None, path, digest=self._reader.digest(path))
        except OSError as error:
            absent = isinstance(error, FileNotFoundError)
            return Document(name, None, path, f"{path}: {files.reason(error)}", absent)

    def _without_list(self, problem: str, *, absent: bool) -> Snapshot:
        return Snapshot(
            NAME, watch=(self._files_list,), error=f"{self._files_list}: {problem}", absent=absent
        )


def build(options: Mapping[str, Any], limits: MetadataLimits) -> OsCollectConfig:
    return OsCollectConfig(options["files_list"], limits)


def _parse_list(raw: bytes) -> list[str]:
    try:
        paths = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("is not a JSON list of file names") from None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError("is not a JSON list of file names")
    for path in paths:
        if not os.path.isabs(path) or "\0" in path or ":" in path or not _is_file_name(path):
            # Hooks get the paths colon-separated in OS_CONFIG_FILES.
            raise ValueError(f"names {path!r}, which is not an absolute path without a colon")
    return list(dict.fromkeys(paths))


def _is_file_name(path: str) -> bool:
    """JSON can hold half a surrogate, a file name cannot, except for those that stand for raw bytes."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True
