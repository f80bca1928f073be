"""Rows of several shards in one order, while they come."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from typing import Any

from influxrelay.sharding.results import Block, SeriesKey


class _Source:
    """What a shard says, a block at a time.

    :ivar block: the rows that are to come next; None at the end.
    """

    def __init__(self, blocks: AsyncIterator[Block]) -> None:
        self._blocks = blocks
        self.block: Block | None = None
        self.key: SeriesKey = (b"", (), ())
        self._at = 0

    async def advance(self) -> None:
        """Go to the next block that has rows."""
        self._at = 0
        async for block in self._blocks:
            if block.rows:
                self.block, self.key = block, block.key
                return
        self.block = None

    @property
    def time(self) -> Any:
        """The time of the next row."""
        return self._rows[self._at][0]

    @property
    def _rows(self) -> list[list[Any]]:
        return self.block.rows if self.block is not None else []

    async def take(self, upto: int | None, *, descending: bool) -> list[list[Any]]:
        """Return the next rows, of one series, as far as no other shard has earlier ones (later, if descending).

        :param upto: the time of the other shards' next row; None if they have none of this series.
        """
        rows, start = self._rows, self._at
        if upto is None:
            end = len(rows)
        elif descending:
            end = bisect_right(rows, -upto, start, key=lambda row: -row[0])
        else:
            end = bisect_right(rows, upto, start, key=lambda row: row[0])
        end = max(end, start + 1)
        taken = rows if end - start == len(rows) else rows[start:end]
        self._at = end
        if end == len(rows):
            await self.advance()
        return taken


async def merge_rows(
    sources: Sequence[AsyncIterator[Block]], *, descending: bool = False, limit: int = 0, offset: int = 0
) -> AsyncIterator[Block]:
    """Yield the blocks of several shards, each in order of series and time, in that order.

    :param limit: rows of a series, behind ``offset`` rows; 0 for all.
    """
    waiting = [_Source(each) for each in sources]
    for each in waiting:
        await each.advance()
    choose = max if descending else min
    current: SeriesKey | None = None
    skip, left = 0, 0
    while waiting := [each for each in waiting if each.block is not None]:
        key = choose(each.key for each in waiting)
        if key != current:
            current, skip, left = key, offset, limit
        of_series = [each for each in waiting if each.key == key]
        of_series.sort(key=lambda each: each.time, reverse=descending)
        source = of_series[0]
        block = source.block
        rows = await source.take(of_series[1].time if len(of_series) > 1 else None, descending=descending)
        if block is None:
            continue
        if skip:
            skip, rows = max(skip - len(rows), 0), rows[skip:]
        if limit:
            rows = rows[:left]
            left -= len(rows)
        if rows:
            yield Block(block.name, block.tags, block.columns, rows)
