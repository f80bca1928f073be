"""Where in a shared log the writes to each destination are, between the lowest cursor and the end."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping

import attrs

from influxrelay.core.write import Destination
from influxrelay.journal.shared.frames import LogHead, Part, Struck, end_of, number_of, seq_of

FORGET_PIECES = 600.0  # seconds after which pieces without an end are no longer waited for
_SWEEP = 4096  # places before which a lane does not move what is behind those that are forgotten


@attrs.frozen
class Span:
    """The writes of one destination in one message.

    :ivar count: without those that were struck; ``size`` likewise, of the bodies.
    :ivar oldest: when the first of them was accepted, in seconds since the epoch.
    """

    seq: int
    first: int
    last: int
    count: int
    size: int
    oldest: float

    def is_within(self, after: int) -> bool:
        """Tell whether some of them have a number up to this one, and some have not."""
        return number_of(self.seq, self.first) <= after < number_of(self.seq, self.last)


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
    """The writes to one destination: in columns, for there may be many."""

    __slots__ = ("_begin", "_counts", "_firsts", "_lasts", "_oldest", "_seqs", "_sizes")

    def __init__(self) -> None:
        self._begin = 0
        self._seqs = array("Q")
        self._firsts = array("H")
        self._lasts = array("H")
        self._counts = array("H")
        self._sizes = array("Q")
        self._oldest = array("d")

    def __len__(self) -> int:
        return len(self._seqs) - self._begin

    @property
    def last_number(self) -> int:
        """The number of the last write."""
        return number_of(self._seqs[-1], self._lasts[-1])

    def add(self, span: Span) -> None:
        """Add what is in the next message."""
        self._seqs.append(span.seq)
        self._firsts.append(span.first)
        self._lasts.append(span.last)
        self._counts.append(span.count)
        self._sizes.append(span.size)
        self._oldest.append(span.oldest)

    def strike(self, struck: Struck) -> None:
        """Leave one out of the counts."""
        seq = seq_of(struck.number)
        at = bisect_left(self._seqs, seq, self._begin)
        if at < len(self._seqs) and self._seqs[at] == seq and self._counts[at]:
            self._counts[at] -= 1
            self._sizes[at] -= min(self._sizes[at], struck.size)

    def has(self, seq: int) -> bool:
        """Tell whether there is something in a message."""
        at = bisect_left(self._seqs, seq, self._begin)
        return at < len(self._seqs) and self._seqs[at] == seq

    def is_through(self, number: int) -> bool:
        """Tell whether nothing in a number's message is behind it."""
        span = next(self.after(number), None)
        return span is None or span.seq > seq_of(number)

    def after(self, number: int) -> Iterator[Span]:
        """Yield where there are writes with higher numbers."""
        seq = seq_of(number)
        at = bisect_left(self._seqs, seq, self._begin)
        if at < len(self._seqs) and self._seqs[at] == seq and number_of(seq, self._lasts[at]) <= number:
            at += 1
        for each in range(at, len(self._seqs)):
            yield Span(
                self._seqs[each],
                self._firsts[each],
                self._lasts[each],
                self._counts[each],
                self._sizes[each],
                self._oldest[each],
            )

    def first_after(self, number: int) -> int:
        """Return about the number of the first write behind a number: that of the first in its message."""
        span = next(self.after(number), None)
        return number_of(span.seq, span.first) if span is not None else self.last_number + 1

    def total(self, after: int, upto: int) -> Total:
        """Count the writes in messages behind one, up to another, which is included."""
        begin = bisect_right(self._seqs, after, self._begin)
        end = bisect_right(self._seqs, upto, begin)
        counts = self._counts
        while begin < end and not counts[begin]:
            begin += 1
        while begin < end and not counts[end - 1]:
            end -= 1
        if begin == end:
            return Total()
        return Total(sum(counts[begin:end]), sum(self._sizes[begin:end]), self._oldest[begin], self._oldest[end - 1])

    def forget(self, seq: int) -> None:
        """Forget what is in messages up to this one."""
        self._begin = bisect_right(self._seqs, seq, self._begin)
        if self._begin >= _SWEEP and self._begin * 2 >= len(self._seqs):
            for column in (self._seqs, self._firsts, self._lasts, self._counts, self._sizes, self._oldest):
                del column[: self._begin]
            self._begin = 0


