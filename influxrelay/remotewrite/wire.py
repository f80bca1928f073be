"""Protocol buffers, read field by field without a schema (protobuf.dev, "Encoding")."""

from __future__ import annotations

from collections.abc import Iterator

from influxrelay.remotewrite.snappy import BodyError, encoded

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_MAX_SHIFT = 63  # of a number's last seven bits


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield each field of a message: its number, its wire type, where it begins, where its value begins and ends.

    :raises BodyError: it is no message.
    """
    end = len(data) if end is None else end
    position = start
    while position < end:
        begin = position
        tag = data[position]
        position += 1
        if tag >= 0x80:
            tag, position = varint(data, begin, end)
        kind = tag & 7
        if kind == LENGTH_DELIMITED:
            length, value = varint(data, position, end)
            position = value + length
        elif kind == VARINT:
            value = position
            _, position = varint(data, position, end)
        elif kind in _FIXED:
            value = position
            position += _FIXED[kind]
        else:
            raise BodyError(f"wire type {kind} at byte {begin}")
        if position > end or tag < 8:
            raise BodyError(f"no field at byte {begin}")
        yield tag >> 3, kind, begin, value, position


def varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return the number at a position, and the position behind it.

    :raises BodyError: there is none.
    """
    number = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
        if shift > _MAX_SHIFT:
            break
    raise BodyError(f"no number at byte {position}")


def tagged(number: int, value: bytes) -> bytes:
    """Return a field with a message or a string as its value."""
    return encoded(number << 3 | LENGTH_DELIMITED) + encoded(len(value)) + value
