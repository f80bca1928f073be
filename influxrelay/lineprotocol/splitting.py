"""A body taken apart: its lines, and the names in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from influxrelay.lineprotocol.clean_lines import SERIES, STRING, fields
from influxrelay.lineprotocol.scanner import BLANKS, OFTEN, WHOLE_SERIES, find_line_end

_WINDOW = 64 * 1024  # bytes of lines that are split at once, where that is simple
MAX_SERIES: Final = 65535  # bytes that a series may have (``MaxKeyLength``)
_INDENT = re.compile(rb"\n[ \t\0]")
_CLEAN_LINE = re.compile(
    rb"(" + SERIES + rb") " + fields(STRING + rb'|[^\\",= \n]++') + rb"(?> -?+[0-9]++)?+(?=\n|\Z)", re.DOTALL
)
_LEADING_SERIES = re.compile(rb"[ \t\0]*+((?>[^ \\]++|\\++ ?+)++)")
_WHOLE = re.compile(WHOLE_SERIES)
_UNESCAPED_COMMA = re.compile(rb"(?<!\\),")
_UNESCAPED_EQUALS = re.compile(rb"(?<!\\)=")
_ESCAPE_IN_NAME = re.compile(rb"\\([, =\"])")  # pkg/escape/bytes.go
_ESCAPE_IN_KEY = re.compile(rb"\\([, =])")  # tagEscapeCodes


def split_lines(body: bytes) -> tuple[list[bytes], list[bytes]]:
    r"""Split a body at the newlines that end lines: ``b"\n".join`` makes it one again.

    :return: the lines, and for each what may be its series: measurement and tags as they are written, for
        :func:`read_series`.
    """
    lines, series = [], []
    for _, some, theirs in split_slowly(body):
        lines += some
        series += theirs
    return lines, series


def split_slowly(body: bytes) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
    """Do what :func:`split_lines` does, a millisecond or so and some lines at a time, at times none.

    :return: where the first of these lines begins, and they.
    """
    if b'"' not in body and b"\\" not in body and _INDENT.search(body) is None and body[:1] not in BLANKS:
        start = end = 0
        while end >= 0:
            end = body.find(b"\n", start + _WINDOW)
            lines = (body[start:] if end < 0 else body[start:end]).split(b"\n")
            yield start, lines, [line.partition(b" ")[0] for line in lines]
            start = end + 1
        return
    lines, series = [], []
    start = position = 0
    while position <= len(body):
        clean = _CLEAN_LINE.match(body, position)
        if clean:
            end = clean.end()
            series.append(clean[1])
        else:
            finding = find_line_end(body, position)
            while True:
                try:
                    next(finding)
                except StopIteration as found:
                    end, _ = found.value
                    break
                yield position, [], []
            leading = _LEADING_SERIES.match(body, position, end)
            series.append(leading[1] if leading else b"")
        lines.append(body[position:end])
        position = end + 1
        if len(lines) >= OFTEN or position > len(body):
            yield start, lines, series
            lines, series, start = [], [], position


def read_series(series: bytes) -> tuple[bytes, list[bytes]] | None:
    """Read a measurement and the keys of its tags, as InfluxDB shows them; None if it would refuse to read them.

    The fork's filters see the same names (``Name()`` and ``Tags()`` in ``models/points.go``).
    """
    if not _is_whole(series):
        return None
    measurement, *tags = _UNESCAPED_COMMA.split(series)
    keys = [_UNESCAPED_EQUALS.split(tag, 1)[0] for tag in tags]
    if b"\\" not in series:
        return measurement, keys
    return _ESCAPE_IN_NAME.sub(rb"\1", measurement), [_ESCAPE_IN_KEY.sub(rb"\1", key) for key in keys]


def read_tag(series: bytes, tag: bytes | None) -> bytes | None:
    """Read the value of a tag, or the measurement, as InfluxDB shows it; None if InfluxDB would refuse the series.

    :param tag: as InfluxDB shows it; None for the measurement.
    :return: empty if there is no such tag.
    """
    if not _is_whole(series):
        return None
    measurement, *tags = _UNESCAPED_COMMA.split(series)
    if tag is None:
        return _ESCAPE_IN_NAME.sub(rb"\1", measurement)
    for each in tags:
        key, value = (_ESCAPE_IN_KEY.sub(rb"\1", part) for part in _UNESCAPED_EQUALS.split(each, 1))
        if key == tag:
            return value
    return b""


def _is_whole(series: bytes) -> bool:
    return not series.startswith(b"#") and len(series) <= MAX_SERIES and _WHOLE.fullmatch(series) is not None
