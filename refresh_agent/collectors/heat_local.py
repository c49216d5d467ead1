"""JSON files on the node (cloud-init and heat-cfntools write one), merged into one document.

os-collect-config: heat_local.py. Files that do not exist are passed over, the rest is merged key by key.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from refresh_agent import files, metadata
from refresh_agent.model import Document, MetadataLimits, Snapshot

NAME = "heat_local"


class HeatLocal:
    def __init__(self, paths: Sequence[str], limits: MetadataLimits) -> None:
        self._paths = tuple(paths)
        self._limits = limits

    def collect(self) -> Snapshot:
        """One document ``heat_local``.

        os-collect-config goes on without a file that is not JSON, and so runs hooks without its keys. Here
        the document counts as bad then, and the last good one stands in.
        """
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
        return Snapshot(NAME, (self._document(merged, problem),), self._paths)

    def _document(self, merged: dict[str, Any], problem: str) -> Document:
        if problem:
            return Document(NAME, None, error=problem)
        if not merged:
            absent = f"{', '.join(self._paths)}: no such file, or nothing in it"
            return Document(NAME, None, error=absent, absent=True)
        return Document(NAME, metadata.dump(merged))


def build(options: Mapping[str, Any], limits: MetadataLimits) -> HeatLocal:
    return HeatLocal(options["path"], limits)
