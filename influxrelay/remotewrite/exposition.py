"""Remote writes as text for people, a sample on each line, as in Prometheus' own text format.

Samples look like ``up{job="node"} 1 1700000000000``, with milliseconds at the end. Histograms have no such form: of
them only the time is shown, and of what holds no samples only the series.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from influxrelay.remotewrite.bodies import NAME, Series, series
from influxrelay.remotewrite.snappy import BodyError, unpack
from influxrelay.remotewrite.wire import FIXED64, VARINT, fields, varint

_SAMPLES, _HISTOGRAMS = {1: 2, 2: 2}, {1: 4, 2: 3}  # fields of a series, by version
_VALUE, _SAMPLE_TIME, _HISTOGRAM_TIME = 1, 2, 15
_DOUBLE = struct.Struct("<d")
_SIGN = 1 << 63


def lines(body: bytes, version: int) -> Iterator[str]:
    """Yield what a body says, as it came; its end is missing if the body is none.

    :param version: 1 or 2.
    """
    try:
        for each in series(unpack(body), version=version):
            yield from _of_series(each, version)
    except BodyError as error:
        yield f"# not a remote write: {error}"


def _of_series(one: Series, version: int) -> Iterator[str]:
    name = _show_labels(one)
    ((_, _, _, start, end),) = fields(one.field)
    is_empty = True
    for number, _, _, first, last in fields(one.field, start, end):
        if number == _SAMPLES[version]:
            yield f"{name} {_show(_value(one.field, first, last))} {time_of(one.field, first, last, _SAMPLE_TIME)}"
        elif number == _HISTOGRAMS[version]:
            yield f"{name} histogram {time_of(one.field, first, last, _HISTOGRAM_TIME)}"
        else:
            continue
        is_empty = False
    if is_empty:
        yield f"# {name} has no samples"


def _show_labels(one: Series) -> str:
    labels = ",".join(f'{_text(name)}="{_quoted(value)}"' for name, value in one.labels if name != NAME)
    return _text(one.label(NAME)) + (f"{{{labels}}}" if labels else "")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _quoted(value: bytes) -> str:
    return _text(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _show(value: float) -> str:
    return repr(value).removesuffix(".0")


def _value(message: bytes, start: int, end: int) -> float:
    for number, kind, _, first, _ in fields(message, start, end):
        if number == _VALUE and kind == FIXED64:
            (value,) = _DOUBLE.unpack_from(message, first)
            return float(value)
    return 0.0


def time_of(message: bytes, start: int, end: int, field: int = _SAMPLE_TIME) -> int:
    """Return the timestamp of a sample, in milliseconds."""
    for number, kind, _, first, _ in fields(message, start, end):
        if number == field and kind == VARINT:
            time, _ = varint(message, first, end)
            return time - 2 * _SIGN if time >= _SIGN else time
    return 0
