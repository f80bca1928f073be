"""Timestamps in another precision: for servers that lack the client's, and for clients that leave it open."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from influxrelay.lineprotocol.parser import window_end
from influxrelay.lineprotocol.scanner import BLANKS, OFTEN, Steps, find_fields_end, find_line_end, run

Convert = Callable[[bytes], bytes]
"""Returns the digits of a timestamp in another precision."""

_TIMESTAMP = re.compile(rb"(?<= )-?[0-9]{1,20}(?=[ \t\0]*(?:\n|\Z))")
_ALONE = re.compile(rb"[ \t\0]*(-?[0-9]{1,20})[ \t\0]*")
_SECOND = 10**9


def multiply(digits: bytes, factor: int) -> bytes:
    """Return a timestamp in a unit that is this many times finer."""
    return b"%d" % (int(digits) * factor)


def guess(digits: bytes) -> bytes:
    """Return a timestamp of unknown precision in nanoseconds.

    The size of the number decides, as for ``precision=auto`` in InfluxDB 3 (``influxdb3_write``, ``guess_precision``).
    """
    value = int(digits)
    size = abs(value)
    if size < 5 * _SECOND:
        return b"%d" % (value * _SECOND)
    if size < 5_000 * _SECOND:
        return b"%d" % (value * 1_000_000)
    if size < 5_000_000 * _SECOND:
        return b"%d" % (value * 1_000)
    return digits


def rescale(body: bytes, factor: int) -> bytes:
    """Return line protocol with its timestamps in a unit that is this many times finer."""
    return run(convert_slowly(body, partial(multiply, factor=factor)))


def convert_slowly(body: bytes, convert: Convert) -> Steps[bytes]:
    """Convert the timestamps of all lines, a millisecond or so at a time; all else stays byte for byte.

    What looks like a timestamp at the end of a comment or of a malformed line, which InfluxDB refuses anyway, may
    change too.
    """
    pieces: list[bytes] = []
    position = 0
    if b'"' not in body and b"\\" not in body:  # a newline is the end of a line then
        while position < len(body):
            end = window_end(body, position)
            pieces.append(_TIMESTAMP.sub(lambda found: convert(found[0]), body[position:end]))
            position = end
            yield 0
        return b"".join(pieces)
    steps = 0
    while position < len(body):
        steps += 1
        if steps % OFTEN == 0:
            yield 0
        end, _ = yield from find_line_end(body, position)
        pieces.append((yield from _convert_line(body[position : end + 1], convert)))
        position = end + 1
    return b"".join(pieces)


def _convert_line(line: bytes, convert: Convert) -> Steps[bytes]:
    """Convert the timestamp of one line, if it has one; the line may end with its newline."""
    point = line.removesuffix(b"\n").lstrip(BLANKS)
    if point.startswith(b"#"):
        return line
    end = yield from find_fields_end(point)
    found = _ALONE.fullmatch(point, end) if end is not None else None
    if found is None:
        return line
    shift = line.index(point)
    first, last = found.span(1)
    return line[: shift + first] + convert(found[1]) + line[shift + last :]
