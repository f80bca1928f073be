"""Where a server has nothing at all: there nothing has to be compared before it is copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from influxrelay.verification import statements
from influxrelay.verification.connection import at_once
from influxrelay.verification.server import Server, of_measurement
from influxrelay.verification.statements import Measurement, Window
from influxrelay.verification.windows import PARTS, halves, points_of, read_aggregates, width_of_parts


class Part(NamedTuple):
    """A part of a window.

    :ivar points: that a server has there, at least.
    """

    window: Window
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
    gaps: list[Part] = []
    others: list[Part] = []
    was_gap = None
    for part in sorted(has.keys() | having.keys()):
        points, is_gap = max(has.get(part, 0), having.get(part, 0)), part not in having
        found = gaps if is_gap else others
        if is_gap is was_gap and (not is_gap or found[-1].points + points <= most):
            found[-1] = Part(Window(found[-1].window.since, part.until), found[-1].points + points)
        else:
            found.append(Part(part, points))
        was_gap = is_gap
    return [small for gap in gaps for small in _divided(source, measurement, gap, most)], others


def _divided(source: Server, measurement: Measurement, gap: Part, most: int) -> Iterator[Part]:
    """Yield the parts of a gap that have no more than so many points, or are a nanosecond long."""
    window, points = gap
    if points <= most or window.length == 1:
        yield gap
        return
    width = width_of_parts(window, max(2, min(PARTS, 2 * points // most)))
    counts: dict[Window, int] = {}
    for part in [window] if width else halves(window):
        counts |= _counts(source, measurement, part, width)
    for part in sorted(counts):
        yield from _divided(source, measurement, Part(part, counts[part]), most)


def _counts(server: Server, measurement: Measurement, window: Window, width: int) -> dict[Window, int]:
    """Return how many points a server has in the parts of a window that have any."""
    statement = statements.aggregates(measurement, window, width, statements.COUNT)
    answer = of_measurement(measurement.name, server.ask(statement))
    return {part: points_of(values) for part, values in read_aggregates(answer, window, width).items()}
