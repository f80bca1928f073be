"""A token bucket, as ``rate-limit`` and ``burst-limit`` mean it."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """Admits ``rate`` writes a second in the long run, and ``burst`` of them at once.

    :param clock: returns seconds.
    :ivar limit: both.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self.limit = (rate, burst)
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled = clock()

    def take(self) -> float:
        """Return 0 if one more is admitted now, else the seconds until one will be."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate
