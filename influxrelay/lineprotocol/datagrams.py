"""Lines of datagrams, of which InfluxDB accepts all or none."""

from __future__ import annotations

import re
from collections.abc import Iterator

from influxrelay.lineprotocol.clean_lines import END, IN_RANGE, ONE_LINE_STRING, SERIES, fields, lines
from influxrelay.lineprotocol.parser import PRECISIONS
from influxrelay.lineprotocol.scanner import BLANKS, ends_anywhere, fields_end, integer, line_end, run

_TIME_MIN, _TIME_MAX = -(2**63) + 2, 2**63 - 2  # models/time.go
_TIME = re.compile(rb"(-?+[0-9]++) *+\Z")


def _simple(precision: bytes) -> re.Pattern[bytes]:
    """Match valid lines whose timestamp cannot be out of range: it is shorter than the last one, or begins lower."""
    first, *others = b"%d" % (_TIME_MAX // PRECISIONS[precision])
    time = rb"-?+(?:[0-%c][0-9]{%d}|[0-9]{1,%d}+)" % (first - 1, len(others), len(others))
    return lines(SERIES + rb" " + fields(IN_RANGE + rb"|" + ONE_LINE_STRING) + rb" " + time + END)


_SIMPLE = {precision: _simple(precision) for precision in PRECISIONS}


def all_simple(data: bytes, precision: bytes = b"") -> bool:
    """Tell whether every line is valid, has a timestamp and no newline within: nothing has to be stamped or dropped.

    False means nothing: then :func:`split_valid` has to look.
    """
    return _SIMPLE[precision].fullmatch(data) is not None


def split_valid(data: bytes, precision: bytes = b"") -> tuple[list[bytes], int]:
    """Pick the lines that InfluxDB 1.x accepts, each good in any company, and count the others.

    No newline at their ends, no comments, no blank lines. Unsigned integers are not valid here, nor are timestamps out
    of range: InfluxDB drops a datagram for one bad line in it. Duplicate tags and keys over 64 KiB are not found.
    """
    valid = []
    invalid = 0
    for line in _each_line(data):
        parsed = fields_end(line, unsigned=False)
        if (
            parsed is not None
            and _time_is_valid(line[parsed:].lstrip(BLANKS), precision)
            and run(ends_anywhere(line))  # also among others, and without leading blanks
        ):
            valid.append(line)
        else:
            invalid += 1
    return valid, invalid


def _each_line(body: bytes) -> Iterator[bytes]:
    """Yield what InfluxDB reads as points, without leading blanks and the newline."""
    position = 0
    while position < len(body):
        end, _ = line_end(body, position)
        line = body[position:end].lstrip(BLANKS)
        if line and not line.startswith(b"#"):
            yield line.removesuffix(b"\n")
        position = end + 1


def _time_is_valid(rest: bytes, precision: bytes) -> bool:
    """Whether what follows the fields is nothing, or a timestamp in range (``SafeCalcTime``)."""
    if not rest:
        return True
    time = _TIME.match(rest)
    if time is None:
        return False
    return _TIME_MIN <= integer(time[1]) * PRECISIONS[precision] <= _TIME_MAX
