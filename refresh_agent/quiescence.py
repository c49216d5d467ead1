"""Settling: wait until changes have stopped for a while, but never longer than a limit. No timers here."""

from typing import NamedTuple


class Quiescence(NamedTuple):
    """Times in seconds of one clock. ``first`` and ``last``: the changes that have not been acted on."""

    quiet: float
    max_wait: float
    first: float | None = None
    last: float | None = None

    def touched(self, now: float) -> "Quiescence":
        """A change was seen at ``now``."""
        return self._replace(first=now if self.first is None else self.first, last=now)

    def settled(self) -> "Quiescence":
        """The changes seen so far are being acted on."""
        return self._replace(first=None, last=None)

    def due_at(self) -> float | None:
        """When to act, if nothing more comes; None while there is nothing to act on."""
        if self.first is None or self.last is None:
            return None
        return min(self.last + self.quiet, self.first + self.max_wait)

    def due(self, now: float) -> bool:
        due_at = self.due_at()
        return due_at is not None and now >= due_at
