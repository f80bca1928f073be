"""The messages of a shared log: what is in their header and in their payload.

A group commit is one message: the payload has all of its writes, and the header tells which destinations they are for,
so that an index can be made of headers alone. A payload is::

    bytes  content
    1      version: 1
    4      CRC-32 of all that follows
    2      number of contexts
    4      size of the contexts
    2      number of writes
           contexts: destination and query string of each, packed as in :mod:`influxrelay.journal.frames`
           heads of the writes: number of the context (2 bytes), flags (1: mergeable, 2: gzipped), time of acceptance in
           seconds since the epoch (IEEE 754), size of the body (4)
           bodies of the writes

Integers are little-endian. A payload that is too large for one message is cut into pieces, each of them a message; the
writes are in the log when the last piece is, and have its number. The header, :data:`HEADER`, is a line of words::

    1 log ORIGIN BATCH PIECE PIECES BASE64      writes; only the last piece has the BASE64, of the packed parts
    1 strike ORIGIN BATCH BASE64                writes that were struck
"""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
from isal.isal_zlib import crc32

from influxrelay.core.write import Destination, Write
from influxrelay.journal.frames import destination_of, key_of, pack, unpack
from influxrelay.journal.records import Record

HEADER = "Influxrelay"
VERSION = 1
MAX_RECORDS = 0xFFFF  # in one message: the last index is that of a message's end
HEADER_BYTES = 48 * 1024  # that a header may have: NATS allows 64 KiB for all
RECORD_BYTES, STRUCK_BYTES = (
    80,
    30,
)  # that a write takes in a payload beside body and query, and what is struck in a header
_MERGEABLE, _GZIPPED = 1, 2
_PRELUDE = struct.Struct("<BI")
_COUNTS = struct.Struct("<HIH")
_RECORD = struct.Struct("<HBdI")
_PART = struct.Struct("<HIQdH")
_STRUCK = struct.Struct("<QI")
_BODIES_AT_LEAST = _PRELUDE.size + _COUNTS.size
_MOST_DESTINATIONS = 4096  # that are remembered


def number_of(seq: int, index: int) -> int:
    """Return the number of a write, by its message's sequence and its place in there."""
    return seq << 16 | index


def seq_of(number: int) -> int:
    """Return the sequence of the message that a write is in."""
    return number >> 16


def end_of(seq: int) -> int:
    """Return the highest number that a write of a message could have."""
    return seq << 16 | 0xFFFF


@attrs.frozen
class Part:
    """What a message has for one destination.

    :ivar count: of writes; ``size`` of their bodies, in bytes.
    :ivar oldest: when the first of them was accepted, in seconds since the epoch.
    :ivar first: index of the first of them in the message; ``last`` likewise.
    """

    destination: Destination
    first: int
    count: int
    size: int
    oldest: float
    last: int


@attrs.frozen
class LogHead:
    """The header of a message with writes.

    :ivar origin: the relay that wrote it.
    :ivar batch: the origin's own count, the same in each piece.
    :ivar parts: by destination; of all pieces together, and only in the last.
    """

    origin: str
    batch: int
    piece: int
    pieces: int
    parts: tuple[Part, ...]

    @property
    def is_last(self) -> bool:
        """Whether the writes are in the log with this message."""
        return self.piece == self.pieces - 1


@attrs.frozen
class Struck:
    """A write that was struck.

    :ivar destination: None if its origin did not know any more; then ``size`` is 0.
    """

    number: int
    size: int = 0
    destination: Destination | None = None


@attrs.frozen
class StrikeHead:
    """The header of a message that strikes writes."""

    origin: str
    batch: int
    struck: tuple[Struck, ...]


class Destinations:
    """Gives one object for all occurrences of a destination, as long as there are not too many."""

    def __init__(self) -> None:
        self._known: dict[bytes, Destination] = {}

    def of(self, key: bytes) -> Destination:
        """Return the destination for which these bytes stand.

        :raises ValueError: they stand for none.
        """
        destination = self._known.get(key)
        if destination is None:
            if len(self._known) >= _MOST_DESTINATIONS:
                self._known.clear()
            destination = self._known[key] = destination_of(key)
        return destination


# -- headers


def header_bytes(destination: Destination | None) -> int:
    """Return about how much a destination takes in a header, rather too much than too little."""
    if destination is None:
        return 0
    names = (destination.database, destination.retention_policy, destination.precision, *destination.credentials)
    return 120 + 3 * sum(map(len, names)) // 2


def log_header(origin: str, batch: int, piece: int, pieces: int, parts: Sequence[Part]) -> str:
    """Return the header of a message with writes."""
    packed = pack([field for each in parts for field in (key_of(each.destination), _pack_part(each))])
    return f"{VERSION} log {origin} {batch} {piece} {pieces} {b64encode(packed).decode()}".rstrip()


def _pack_part(part: Part) -> bytes:
    return _PART.pack(part.first, part.count, part.size, part.oldest, part.last)


def strike_header(origin: str, batch: int, struck: Sequence[Struck]) -> str:
    """Return the header of a message that strikes writes."""
    packed = pack([field for each in struck for field in (_STRUCK.pack(each.number, each.size), _key(each))])
    return f"{VERSION} strike {origin} {batch} {b64encode(packed).decode()}".rstrip()


def _key(struck: Struck) -> bytes:
    return b"" if struck.destination is None else key_of(struck.destination)


