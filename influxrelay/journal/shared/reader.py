"""Reads what is in a shared log, from memory if it was there a moment ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred

from influxrelay.core.write import Destination
from influxrelay.journal.records import Record
from influxrelay.journal.shared.frames import Batch, Destinations, end_of
from influxrelay.journal.shared.index import Index
from influxrelay.journal.shared.interface import Stream
from influxrelay.journal.shared.lane import Span

CACHE = 16 * 1024 * 1024  # bytes of messages
MESSAGES_AT_ONCE = 256


class Reader:
    """Reads writes by destination.

    :param on_gone: counts what the log has dropped; fires with the first message that it has.
    :param on_damaged: is told of a message that cannot be read, or is missing among others; once.
    """

    def __init__(
        self,
        stream: Stream,
        index: Index,
        destinations: Destinations,
        on_gone: Callable[[], Deferred[int]],
        on_damaged: Callable[[int, ValueError], object],
    ) -> None:
        self._stream = stream
        self._index = index
        self._destinations = destinations
        self._on_gone = on_gone
        self._on_damaged = on_damaged
        self._payloads: OrderedDict[int, bytes] = OrderedDict()
        self._batches: OrderedDict[int, Batch] = OrderedDict()
        self._bytes = 0
        self._damaged: set[int] = set()

    # -- the cache

    def keep(self, seq: int, payload: bytes) -> None:
        """Keep a message, or a piece of one, for a while."""
        if seq not in self._payloads:
            self._payloads[seq] = payload
            self._bytes += len(payload)
            while self._bytes > CACHE and len(self._payloads) > 1:
                oldest, gone = self._payloads.popitem(last=False)
                self._bytes -= len(gone)
                self._batches.pop(oldest, None)

    def cached(self, seq: int) -> Batch | None:
        """Return the writes of a message that is in memory; None if it is not, or cannot be read."""
        batch = self._batches.get(seq)
        if batch is None and seq not in self._damaged:
            payloads = [self._payloads.get(each) for each in self._index.messages_of(seq)]
            if None not in payloads:
                batch = self._make(seq, b"".join(filter(None, payloads)))
        return batch

    def _make(self, seq: int, payload: bytes) -> Batch | None:
        try:
            batch = Batch(seq, payload, self._destinations)
        except ValueError as error:
            self._damaged.add(seq)
            self._on_damaged(seq, error)
            return None
        if seq in self._payloads:
            self._batches[seq] = batch
        return batch

    def forget(self, upto: int) -> None:
        """Forget what nobody needs any more."""
        self._damaged = {each for each in self._damaged if each > upto}

    # -- reading

    async def batches(self, seqs: Sequence[int]) -> dict[int, Batch]:
        """Return the writes of messages; those that are gone or damaged are left out."""
        found = {seq: batch for seq in seqs if (batch := self.cached(seq)) is not None}
        pieces = {seq: self._index.messages_of(seq) for seq in seqs if seq not in found and seq not in self._damaged}
        payloads: dict[int, bytes | None] = {
            each: self._payloads.get(each) for group in pieces.values() for each in group
        }
        wanted = [each for each, payload in payloads.items() if payload is None]
        for message in await self._stream.get(wanted) if wanted else ():
            payloads[message.seq] = message.payload
            self.keep(message.seq, message.payload)
        gone: list[int] = []
        for seq, group in pieces.items():
            parts = [payload for each in group if (payload := payloads[each]) is not None]
            if len(parts) < len(group):
                gone.append(seq)
            elif (batch := self._make(seq, b"".join(parts))) is not None:
                found[seq] = batch
        if gone:
            first_seq = await self._on_gone()
            for seq in gone:
                if seq >= first_seq and seq not in self._damaged:
                    self._damaged.add(seq)
                    self._on_damaged(seq, ValueError("it is missing"))
        return found

    async def read(self, destination: Destination, after: int, max_bytes: int) -> tuple[list[Record], int]:
        """Read the next writes of a destination, and say up to which number they are all."""
        head = self._index.head
        spans, is_all = self._choose(self._index.after(destination, after), max_bytes)
        seqs = [seq for each in spans for seq in each.seqs if end_of(seq) > after]
        batches = await self.batches(seqs)
        records: list[Record] = []
        left = max_bytes
        for seq in seqs:
            batch = batches.get(seq)
            for record in batch.records_of(destination, after) if batch is not None else ():
                if self._index.is_struck(record.seq):
                    continue
                if left <= 0:
                    return records, records[-1].seq
                records.append(record)
                left -= len(record.write.body)
        return records, head if is_all else end_of(spans[-1].seqs[-1])

    def _choose(self, spans: Iterable[Span], max_bytes: int) -> tuple[list[Span], bool]:
        """Return where the next so many bytes are, and whether these are all."""
        chosen: list[Span] = []
        size = messages = 0
        for span in spans:
            if chosen and (size >= max_bytes or messages >= MESSAGES_AT_ONCE):
                return chosen, False
            chosen.append(span)
            size += span.size
            messages += sum(len(self._index.messages_of(seq)) for seq in span.seqs)
        return chosen, True
