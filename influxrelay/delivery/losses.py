"""What a backend will not get, although a client was told that it is taken."""

from __future__ import annotations

from influxrelay.journal.records import Drop


class Losses:
    """Counts lost writes by reason, with the time range in which they were accepted."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int, float, float]] = {}

    def count(self, reason: str, when: float, size: int) -> None:
        """Count a write of this size, accepted at this time in seconds since the epoch."""
        writes, total, first, last = self._counts.get(reason, (0, 0, when, when))
        self._counts[reason] = (writes + 1, total + size, min(first, when), max(last, when))

    def drops(self, backend: str) -> list[Drop]:
        """Return what was counted for the backend of this name."""
        return [Drop(backend, reason, *counts) for reason, counts in self._counts.items()]

    def clear(self) -> None:
        """Count from zero."""
        self._counts.clear()
