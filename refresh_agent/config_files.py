"""The files that a caller names in OS_CONFIG_FILES: what in them must not be shown."""

import contextlib
from collections.abc import Iterator

from refresh_agent import files, metadata
from refresh_agent.model import MetadataLimits
from refresh_agent.redact import secrets_in


def secrets_of(path: str, limits: MetadataLimits) -> Iterator[str]:
    """None if hooks cannot read it either, or if it is not metadata."""
    with contextlib.suppress(OSError, metadata.MetadataError):
        yield from secrets_in(metadata.parse(files.read_regular(path, limits.bytes), limits))
