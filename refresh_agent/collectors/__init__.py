"""Where metadata comes from: one file per kind of source, behind one small interface.

A collector is found by its name in the entry point group ``refresh_agent.collectors``. The entry point is a
function that takes the collector's options (a mapping of its configuration group) and returns a Collector.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from refresh_agent.errors import ConfigError
from refresh_agent.model import CollectorSettings, MetadataLimits, Snapshot

GROUP = "refresh_agent.collectors"

BUILT_IN = (
    "os_collect_config",
    "heat_local",
    "local",
    "ec2",
    "config_drive",
    "cfn",
    "heat",
    "request",
    "zaqar",
)
"""Also found through the entry points; looked up here first, since reading those costs 10 ms."""


class Collector(Protocol):
    """One source. ``collect`` reports what is wrong with the data in the Snapshot and does not raise."""

    def collect(self) -> Snapshot: ...


class Polled:
    """What a collector derives from whose source has to be asked: it gets a thread of its own.

    ``collect``, ``stored`` and ``close`` are never called at the same time, but from different threads.
    """

    every = 0.0
    """Seconds: the least between two polls, for what hardly ever changes."""

    def collect(self) -> Snapshot:
        raise NotImplementedError

    def stored(self) -> None:
        """What the last ``collect`` gave is durable now: a queue may forget it."""

    def forget(self) -> None:
        """What it gave before is lost: it is not to say that nothing changed, but to give it anew."""

    def fileno(self) -> int:
        """A descriptor that is readable when there is something to collect before the next poll; or -1."""
        return -1

    def close(self) -> None:
        """Nothing will be collected any more: let go of connections."""


Factory = Callable[[Mapping[str, Any], MetadataLimits], Collector]


def build(settings: CollectorSettings, limits: MetadataLimits) -> Collector:
    """The collector of that name. Raises ConfigError if there is none."""
    factory: Factory = _factory(settings.name)
    return factory(settings.options, limits)


def known() -> tuple[str, ...]:
    """All names that ``collectors`` may hold."""
    return tuple(sorted({*BUILT_IN, *(point.name for point in _entry_points())}))


def _factory(name: str) -> Any:
    if name in BUILT_IN:
        return importlib.import_module(f"{__name__}.{name}").build
    for point in _entry_points():
        if point.name == name:
            try:
                return point.load()
            except (ImportError, AttributeError) as error:
                raise ConfigError(f"[DEFAULT] collectors: {name} cannot be loaded: {error}") from error
    raise ConfigError(
        f"[DEFAULT] collectors: there is no collector {name!r}; there are: {', '.join(known())}"
    )


def _entry_points() -> Any:
    # Imported here: it costs 10 ms, and only a third party's collector needs it.
    from importlib.metadata import entry_points  # noqa: PLC0415

    return entry_points(group=GROUP)
