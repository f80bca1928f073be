"""Where in a shared log the writes to one destination are: in columns, for there may be many."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

from influxrelay.journal.shared.frames import Struck, number_of, seq_of

EXACT = 512  # messages at the end of a lane, and up to as many more, each of which has an entry of its own
MOST_MESSAGES = 256  # in one entry
MOST_BYTES = 1024 * 1024  # in an entry with several messages
MOST_APART = 0xFFFF  # that the first and the last message of an entry may be
_SWEEP = 4096  # entries before which a lane does not move what is behind those that are forgotten


@attrs.frozen
class Span:
    """The writes of one destination in one message, or in several.

    :ivar seqs: of the messages.
    :ivar first: index of the first write in the first message; ``last`` of the last one in the last message.
    :ivar count: without those that were struck; ``size`` likewise, of the bodies.
    :ivar oldest: when the first of them was accepted, in seconds since the epoch.
    """

    seqs: Sequence[int]
    first: int
    last: int
    count: int
    size: int
    oldest: float

    def is_within(self, after: int) -> bool:
        """Tell whether some of them have a number up to this one, and some have not."""
        return self.first_number <= after < number_of(self.seqs[-1], self.last)

    @property
    def first_number(self) -> int:
        """The number of the first of them."""
        return number_of(self.seqs[0], self.first)


@attrs.frozen
class Total:
    """Some writes.

    :ivar first: when the first of them was accepted, in seconds since the epoch, if there are any; ``last`` likewise,
        about.
    """

    writes: int = 0
    bytes: int = 0
    first: float = math.inf
    last: float = -math.inf

    def plus(self, other: Total) -> Total:
        """Return a sum."""
        return Total(
            self.writes + other.writes,
            self.bytes + other.bytes,
            min(self.first, other.first),
            max(self.last, other.last),
        )


class Lane:
    """The writes to one destination.

    An entry is a message. Where there are many, old ones share an entry, so that a backlog of any length takes little
    memory: which messages these are is still known, but how many writes each of them has only about.
    """

    __slots__ = ("_begin", "_begins", "_counts", "_exact", "_firsts", "_lasts", "_oldest", "_others", "_seqs", "_sizes")

    def __init__(self) -> None:
        self._begin = 0  # of what is not forgotten
        self._exact = 0  # from there on each message has an entry
        self._begins = array("Q")  # the first message of each entry
        self._seqs = array("Q")  # the last one
        self._firsts = array("H")
        self._lasts = array("H")
        self._counts = array("I")
        self._sizes = array("Q")
        self._oldest = array("d")
        self._others: dict[int, array[int]] = {}  # how far messages are from the first, by the last, if not one by one

    def __len__(self) -> int:
        return len(self._seqs) - self._begin

    @property
    def last_number(self) -> int:
        """The number of the last write."""
        return number_of(self._seqs[-1], self._lasts[-1])

    def add(self, span: Span) -> None:
        """Add what is in the next message."""
        self._begins.append(span.seqs[0])
        self._seqs.append(span.seqs[0])
        self._firsts.append(span.first)
        self._lasts.append(span.last)
        self._counts.append(span.count)
        self._sizes.append(span.size)
        self._oldest.append(span.oldest)
        if len(self._seqs) - self._exact >= 2 * EXACT:
            self._share()

    def _share(self) -> None:
        """Let the older ones of those messages share entries that have an entry each."""
        begin = max(self._exact, self._begin)
        end = self._exact + EXACT
        merged: list[tuple[int, int]] = []
        at = begin
        while at < end:
            size, first, stop = self._sizes[at], self._seqs[at], at + 1
            while (
                stop < min(end, at + MOST_MESSAGES)
                and size + self._sizes[stop] <= MOST_BYTES
                and self._seqs[stop] - first <= MOST_APART
            ):
                size += self._sizes[stop]
                stop += 1
            merged.append((at, stop))
            at = stop
        for first, stop in merged:
            seqs = self._seqs[first:stop]
            if seqs[-1] - seqs[0] >= len(seqs):
                self._others[seqs[-1]] = array("H", [each - seqs[0] for each in seqs])
        for column in self._columns():
            if column is self._counts or column is self._sizes:
                values = [sum(column[first:stop]) for first, stop in merged]
            elif column is self._seqs or column is self._lasts:
                values = [column[stop - 1] for _, stop in merged]
            else:
                values = [column[first] for first, _ in merged]
            column[begin:end] = array(column.typecode, values)
        self._exact = begin + len(merged)

    def _columns(self) -> Iterable[array[Any]]:
        return self._begins, self._seqs, self._firsts, self._lasts, self._counts, self._sizes, self._oldest

    def strike(self, struck: Struck) -> None:
        """Leave one out of the counts."""
        seq = seq_of(struck.number)
        at = self._find(seq)
        if at is not None and self._counts[at]:
            self._counts[at] -= 1
            self._sizes[at] -= min(self._sizes[at], struck.size)

    def has(self, seq: int) -> bool:
        """Tell whether there is something in a message."""
        return self._find(seq) is not None

    def _find(self, seq: int) -> int | None:
        """Return the entry of a message."""
        at = bisect_left(self._seqs, seq, self._begin)
        if at < len(self._seqs) and self._begins[at] <= seq and (seq == self._seqs[at] or seq in self._messages(at)):
            return at
        return None

    def _messages(self, at: int) -> Sequence[int]:
        """Return the messages of an entry."""
        begin, last = self._begins[at], self._seqs[at]
        if begin == last:
            return (last,)
        others = self._others.get(last)
        return range(begin, last + 1) if others is None else [begin + each for each in others]

    def is_through(self, number: int) -> bool:
        """Tell whether nothing in a number's message is behind it."""
        span = next(self.after(number), None)
        return span is None or span.seqs[0] > seq_of(number)

    def after(self, number: int) -> Iterator[Span]:
        """Yield where there are writes with higher numbers."""
        seq = seq_of(number)
        at = bisect_left(self._seqs, seq, self._begin)
        if at < len(self._seqs) and self._seqs[at] == seq and number_of(seq, self._lasts[at]) <= number:
            at += 1
        for each in range(at, len(self._seqs)):
            yield Span(
                self._messages(each),
                self._firsts[each],
                self._lasts[each],
                self._counts[each],
                self._sizes[each],
                self._oldest[each],
            )

    def first_after(self, number: int) -> int:
        """Return about the number of the first write behind a number: that of the first in its entry."""
        span = next(self.after(number), None)
        return span.first_number if span is not None else self.last_number + 1

    def total(self, after: int, upto: int) -> Total:
        """Count the writes in messages behind one, up to another, which is included.

        About, if several messages share an entry of which only a part is meant; the sum over all parts is right.
        """
        begin = bisect_right(self._seqs, after, self._begin)
        end = bisect_right(self._seqs, upto, begin)
        counts, sizes = self._part(end, upto)
        before, larger = self._part(begin, after)
        times = begin, end + bool(counts)
        counts += sum(self._counts[begin:end]) - before
        sizes += sum(self._sizes[begin:end]) - larger
        return Total(counts, sizes, *self._times(*times)) if counts else Total()

    def _part(self, at: int, upto: int) -> tuple[int, int]:
        """Return the writes of an entry in messages up to one, and their bytes."""
        if at >= len(self._seqs) or self._begins[at] > upto:
            return 0, 0
        messages = self._messages(at)
        passed = bisect_right(messages, upto)
        return self._counts[at] * passed // len(messages), self._sizes[at] * passed // len(messages)

    def _times(self, begin: int, end: int) -> tuple[float, float]:
        """Return when the first and the last write of some entries were accepted, about."""
        counts = self._counts
        while begin < end - 1 and not counts[begin]:
            begin += 1
        while begin < end - 1 and not counts[end - 1]:
            end -= 1
        last = max(begin, end - 1)
        if self._begins[last] < self._seqs[last]:  # it has no younger ones than the next entry
            last += 1
        return self._oldest[begin], self._oldest[last]

    def forget(self, seq: int) -> None:
        """Forget what is in messages up to this one."""
        before, self._begin = self._begin, bisect_right(self._seqs, seq, self._begin)
        if self._others:
            for each in self._seqs[before : self._begin]:
                self._others.pop(each, None)
        if self._begin >= _SWEEP and self._begin * 2 >= len(self._seqs):
            for column in (
                self._begins,
                self._seqs,
                self._firsts,
                self._lasts,
                self._counts,
                self._sizes,
                self._oldest,
            ):
                del column[: self._begin]
            self._exact = max(0, self._exact - self._begin)
            self._begin = 0
