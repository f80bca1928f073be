"""Collects lines into batches, and gives none up that a backend may take later."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.log_throttle import Throttle
from influxrelay.core.text import times
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.line_collector import LineCollector, Submitter
from influxrelay.delivery.responses import Verdict, excerpt, judge

FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0  # seconds between two tries; each pause is twice the one before


class PatientBatcher:
    """Writes one batch after the other, each until a backend or a queue takes it, or a backend refuses it.

    A batch is written when it has ``batch_lines`` lines or ``batch_bytes`` bytes, or when its first line has waited for
    ``interval`` seconds. While nobody takes lines, whoever sends them is to be stopped: see :attr:`has_room`.

    :param on_room: called when there is room again.
    :ivar lines_out: lines that were taken.
    :ivar dropped: lines that were not, by reason.
    """

    _log = Logger()

    def __init__(
        self,
        target: Submitter,
        reactor: IReactorTime,
        destination: Destination,
        query: bytes,
        *,
        batch_lines: int,
        batch_bytes: int,
        interval: float,
        on_room: Callable[[], object],
    ) -> None:
        self.lines_out = 0
        self.dropped: Counter[str] = Counter()
        self._target = target
        self._reactor = reactor
        self._on_room = on_room
        self._collector = LineCollector(reactor, self._add)
        self._ready: deque[tuple[Write, int]] = deque()
        self._is_writing = self._is_closed = False
        self._retry_count = 0
        self._pause = FIRST_PAUSE
        self._retry: IDelayedCall | None = None
        self._waiters: list[Deferred[None]] = []
        self._trouble = Throttle(reactor)
        self.reconfigure(destination, query, batch_lines=batch_lines, batch_bytes=batch_bytes, interval=interval)

    def reconfigure(
        self, destination: Destination, query: bytes, *, batch_lines: int, batch_bytes: int, interval: float
    ) -> None:
        """Change the settings for the next lines; those that wait become a batch."""
        self._collector.reconfigure(
            destination, query, batch_lines=batch_lines, batch_bytes=batch_bytes, interval=interval
        )

    @property
    def name(self) -> str:
        """The listener's."""
        return self._target.name

    @property
    def has_room(self) -> bool:
        """Whether more lines are wanted: not as long as a whole batch waits for the one before it."""
        return not self._ready

    def send(self, lines: Sequence[bytes]) -> None:
        """Collect lines, whether there is room or not."""
        self._collector.add(lines)

    def flush(self) -> None:
        """Make a batch of the lines that were collected."""
        self._collector.flush()

    def _add(self, write: Write, count: int) -> None:
        self._ready.append((write, count))
        self._go_on()

    def _go_on(self) -> None:
        """Write the next batch, if none is under way."""
        while self._ready and not self._is_writing and not self._is_closed:
            self._is_writing = True
            self._submit(*self._ready.popleft())
        if not self._ready and not self._is_writing:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)

    def _submit(self, write: Write, count: int) -> None:
        self._retry = None
        unwanted = self._target.lines_unwanted
        answered = self._target.submit(write)
        wanted = count - (self._target.lines_unwanted - unwanted)
        answered.addCallbacks(self._answered, self._failed, callbackArgs=(write, count, wanted), errbackArgs=(wanted,))

    def _answered(self, reply: Reply, write: Write, count: int, wanted: int) -> None:
        if reply.status < 300:
            self.lines_out += wanted
        elif judge(reply) is Verdict.REFUSED:
            self.dropped[str(reply.status)] += wanted
        else:
            self._wait(reply, write, count)
            return
        self._done()

    def _failed(self, failure: Failure, count: int) -> None:
        self._log.failure("{relay}: unexpected error in a batch", failure, relay=self.name)
        self.dropped["error"] += count
        self._done()

    def _done(self) -> None:
        self._pause = FIRST_PAUSE
        self._is_writing = False
        self._go_on()
        if self.has_room and not self._is_closed:
            self._on_room()

    def _wait(self, reply: Reply, write: Write, count: int) -> None:
        """Try the same batch again in a while."""
        if self._is_closed:
            self.dropped["stopped"] += count
            return
        waits = self._trouble.admit()
        if waits:
            self._log.warn(
                "{relay}: no backend or queue accepts lines, {times}, last response: {reason}; senders wait",
                relay=self.name,
                times=times(waits),
                reason=excerpt(reply),
            )
        self._retry = self._reactor.callLater(self._pause, self._submit, write, count)
        self._retry_count = count
        self._pause = min(LAST_PAUSE, 2 * self._pause)

    def drained(self) -> Deferred[None]:
        """Fire when everything that was collected has been taken or refused."""
        self.flush()
        drained: Deferred[None] = Deferred()
        self._waiters.append(drained)
        self._go_on()
        return drained

    def close(self) -> None:
        """Take no more, and count what waits as lost."""
        self._is_closed = True
        self.flush()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
            self.dropped["stopped"] += self._retry_count
        while self._ready:
            self.dropped["stopped"] += self._ready.popleft()[1]
