"""How much waits for a backend."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from influxrelay.core.write import Destination
from influxrelay.journal.shared.frames import Batch, seq_of
from influxrelay.journal.shared.index import Index
from influxrelay.journal.shared.lane import Span, Total
from influxrelay.journal.shared.reader import Reader


class Counter:
    """Counts what is behind some positions; exactly, if what is passed in part can be read."""

    def __init__(self, index: Index, reader: Reader) -> None:
        self._index = index
        self._reader = reader

    async def waiting(self, positions: Mapping[Destination, int]) -> Total:
        """Count everything behind these positions."""
        partial = {
            seq for where, passed in positions.items() for seq in self._partial(where, passed) if seq >= seq_of(passed)
        }
        batches = await self._reader.batches(sorted(partial))
        return self.known(positions, seq_of(self._index.head), batches)

    def known(
        self, positions: Mapping[Destination, int], upto: int, batches: Mapping[int, Batch] | None = None
    ) -> Total:
        """Count what is behind these positions, up to a message; about, if a part of one is not in memory.

        :param batches: where to look for it; else what was read of late.
        """
        total = Total()
        for where, passed in positions.items():
            lane = self._index.lanes.get(where)
            if lane is None:
                continue
            begin = seq_of(passed)
            span = next(lane.after(passed), None)
            if span is None or not span.is_within(passed):
                begin -= not lane.is_through(passed)
            elif batches is not None:
                for seq in span.seqs[bisect_left(span.seqs, begin) :]:
                    total = total.plus(self._in_message(batches.get(seq), where, passed))
                begin = span.seqs[-1]
            elif len(span.seqs) == 1 and span.seqs[0] <= upto:
                batch = self._reader.cached(begin)
                part = _share(span, passed) if batch is None else self._in_message(batch, where, passed)
                total = total.plus(part)
            total = total.plus(lane.total(begin, upto))
        return total

    def _partial(self, destination: Destination, passed: int) -> Sequence[int]:
        """Return the messages of which it is to be found out how much is passed."""
        span = next(self._index.after(destination, passed), None)
        return span.seqs if span is not None and span.is_within(passed) else ()

    def _in_message(self, batch: Batch | None, destination: Destination, passed: int) -> Total:
        return total_of(
            (each.time, len(each.write.body))
            for each in (batch.records_of(destination, passed) if batch is not None else ())
            if not self._index.is_struck(each.seq)
        )


def _share(span: Span, passed: int) -> Total:
    """Return about what a message has behind a number."""
    left = span.last - (passed & 0xFFFF)
    share = left / (span.last - span.first + 1)
    return Total(min(span.count, left), int(span.size * share), span.oldest, span.oldest)


def total_of(writes: Iterable[tuple[float, int]]) -> Total:
    """Return the sum of writes, of each of which time and size are given."""
    total = Total()
    for when, size in writes:
        total = total.plus(Total(1, size, when, when))
    return total
