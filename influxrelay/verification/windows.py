"""Windows of time: where shard groups begin and end, and what the aggregates of a window say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from influxrelay.verification.points import Tags, tags_of
from influxrelay.verification.server import Series
from influxrelay.verification.statements import EVERYTHING, Window

PARTS = 256  # windows that are asked for at a time
_ROUNDING = 1e-13  # of what is added up; where more differs, the points are compared
_SECOND = 10**9

Aggregates = dict[str, Any]
"""What a server says of a window, by ``count_FIELD``, ``sum_FIELD``..."""


def read_time(shown: str) -> int:
    """Return a time of SHOW SHARD GROUPS; the end of the last group is that of all time."""
    since = datetime.fromisoformat(shown) - datetime.fromisoformat("1970-01-01T00:00:00Z")
    time = (since.days * 86400 + since.seconds) * _SECOND
    return EVERYTHING.until if time >= EVERYTHING.until // _SECOND * _SECOND else max(time, EVERYTHING.since)


def shard_windows(groups: Iterable[Window], bounds: Window) -> list[Window]:
    """Return the windows that the shard groups of all servers leave of a range, each in no more than one of each."""
    spans = [Window(max(each.since, bounds.since), min(each.until, bounds.until)) for each in groups]
    spans = [each for each in spans if each.length > 0]
    edges = sorted({edge for each in spans for edge in each})
    return [Window(*pair) for pair in pairwise(edges) if any(each.since <= pair[0] < each.until for each in spans)]


def width_of_parts(window: Window, parts: int) -> int:
    """Return the width by which a server can divide a window; 0 if it cannot: at the ends of time it miscounts.

    One part is one, too: of points of one time it has the same first and last on each server.
    """
    width = -(-window.length // parts)
    if window.since - width < EVERYTHING.since or window.until + width > EVERYTHING.until:
        return 0
    return width


def parts_of(window: Window, number: int) -> list[Window]:
    """Return so many parts of a window, of about the same length, or fewer if it is too short."""
    width = -(-window.length // max(1, number))
    return [Window(since, min(since + width, window.until)) for since in range(window.since, window.until, width)]


def halves(window: Window) -> list[Window]:
    """Return both halves of a window that is longer than a nanosecond."""
    middle = window.since + window.length // 2
    return [Window(window.since, middle), Window(middle, window.until)]


def read_aggregates(answer: Sequence[Series], window: Window, width: int) -> dict[Window, Aggregates]:
    """Return the aggregates of each window that has points.

    :param width: by which the server has divided the window; 0 if it has not.
    """
    found: dict[Window, Aggregates] = {}
    for series in answer:
        for row in series.values:
            values = {name: value for name, value in zip(series.columns, row, strict=True) if value is not None}
            time = values.pop("time")
            part = Window(max(time, window.since), min(time + width, window.until)) if width else window
            if points_of(values):
                found[part] = values
    return found


def read_series_aggregates(answer: Sequence[Series]) -> dict[Tags, Aggregates]:
    """Return the aggregates of each series that has points; an empty tag is none."""
    found: dict[Tags, Aggregates] = {}
    for series in answer:
        tags = tags_of(series)
        for row in series.values:
            found[tags] = {name: value for name, value in zip(series.columns, row, strict=True) if value is not None}
            found[tags].pop("time")
    return found


def points_of(values: Aggregates) -> int:
    """Return how many points a window has at least."""
    return max((value for name, value in values.items() if name.startswith("count_")), default=0)


def are_equal(values: Sequence[Aggregates]) -> bool:
    """Say whether the aggregates of a window are the same on all servers; sums of floats are, but for rounding."""
    first, *others = values
    return all(_equal(first, other) for other in others)


def _equal(one: Aggregates, other: Aggregates) -> bool:
    if one.keys() != other.keys():
        return False
    for name, value in one.items():
        if value == other[name]:
            continue
        call, _, field = name.partition("_")
        if call != "sum" or (isinstance(value, int) and isinstance(other[name], int)):
            return False
        largest = max(abs(one[f"min_{field}"]), abs(one[f"max_{field}"]))
        if abs(value - other[name]) > _ROUNDING * largest * one[f"count_{field}"]:
            return False
    return True
