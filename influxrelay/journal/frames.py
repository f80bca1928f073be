"""The bytes of a log file, called a segment.

A segment begins with :data:`MAGIC`. Then come frames, each of them a head of :data:`HEAD` bytes and a payload::

    offset  bytes  content
    0       1      kind: ``W`` a write, ``X`` a write that was struck, ``C`` a context
    1       1      flags: 1 mergeable, 2 gzipped
    2       2      a mark, by which frames are found again behind damaged ones
    4       4      the context's number in this segment
    8       4      the payload's size
    12      8      the write's number
    20      8      when it was accepted, in seconds since the epoch (IEEE 754)
    28      4      CRC-32 of the payload
    32      4      CRC-32 of bytes 1 to 31

Integers are little-endian. A write's payload is its body. A context's payload is the destination and the query string
of the writes that name its number, so that a segment explains itself. A write is struck by changing its kind in place.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import attrs
from isal.isal_zlib import crc32

from influxrelay.core.write import Destination, Write
from influxrelay.journal.records import Record

MAGIC = b"influxrelay log\x02"
HEAD = 36
WRITE, STRUCK, CONTEXT = b"W", b"X", b"C"
_MARK = 0xC35A
_MARKS = struct.pack("<H", _MARK)
_MERGEABLE, _GZIPPED = 1, 2
_HEAD = struct.Struct("<BHIIQdI")
_U32 = struct.Struct("<I")
_CHUNK = 64 * 1024  # bytes that are searched at once for the frame behind a damaged one


@attrs.frozen
class Frame:
    """A frame's head, and where it is.

    :ivar size: of the payload.
    """

    offset: int
    kind: bytes
    mergeable: bool
    gzipped: bool
    context: int
    size: int
    number: int
    time: float
    crc: int

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.offset + HEAD + self.size

    def record(self, payload: bytes, destination: Destination, query: bytes) -> Record | None:
        """Return the write with this payload; None if that is damaged."""
        if crc32(payload) != self.crc or len(payload) != self.size:
            return None
        write = Write(destination, query, destination.credentials[0], payload, self.mergeable, self.gzipped)
        return Record(self.number, self.time, write)


@attrs.frozen
class Damage:
    """Bytes of a segment that are no frame."""

    offset: int
    end: int


def write_head(context: int, record: Record) -> bytes:
    """Return the head of a write's frame."""
    write = record.write
    body = write.body
    flags = (_MERGEABLE if write.mergeable else 0) | (_GZIPPED if write.gzipped else 0)
    head = _HEAD.pack(flags, _MARK, context, len(body), record.seq, record.time, crc32(body))
    return WRITE + head + _U32.pack(crc32(head))


def context_frame(context: int, destination: Destination, query: bytes) -> bytes:
    """Return a whole frame that says what the number of a context stands for."""
    payload = pack((key_of(destination), query))
    head = _HEAD.pack(0, _MARK, context, len(payload), 0, 0.0, crc32(payload))
    return CONTEXT + head + _U32.pack(crc32(head)) + payload


def read_head(data: bytes, offset: int) -> Frame | None:
    """Return the head in these bytes, which are at this offset of a segment; None if they are no head."""
    kind, head = data[:1], data[1 : HEAD - 4]
    if len(data) < HEAD or kind not in (WRITE, STRUCK, CONTEXT) or _U32.unpack_from(data, HEAD - 4)[0] != crc32(head):
        return None
    flags, mark, context, size, number, when, crc = _HEAD.unpack(head)
    if mark != _MARK:
        return None
    return Frame(offset, kind, bool(flags & _MERGEABLE), bool(flags & _GZIPPED), context, size, number, when, crc)


def read_context(payload: bytes) -> tuple[Destination, bytes]:
    """Return what a context's payload says.

    :raises ValueError: it makes no sense.
    """
    key, query = unpack(payload)
    return destination_of(key), query


def scan(file: BinaryIO) -> Iterator[Frame | Damage]:
    """Yield the frames of a segment, and what is damaged between them.

    The file may be moved between two steps. A head whose payload is cut off, at the end or by another frame, is damage;
    a payload with other bytes is not looked at.
    """
    end = file.seek(0, 2)
    offset = len(MAGIC)
    frame = _head_at(file, offset, end)
    while offset < end:
        following = None if frame is None else _head_at(file, frame.end, end)
        if frame is not None and (following is not None or frame.end == end or _is_whole(file, frame)):
            yield frame
            offset, frame = frame.end, following
        else:
            found = _find(file, offset + 1, end)
            yield Damage(offset, found)
            offset, frame = found, _head_at(file, found, end)


def _head_at(file: BinaryIO, offset: int, end: int) -> Frame | None:
    file.seek(offset)
    frame = read_head(file.read(HEAD), offset)
    return frame if frame is not None and frame.end <= end else None


def _is_whole(file: BinaryIO, frame: Frame) -> bool:
    file.seek(frame.offset + HEAD)
    return crc32(file.read(frame.size)) == frame.crc


def _find(file: BinaryIO, offset: int, end: int) -> int:
    """Return where the next whole frame begins; the end if there is none."""
    while offset < end:
        file.seek(offset)
        data = file.read(_CHUNK + HEAD)
        at = data.find(_MARKS)
        while 0 <= at < _CHUNK + 2:
            begin = at - 2
            if begin >= 0:
                frame = read_head(data[begin : begin + HEAD], offset + begin)
                if frame is not None and frame.end <= end:
                    return offset + begin
            at = data.find(_MARKS, at + 1)
        offset += _CHUNK
    return end


# -- values of several fields


def pack(fields: Sequence[bytes]) -> bytes:
    """Join fields so that :func:`unpack` can tell them apart."""
    return b"".join([part for each in fields for part in (_U32.pack(len(each)), each)])


def unpack(data: bytes) -> list[bytes]:
    """Return what :func:`pack` has joined.

    :raises ValueError: it was not.
    """
    fields, offset = [], 0
    while offset < len(data):
        begin = offset + _U32.size
        if begin > len(data):
            raise ValueError("cut off")
        offset = begin + _U32.unpack_from(data, begin - _U32.size)[0]
        if offset > len(data):
            raise ValueError("cut off")
        fields.append(data[begin:offset])
    return fields


def key_of(destination: Destination) -> bytes:
    """Return bytes that stand for a destination, the same in each process."""
    where = (destination.database, destination.retention_policy, destination.precision)
    return pack((*where, *destination.credentials))


def destination_of(key: bytes) -> Destination:
    """Return the destination for which these bytes stand.

    :raises ValueError: they stand for none.
    """
    database, policy, precision, *credentials = unpack(key)
    authorization, username, password = credentials
    return Destination(database, policy, precision, (authorization, username, password))
