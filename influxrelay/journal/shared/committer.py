"""Group commits to a shared log: what comes while one is under way becomes the next."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.histogram import LATENCIES, Histogram
from influxrelay.core.write import Destination, Write
from influxrelay.journal.interface import Receipt
from influxrelay.journal.records import Record
from influxrelay.journal.shared.frames import (
    HEADER,
    HEADER_BYTES,
    MAX_RECORDS,
    RECORD_BYTES,
    STRUCK_BYTES,
    Part,
    Struck,
    cut,
    encode,
    header_bytes,
    log_header,
    number_of,
    seq_of,
    strike_header,
)
from influxrelay.journal.shared.gathering import Gathering
from influxrelay.journal.shared.interface import Stream

MESSAGE = 512 * 1024  # bytes of the largest payload
RECENT = 8 * 1024 * 1024  # bytes of own messages that are remembered, in case that something in them is struck
TRY_AGAIN = 1.0  # seconds after a failure in which writes are refused at once
_PIECES_AT_ONCE = 8
_TOO_LONG = "the names of its destination and its credentials are too long for a shared journal"


class OwnBatch:
    """Writes of this relay that are published together.

    :ivar number: in their header, as this relay's own count.
    """

    __slots__ = ("_waiting", "number", "parts", "payload", "records")

    def __init__(self, number: int, waiting: Sequence[tuple[Record, Receipt]]) -> None:
        self.number = number
        self.records = [record for record, _ in waiting]
        self.payload, self.parts = encode(self.records)
        self._waiting = [receipt for _, receipt in waiting]

    @property
    def pieces(self) -> int:
        """In how many messages the payload is published."""
        return -(-len(self.payload) // MESSAGE)

    def stored(self, seq: int) -> None:
        """Tell everybody that the log has it, as the message with this sequence."""
        for number, record in enumerate(self.records, number_of(seq, 0)):
            record.seq = number
        for receipt in self._waiting:
            receipt.callback(None)

    def failed(self, failure: Failure) -> None:
        """Tell everybody that nobody knows whether the log has it."""
        for receipt in self._waiting:
            receipt.errback(failure)


class Committer:
    """Publishes this relay's writes, one message at a time, and what it strikes.

    One at a time: a message that has to be repeated would otherwise come behind later ones.

    :param origin: the relay's name in the group.
    :param on_stored: is told of the sequence of a message with writes, and of the writes.
    :param on_look: is told when :attr:`trouble` may have changed.
    :ivar trouble: why the last message was not stored; empty if it was.
    :ivar commits: the seconds that each message took, also those that failed.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        stream: Stream,
        origin: str,
        on_stored: Callable[[int, OwnBatch], object],
        on_look: Callable[[], object],
    ) -> None:
        self.trouble = ""
        self.commits = Histogram(LATENCIES)
        self._reactor = reactor
        self._stream = stream
        self._origin = origin
        self._on_stored = on_stored
        self._on_look = on_look
        self._waiting: deque[tuple[Record, Receipt]] = deque()
        self._holds: set[str] = set()
        self._under_way: OwnBatch | None = None
        self._gathering = Gathering()
        self._began = 0.0
        self._flushing: Any = None
        self._will_flush = False
        self._messages = 0  # that were made
        self._refuse_until = 0.0
        self._strikes: list[Struck] = []
        self._strikers: list[Deferred[None]] = []
        self._is_striking = False
        self._recent: OrderedDict[int, OwnBatch] = OrderedDict()
        self._recent_bytes = 0
        self._drainers: list[Deferred[None]] = []

    # -- writes

    def append(self, record: Record, receipt: Receipt) -> None:
        """Publish a write with the next message."""
        if self.trouble and self._reactor.seconds() < self._refuse_until:
            receipt.errback(Failure(JournalError(self.trouble)))
            return
        self._waiting.append((record, receipt))
        if self._under_way is None:
            if not self._will_flush:
                self._flush_soon()
            elif len(self._waiting) == self._gathering.expected and self._flushing is not None:
                self._flushing.reset(0.0)

    def _flush_soon(self) -> None:
        self._will_flush = True
        pause = self._gathering.pause(self._reactor.seconds(), len(self._waiting))
        self._flushing = self._reactor.callLater(pause, self._flush)

    def hold(self, why: str) -> None:
        """Publish no writes until :meth:`release`."""
        self._holds.add(why)

    def release(self, why: str) -> None:
        """Go on with what was held for this reason."""
        self._holds.discard(why)
        if self._waiting and self._under_way is None and not self._will_flush:
            self._flush_soon()

    def _flush(self) -> None:
        self._will_flush, self._flushing = False, None
        waiting = len(self._waiting)
        if self._under_way is None and not self._holds and (taken := self._take()):
            self._gathering.published(waiting, len(taken))
            self._messages += 1
            self._began = self._reactor.seconds()
            batch = self._under_way = OwnBatch(self._messages, taken)
            published = Deferred.fromCoroutine(self._publish(batch))
            published.addCallbacks(self._stored, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))
            published.addErrback(self._bug)

    def _take(self) -> list[tuple[Record, Receipt]]:
        """Return what goes into the next message: no more than fits, but one write at least."""
        taken: list[tuple[Record, Receipt]] = []
        waiting, left, header = self._waiting, MESSAGE, HEADER_BYTES
        destinations: set[Destination] = set()
        while waiting and len(taken) < MAX_RECORDS:
            write = waiting[0][0].write
            left -= len(write.body) + len(write.query) + RECORD_BYTES
            if write.destination not in destinations:
                destinations.add(write.destination)
                size = header_bytes(write.destination)
                if size > HEADER_BYTES:
                    waiting.popleft()[1].errback(Failure(JournalError(_TOO_LONG)))
                    continue
                header -= size
            if taken and (left < 0 or header < 0):
                break
            taken.append(waiting.popleft())
        return taken

    async def _publish(self, batch: OwnBatch) -> int:
        """Publish a payload, in pieces if need be; the last one when all others are stored."""
        *pieces, last = cut(batch.payload, MESSAGE)
        for first in range(0, len(pieces), _PIECES_AT_ONCE):
            some = enumerate(pieces[first : first + _PIECES_AT_ONCE], first)
            published = [self._publish_piece(batch, index, len(pieces) + 1, piece, ()) for index, piece in some]
            await gatherResults(published, consumeErrors=True).addErrback(first_of_all)
        return await self._publish_piece(batch, len(pieces), len(pieces) + 1, last, batch.parts)

    def _publish_piece(
        self, batch: OwnBatch, piece: int, pieces: int, payload: bytes, parts: Sequence[Part]
    ) -> Deferred[int]:
        header = log_header(self._origin, batch.number, piece, pieces, parts)
        msg_id = f"{self._origin}.{batch.number}.{piece}"
        return self._stream.publish(f"{self._stream.name}.log", payload, {HEADER: header}, msg_id=msg_id)

    def seen(self, number: int, seq: int) -> OwnBatch | None:
        """Take a message of ours from the log; return the writes, unless they were told that they have failed.

        It may be there although its acknowledgement was lost.
        """
        batch = self._under_way
        if batch is None or batch.number != number:
            return None
        self._done()
        self._remember(seq, batch)
        batch.stored(seq)
        return batch

    def _stored(self, seq: int, batch: OwnBatch) -> None:
        if batch is self._under_way:
            self._done()
            self._works()
            self._remember(seq, batch)
            batch.stored(seq)
            self._on_stored(seq, batch)

    def _failed(self, failure: Failure, batch: OwnBatch) -> None:
        if batch is not self._under_way:
            return
        self._done()
        batch.failed(failure)
        self.refuse(failure)

    def refuse(self, failure: Failure) -> None:
        """Fail what waits, and what comes in the next moment."""
        self._fails(failure)
        waiting, self._waiting = self._waiting, deque()
        for _, receipt in waiting:
            receipt.errback(failure)

    def _done(self) -> None:
        now = self._reactor.seconds()
        self.commits.observe(now - self._began)
        batch, self._under_way = self._under_way, None
        if batch is not None:
            self._gathering.stored(now, now - self._began, len(batch.records), len(self._waiting))
        if self._waiting and not self._will_flush:
            self._flush_soon()
        self._look_drained()

    # -- strikes

    def _remember(self, seq: int, batch: OwnBatch) -> None:
        self._recent[seq] = batch
        self._recent_bytes += len(batch.payload)
        while self._recent_bytes > RECENT and len(self._recent) > 1:
            self._recent_bytes -= len(self._recent.popitem(last=False)[1].payload)

    def recent(self, number: int) -> Write | None:
        """Return an own write of late."""
        batch = self._recent.get(seq_of(number))
        index = number & 0xFFFF
        return batch.records[index].write if batch is not None and index < len(batch.records) else None

    def strike(self, struck: Struck) -> Deferred[None]:
        """Publish that a write is struck; fires when a quorum knows. After a failure it is tried again and again."""
        done: Deferred[None] = Deferred()
        self._strikes.append(struck)
        self._strikers.append(done)
        if not self._is_striking:
            self._is_striking = True
            self._reactor.callLater(0.0, self._publish_strikes)
        return done

    def _publish_strikes(self) -> None:
        sizes = accumulate(STRUCK_BYTES + header_bytes(each.destination) for each in self._strikes)
        count = max(1, sum(size <= HEADER_BYTES for size in sizes))
        strikes, self._strikes = self._strikes[:count], self._strikes[count:]
        strikers, self._strikers = self._strikers[:count], self._strikers[count:]
        published = self._publish_strike(strikes)
        published.addCallbacks(
            self._struck, self._not_struck, callbackArgs=(strikers,), errbackArgs=(strikes, strikers)
        )
        published.addErrback(self._bug)

    def _publish_strike(self, strikes: Sequence[Struck]) -> Deferred[int]:
        self._messages += 1
        header = strike_header(self._origin, self._messages, strikes)
        msg_id = f"{self._origin}.{self._messages}.0"
        return self._stream.publish(f"{self._stream.name}.strike", b"", {HEADER: header}, msg_id=msg_id)

    def _struck(self, _: int, strikers: list[Deferred[None]]) -> None:
        self._works()
        self._strike_on()
        for each in strikers:
            each.callback(None)

    def _not_struck(self, failure: Failure, strikes: list[Struck], strikers: list[Deferred[None]]) -> None:
        self._fails(failure)
        self._strikes = strikes + self._strikes
        waiting, self._strikers = strikers + self._strikers, []
        self._reactor.callLater(TRY_AGAIN, self._strike_on)
        for each in waiting:
            each.errback(failure)

    def _strike_on(self) -> None:
        self._is_striking = bool(self._strikes)
        if self._is_striking:
            self._publish_strikes()
        self._look_drained()

    # -- trouble

    def probe(self) -> Deferred[None]:
        """Find out whether something can be stored; :attr:`trouble` tells afterwards. Never fails."""
        if not self.trouble or self._under_way is not None or self._is_striking:
            return succeed(None)
        self._is_striking = True
        published = self._publish_strike(())
        published.addCallbacks(lambda _: self._works(), self._fails)
        return published.addCallback(lambda _: self._strike_on())

    def _works(self) -> None:
        if self.trouble:
            self.trouble = ""
            self._on_look()

    def _fails(self, failure: Failure) -> None:
        if not failure.check(JournalError):
            self._bug(failure)
        self.trouble = str(failure.value) or "it does not answer"
        self._refuse_until = self._reactor.seconds() + TRY_AGAIN
        self._on_look()

    def _bug(self, failure: Failure) -> None:
        self._log.failure("a shared journal", failure)

    # -- the end

    def drained(self) -> Deferred[None]:
        """Fire when nothing waits any more."""
        done: Deferred[None] = Deferred()
        self._drainers.append(done)
        self._look_drained()
        return done

    def give_up(self, problem: JournalError) -> None:
        """Fail what waits."""
        failure = Failure(problem)
        if self._under_way is not None:
            self._failed(failure, self._under_way)
        strikers, self._strikers, self._strikes = self._strikers, [], []
        for each in strikers:
            each.errback(failure)

    def _look_drained(self) -> None:
        if self._drainers and self._under_way is None and not self._waiting and not self._is_striking:
            drainers, self._drainers = self._drainers, []
            for each in drainers:
                each.callback(None)


def first_of_all(failure: Failure) -> Failure:
    """Return what has failed, where several were waited for."""
    return failure.value.subFailure if isinstance(failure.value, FirstError) else failure