class Index:
    """What is in the log, behind what every backend has passed.

    :ivar head: up to this number everything is known.
    :ivar lanes: by destination; none is empty.
    """

    def __init__(self) -> None:
        self.head = 0
        self.lanes: dict[Destination, Lane] = {}
        self._forgotten = 0
        self._struck: dict[int, Struck] = {}
        self._pieces: dict[int, tuple[int, ...]] = {}  # the messages of a payload in several pieces, by the last one
        self._open: dict[tuple[str, int], tuple[float, list[int]]] = {}  # those whose last one has not come

    def gather(self, seq: int, when: float, head: LogHead) -> bool:
        """Note a piece of a payload.

        :param when: it was stored, in seconds since the epoch.
        :return: whether the payload is complete now; it is not if the log has dropped the first pieces before.
        """
        if head.pieces == 1:
            return True
        group = head.origin, head.batch
        seqs = self._open.setdefault(group, (when, []))[1]
        seqs.append(seq)
        if not head.is_last:
            return False
        del self._open[group]
        if len(seqs) == head.pieces:
            self._pieces[seq] = tuple(seqs)
            return True
        return False

    def add(self, seq: int, parts: Iterable[Part]) -> None:
        """Add a message with writes, or the last piece of one."""
        self.head = end_of(seq)
        for part in parts:
            lane = self.lanes.get(part.destination)
            if lane is None:
                lane = self.lanes[part.destination] = Lane()
            lane.add(Span(seq, part.first, part.last, part.count, part.size, part.oldest))

    def skip(self, seq: int) -> None:
        """Note a message without writes."""
        self.head = max(self.head, end_of(seq))

    def strike(self, struck: Iterable[Struck]) -> list[int]:
        """Leave writes out, and return which of them were not struck before."""
        new = []
        for each in struck:
            if each.number in self._struck or seq_of(each.number) <= self._forgotten:
                continue
            self._struck[each.number] = each
            new.append(each.number)
            where = each.destination
            if where is None:
                seq = seq_of(each.number)
                where = next((place for place, lane in self.lanes.items() if lane.has(seq)), None)
            if where in self.lanes and where is not None:
                self.lanes[where].strike(each)
        return new

    def is_forgotten(self, number: int) -> bool:
        """Tell whether every backend has passed a write, or the log has dropped it."""
        return seq_of(number) <= self._forgotten

    def is_struck(self, number: int) -> bool:
        """Tell whether a write was struck."""
        return number in self._struck

    def messages_of(self, seq: int) -> tuple[int, ...]:
        """Return the messages that have the pieces of the payload that ends with this one."""
        return self._pieces.get(seq, (seq,))

    def last_number(self, destination: Destination) -> int:
        """Return the number of a destination's last write; 0 if there is none behind the lowest cursor."""
        lane = self.lanes.get(destination)
        return lane.last_number if lane is not None else 0

    def after(self, destination: Destination, number: int) -> Iterator[Span]:
        """Yield where a destination has writes with higher numbers."""
        lane = self.lanes.get(destination)
        return lane.after(number) if lane is not None else iter(())

    def waiting(self, cursor: int, ahead: Mapping[Destination, int]) -> dict[Destination, int]:
        """Return the destinations in which something waits for who is there, and up to where each was passed."""
        passed = {where: max(cursor, ahead.get(where, 0)) for where in self.lanes}
        return {where: number for where, number in passed.items() if number < self.lanes[where].last_number}

    # -- what is no longer needed

    def needed(self, cursor: int, now: float) -> int:
        """Return the last message that nobody needs.

        :param cursor: the lowest; everything up to it is passed by every backend.
        :param now: seconds since the epoch.
        """
        upto = seq_of(cursor + 1) - 1
        for group, (when, seqs) in list(self._open.items()):
            if now - when > FORGET_PIECES:
                del self._open[group]  # its origin is dead
            else:
                upto = min(upto, seqs[0] - 1)
        return min([upto, *(seqs[0] - 1 for last, seqs in self._pieces.items() if last > upto)])

    def forget(self, upto: int) -> None:
        """Forget all messages up to this one."""
        self._forgotten = max(self._forgotten, upto)
        for where, lane in list(self.lanes.items()):
            lane.forget(upto)
            if not len(lane):
                del self.lanes[where]
        if self._struck:
            number = end_of(upto)
            self._struck = {each: struck for each, struck in self._struck.items() if each > number}
        if self._pieces:
            self._pieces = {last: seqs for last, seqs in self._pieces.items() if last > upto}

    def __len__(self) -> int:
        return sum(map(len, self.lanes.values()))

    @property
    def struck(self) -> int:
        """How many are known to be struck."""
        return len(self._struck)
