"""Points as line protocol, from the values that a query returns: what cannot be written exactly is not written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from influxrelay.lineprotocol.splitting import split_lines
from influxrelay.verification.points import tags_of
from influxrelay.verification.server import Series

_KINDS = {"integer": "i", "unsigned": "u"}
_FORMATS = {"integer": "}i", "unsigned": "}u", "float": "!r}", "boolean": "}"}
_LOOSE_NEWLINE = re.compile(r"(?<!\\)(?:\\\\)*\n")  # ends a line: no backslash takes it along
_BLANKS = ("\t", "\0")  # skipped where a line or its fields begin
_SKIPPED = ("#", *_BLANKS)  # a line that begins with the first is a comment
_MEASUREMENT = re.compile(r"[, ]")
_TAG = re.compile(r"[,= ]")
_FIELD = re.compile(r'[,"= ]')
_STRING = re.compile(r'["\\]')


def series_line(measurement: str, tags: Iterable[tuple[str, str]]) -> str:
    """Return the beginning of a line; empty if it cannot be written (``models/points.go``, ``escapeMeasurement``)."""
    names = [measurement, *(name for tag in tags for name in tag)]
    if measurement[:1] in _SKIPPED or not all(map(_is_writable, names)):
        return ""
    written = [_MEASUREMENT.sub(_escaped, measurement)]
    written += [f"{_TAG.sub(_escaped, name)}={_TAG.sub(_escaped, value)}" for name, value in tags]
    return ",".join(written)


def point_line(series: str, fields: Mapping[str, Any], kinds: Mapping[str, str], time: int) -> str:
    """Return the line of a point; empty if it cannot be written.

    :param series: what :func:`series_line` has returned.
    :param kinds: of the fields that are numbers: ``float``, ``integer`` or ``unsigned``.
    """
    written = []
    for name, value in fields.items():
        shown, begin = _value(value, kinds.get(name, "")), _field(name)
        if not shown or not begin:
            return ""
        written.append(begin + shown)
    return f"{series} {','.join(written)} {time}" if series and written else ""


def series_lines(measurement: str, series: Series, kinds: Mapping[str, str]) -> Iterator[str]:
    """Yield the line of each point of a series, empty for one that cannot be written.

    :param series: with numbers of the types that they have on the server.
    :param kinds: of all fields.
    """
    begin = series_line(measurement, tags_of(series))
    names = series.columns[1:]
    show = None
    if begin and all(kinds[name] in _FORMATS and _field(name) for name in names):
        fields = (f"{_braced(_field(name))}{{{n}{_FORMATS[kinds[name]]}" for n, name in enumerate(names, 1))
        show = f"{_braced(begin)} {','.join(fields)} {{0}}".format
    for row in series.values:
        if show is None or None in row:
            values = zip(names, row[1:], strict=True)
            yield point_line(begin, {name: value for name, value in values if value is not None}, kinds, row[0])
        else:
            yield show(*row)


def are_lines(lines: list[str]) -> bool:
    """Say whether InfluxDB reads lines, joined by newlines, as just these."""
    text = "\n".join(lines)
    if '"' not in text and "\\" not in text:
        return text.count("\n") == len(lines) - 1
    read, _ = split_lines(text.encode("utf-8", "surrogateescape"))
    return len(read) == len(lines)


@lru_cache(maxsize=10_000)
def _field(name: str) -> str:
    """Return the name of a field, up to its value; empty if it cannot be written."""
    return f"{_FIELD.sub(_escaped, name)}=" if name[:1] not in _BLANKS and _is_writable(name) else ""


def _value(value: Any, kind: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{_STRING.sub(_escaped, value)}"'
    if kind == "float":
        return repr(float(value))
    return f"{value}{_KINDS[kind]}" if kind in _KINDS and isinstance(value, int) else ""


def _is_writable(name: str) -> bool:
    """Say whether a name can be read back: a backslash escapes."""
    return bool(name) and not name.endswith("\\") and not _LOOSE_NEWLINE.search(name)


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def _braced(text: str) -> str:
    """Return text as it stands in a format."""
    return text.replace("{", "{{").replace("}", "}}")
