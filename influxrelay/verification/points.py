"""The points of a window on each server, compared one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from influxrelay.verification.server import Series

MISSING, VALUE, SCHEMA = "missing", "value", "schema"

Tags = tuple[tuple[str, str], ...]
Points = dict[Tags, dict[int, dict[str, Any]]]
"""The fields of each point, by series and time."""


Point = tuple[Tags, int]


class Flaw(NamedTuple):
    """A way in which servers differ.

    :ivar kind: ``missing`` or ``value``.
    :ivar backends: the one that lacks something; or two that have different values.
    """

    kind: str
    backends: tuple[str, ...]


class Run(NamedTuple):
    """Points with the same flaw, one after the other in one or more series.

    :ivar until: nanoseconds, exclusive.
    :ivar begins: whether one of the series has no other point before it in the window, and ``ends``: behind it.
    """

    flaw: Flaw
    since: int
    until: int
    points: int
    begins: bool
    ends: bool


def read_points(answer: Sequence[Series]) -> Points:
    """Return the points of an answer."""
    found: Points = {}
    for series in answer:
        points = found.setdefault(tags_of(series), {})
        columns = series.columns
        for row in series.values:
            fields = dict(zip(columns, row, strict=True))
            if None in row:
                fields = {name: value for name, value in fields.items() if value is not None}
            known = points.setdefault(fields.pop("time"), fields)
            if known is not fields:
                known.update(fields)
    return found


def tags_of(series: Series) -> Tags:
    """Return the tags of a series; an empty tag is none."""
    return tuple(sorted((name, value) for name, value in series.tags.items() if value))


def differing(servers: Mapping[str, Points]) -> set[tuple[Tags, int, Flaw]]:
    """Return the points that are not the same on all servers, and how they differ."""
    found: set[tuple[Tags, int, Flaw]] = set()
    for tags in set().union(*servers.values()):
        series = {name: points.get(tags, {}) for name, points in servers.items()}
        first, *others = series.values()
        if all(each == first and _same_kinds(each, first) for each in others):
            continue
        for time in set().union(*series.values()):
            point = {name: points.get(time, {}) for name, points in series.items()}
            found.update((tags, time, flaw) for flaw in _flaws(point))
    return found


def _same_kinds(one: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]]) -> bool:
    """Tell true from 1 in points that are equal: Python does not."""
    return all(
        type(value) is type(other[time][name]) or bool not in (type(value), type(other[time][name]))
        for time, fields in one.items()
        for name, value in fields.items()
    )


def _flaws(point: Mapping[str, dict[str, Any]]) -> set[Flaw]:
    """Return how a point differs, which each server has or lacks."""
    found: set[Flaw] = set()
    for field in set().union(*point.values()):
        having = [(name, fields[field]) for name, fields in point.items() if field in fields]
        found.update(Flaw(MISSING, (name,)) for name, fields in point.items() if field not in fields)
        (first, value), *others = having
        for name, other in others:
            if other != value or (isinstance(other, bool) is not isinstance(value, bool)):
                found.add(Flaw(VALUE, (first, name)))
    return found


def runs(found: set[tuple[Tags, int, Flaw]], servers: Mapping[str, Points]) -> list[Run]:
    """Return what differs as ranges of time, each as tight as its points.

    A range ends where a series has a point without that flaw. Ranges of several series that overlap are one.
    """
    by_series: dict[tuple[Tags, Flaw], set[int]] = {}
    for tags, time, flaw in found:
        by_series.setdefault((tags, flaw), set()).add(time)
    ranges = [each for (tags, flaw), times in by_series.items() for each in _of_series(flaw, times, tags, servers)]
    ranges.sort(key=lambda run: (run.flaw, run.since))
    return merged(ranges)


def _of_series(flaw: Flaw, times: set[int], tags: Tags, servers: Mapping[str, Points]) -> Iterator[Run]:
    everything = sorted(set().union(*(points.get(tags, {}) for points in servers.values())))
    for is_flawed, group in groupby(everything, times.__contains__):
        if is_flawed:
            run = list(group)
            yield Run(flaw, run[0], run[-1] + 1, len(run), run[0] == everything[0], run[-1] == everything[-1])


def merged(ranges: Sequence[Run]) -> list[Run]:
    """Return ranges, sorted by flaw and time, with those as one that overlap."""
    found: list[Run] = []
    for each in ranges:
        last = found[-1] if found else None
        if last is not None and last.flaw == each.flaw and each.since < last.until:
            found[-1] = joined(last, each)
        else:
            found.append(each)
    return found


def joined(one: Run, other: Run) -> Run:
    """Return two ranges as one."""
    return Run(
        one.flaw,
        min(one.since, other.since),
        max(one.until, other.until),
        one.points + other.points,
        one.begins or other.begins,
        one.ends or other.ends,
    )
