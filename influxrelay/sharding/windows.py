"""The windows of ``GROUP BY time()``, and what stands in empty ones (``query/iterator.go`` and ``iterator.gen.go``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import attrs

from influxrelay.influxql.timerange import EARLIEST, LATEST

MIN_TIME, MAX_TIME = EARLIEST, LATEST
_SECOND = 10**9
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)


class Nothing:
    """Stands where a window has no value; what it shows depends on ``fill``."""


NOTHING: Final = Nothing()


@attrs.frozen
class Windows:
    """How time is divided.

    :ivar interval: nanoseconds; 0 for one window with all.
    :ivar offset: of the windows, nanoseconds.
    :ivar since: and ``until``: the range of time, both inclusive.
    :ivar zone: whose days and hours they are; None for UTC.
    """

    interval: int
    offset: int
    since: int
    until: int
    zone: ZoneInfo | None = None

    def zone_offset(self, when: int) -> int:
        """Return the nanoseconds that local time is ahead at a time."""
        if self.zone is None:
            return 0
        local = (_BEGIN + timedelta(seconds=when // _SECOND)).astimezone(self.zone)
        found = local.utcoffset()
        return 0 if found is None else int(found.total_seconds()) * _SECOND

    def start(self, when: int) -> int:
        """Return where the window of a time begins."""
        if not self.interval:
            return self.since
        when -= self.offset
        zone = self.zone_offset(when)
        past = (when + zone) % self.interval
        start = MIN_TIME if MIN_TIME + past >= when else when - past
        moved = zone - self.zone_offset(start)
        if moved and abs(moved) < self.interval:
            start += moved
        return start + self.offset

    def following(self, when: int, zone: int, *, descending: bool) -> tuple[int, int]:
        """Return the window behind one, and the offset of its zone."""
        when += -self.interval if descending else self.interval
        if self.zone is not None:
            offset = self.zone_offset(when - 1)
            if offset != zone:
                moved = zone - offset
                if abs(moved) < self.interval:
                    when += moved
                zone = offset
        return when, zone


@attrs.frozen
class Fill:
    """What stands in empty windows.

    :ivar kind: ``null``, ``none``, ``previous``, ``linear`` or ``number``.
    :ivar value: with ``number``.
    """

    kind: str
    value: float | int | None = None

    def default(self, kind: str) -> Any:
        """Return what stands where one call has no window at all but another has; :data:`NOTHING` keeps the last."""
        return NOTHING if self.kind == "previous" else cast(self.value, kind)


def cast(value: Any, kind: str) -> Any:
    """Return a value as one of a type if it can be (``query/cast.go``, ``castToType``)."""
    if value is None or isinstance(value, bool | str):
        return value
    return float(value) if kind == "float" else int(value) if kind == "integer" else value


def filled(
    points: Iterable[tuple[int, Any]], windows: Windows, fill: Fill, kind: str, *, counts: bool, descending: bool
) -> Iterator[tuple[int, Any]]:
    """Yield the windows of one group, with those that have no value (``floatFillIterator``).

    :param points: the starts of windows, in order, and their values.
    :param kind: the type of the values.
    :param counts: whether they are counts, which are 0 where nothing is.
    """
    waiting = list(points)
    if not waiting or fill.kind == "none" or not windows.interval:
        yield from waiting
        return
    if counts and fill.kind == "null":
        fill = Fill("number", 0)
    first, last = windows.since, windows.until
    if descending:
        first, last = last, first
    begin, end = windows.start(first), windows.start(last)
    now = windows.start(waiting[0][0]) if begin == MIN_TIME else begin
    zone = windows.zone_offset(now)
    make = _maker(fill, kind)
    previous: tuple[int, Any] | None = None
    index = 0
    while True:
        point = waiting[index] if index < len(waiting) else None
        if point is None and not ((now >= end and end != MIN_TIME) if descending else now <= end):
            return
        if point is None or (point[0] < now if descending else point[0] > now):
            yield now, make(now // windows.interval, previous, point, windows.interval)
        else:
            index += 1
            previous = point
            yield point
        now, zone = windows.following(now, zone, descending=descending)


_Maker = Callable[[int, tuple[int, Any] | None, tuple[int, Any] | None, int], Any]


def _maker(fill: Fill, kind: str) -> _Maker:
    """Return what makes the value of an empty window, of what precedes and follows it."""
    if fill.kind == "number":
        empty = {"string": "", "boolean": False}.get(kind, cast(fill.value, kind))
        return lambda *_: empty
    if fill.kind == "previous":
        return lambda _now, previous, _next, _interval: NOTHING if previous is None else previous[1]
    if fill.kind == "linear" and kind in ("float", "integer"):
        return _linear if kind == "float" else lambda *places: _truncated(_linear(*places))
    return lambda *_: NOTHING


def _truncated(value: Any) -> Any:
    return value if value is NOTHING else math.trunc(value)


def _linear(now: int, previous: tuple[int, Any] | None, following: tuple[int, Any] | None, interval: int) -> Any:
    """Return the value on the line between two points (``query/linear.go``)."""
    if previous is None or following is None:
        return NOTHING
    before, after = _quotient(previous[0], interval), _quotient(following[0], interval)
    slope = float(following[1] - previous[1]) / float(after - before)
    return slope * float(now - before) + float(previous[1])


def _quotient(number: int, divisor: int) -> int:
    """Divide as Go does, towards zero."""
    return -(-number // divisor) if number < 0 else number // divisor
