"""Rows of several shards in one order, while they come."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from operator import itemgetter
from typing import Any

from influxrelay.sharding.results import Block, SeriesKey

_time = itemgetter(0)


class _Source:
    """What a shard says, a block at a time.

    :ivar block: whose rows are to come next; None at the end.
    """

    def __init__(self, blocks: AsyncIterator[Block]) -> None:
        self._blocks = blocks
        self._at = 0
        self.block: Block | None = None
        self.key: SeriesKey = (b"", (), ())

    async def advance(self) -> None:
        """Go to the next block that has rows, if all of this one have been taken."""
        if self.block is not None and self._at < len(self.block.rows):
            return
        self._at = 0
        async for block in self._blocks:
            if block.rows:
                self.block, self.key = block, block.key
                return
        self.block = None

    @property
    def last(self) -> int:
        """The time of the block's last row."""
        return self.block.rows[-1][0] if self.block is not None else 0

    def take(self, upto: int, *, descending: bool) -> list[list[Any]]:
        """Return the rows of the block up to a time, which belongs to them."""
        rows, start = self.block.rows if self.block is not None else [], self._at
        if descending:
            self._at = bisect_right(rows, -upto, start, key=lambda row: -row[0])
        else:
            self._at = bisect_right(rows, upto, start, key=_time)
        return rows[start : self._at]


async def merge_rows(
    sources: Sequence[AsyncIterator[Block]], *, descending: bool = False, limit: int = 0, offset: int = 0
) -> AsyncIterator[Block]:
    """Yield the blocks of several shards, each in order of series and time, in that order.

    :param limit: rows of a series, behind ``offset`` rows; 0 for all.
    """
    waiting = [_Source(each) for each in sources]
    first = max if descending else min
    current: SeriesKey | None = None
    skip, left = 0, 0
    while True:
        for each in waiting:
            await each.advance()
        waiting = [each for each in waiting if each.block is not None]
        if not waiting:
            return
        key = first(each.key for each in waiting)
        if key != current:
            current, skip, left = key, offset, limit
        of_series = [each for each in waiting if each.key == key]
        block = of_series[0].block
        upto = first(each.last for each in of_series)  # what is to come of any of them lies behind it
        rows = [row for each in of_series for row in each.take(upto, descending=descending)]
        if len(of_series) > 1:
            rows.sort(key=_time, reverse=descending)
        if skip:
            skip, rows = max(skip - len(rows), 0), rows[skip:]
        if limit:
            rows = rows[:left]
            left -= len(rows)
        if rows and block is not None:
            yield Block(block.name, block.tags, block.columns, rows)
