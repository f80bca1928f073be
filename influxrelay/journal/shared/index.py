"""Where in a shared log the writes to each destination are, between the lowest cursor and the end."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping

from influxrelay.core.write import Destination
from influxrelay.journal.shared.frames import LogHead, Part, Struck, end_of, seq_of
from influxrelay.journal.shared.lane import Lane, Span

FORGET_PIECES = 600.0  # seconds after which pieces without an end are no longer waited for


class Index:
    """What is in the log, behind what every backend has passed.

    :ivar head: up to this number everything is known.
    :ivar lanes: by destination; none is empty.
    """

    def __init__(self) -> None:
        self.head = 0
        self.lanes: dict[Destination, Lane] = {}
        self._forgotten = 0
        self._struck = array("Q")  # in order
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
            lane.add(Span((seq,), part.first, part.last, part.count, part.size, part.oldest))

    def skip(self, seq: int) -> None:
        """Note a message without writes."""
        self.head = max(self.head, end_of(seq))

    def strike(self, struck: Iterable[Struck]) -> list[int]:
        """Leave writes out, and return which of them were not struck before."""
        new = []
        for each in struck:
            if self.is_struck(each.number) or seq_of(each.number) <= self._forgotten:
                continue
            insort(self._struck, each.number)
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
        at = bisect_left(self._struck, number)
        return at < len(self._struck) and self._struck[at] == number

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
            del self._struck[: bisect_right(self._struck, end_of(upto))]
        if self._pieces:
            self._pieces = {last: seqs for last, seqs in self._pieces.items() if last > upto}

    def __len__(self) -> int:
        return sum(map(len, self.lanes.values()))

    @property
    def struck(self) -> int:
        """How many are known to be struck."""
        return len(self._struck)
