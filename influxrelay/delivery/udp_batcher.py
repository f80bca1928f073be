"""Lines out in batches, as writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.responses import is_not_ready


class Submitter(Protocol):
    """A relay."""

    name: str
    lines_unwanted: int

    def submit(self, write: Write) -> Deferred[Reply]:
        """Take a batch."""


class LineBatcher:
    """Collects lines into writes for one road.

    A batch is sent when it has ``batch_lines`` lines or ``batch_bytes`` bytes, or when its first line has waited for
    ``interval`` seconds (InfluxDB's ``[[udp]]`` settings ``batch-size`` and ``batch-timeout``).

    :ivar dropped: lines that the backend did not take, by reason.
    :ivar on_lost: is told a batch that the backend did not take, and may have taken at another time.
    """

    def __init__(
        self,
        road: Submitter,
        reactor: Any,
        destination: Destination,
        query: bytes,
        *,
        batch_lines: int,
        batch_bytes: int,
        interval: float,
    ) -> None:
        self.road = road
        self.lines_out = 0
        self.dropped: Counter[str] = Counter()
        self.on_lost: Callable[[Write], None] = lambda write: None  # noqa: ARG005
        self._reactor = reactor
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: IDelayedCall | None = None
        self.reconfigure(destination, query, batch_lines=batch_lines, batch_bytes=batch_bytes, interval=interval)

    def reconfigure(
        self, destination: Destination, query: bytes, *, batch_lines: int, batch_bytes: int, interval: float
    ) -> None:
        """Let other settings hold for the next line; what was collected is sent."""
        self.flush()
        self.name = self.road.name
        self._destination = destination
        self._query = query
        self._batch_lines = batch_lines
        self._batch_bytes = batch_bytes
        self._interval = interval

    def send(self, lines: Sequence[bytes]) -> None:
        """Take lines."""
        for line in lines:
            self._lines.append(line)
            self._size += len(line) + 1
            if len(self._lines) >= self._batch_lines or self._size >= self._batch_bytes:
                self.flush()
        if self._lines and self._timer is None:
            self._timer = self._reactor.callLater(self._interval, self._flush_late)

    def _flush_late(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Send what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        lines, self._lines, self._size = self._lines, [], 0
        write = Write(self._destination, self._query, b"", b"\n".join(lines) + b"\n")
        count, unwanted = len(lines), self.road.lines_unwanted
        answered = self.road.submit(write)
        count -= self.road.lines_unwanted - unwanted
        answered.addCallbacks(self._answered, self._failed, callbackArgs=(count, write), errbackArgs=(count,))

    def _answered(self, reply: Reply, count: int, write: Write) -> None:
        if reply.status < 300:
            self.lines_out += count
            return
        self.dropped[str(reply.status)] += count
        if reply.status >= 500 or is_not_ready(reply):
            self.on_lost(write)

    def _failed(self, failure: Failure, count: int) -> None:
        problem = failure.value
        self.dropped[problem.reason if isinstance(problem, BackendFailure) else "error"] += count
