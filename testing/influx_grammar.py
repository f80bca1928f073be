r"""InfluxDB's line protocol parser, told in Python byte by byte, to check the fast one against.

It follows ``models/points.go`` (1.6 to 1.12, and 2.x, which also has unsigned integers: here on request), function
by function and in its order, with all of its quirks. Left out are duplicate tags and keys over 64 KiB. It is slow.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Malformed(Exception):
    """InfluxDB refuses the line."""


class Line(NamedTuple):
    """One line that is neither blank nor a comment.

    :ivar text: as InfluxDB's error message quotes it.
    :ivar time: the timestamp's digits; None if the point gets the time of its arrival.
    """

    text: bytes
    accepted: bool
    series: bytes = b""
    fields: bytes = b""
    time: bytes | None = None


def read(body: bytes, *, unsigned: bool = True) -> Iterator[Line]:
    """Yield what InfluxDB reads (``ParsePointsWithPrecision``)."""
    position = 0
    while position < len(body):
        end = scan_line(body, position)
        block = body[position:end]
        position = end + 1
        start = skip_whitespace(block, 0)
        if start >= len(block) or block[start : start + 1] == b"#":
            continue
        if block[-1:] == b"\n":
            block = block[:-1]
        block = block[start:]
        try:
            yield parse_point(block, unsigned=unsigned)
        except Malformed:
            yield Line(block, accepted=False)


def scan_line(buf: bytes, i: int) -> int:
    """Find where the line ends that begins at ``i``."""
    quoted = fields = False
    equals = commas = 0
    while i < len(buf):
        c = buf[i : i + 1]
        if c == b"\\" and i + 2 < len(buf):
            i += 2
            continue
        if c == b" ":
            fields = True
        if fields and not quoted and c == b"=":
            equals += 1
        elif fields and not quoted and c == b",":
            commas += 1
        elif fields and c == b'"' and equals > commas:
            quoted = not quoted
        elif c == b"\n" and not quoted:
            break
        i += 1
    return i


def parse_point(buf: bytes, *, unsigned: bool) -> Line:
    """Read one line."""
    series_end = scan_key(buf)
    start = skip_whitespace(buf, series_end)
    end = scan_fields(buf, start, unsigned=unsigned)
    walk_fields(buf[start:end])
    time_start = skip_whitespace(buf, end)
    time_end = scan_time(buf, time_start)
    time = buf[time_start:time_end]
    if time:
        if time == b"-" or not -(2**63) + 2 <= to_int(time) <= 2**63 - 2:
            raise Malformed
        if buf[time_end:].strip(b" "):
            raise Malformed
    return Line(buf, accepted=True, series=buf[:series_end], fields=buf[start:end], time=time or None)


def skip_whitespace(buf: bytes, i: int) -> int:
    """Pass spaces, tabs and NULs."""
    while i < len(buf) and buf[i : i + 1] in (b" ", b"\t", b"\0"):
        i += 1
    return i


def scan_key(buf: bytes) -> int:
    """Pass measurement and tags (``scanMeasurement``, ``scanTags``)."""
    i = 0
    if buf[:1] == b",":
        raise Malformed
    while True:
        i += 1
        if i >= len(buf):
            raise Malformed
        if buf[i - 1 : i] == b"\\":
            continue
        if buf[i : i + 1] == b" ":
            return i
        if buf[i : i + 1] == b",":
            break
    while buf[i : i + 1] == b",":
        i = scan_tag_key(buf, i + 1)
        i = scan_tag_value(buf, i)
    return i


def scan_tag_key(buf: bytes, i: int) -> int:
    """Pass a tag's key and its ``=``."""
    if buf[i : i + 1] in (b"", b" ", b",", b"="):
        raise Malformed
    while True:
        i += 1
        if i >= len(buf):
            raise Malformed
        escaped = buf[i - 1 : i] == b"\\"
        if buf[i : i + 1] in (b" ", b",") and not escaped:
            raise Malformed
        if buf[i : i + 1] == b"=" and not escaped:
            return i + 1


def scan_tag_value(buf: bytes, i: int) -> int:
    """Pass a tag's value, up to a comma or space."""
    if buf[i : i + 1] in (b"", b",", b" "):
        raise Malformed
    while True:
        i += 1
        if i >= len(buf):
            raise Malformed
        escaped = buf[i - 1 : i] == b"\\"
        if buf[i : i + 1] == b"=" and not escaped:
            raise Malformed
        if buf[i : i + 1] in (b",", b" ") and not escaped:
            return i


