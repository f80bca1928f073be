"""The end of a shared log: what comes is put into the index, and handed out in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.journal.records import Record
from influxrelay.journal.shared.committer import Committer, OwnBatch
from influxrelay.journal.shared.frames import HEADER, Batch, Destinations, LogHead, StrikeHead, read_header, seq_of
from influxrelay.journal.shared.index import Index
from influxrelay.journal.shared.interface import GAP, Message, Stream, Watch
from influxrelay.journal.shared.reader import Reader

REREAD = 1.0  # seconds until what could not be read is tried again

HandOut = Callable[[LogHead, int, Sequence[Record]], object]
"""Takes what was in a message, with its sequence; no records if nobody wants them."""


class Tail:
    """Follows the log.

    Own messages are taken as soon as they are acknowledged, if all before them are known; else when they come.

    :param origin: the own name in the group.
    :param wants_records: whether what is written is to be handed out.
    :param hand_out: takes each message with writes.
    :param missed: is told of the first and the last of some messages that are not in the log.
    :param struck: takes the numbers of what is struck.
    :ivar unreadable: how many messages made no sense.
    """

    _log = Logger()

    def __init__(
        self,
        stream: Stream,
        origin: str,
        index: Index,
        reader: Reader,
        destinations: Destinations,
        *,
        wants_records: Callable[[], bool],
        hand_out: HandOut,
        missed: Callable[[int, int], object],
        struck: Callable[[Sequence[int]], object],
        reactor: Any,
        now: Callable[[], float],
    ) -> None:
        self.committer: Committer
        self.unreadable = 0
        self._stream = stream
        self._origin = origin
        self._index = index
        self._reader = reader
        self._destinations = destinations
        self._wants_records = wants_records
        self._hand_out = hand_out
        self._missed = missed
        self._struck = struck
        self._reactor = reactor
        self._now = now
        self._own: dict[int, OwnBatch] = {}  # what is in the log, and has not come from there
        self._queue: deque[Message] = deque()
        self._is_busy = False  # with a message whose pieces are read
        self._waiters: list[tuple[int, Deferred[None]]] = []
        self._watch: Watch | None = None

    # -- the beginning and the end

    async def open(self, after: int) -> None:
        """Make an index of all that is behind a sequence, and follow the log from there on."""
        self._index.skip(after)
        watch = self._stream.follow(after, self._take, headers_only=True)
        await watch.in_sync
        watch.stop()
        self._watch = self._stream.follow(self.head, self._came)
        self._look()

    def close(self) -> None:
        """Take nothing any more."""
        if self._watch is not None:
            self._watch.stop()
        self._queue.clear()

    @property
    def head(self) -> int:
        """The last message that was taken."""
        return seq_of(self._index.head)

    def begin(self) -> Deferred[int]:
        """Return the last message that the log has no more."""
        return self._stream.state().addCallback(lambda state: state.first_seq - 1)

    def end(self) -> Deferred[int]:
        """Return the last message of the log."""
        return self._stream.state().addCallback(lambda state: state.last_seq)

    def catch_up(self) -> Deferred[int]:
        """Fire when all that is in the log now was handed out, with the first message in it."""
        return Deferred.fromCoroutine(self._catch_up())

    async def _catch_up(self) -> int:
        state = await self._stream.state()
        if not state.messages and state.last_seq - self.head >= GAP // 2:  # it was made anew, and nothing has come yet
            self._missed(self.head + 1, state.last_seq)
            self._index.skip(state.last_seq)
        await self.reached(state.last_seq)
        return state.first_seq

    def reached(self, seq: int) -> Deferred[None]:
        """Fire when all messages up to this one were taken."""
        if self.head >= seq and not self._is_busy:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiters.append((seq, done))
        return done

    # -- messages

    def stored(self, seq: int, batch: OwnBatch) -> None:
        """Take an own message that was acknowledged."""
        if seq <= self.head:
            return
        self._own[seq] = batch
        if seq == self.head + 1 and batch.pieces == 1 and not self._is_busy and not self._queue:
            head = LogHead(self._origin, batch.number, 0, 1, tuple(batch.parts))
            self._add(seq, self._now(), head, batch.payload)
            self._look()

    def _came(self, message: Message) -> None:
        self._queue.append(message)
        if not self._is_busy:
            self._go_on()

    def _go_on(self) -> None:
        while self._queue and not self._is_busy:
            self._take(self._queue.popleft())
        self._look()

    def _look(self) -> None:
        head = self.head
        if self._waiters and not self._is_busy:
            waiting, self._waiters = self._waiters, []
            for seq, done in waiting:
                if seq <= head:
                    done.callback(None)
                else:
                    self._waiters.append((seq, done))

    def _take(self, message: Message) -> None:
        if message.seq <= self.head:
            return
        if message.seq > self.head + 1 and self._watch is not None:
            self._missed(self.head + 1, message.seq - 1)
        try:
            head = read_header(message.headers.get(HEADER, ""), self._destinations)
        except ValueError as error:
            self.unreadable += 1
            self._log.error("{stream}: message {seq}: {error}", stream=self._stream.name, seq=message.seq, error=error)
            self._index.skip(message.seq)
            if self._watch is not None:
                self._missed(message.seq, message.seq)
            return
        if isinstance(head, StrikeHead):
            self._index.skip(message.seq)
            new = self._index.strike(head.struck)
            if new:
                self._struck(new)
        else:
            self._add(message.seq, message.time, head, message.payload)

    def _add(self, seq: int, when: float, head: LogHead, payload: bytes) -> None:
        wants = self._wants_records()
        if wants:
            self._reader.keep(seq, payload)
        if not self._index.gather(seq, when, head):
            self._index.skip(seq)
            return
        batch = self._own.pop(seq, None)
        if batch is None and head.origin == self._origin:
            batch = self.committer.seen(head.batch, seq)
        if batch is not None:
            self._give(seq, head, batch.records)
        elif not wants:
            self._give(seq, head, ())
        elif (found := self._reader.cached(seq)) is not None:
            self._give(seq, head, found.records())
        else:
            self._is_busy = True
            self._read(seq, head)

    def _give(self, seq: int, head: LogHead, records: Sequence[Record]) -> None:
        self._index.add(seq, head.parts)
        self._hand_out(head, seq, records)

    def _read(self, seq: int, head: LogHead) -> None:
        """Read the pieces of a message that are not in memory; nothing else is handed out meanwhile."""
        read = Deferred.fromCoroutine(self._reader.batches([seq]))
        read.addCallbacks(self._was_read, self._not_read, callbackArgs=(seq, head), errbackArgs=(seq, head))
        read.addErrback(self._bug)

    def _was_read(self, batches: Mapping[int, Batch], seq: int, head: LogHead) -> None:
        self._is_busy = False
        self._give(seq, head, [each for batch in batches.values() for each in batch.records()])
        self._go_on()

    def _not_read(self, failure: Failure, seq: int, head: LogHead) -> None:
        if not failure.check(JournalError):
            self._bug(failure)
        self._reactor.callLater(REREAD, self._read, seq, head)

    def _bug(self, failure: Failure) -> None:
        self._log.failure("{stream}", failure, stream=self._stream.name)
