r"""Line by line, exactly as InfluxDB reads line protocol: where a line ends, and where its fields do.

Everything here takes and returns ``bytes`` and makes no object per point. The authority is InfluxDB's own parser,
``models/points.go``, the same in 1.6 to 1.12 and 2.x but for unsigned integers. It reads each line twice, and the two
readings need not agree:

* ``scanLine`` finds where a line ends. A backslash takes the next byte with it, even a newline. Quotes count after the
  first space, while there are more ``=`` than ``,``; a newline between them does not end the line.
* ``parsePoint`` reads the line. In measurement and tags a byte is escaped if a backslash precedes it (also in
  ``\\,``); in fields, backslashes go in pairs with the byte that follows.

A carriage return is a byte like any other: ``v=1\r`` and ``1234\r`` are refused, ``s="x"\r`` is accepted.

Time is linear for any input: no loop goes back. ``(?>...)*+`` is possessive, and atomic as well because before Python
3.11.5 a possessive loop ends in the wrong place if its last round fails half-way (CPython issue 106052).
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator
from typing import TypeVar, cast

T = TypeVar("T")

OFTEN = 64  # steps of loops, each some microseconds, between two pauses
BLANKS = b" \t\0"
_QUOTE, _COMMA, _EQUALS, _NEWLINE = b'",=\n'

BOOLEAN = rb"t(?>rue)?+|T(?>rue|RUE)?+|f(?>alse)?+|F(?>alse|ALSE)?+"

_WINDOW = 64 * 1024  # bytes that a regular expression goes through at once
_LONGEST = 1024 * 1024  # bytes of a series, at the least, that InfluxDB refuses anyway; it takes 64 KB
_FIELDS = 1000  # fields that one looks at at once


def _runs(plain: bytes, last: bytes) -> dict[bool, re.Pattern[bytes]]:
    """Match as much as there is of plain bytes and of backslashes with the byte that each escapes.

    :param last: an escape where the end of the text is near, which is the key of that pattern.
    """
    escapes = {False: rb"\\.", True: last}
    return {end: re.compile(rb"(?>" + plain + rb"++|" + each + rb")*+", re.DOTALL) for end, each in escapes.items()}


# scanLine: a backslash escapes nothing if there are fewer than two bytes behind it.
_ESCAPED = rb"\\.(?=.)|\\"
_TO_FIELDS = _runs(rb"[^\\ \n]", _ESCAPED)
_TO_SIGN = _runs(rb'[^\\",=\n]', _ESCAPED)
_TO_QUOTE = _runs(rb'[^\\"]', _ESCAPED)

# scanKey, scanFields, scanNumber, scanBoolean, walkFields and scanTime.
_EXACT_KEY = rb"[^ ,=\\]++|\\++[ ,=]?+"
WHOLE_SERIES = (
    rb"(?>[^ ,\\]++|\\++[ ,]?+)++"
    rb"(?>,(?>" + _EXACT_KEY + rb")++=(?:=|" + _EXACT_KEY + rb")(?>" + _EXACT_KEY + rb")*+)*+"
)
_EXACT_SERIES = re.compile(WHOLE_SERIES + rb"(?= )[ \t\0]*+")
_TO_FIELD_SIGN = _runs(rb'[^\\",= ]', rb"\\.?+")
_TO_FIELD_QUOTE = _runs(rb'[^\\"]', rb"\\.?+")
_NUMBER = re.compile(rb"(?:(-?+[0-9]++)([iu])|-?+(?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?>[eE][+-]?+[0-9]++)?+)(?=[, ]|\Z)")
_TRUTH = re.compile(rb"(?:" + BOOLEAN + rb")(?=[, ]|\Z)")
_MISSING = re.compile(rb"=(?:(?<=[^\\][ ,]=)|[, ]|\Z)")  # a field key or value
_PAIRS = re.compile(
    rb"(?>"
    rb"(?>[^=\\]++|\\++=?+)*+=(?=.)"
    rb'(?>[^",\\]++|\\["\\]?+|"(?>[^"\\]++|\\["\\]?+)*+(?:"|\Z))*+,?+'
    rb"){1,%d}+" % _FIELDS,
    re.DOTALL,
)


Steps = Generator[int, None, T]
"""Work that can be interrupted at each ``yield``, which tells how many bytes more are in memory; and its result."""


def run(steps: Steps[T]) -> T:
    """Do all of the work."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


