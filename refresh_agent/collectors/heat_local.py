"""JSON files on the node (cloud-init and heat-cfntools write one), merged into one document.

os-collect-config: heat_local.py. Files that do not exist are passed over, the rest is merged key by key.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from refresh_agent import files, metadata
from refresh_agent.collectors.reading import Reader
from refresh_agent.model import Document, MetadataLimits, Snapshot

NAME = "heat_local"

MOST_MERGED = 4096
"""Bytes of an only file up to which it is parsed here, to tell one with nothing in it."""


class HeatLocal:
    def __init__(self, paths: Sequence[str], limits: MetadataLimits) -> None:
        self._paths = tuple(paths)
        self._limits = limits
        self._reader = Reader(limits)

    def collect(self) -> Snapshot:
        """One document ``heat_local``.

        os-collect-config goes on without a file that is not JSON, and so runs hooks without its keys. Here
        the document counts as bad then, and the last good one stands in.
        """
        found = [path for path in self._paths if os.path.exists(path)]
        if len(found) == 1 and os.path.getsize(found[0]) > MOST_MERGED:
            return Snapshot(NAME, (self._only(found[0]),), self._paths)
        return Snapshot(NAME, (self._merged(),), self._paths)

    def _only(self, path: str) -> Document:
        """A file with nothing to be merged with: as it is."""
        try:
            return Document(NAME, None, origin=path, digest=self._reader.digest(path))
        except OSError as error:
            return Document(NAME, None, error=f"{path}: {files.reason(error)}")

    def _merged(self) -> Document:
        merged: dict[str, Any] = {}
        problem = ""
        for path in self._paths:
            try:
                merged.update(metadata.parse(files.read_regular(path, self._limits.bytes), self._limits))
            except FileNotFoundError:
                continue
            except OSError as error:
                problem = f"{path}: {files.reason(error)}"
            except metadata.MetadataError as error:
                problem = f"{path}: {error}"
        if problem:
            return Document(NAME, None, error=problem)
        if not merged:
            absent = f"{', '.join(self._paths)}: no such file, or nothing in it"
            return Document(NAME, None, error=absent, absent=True)
        return Document(NAME, metadata.dump(merged))


def build(options: Mapping[str, Any], limits: MetadataLimits) -> HeatLocal:
    return HeatLocal(options["path"], limits)
