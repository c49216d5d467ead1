"""Files that are looked at again and again: read only if they may have changed."""

import time
from collections.abc import Iterable

from refresh_agent import files
from refresh_agent.model import MetadataLimits

SETTLED = 2.0
"""Seconds. What was written to so shortly before it was read may be written to again within the same tick of
its file system's clock: how it looks from outside would not tell."""


class TooLargeError(OSError):
    """Larger than the limits allow."""


class Reader:
    """Tells the contents of files by their digests. What looks the same from outside is not read again."""

    def __init__(self, limits: MetadataLimits) -> None:
        self._limits = limits
        self._known: dict[str, tuple[files.Look, str]] = {}

    def digest(self, path: str) -> str:
        """sha256 of a regular file, in hex. Raises OSError, also if it is too large."""
        with files.open_regular(path) as file:
            look = files.look(file)
            before, digest = self._known.pop(path, (None, ""))
            if look != before:
                if look.size > self._limits.bytes:
                    raise TooLargeError(
                        f"is larger than [limits] metadata_bytes ({self._limits.bytes} bytes)"
                    )
                digest = files.digest(file)
            settled = time.time() - max(look.modified, look.changed) / 1e9 > SETTLED
            if settled and look == files.look(file):
                self._known[path] = (look, digest)
            return digest

    def keep(self, paths: Iterable[str]) -> None:
        """Forget all others: they will not be read again."""
        self._known = {path: self._known[path] for path in paths if path in self._known}