def find_line_end(body: bytes, position: int) -> Steps[tuple[int, bool]]:
    """Find the end of the line that begins here, as ``scanLine`` does, and whether no quote is open there."""
    position = _skip(_TO_FIELDS, body, position)
    if position < 0:
        position = yield from _skip_on(_TO_FIELDS, body, position)
    equals = commas = steps = 0
    while position < len(body) and (sign := body[position]) != _NEWLINE:
        steps += 1
        if steps % OFTEN == 0:
            yield 0
        if sign == _QUOTE and equals > commas:
            position = _skip(_TO_QUOTE, body, position + 1)
            if position < 0:
                position = yield from _skip_on(_TO_QUOTE, body, position)
            if position == len(body):
                return position, False
        elif sign == _EQUALS:
            equals += 1
        elif sign == _COMMA:
            commas += 1
        position = _skip(_TO_SIGN, body, position + 1)
        if position < 0:
            position = yield from _skip_on(_TO_SIGN, body, position)
    return position, True


def line_end(body: bytes, position: int) -> tuple[int, bool]:
    """Do what :func:`find_line_end` does in one go."""
    return run(find_line_end(body, position))


def ends_anywhere(line: bytes) -> Steps[bool]:
    """Tell whether a line ends where it does whatever follows its newline; bit by bit.

    It does not if it leaves a quote open, or if a backslash at its end is an escape as soon as two bytes follow.
    """
    found = yield from find_line_end(line + b"\n\n\n", 0)
    return found == (len(line), True)


def find_fields_end(line: bytes, *, unsigned: bool = True) -> Steps[int | None]:
    """Find where the fields of a line end, as ``parsePoint`` reads it; None if it is malformed up to there."""
    series = _EXACT_SERIES.match(line, 0, _LONGEST)
    if series is not None and series.end() == _LONGEST:  # which may be among the blanks behind it
        series = _EXACT_SERIES.match(line)
    if series is None:
        return None
    start = position = series.end()
    equals = commas = steps = 0
    while (sign := line[position : position + 1]) != b" " and sign:
        steps += 1
        if steps % OFTEN == 0:
            yield 0
        if sign == b"=":
            equals += 1
            position = _after_equals(line, position, unsigned=unsigned)
            if position < 0:
                return None
        else:
            quoted = sign == b'"' and equals > commas
            commas += sign == b","
            runs = _TO_FIELD_QUOTE if quoted else _TO_FIELD_SIGN
            position = _skip(runs, line, position + (sign in b'",'))
            if position < 0:
                position = yield from _skip_on(runs, line, position)
            position += quoted
            if position > len(line):
                return None
    if equals != commas + 1 or not (yield from _are_pairs(line, start, position)):
        return None
    return position


def _are_pairs(line: bytes, start: int, end: int) -> Steps[bool]:
    """Tell whether there is nothing but pairs of keys and values between two positions."""
    while start < end:
        pairs = _PAIRS.match(line, start, end)
        if pairs is None:
            return False
        start = pairs.end()
        if start < end:
            yield 0
    return True


def fields_end(line: bytes, *, unsigned: bool = True) -> int | None:
    """Do what :func:`find_fields_end` does in one go."""
    return run(find_fields_end(line, unsigned=unsigned))


def _after_equals(line: bytes, position: int, *, unsigned: bool) -> int:
    """Find where to read on after the ``=`` here: behind a number or boolean, or at a quote; -1 if there is none."""
    if _MISSING.match(line, position):
        return -1
    position += 1
    if line[position] == _QUOTE:
        return position
    number = _NUMBER.match(line, position)
    if number is None:
        truth = _TRUTH.match(line, position)
        return truth.end() if truth else -1
    digits, kind = number.groups()
    if kind is None:
        valid = math.isfinite(float(number[0]))
    elif kind == b"i":
        valid = -(2**63) <= integer(digits) < 2**63
    else:
        valid = unsigned and not digits.startswith(b"-") and integer(digits) < 2**64
    return number.end() if valid else -1


def integer(digits: bytes) -> int:
    """Convert like ``int``, which raises on some thousand digits; here, what 64 bits cannot hold is just too much."""
    sign = -1 if digits.startswith(b"-") else 1
    digits = digits.lstrip(b"-").lstrip(b"0")
    return sign * int(digits[:21] or b"0")


def _skip(runs: dict[bool, re.Pattern[bytes]], text: bytes, position: int) -> int:
    """Find where a run stops; if that is further away than is looked at once, return how far it goes, negated by ~."""
    window = position + _WINDOW
    if window >= len(text):
        match = runs[True].match(text, position)
        return match.end() if match else position
    match = runs[False].match(text, position, window)
    end = match.end() if match else position
    return end if end < window - 1 else ~end


def _skip_on(runs: dict[bool, re.Pattern[bytes]], text: bytes, position: int) -> Steps[int]:
    """Find where a run stops of which :func:`_skip` has found only a part."""
    while position < 0:
        yield 0
        position = _skip(runs, text, ~position)
    return position
