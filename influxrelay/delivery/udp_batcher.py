"""Collects lines into batches, which are written as HTTP writes are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.line_collector import LineCollector, Submitter
from influxrelay.delivery.responses import is_not_ready


class LineBatcher:
    """Collects lines into writes.

    A batch is written when it has ``batch_lines`` lines or ``batch_bytes`` bytes, or when its first line has waited for
    ``interval`` seconds (InfluxDB's ``[[udp]]`` settings ``batch-size`` and ``batch-timeout``).

    :param on_lost: called with each batch that was not taken, but might have been at another time.
    :ivar dropped: lines that were not taken, by reason.
    """

    def __init__(
        self,
        target: Submitter,
        reactor: Any,
        destination: Destination,
        query: bytes,
        *,
        batch_lines: int,
        batch_bytes: int,
        interval: float,
        on_lost: Callable[[Write], None] = lambda _: None,
    ) -> None:
        self.lines_out = 0
        self.dropped: Counter[str] = Counter()
        self._target = target
        self._on_lost = on_lost
        self._collector = LineCollector(reactor, self._submit)
        self.reconfigure(destination, query, batch_lines=batch_lines, batch_bytes=batch_bytes, interval=interval)

    def reconfigure(
        self, destination: Destination, query: bytes, *, batch_lines: int, batch_bytes: int, interval: float
    ) -> None:
        """Change the settings for the next lines; those that wait are written as a batch."""
        self._collector.reconfigure(
            destination, query, batch_lines=batch_lines, batch_bytes=batch_bytes, interval=interval
        )
        self.name = self._target.name

    def send(self, lines: Sequence[bytes]) -> None:
        """Collect lines, and write what has become a batch."""
        self._collector.add(lines)

    def flush(self) -> None:
        """Write the lines that wait."""
        self._collector.flush()

    def _submit(self, write: Write, count: int) -> None:
        unwanted = self._target.lines_unwanted
        answered = self._target.submit(write)
        count -= self._target.lines_unwanted - unwanted
        answered.addCallbacks(self._answered, self._failed, callbackArgs=(count, write), errbackArgs=(count,))

    def _answered(self, reply: Reply, count: int, write: Write) -> None:
        if reply.status < 300:
            self.lines_out += count
            return
        self.dropped[str(reply.status)] += count
        if reply.status >= 500 or reply.held or is_not_ready(reply):
            self._on_lost(write)

    def _failed(self, failure: Failure, count: int) -> None:
        problem = failure.value
        self.dropped[problem.reason if isinstance(problem, BackendFailure) else "error"] += count
