"""How long to wait after a failure: doubling with full jitter. No timers, no randomness of its own."""

from typing import NamedTuple


class Backoff(NamedTuple):
    """Times in seconds of one clock. ``not_before`` is None while nothing is to be retried."""

    initial: float
    maximum: float
    not_before: float | None = None

    def ceiling(self, failures: int) -> float:
        """The longest that the delay after this many failures in a row may be."""
        # 2**64 initial delays are beyond any maximum; the limit keeps the power a small number.
        return min(self.maximum, self.initial * 2.0 ** min(max(failures, 1) - 1, 64))

    def failed(self, now: float, failures: int, fraction: float) -> "Backoff":
        """Failed ``failures`` times in a row now; ``fraction`` in [0, 1) is the caller's random number."""
        return self._replace(not_before=now + fraction * self.ceiling(failures))

    def cleared(self) -> "Backoff":
        return self._replace(not_before=None)

    def due(self, now: float) -> bool:
        return self.not_before is not None and now >= self.not_before
