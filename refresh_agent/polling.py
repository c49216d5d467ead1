"""When to ask a source again: soon after a change, then ever more seldom. No timers, no randomness here."""

from typing import NamedTuple

JITTER = 0.2
"""The part of a wait that is left to chance, so that the nodes of a fleet never line up."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds: the longest for which a server can keep a node from asking again."""


class Polling(NamedTuple):
    """Times in seconds. ``current``: the longest that the next wait may be while nothing fails."""

    interval: float
    minimum: float
    longest: float
    current: float
    failures: int = 0
    retry_after: float = 0.0

    @classmethod
    def starting(cls, interval: float, minimum: float, longest: float) -> "Polling":
        """``longest``: of a wait after failures, if that is more than ``interval``."""
        return cls(interval, min(minimum, interval), max(longest, interval), min(minimum, interval))

    def changed(self) -> "Polling":
        """It gave something new, and where one thing changes another soon may."""
        return self._replace(current=self.minimum, failures=0, retry_after=0.0)

    def unchanged(self) -> "Polling":
        """It gave the same again. The wait before that doubles."""
        return self._replace(current=min(self.current * 2, self.interval), failures=0, retry_after=0.0)

    def failed(self, retry_after: float = 0.0) -> "Polling":
        """It could not be asked; ``retry_after``: seconds for which it wants to be left alone, 0 for none."""
        return self._replace(failures=self.failures + 1, retry_after=min(retry_after, LONGEST_RETRY_AFTER))

    def delay(self, fraction: float) -> float:
        """How long to wait now; ``fraction`` in [0, 1) is the caller's random number.

        Nearly the whole wait while all is well, else anything up to the doubling ceiling (full jitter), but
        never before the server wants it.
        """
        if not self.failures:
            return self.current * (1 - JITTER * fraction)
        # 2**64 waits are beyond any limit; it keeps the power a small number.
        ceiling = min(self.longest, self.minimum * 2.0 ** min(self.failures - 1, 64))
        return max(ceiling * fraction, self.retry_after * (1 + JITTER * fraction))