def read_header(text: str, destinations: Destinations) -> LogHead | StrikeHead:
    """Return what a header says.

    :raises ValueError: it makes no sense, or is of a later version.
    """
    version, _, rest = text.partition(" ")
    if version != str(VERSION):
        raise ValueError(f"version {version[:20]!r} of a message is not known")
    kind, *fields = rest.split(" ")
    if kind == "log" and len(fields) in {4, 5}:
        origin, batch, piece, pieces = fields[0], int(fields[1]), int(fields[2]), int(fields[3])
        packed = unpack(b64decode("".join(fields[4:]), validate=True))
        keys, values = packed[::2], packed[1::2]
        parts = tuple(
            Part(destinations.of(key), *_unpacked(_PART, value)) for key, value in zip(keys, values, strict=True)
        )
        return LogHead(origin, batch, piece, pieces, parts)
    if kind == "strike" and len(fields) in {2, 3}:
        packed = unpack(b64decode("".join(fields[2:]), validate=True))
        struck = tuple(
            Struck(number, size, destinations.of(key) if key else None)
            for value, key in zip(packed[::2], packed[1::2], strict=True)
            for number, size in (_unpacked(_STRUCK, value),)
        )
        return StrikeHead(fields[0], int(fields[1]), struck)
    raise ValueError(f"a message of kind {kind[:20]!r} is not known")


def _unpacked(form: struct.Struct, data: bytes) -> tuple[Any, ...]:
    try:
        return form.unpack(data)
    except struct.error as error:
        raise ValueError(str(error)) from error


# -- payloads


def encode(records: Sequence[Record]) -> tuple[bytes, list[Part]]:
    """Return the payload of a message with these writes, and what is in there by destination."""
    contexts: dict[tuple[Destination, bytes], int] = {}
    parts: dict[Destination, list[float]] = {}
    heads, bodies = [], []
    pack_head = _RECORD.pack
    for index, record in enumerate(records):
        write = record.write
        body, destination = write.body, write.destination
        context = contexts.setdefault((destination, write.query), len(contexts))
        flags = (_MERGEABLE if write.mergeable else 0) | (_GZIPPED if write.gzipped else 0)
        heads.append(pack_head(context, flags, record.time, len(body)))
        bodies.append(body)
        part = parts.get(destination)
        if part is None:
            parts[destination] = [index, 1, len(body), record.time, index]
        else:
            part[1] += 1
            part[2] += len(body)
            part[4] = index
    packed = pack([field for destination, query in contexts for field in (key_of(destination), query)])
    rest = b"".join((_COUNTS.pack(len(contexts), len(packed), len(records)), packed, *heads, *bodies))
    return _PRELUDE.pack(VERSION, crc32(rest)) + rest, [_part(*each) for each in parts.items()]


def _part(destination: Destination, values: Sequence[float]) -> Part:
    first, count, size, oldest, last = values
    return Part(destination, int(first), int(count), int(size), oldest, int(last))


class Batch:
    """The writes of a message, of which each is read when it is asked for.

    :param seq: the message's, or that of its last piece.
    :raises ValueError: it is damaged, or of a later version.
    """

    def __init__(self, seq: int, payload: bytes, destinations: Destinations) -> None:
        try:
            version, crc = _PRELUDE.unpack_from(payload)
            contexts, size, count = _COUNTS.unpack_from(payload, _PRELUDE.size)
        except struct.error as error:
            raise ValueError("the message is cut off") from error
        if version != VERSION:
            raise ValueError(f"version {version} of a message is not known")
        if crc32(memoryview(payload)[_PRELUDE.size :]) != crc:
            raise ValueError("the message is damaged")
        heads = _BODIES_AT_LEAST + size
        bodies = heads + count * _RECORD.size
        fields = unpack(payload[_BODIES_AT_LEAST:heads])
        keys, queries = fields[::2], fields[1::2]
        self.seq = seq
        self.size = len(payload)
        self._payload = payload
        self._contexts = [(destinations.of(key), query) for key, query in zip(keys, queries, strict=True)]
        self._heads = list(_RECORD.iter_unpack(payload[heads:bodies]))
        self._bodies = bodies
        if len(self._contexts) != contexts:
            raise ValueError("the message is damaged")

    def records(self) -> list[Record]:
        """Return all writes."""
        return list(self._select(lambda context: True))  # noqa: ARG005 (a filter)

    def records_of(self, destination: Destination, after: int) -> Iterator[Record]:
        """Yield the writes of a destination that have higher numbers."""
        wanted = {index for index, (where, _) in enumerate(self._contexts) if where == destination}
        return self._select(wanted.__contains__, after)

    def _select(self, is_wanted: Callable[[int], bool], after: int = 0) -> Iterator[Record]:
        offset = self._bodies
        number = number_of(self.seq, 0)
        payload, contexts = self._payload, self._contexts
        for context, flags, when, size in self._heads:
            if number > after and is_wanted(context):
                destination, query = contexts[context]
                body = payload[offset : offset + size]
                write = Write(
                    destination,
                    query,
                    destination.credentials[0],
                    body,
                    bool(flags & _MERGEABLE),
                    bool(flags & _GZIPPED),
                )
                yield Record(number, when, write)
            offset += size
            number += 1


def cut(payload: bytes, size: int) -> list[bytes]:
    """Return a payload in pieces that are no larger than this."""
    if len(payload) <= size:
        return [payload]
    return [payload[start : start + size] for start in range(0, len(payload), size)]
