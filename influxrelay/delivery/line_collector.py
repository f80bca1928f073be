"""Lines collected into writes, for listeners whose clients send lines one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from influxrelay.core.write import Destination, Reply, Write


class Submitter(Protocol):
    """A fan-out, to one backend or several.

    :ivar lines_unwanted: how many lines no backend has taken because of filters.
    """

    name: str
    lines_unwanted: int

    def submit(self, write: Write) -> Deferred[Reply]:
        """Write a batch."""


class LineCollector:
    """Collects lines until there are enough for a batch, or the first of them has waited for long enough.

    These are InfluxDB's settings ``batch-size`` and ``batch-timeout``, and a bound in bytes.

    :param on_batch: called with each batch as a write, and its number of lines.
    """

    def __init__(self, reactor: Any, on_batch: Callable[[Write, int], None]) -> None:
        self._reactor = reactor
        self._on_batch = on_batch
        self._lines: list[bytes] = []
        self._size = 0
        self._due: IDelayedCall | None = None

    def reconfigure(
        self, destination: Destination, query: bytes, *, batch_lines: int, batch_bytes: int, interval: float
    ) -> None:
        """Change the settings for the next lines; those that wait become a batch.

        :param interval: seconds that the first line of a batch waits at most.
        """
        self.flush()
        self._destination = destination
        self._query = query
        self._batch_lines = batch_lines
        self._batch_bytes = batch_bytes
        self._interval = interval

    def add(self, lines: Sequence[bytes]) -> None:
        """Collect lines, and pass on what has become a batch."""
        for line in lines:
            self._lines.append(line)
            self._size += len(line) + 1
            if len(self._lines) >= self._batch_lines or self._size >= self._batch_bytes:
                self.flush()
        if self._lines and self._due is None:
            self._due = self._reactor.callLater(self._interval, self.flush)

    def flush(self) -> None:
        """Make a batch of the lines that wait."""
        due, self._due = self._due, None
        if due is not None and due.active():
            due.cancel()
        if self._lines:
            lines, self._lines, self._size = self._lines, [], 0
            self._on_batch(Write(self._destination, self._query, b"", b"\n".join(lines) + b"\n"), len(lines))