def scan_fields(buf: bytes, i: int, *, unsigned: bool) -> int:  # noqa: C901 - one function there too
    """Pass all fields, up to a space or the end."""
    quoted = False
    equals = commas = 0
    while i < len(buf):
        c = buf[i : i + 1]
        if c == b"\\" and i + 1 < len(buf):
            i += 2
            continue
        if c == b'"' and equals > commas:
            quoted = not quoted
            i += 1
            continue
        if c == b"=" and not quoted:
            equals += 1
            if buf[i - 1 : i] in (b" ", b",") and buf[i - 2 : i - 1] != b"\\":
                raise Malformed
            following = buf[i + 1 : i + 2]
            if following in (b"", b",", b" "):
                raise Malformed
            if following in b"0123456789.-Nn":
                i = scan_number(buf, i + 1, unsigned=unsigned)
                continue
            if following != b'"':
                i = scan_boolean(buf, i + 1)
                continue
        if c == b"," and not quoted:
            commas += 1
        if c == b" " and not quoted:
            break
        i += 1
    if quoted or equals == 0 or commas != equals - 1:
        raise Malformed
    return i


def scan_number(buf: bytes, i: int, *, unsigned: bool) -> int:  # noqa: C901, PLR0912 - one function there too
    """Pass a float, integer or unsigned integer."""
    start = i
    kind = b""
    decimal = scientific = False
    if buf[i : i + 1] == b"-":
        i += 1
    while i < len(buf) and buf[i : i + 1] not in (b",", b" "):
        c = buf[i : i + 1]
        if c in (b"i", b"u") and i > start and not kind:
            kind = c
        elif c in (b"e", b"E") and i > start:
            scientific = True
        elif c in (b"+", b"-") and buf[i - 1 : i] in (b"e", b"E"):
            pass
        elif c == b"." and not decimal:
            decimal = True
        elif not c.isdigit():
            raise Malformed
        i += 1
    number = buf[start:i]
    if not any(number.count(digit) for digit in (b"%d" % n for n in range(10))):
        raise Malformed
    if kind:
        if decimal or scientific or number[-1:] != kind:
            raise Malformed
        value = to_int(number[:-1])
        if kind == b"u" and (not unsigned or number[:1] == b"-"):
            raise Malformed
        low, high = (-(2**63), 2**63) if kind == b"i" else (0, 2**64)
        if not low <= value < high:
            raise Malformed
    else:
        try:
            finite = math.isfinite(float(number))
        except ValueError:
            raise Malformed from None
        if not finite:
            raise Malformed
    return i


def to_int(digits: bytes) -> int:
    """Convert digits with or without a minus; one far out of range is as good as another, and ``int`` has limits."""
    value = 0
    for digit in digits.lstrip(b"-"):
        value = min(value * 10 + digit - ord("0"), 10**30)
    return -value if digits.startswith(b"-") else value


def scan_boolean(buf: bytes, i: int) -> int:
    """Pass a boolean."""
    start = i
    while i < len(buf) and buf[i : i + 1] not in (b",", b" "):
        i += 1
    if buf[start:i] not in (b"t", b"T", b"true", b"True", b"TRUE", b"f", b"F", b"false", b"False", b"FALSE"):
        raise Malformed
    return i


def scan_time(buf: bytes, i: int) -> int:
    """Pass the timestamp, if there is one."""
    start = i
    while i < len(buf) and buf[i : i + 1] not in (b"\n", b" "):
        if not (buf[i : i + 1].isdigit() or (i == start and buf[i : i + 1] == b"-")):
            raise Malformed
        i += 1
    return i


def walk_fields(buf: bytes) -> None:
    """Find key and value of each field once more, by rules of its own."""
    while buf:
        i = 0
        while i < len(buf) and not (buf[i : i + 1] == b"=" and (i == 0 or buf[i - 1 : i] != b"\\")):
            i += 1
        if i > len(buf) - 2:
            raise Malformed
        buf = buf[i + 1 :]
        buf = buf[scan_field_value(buf) :][1:]


def scan_field_value(buf: bytes) -> int:
    """Pass a field's value; here a backslash escapes quotes and backslashes alone."""
    i = 0
    quoted = False
    while i < len(buf):
        if buf[i : i + 1] == b"\\" and buf[i + 1 : i + 2] in (b'"', b"\\"):
            i += 2
            continue
        if buf[i : i + 1] == b'"':
            quoted = not quoted
        elif buf[i : i + 1] == b"," and not quoted:
            break
        i += 1
    return i
