"""Reading writes of one destination back from a segment, by an index."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from influxrelay.core.write import Destination
from influxrelay.journal.frames import HEAD, STRUCK, WRITE, read_head
from influxrelay.journal.records import Record
from influxrelay.journal.segment import Places

GAP = 4096  # bytes of other destinations that are read along rather than left out
RUN = 1024 * 1024  # bytes that are read at once


@attrs.frozen
class Damaged:
    """A write that cannot be read.

    :ivar time: when it was accepted, in seconds since the epoch.
    """

    number: int
    offset: int
    size: int
    time: float


def read_records(path: Path, destination: Destination, places: Places) -> tuple[list[Record], list[Damaged]]:
    """Read all of these writes, and tell which are damaged; a struck one is neither."""
    records: list[Record] = []
    damaged: list[Damaged] = []
    for index, data in _frames(path, places):
        number, offset = places.numbers[index], places.offsets[index]
        frame = read_head(data[:HEAD], offset)
        record = None
        if frame is not None and frame.number == number and frame.context in places.queries:
            if frame.kind == STRUCK:
                continue
            record = frame.record(data[HEAD:], destination, places.queries[frame.context])
        if record is None:
            damaged.append(Damaged(number, offset, places.sizes[index], places.times[index]))
        else:
            records.append(record)
    return records, damaged


def _frames(path: Path, places: Places) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes of each write's frame, as many as there are; neighbours are read at once."""
    offsets, sizes = places.offsets, places.sizes
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield from ((index, b"") for index in range(len(places)))
        return
    try:
        begin = 0
        while begin < len(offsets):
            start, stop = offsets[begin], offsets[begin] + HEAD + sizes[begin]
            end = begin + 1
            while end < len(offsets) and offsets[end] - stop <= GAP and offsets[end] + HEAD + sizes[end] - start <= RUN:
                stop = offsets[end] + HEAD + sizes[end]
                end += 1
            data = os.pread(descriptor, stop - start, start)
            for index in range(begin, end):
                at = offsets[index] - start
                yield index, data[at : at + HEAD + sizes[index]]
            begin = end
    finally:
        os.close(descriptor)


def strike(path: Path, offsets: Iterable[int], *, sync: bool = False) -> None:
    """Mark writes as struck, if the file is still there.

    :param sync: whether that has to survive power loss.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        for offset in offsets:
            if os.pread(descriptor, 1, offset) == WRITE:
                os.pwrite(descriptor, STRUCK, offset)
        if sync:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
