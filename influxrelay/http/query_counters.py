"""What is counted of queries."""

from __future__ import annotations

from collections import Counter

from influxrelay.core.histogram import LATENCIES, Histogram

OUTCOMES = ("answered", "unanswered", "cut", "left")


class QueryCounters:
    """What became of the queries that one backend was asked.

    The outcomes: ``answered`` in full, whatever the answer says; ``unanswered``, so that another backend could be
    asked; ``cut`` off behind the first byte, and so the client's connection too; ``left`` by the client.

    :ivar outcomes: how often.
    :ivar bytes: of the bodies of responses that reached clients.
    :ivar first_byte: seconds to the first byte of the body.
    :ivar durations: seconds to the end, by outcome.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.bytes = 0
        self.first_byte = Histogram(LATENCIES)
        self.durations = {outcome: Histogram(LATENCIES) for outcome in OUTCOMES}

    def ended(self, outcome: str, seconds: float) -> None:
        """Count what has become of a query, and how long it took."""
        self.outcomes[outcome] += 1
        self.durations[outcome].observe(seconds)
