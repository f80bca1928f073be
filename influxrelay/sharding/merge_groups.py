"""The results of functions from several shards, made into one.

Only what has been computed of each group and window is kept, never rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import attrs

from influxrelay.influxql.ast import Call
from influxrelay.influxql.timerange import EARLIEST
from influxrelay.sharding.aggregates import Aggregate, Part, Question, parts_of
from influxrelay.sharding.evaluation import evaluate, wrapped
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.results import Block, SeriesKey
from influxrelay.sharding.streams import inner_call, reads_before, streamed
from influxrelay.sharding.windows import NOTHING, Fill, Windows, filled

_ROWS = 1000  # of a block
_Point = tuple[int, Any]


class Groups:
    """Collects what the shards say, and tells the whole.

    :param windows: of the SELECT.
    :param max_points: how many points may be read of all shards, where windows have to be computed from points.
    """

    def __init__(self, plan: Aggregate, windows: Windows, max_points: int) -> None:
        self._plan = plan
        self._windows = windows
        if plan.select.descending:
            self._wider = attrs.evolve(windows, until=windows.until + windows.interval)
        else:
            self._wider = attrs.evolve(windows, since=windows.since - windows.interval)
        self._max_points = max_points
        self._points = 0
        self._series: dict[SeriesKey, tuple[str, dict[str, str] | None]] = {}
        self._found: dict[SeriesKey, dict[Part, dict[int, _Point]]] = {}

    def add(self, question: Question, block: Block) -> None:
        """Take rows of a shard.

        :raises Refused: there are too many points.
        """
        key = block.key
        self._series.setdefault(key, (block.name, block.tags))
        parts = self._found.setdefault(key, {})
        if question.is_raw:
            self._points += len(block.rows)
            if self._points > self._max_points:
                raise Refused(
                    f"first() and last() with time() read points over shards, here more than {self._max_points} "
                    "(max-merge-points): choose a shorter range of time"
                )
        targets = [(part[0], parts.setdefault(part, {})) for part in question.parts]
        for row in block.rows:
            when = row[0]
            window = self._windows.start(when) if question.is_raw else when if self._windows.interval else 0
            for index, (function, values) in enumerate(targets):
                value = row[1] if question.is_raw else row[index + 1]
                if value is None:
                    continue
                value = self._typed(question.parts[index], value)
                known = values.get(window)
                values[window] = (when, value) if known is None else _merged(function, known, (when, value))

    def _typed(self, part: Part, value: Any) -> Any:
        """Return a value as it was before it became JSON: 3.0 came as 3."""
        return float(value) if part[0] != "count" and part[1].type == "float" else value

    def blocks(self) -> Iterator[Block]:
        """Yield the result."""
        select = self._plan.select
        for key in sorted(self._series, reverse=select.descending):
            name, tags = self._series[key]
            rows = self._rows(self._found.pop(key))
            while piece := list(islice(rows, _ROWS)):
                yield Block(name, tags, self._plan.columns, piece)

    def _rows(self, parts: dict[Part, dict[int, _Point]]) -> Iterator[list[Any]]:
        """Yield the rows of one group: each call has its windows, which are joined (``query/cursor.go``)."""
        plan, select = self._plan, self._plan.select
        fill = Fill(select.fill, select.fill_value)
        known = {call: kind for call, kind in plan.calls.items() if kind}
        streams = {call: self._stream(call, parts, fill) for call in known}
        heads = {call: next(stream, None) for call, stream in streams.items()}
        values: dict[Call, Any] = {}
        choose = max if select.descending else min
        while times := [head[0] for head in heads.values() if head is not None]:
            when = choose(times)
            for call, kind in known.items():
                head = heads[call]
                value = NOTHING
                if head is not None and head[0] == when:
                    value = head[1]
                    heads[call] = next(streams[call], None)
                if value is NOTHING:
                    value = fill.default(kind)
                if value is not NOTHING:
                    values[call] = value
            yield [when, *(evaluate(each, values) for each in plan.fields)]

    def _stream(self, call: Call, parts: dict[Part, dict[int, _Point]], fill: Fill) -> Iterator[_Point]:
        """Yield the windows of one call in one group."""
        select, found = self._plan.select, [parts.get(each, {}) for each in parts_of(call)]
        points = []
        for window in sorted(found[0], reverse=select.descending):
            if not all(window in each for each in found):
                continue
            when, value = _value(inner_call(call).name, [each[window] for each in found])
            points.append((self._time(window, when), value))
        inner, backwards = inner_call(call), select.descending
        kind = "integer" if inner.name == "count" else "float" if inner.name == "mean" else parts_of(call)[0][1].type
        range_of_time = self._wider if reads_before(call) else self._windows
        counts = inner.name == "count"
        windows = filled(points, range_of_time, fill, kind, counts=counts, descending=backwards)
        if inner is not call:
            windows = streamed(call, windows, self._windows.interval, descending=backwards)
        bounds = select.bounds
        return islice(windows, bounds.offset, bounds.offset + bounds.limit if bounds.limit else None)

    def _time(self, window: int, when: int) -> int:
        if self._windows.interval:
            return window
        if self._plan.is_selector:
            return when
        return 0 if self._windows.since == EARLIEST else self._windows.since


def _merged(function: str, one: _Point, other: _Point) -> _Point:
    """Return what two results of a function are together (``query/call_iterator.go``)."""
    if function in ("count", "sum"):
        total = one[1] + other[1]
        return one[0], total if isinstance(total, float) else wrapped(total)
    if function in ("min", "max"):
        if one[1] == other[1]:
            return min(one, other, key=lambda point: point[0])
        return min(one, other, key=_by_value) if function == "min" else max(one, other, key=_by_value)
    if one[0] != other[0]:
        return min(one, other, key=_by_time) if function == "first" else max(one, other, key=_by_time)
    if isinstance(one[1], bool) and function == "first":
        return min(one, other, key=_by_value)
    return max(one, other, key=_by_value)


def _by_time(point: _Point) -> int:
    return point[0]


def _by_value(point: _Point) -> Any:
    return point[1].encode("utf-8", "surrogatepass") if isinstance(point[1], str) else point[1]


def _value(function: str, parts: list[_Point]) -> _Point:
    """Return a function's result from what it follows from."""
    if function == "mean":
        return parts[0][0], float(parts[0][1]) / parts[1][1]
    if function == "spread":
        spread = parts[0][1] - parts[1][1]
        return parts[0][0], spread if isinstance(spread, float) else wrapped(spread)
    return parts[0]
