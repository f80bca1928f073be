"""Where a server has nothing at all: there nothing has to be compared before it is copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from influxrelay.verification import statements
from influxrelay.verification.connection import TooLarge, TooSlow, at_once
from influxrelay.verification.server import Server, of_measurement
from influxrelay.verification.statements import Extent, Measurement, Tagged, Window
from influxrelay.verification.windows import PARTS, halves, parts_of, points_of, read_aggregates, width_of_parts

SLAB = 1_000_000  # points of a gap that is divided by series; what an interrupted repair has copied of it is compared
LONG = 500  # points of a series, on average, that is read by itself: half a block of InfluxDB's files
_TOGETHER = 20  # series that are read at a time
_BYTES = 8 * 1024 * 1024  # of an answer with the counts of each series
_PATIENCE = 60.0  # seconds for that


class Part(NamedTuple):
    """A part of a window.

    :ivar points: that a server has there, at least.
    """

    extent: Extent
    points: int


def find_gaps(
    source: Server, target: Server, measurement: Measurement, window: Window, most: int
) -> tuple[list[Part], list[Part]]:
    """Return the parts of a window in which only the source has points, and those in which the target has some.

    :param most: points that one of the former may have, more or less.
    """
    if not window.length:
        return [], []
    width = width_of_parts(window, PARTS)
    counted = at_once((source, target), lambda each: _counts(each, measurement, window, width))
    has, having = (counts for _, counts in counted)
    gaps: list[tuple[Window, int]] = []
    others: list[tuple[Window, int]] = []
    was_gap = None
    for part in sorted(has.keys() | having.keys()):
        points, is_gap = max(has.get(part, 0), having.get(part, 0)), part not in having
        found = gaps if is_gap else others
        if is_gap is was_gap and (not is_gap or found[-1][1] + points <= SLAB):
            found[-1] = Window(found[-1][0].since, part.until), found[-1][1] + points
        else:
            found.append((part, points))
        was_gap = is_gap
    small = [part for gap, points in gaps for part in _divided(source, Extent(measurement, gap), points, most)]
    return small, [Part(Extent(measurement, other), points) for other, points in others]


def _divided(source: Server, gap: Extent, points: int, most: int) -> Iterator[Part]:
    """Yield the parts of a gap that have no more than so many points, or are a nanosecond long.

    To read some series is much less work for the server than to read all for a shorter time, if they are long.
    """
    measurement, window, _ = gap
    if points <= most or window.length == 1:
        yield Part(gap, points)
        return
    if points <= SLAB:
        parts = list(_of_series(source, gap, most))
        if parts:
            yield from parts
            return
    width = width_of_parts(window, max(2, min(PARTS, 2 * points // (most if points <= SLAB else SLAB))))
    counts: dict[Window, int] = {}
    for part in [window] if width else halves(window):
        counts |= _counts(source, measurement, part, width)
    for part, number in _joined(counts, most):
        yield from _divided(source, gap._replace(window=part), number, most)


def _joined(counts: Mapping[Window, int], most: int) -> Iterator[tuple[Window, int]]:
    """Yield windows, with those as one that follow each other and have few points."""
    window, total = Window(0, 0), 0
    for part, points in sorted(counts.items()):
        if total and total + points > most:
            yield window, total
            total = 0
        window, total = Window(window.since if total else part.since, part.until), total + points
    if total:
        yield window, total


def _of_series(source: Server, gap: Extent, most: int) -> Iterator[Part]:
    """Yield the parts of a gap, some series in each; none if they are short, or cannot be asked for."""
    measurement, window, _ = gap
    statement = statements.series_aggregates(measurement, window, statements.COUNT)
    try:
        answer = of_measurement(measurement.name, source.ask_within(statement, _PATIENCE, _BYTES))
    except (TooLarge, TooSlow):
        return
    counts = [
        (each.tags, points_of(values)) for each in answer for values in read_aggregates([each], window, 0).values()
    ]
    sayable = all(statements.is_sayable(f"{name}{value}") for tags, _ in counts for name, value in tags.items())
    if len(counts) < 2 or not sayable or sum(points for _, points in counts) < LONG * len(counts):
        return
    series: list[Tagged] = []
    total = 0
    for tags, points in counts:
        if series and (total + points > most or len(series) == _TOGETHER):
            yield from _in_time(gap._replace(series=tuple(series)), total, most)
            series, total = [], 0
        series.append(tags)
        total += points
    yield from _in_time(gap._replace(series=tuple(series)), total, most)


def _in_time(part: Extent, points: int, most: int) -> Iterator[Part]:
    """Yield a part, divided by time if it has many points."""
    windows = parts_of(part.window, -(-points // most))
    for each in windows:
        yield Part(part._replace(window=each), -(-points // len(windows)))


def _counts(server: Server, measurement: Measurement, window: Window, width: int) -> dict[Window, int]:
    """Return how many points a server has in the parts of a window that have any."""
    statement = statements.aggregates(measurement, window, width, statements.COUNT)
    answer = of_measurement(measurement.name, server.ask(statement))
    return {part: points_of(values) for part, values in read_aggregates(answer, window, width).items()}
