"""What a segment of the log holds, and where: the index that its records are found by."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Self

import attrs
from isal.isal_zlib import crc32

from influxrelay.core.write import Destination
from influxrelay.journal.frames import (
    CONTEXT,
    HEAD,
    MAGIC,
    STRUCK,
    Damage,
    context_frame,
    read_context,
    scan,
    write_head,
)
from influxrelay.journal.records import Record

SUFFIX = ".log"
MOST = 16384  # writes that are read at once


def name_of(first: int, generation: int = 0) -> str:
    """Return the name of a segment's file.

    :param generation: how often it was written anew.
    """
    return f"{first:020}-{generation}{SUFFIX}" if generation else f"{first:020}{SUFFIX}"


def read_name(name: str) -> tuple[int, int]:
    """Return the first number and the generation of which :func:`name_of` has made a name.

    :raises ValueError: it is no such name.
    """
    first, _, generation = name.removesuffix(SUFFIX).partition("-")
    found = (int(first), int(generation or 0))
    if name_of(*found) != name:
        raise ValueError("it has another name than a log")
    return found


class Places:
    """Where the writes of one destination are in a segment, in their order; struck ones are left out.

    :ivar sizes: of the bodies, in bytes.
    :ivar times: when they were accepted, in seconds since the epoch.
    :ivar queries: the query strings, by the number of the context.
    """

    __slots__ = ("numbers", "offsets", "queries", "sizes", "times")

    def __init__(self) -> None:
        self.numbers = array("Q")
        self.times = array("d")
        self.offsets = array("I")
        self.sizes = array("I")
        self.queries: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def last(self) -> int:
        """The highest number."""
        return self.numbers[-1]

    def add(self, number: int, when: float, offset: int, size: int) -> None:
        """Add a write behind the others."""
        self.numbers.append(number)
        self.times.append(when)
        self.offsets.append(offset)
        self.sizes.append(size)

    def after(self, number: int) -> int:
        """Return the index of the first write with a higher number."""
        return bisect_right(self.numbers, number)

    def index(self, number: int) -> int | None:
        """Return the index of a write; None if it is not here."""
        at = bisect_left(self.numbers, number)
        return at if at < len(self.numbers) and self.numbers[at] == number else None

    def part(self, begin: int, end: int) -> Places:
        """Return the writes between two indexes."""
        part = Places()
        part.numbers, part.times = self.numbers[begin:end], self.times[begin:end]
        part.offsets, part.sizes = self.offsets[begin:end], self.sizes[begin:end]
        part.queries = self.queries
        return part

    def next(self, begin: int, end: int, max_bytes: int) -> Places:
        """Return the writes between two indexes until they have so many bytes; one at least, if there is one."""
        sizes = accumulate(self.sizes[begin : min(end, begin + MOST)])
        count = next((count for count, size in enumerate(sizes, 1) if size >= max_bytes), MOST)
        return self.part(begin, min(end, begin + count))

    def remove(self, begin: int, end: int) -> None:
        """Leave out the writes between two indexes."""
        for each in (self.numbers, self.times, self.offsets, self.sizes):
            del each[begin:end]

    def to_bytes(self) -> bytes:
        """Return the index for :meth:`from_bytes`."""
        return b"".join([each.tobytes() for each in (self.numbers, self.times, self.offsets, self.sizes)])

    @classmethod
    def from_bytes(cls, data: bytes, queries: dict[int, bytes]) -> Self:
        """Return an index that was kept by this machine.

        :raises ValueError: it was not.
        """
        places, count = cls(), len(data) // 24
        if len(data) % 24:
            raise ValueError("an index of a wrong size")
        places.numbers.frombytes(data[: 8 * count])
        places.times.frombytes(data[8 * count : 16 * count])
        places.offsets.frombytes(data[16 * count : 20 * count])
        places.sizes.frombytes(data[20 * count :])
        places.queries = queries
        return places


@attrs.frozen
class Lost:
    """Writes that damage has cost: those between two numbers.

    :ivar behind: 0 if there is no good write behind them.
    :ivar size: bytes that are damaged.
    :ivar time: when the first good write behind them was accepted, in seconds since the epoch.
    """

    before: int
    behind: int
    size: int
    time: float


@attrs.define(eq=False)
class Segment:
    """A segment whose index is in memory.

    :ivar first: the number of the first write in it, which is its file's name.
    :ivar size: of the file, in bytes.
    :ivar places: by destination; one of which everything was struck may be empty.
    """

    path: Path
    first: int
    size: int = len(MAGIC)
    last: int = 0
    places: dict[Destination, Places] = attrs.field(factory=dict)
    _contexts: dict[tuple[Destination, bytes], tuple[int, Places]] = attrs.field(factory=dict)
    _numbers: array[int] = attrs.field(factory=lambda: array("Q"))
    _owners: list[Places] = attrs.field(factory=list)

    @classmethod
    def begin(cls, directory: Path, first: int, generation: int = 0) -> Self:
        """Return a segment that has no file yet."""
        return cls(directory / name_of(first, generation), first)

    def add(self, record: Record, parts: list[bytes]) -> None:
        """Add a write, and append the bytes that stand for it to those that are to be written."""
        self.extend((record,), parts)

    def extend(self, records: Iterable[Record], parts: list[bytes]) -> None:
        """Add writes, and append the bytes that stand for them to those that are to be written."""
        destination, query, context, places = None, b"", 0, Places()
        for record in records:
            write = record.write
            if write.destination is not destination or write.query != query:  # mostly it is as in the one before
                destination, query = write.destination, write.query
                known = self._contexts.get((destination, query)) or self._define(destination, query, parts)
                context, places = known
            body = write.body
            size = len(body)
            parts += (write_head(context, record), body)
            self._note(places, record.seq, record.time, self.size, size)
            self.size += HEAD + size

    def _note(self, places: Places, number: int, when: float, offset: int, size: int) -> None:
        places.add(number, when, offset, size)
        self._numbers.append(number)
        self._owners.append(places)
        self.last = number

    def _define(self, destination: Destination, query: bytes, parts: list[bytes]) -> tuple[int, Places]:
        if self.size == len(MAGIC):
            parts.append(MAGIC)
        known = self._know(len(self._contexts), destination, query)
        parts.append(context_frame(known[0], destination, query))
        self.size += len(parts[-1])
        return known

    def _know(self, context: int, destination: Destination, query: bytes) -> tuple[int, Places]:
        places = self.places.setdefault(destination, Places())
        places.queries[context] = query
        known = self._contexts[destination, query] = (context, places)
        return known

    def strike(self, number: int) -> int | None:
        """Leave out a write, and return the offset of its frame; None if it is not here."""
        at = bisect_left(self._numbers, number)
        if at == len(self._numbers) or self._numbers[at] != number:
            return None
        places = self._owners[at]
        index = places.index(number)
        if index is None:
            return None
        offset = places.offsets[index]
        places.remove(index, index + 1)
        return offset

    def cut(self, number: int, size: int) -> None:
        """Leave out all writes from this number on: the file has only so many bytes."""
        for places in self.places.values():
            places.remove(places.after(number - 1), len(places))
        at = bisect_left(self._numbers, number)
        del self._numbers[at:], self._owners[at:]
        self.size = size
        self.last = self._numbers[-1] if self._numbers else 0

    def __len__(self) -> int:
        return sum(map(len, self.places.values()))

    # -- from the file

    @classmethod
    def load(cls, path: Path, committed: int = 0) -> tuple[Self, list[Lost]]:
        """Read what is in a file, and find out what is damaged in it.

        :param committed: bytes of the file that were written completely. What makes no sense behind them, at the end,
            is no damage.
        :raises ValueError: it is no segment.
        """
        segment = cls(path, read_name(path.name)[0])
        lost: list[Lost] = []
        contexts: dict[int, Places] = {}
        damaged = 0  # bytes since the last good frame
        last: Damage | None = None
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError("it is no log")
            for each in scan(file):
                if isinstance(each, Damage):
                    damaged += each.end - each.offset
                    last = each
                elif each.kind == CONTEXT:
                    file.seek(each.offset + HEAD)
                    payload = file.read(each.size)
                    if crc32(payload) == each.crc:
                        contexts[each.context] = segment._know(each.context, *read_context(payload))[1]
                elif (places := contexts.get(each.context)) is None:
                    damaged += HEAD + each.size
                else:
                    if damaged:
                        lost.append(Lost(segment.last, each.number, damaged, each.time))
                        damaged = 0
                    segment._note(places, each.number, each.time, each.offset, each.size)
                    if each.kind == STRUCK:
                        segment.strike(each.number)
            segment.size = file.seek(0, 2)
        if damaged and last is not None and last.offset < committed:
            lost.append(Lost(segment.last, 0, damaged, 0.0))
        return segment, lost
