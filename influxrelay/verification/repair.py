"""Copying to one server what it lacks and another has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from influxrelay.core.text import iso_nanoseconds
from influxrelay.lineprotocol.filters import Filter
from influxrelay.verification import statements
from influxrelay.verification.lines import are_lines, point_line, series_line
from influxrelay.verification.points import Points, Tags, read_points
from influxrelay.verification.schema import Place, Schema, read_type
from influxrelay.verification.server import Server
from influxrelay.verification.statements import Measurement, Window

BATCH = 256 * 1024  # characters that are written at a time
_UNWRITABLE = "line protocol cannot say it exactly"

Point = tuple[Tags, int]
Fields = dict[str, Any]
Replaceable = dict[tuple[Point, str], tuple[Any, Any]]
"""Which values of a field the target may have that are to be replaced: what was written, and what was there before."""

Write = Callable[[Measurement, str], str]
"""Writes lines to the target; returns why it has refused some of them, empty if it has taken all."""


@attrs.frozen
class Uncopied:
    """Points that could not be copied.

    :ivar since: nanoseconds since 1970, of the first; ``until`` is one behind the last.
    """

    measurement: Measurement
    since: int
    until: int
    points: int
    message: str

    def show(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "database": self.measurement.database,
            "retention_policy": self.measurement.policy,
            "measurement": self.measurement.name,
            "since": iso_nanoseconds(self.since),
            "until": iso_nanoseconds(self.until),
            "points": self.points,
            "message": self.message,
        }


@attrs.define
class Mending:
    """Copies points from one server to another, window by window.

    :param overwrite: whether values of the target are replaced that differ from those of the source.
    :param filter: what the target takes; None for everything.
    :ivar copied: how many points were copied, or would be.
    :ivar overwritten: of how many points other values were replaced, or would be; ``differing``: were not.
    """

    source: Server
    target: Server
    write: Write
    overwrite: bool = False
    dry_run: bool = False
    filter: Filter | None = None
    copied: int = 0
    overwritten: int = 0
    differing: int = 0
    uncopied: list[Uncopied] = attrs.field(factory=list)

    def mend(self, measurement: Measurement, window: Window, types: Mapping[str, set[str]]) -> None:
        """Copy what is missing in a window that lies within one shard group.

        What was written is read back. If a client has written the same point meanwhile, its value may have come to the
        target before ours: then the source has it, and it is written again. A value that is neither ours nor was there
        before is a newer one, and stays.

        :param types: those that each field has on the source.
        """
        ours: Replaceable = {}
        copied: set[Point] = set()
        overwritten: set[Point] = set()
        kinds: dict[str, str] = {}
        before: dict[Point, Fields] | None = None
        message = ""
        while True:
            found = _points(self.source, measurement, window), _points(self.target, measurement, window)
            lacking, differing = self._lacking(measurement, *found, ours)
            if not lacking or lacking == before:
                break
            if before is None:
                overwritten = differing if self.overwrite else set()
            self._find_kinds(kinds, measurement, window, types, lacking)
            copied |= lacking.keys()
            if self.dry_run:
                break
            message = self._copy(measurement, lacking, kinds) or message
            target = found[1]
            for point, fields in lacking.items():
                has = target.get(point[0], {}).get(point[1], {})
                ours |= {(point, name): (value, has.get(name)) for name, value in fields.items()}
            before = lacking
        left = {} if self.dry_run else lacking
        self.copied += len(copied - overwritten - left.keys())
        self.overwritten += len(overwritten - left.keys())
        self.differing += 0 if self.overwrite else len(differing)
        self._note(measurement, left, kinds, message)

    def _lacking(
        self, measurement: Measurement, source: Points, target: Points, ours: Replaceable
    ) -> tuple[dict[Point, Fields], set[Point]]:
        """Return the fields to be written of each point, and the points that have other values on the target."""
        lacking: dict[Point, Fields] = {}
        differing: set[Point] = set()
        for tags, points in source.items():
            if self.filter is not None and not self._takes(measurement, tags):
                continue
            having = target.get(tags, {})
            for time, fields in points.items():
                has = having.get(time, {})
                for name, value in fields.items():
                    point = tags, time
                    if name in has:
                        if not _differ(value, has[name]):
                            continue
                        if (point, name) in ours:
                            if all(_differ(each, has[name]) for each in ours[point, name]):
                                continue
                        else:
                            differing.add(point)
                            if not self.overwrite:
                                continue
                    lacking.setdefault(point, {})[name] = value
        return lacking, differing

    def _takes(self, measurement: Measurement, tags: Tags) -> bool:
        assert self.filter is not None  # noqa: S101 (asked for where there is one)
        series = series_line(measurement.name, tags)
        return not series or all(self.filter.judge([series.encode()]))

    def _find_kinds(
        self,
        kinds: dict[str, str],
        measurement: Measurement,
        window: Window,
        types: Mapping[str, set[str]],
        lacking: Mapping[Point, Fields],
    ) -> None:
        """Find out what the numbers are: JSON shows the float 1 as the integer 1."""
        for name in set().union(*lacking.values()) - kinds.keys():
            if len(known := types.get(name, set())) == 1:
                (kinds[name],) = known
            else:
                kinds[name] = read_type(self.source.ask(statements.explained_field(measurement, window, name)))

    def _copy(self, measurement: Measurement, lacking: Mapping[Point, Fields], kinds: Mapping[str, str]) -> str:
        message = ""
        for batch in _batches(_lines(measurement, lacking, kinds)):
            for lines in [batch] if are_lines(batch) else [[line] for line in batch]:
                message = self.write(measurement, "\n".join(lines)) or message
        return message

    def _note(
        self, measurement: Measurement, left: Mapping[Point, Fields], kinds: Mapping[str, str], message: str
    ) -> None:
        """Note what could not be copied, and why."""
        unwritable = {point for point in left if not any(_lines(measurement, {point: left[point]}, kinds))}
        refused = left.keys() - unwritable
        for points, words in ((unwritable, _UNWRITABLE), (refused, message or "it was taken, and is not there")):
            if points:
                times = [time for _, time in points]
                self.uncopied.append(Uncopied(measurement, min(times), max(times) + 1, len(points), words))


def _points(server: Server, measurement: Measurement, window: Window) -> Points:
    return read_points(server.ask(statements.points(measurement, window)))


def _differ(one: Any, other: Any) -> bool:
    return bool(one != other) or isinstance(one, bool) is not isinstance(other, bool)


def _lines(measurement: Measurement, points: Mapping[Point, Fields], kinds: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of points; those that cannot be written are left out."""
    series: dict[Tags, str] = {}
    for (tags, time), fields in points.items():
        if tags not in series:
            series[tags] = series_line(measurement.name, tags)
        if line := point_line(series[tags], fields, kinds, time):
            yield line


def _batches(lines: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for line in lines:
        if batch and size + len(line) > BATCH:
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield batch


def create_missing(source: Schema, target: Schema) -> dict[Place, str]:
    """Return the statements that create what a server lacks, by database and retention policy."""
    created: dict[Place, str] = {}
    for database, policies in sorted(source.policies.items()):
        having = target.policies.get(database)
        default = next((name for name, row in policies.items() if row["default"]), "") if having is None else ""
        if having is None:
            created[database, default] = statements.create_database(database, default, policies.get(default))
        for name, row in sorted(policies.items()):
            if name not in (having or {}) and (database, name) not in created:
                created[database, name] = statements.create_policy(database, name, row)
    return created
