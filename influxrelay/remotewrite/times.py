"""A series divided by the times of its samples, histograms and exemplars."""

from __future__ import annotations

from collections.abc import Callable

from influxrelay.remotewrite.wire import LENGTH_DELIMITED, VARINT, fields, tagged, varint

_TIMES = {1: {2: 2, 3: 3, 4: 15}, 2: {2: 2, 3: 15, 4: 3}}
"""By version: the fields of a series that are samples, exemplars and histograms, each with the field of its time."""


def divide_by_time(field: bytes, part_of: Callable[[int], int], *, version: int) -> dict[int, bytes]:
    """Return what each part of time has of a series; nothing of one without samples, histograms and exemplars.

    :param field: the series as it stands in a request.
    :param part_of: tells the part of a time in milliseconds.
    :return: the field itself where one part has all of it.
    :raises BodyError: it is no series.
    """
    ((number, _, _, start, end),) = fields(field)
    rest: list[bytes] = []
    points: dict[int, list[bytes]] = {}
    for inner, kind, begin, first, last in fields(field, start, end):
        time_field = _TIMES[version].get(inner)
        if time_field is None or kind != LENGTH_DELIMITED:
            rest.append(field[begin:last])
        else:
            points.setdefault(part_of(_time(field, first, last, time_field)), []).append(field[begin:last])
    if len(points) == 1:
        return dict.fromkeys(points, field)
    return {part: tagged(number, b"".join((*rest, *some))) for part, some in points.items()}


def _time(message: bytes, start: int, end: int, time_field: int) -> int:
    """Return the time of a sample, a histogram or an exemplar: 0 if it is left out, as always in protocol buffers."""
    time = 0
    for number, kind, _, value, stop in fields(message, start, end):
        if number == time_field and kind == VARINT:
            time, _ = varint(message, value, stop)
    return time - (1 << 64) if time >= 1 << 63 else time
