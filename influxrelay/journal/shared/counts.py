"""How much waits for a backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from influxrelay.core.write import Destination
from influxrelay.journal.shared.frames import Batch, seq_of
from influxrelay.journal.shared.index import Index, Span, Total
from influxrelay.journal.shared.reader import Reader


class Counter:
    """Counts what is behind some positions; exactly, if what is passed in part can be read."""

    def __init__(self, index: Index, reader: Reader) -> None:
        self._index = index
        self._reader = reader

    async def waiting(self, positions: Mapping[Destination, int]) -> Total:
        """Count everything behind these positions."""
        partial = {seq_of(passed) for where, passed in positions.items() if self._partial(where, passed) is not None}
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
            span = self._partial(where, passed)
            if span is not None and span.seq <= upto:
                batch = self._reader.cached(span.seq) if batches is None else batches.get(span.seq)
                total = total.plus(self._part(span, where, passed, batch))
            begin = seq_of(passed) if span is not None or lane.is_through(passed) else seq_of(passed) - 1
            total = total.plus(lane.total(begin, upto))
        return total

    def _partial(self, destination: Destination, passed: int) -> Span | None:
        span = next(self._index.after(destination, passed), None)
        return span if span is not None and span.is_within(passed) else None

    def _part(self, span: Span, destination: Destination, passed: int, batch: Batch | None) -> Total:
        if batch is None:
            index = passed & 0xFFFF
            share = (span.last - index) / (span.last - span.first + 1)
            return Total(min(span.count, span.last - index), int(span.size * share), span.oldest, span.oldest)
        return total_of(
            (each.time, len(each.write.body))
            for each in batch.records_of(destination, passed)
            if not self._index.is_struck(each.seq)
        )


def total_of(writes: Iterable[tuple[float, int]]) -> Total:
    """Return the sum of writes, of each of which time and size are given."""
    total = Total()
    for when, size in writes:
        total = total.plus(Total(1, size, when, when))
    return total
