"""Copying to one server what it lacks and another has.

One part is read, then written, then the next is read: so one of the two servers is idle, and answers new writes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from influxrelay.core.text import iso_nanoseconds, printable
from influxrelay.lineprotocol.filters import Filter
from influxrelay.verification import statements
from influxrelay.verification.connection import TooLarge, TooSlow, at_once
from influxrelay.verification.lines import are_lines, point_line, series_line, series_lines
from influxrelay.verification.points import Point, Points, Tags, read_points
from influxrelay.verification.schema import Schema, read_type
from influxrelay.verification.server import Server, is_json, of_measurement
from influxrelay.verification.setting import Found, Types
from influxrelay.verification.statements import Extent, Measurement, Place, Window
from influxrelay.verification.tombstones import Missed, Tombstones
from influxrelay.verification.windows import halves
from influxrelay.verification.write_counts import WriteCounts

BATCH = 128 * 1024  # characters that are written at a time: some thousand lines, as InfluxDB takes them best
_BYTES = 32 * 1024 * 1024  # of an answer with points that are written
_UNWRITABLE = "line protocol cannot say it exactly"

Fields = dict[str, Any]
Replaceable = dict[tuple[Point, str], tuple[Any, Any]]
"""Which values of a field the target may have that are to be replaced: what was written, and what was there before."""


class Outdated(Exception):
    """What was to be written was read before a change, such as a DELETE."""


class Writer(Protocol):
    """Writes to the target."""

    def mark(self) -> str:
        """Return what goes with lines that are read from now on; another text when a change was executed or missed."""

    def missed(self) -> Sequence[Missed]:
        """Return what the source has missed until now."""

    def write(self, measurement: Measurement, lines: Sequence[str], mark: str, *, last: bool) -> str:
        """Write lines; return why the target has refused some of them, empty if it has taken all.

        :param mark: from before they were read.
        :param last: return when the source has all that was written before, too.
        :raises Outdated: a change was executed since.
        """


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
            "measurement": printable(self.measurement.name),
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
    :param tombstones: what the source has although it is deleted.
    :ivar copied: how many points were copied, or would be.
    :ivar overwritten: of how many points other values were replaced, or would be; ``differing``: were not.
    """

    source: Server
    target: Server
    writer: Writer
    overwrite: bool = False
    dry_run: bool = False
    filter: Filter | None = None
    tombstones: Tombstones = attrs.field(factory=Tombstones)
    copied: int = 0
    overwritten: int = 0
    differing: int = 0
    uncopied: list[Uncopied] = attrs.field(factory=list)
    _counts: WriteCounts = attrs.field(init=False)
    _known: str | None = attrs.field(default=None, init=False)  # the mark since which the tombstones are known

    def __attrs_post_init__(self) -> None:
        self._counts = WriteCounts(self.source)

    def mark(self) -> str:
        """Return what goes with points that are read from now on.

        The source may have missed another change since the last one.
        """
        if self.dry_run:
            return ""
        mark = self.writer.mark()
        if mark != self._known:
            self.tombstones.missed = self.writer.missed()
            self._known = mark
        return mark

    def mend(self, extent: Extent, types: Types, found: Found | None = None) -> set[Point]:
        """Copy what is missing in a window that lies within one shard group; return what a dry run would write.

        What was written is read back. If a client has written the same point meanwhile, its value may have come to the
        target before ours: then the source has it, and it is written again. A value that is neither ours nor was there
        before is a newer one, and stays.

        :param types: those that each field has on the source.
        :param found: what the source and the target have; None where the target has nothing.
        """
        said: str | None = None
        while True:
            try:
                if found is None:
                    found, said = self._copy_all(extent, types)
                return set() if found is None else self._mend(extent, types, found, said)
            except Outdated:
                found, said = self._read_both(extent), None
            except (TooLarge, TooSlow):
                if found is not None or extent.window.length == 1:
                    raise
                parts = [extent._replace(window=half) for half in halves(extent.window)[::-1]]
                return set().union(*(self.mend(part, types) for part in parts))

    def _copy_all(self, extent: Extent, types: Types) -> tuple[Found | None, str | None]:
        """Copy points of which the target has none, if nothing has to be left out.

        If nothing was written to the source since before it was read, nothing has to be read back.

        :return: None if the target has everything now, else what the source had; and what the target has said when that
            was written, None if it was not.
        """
        measurement, window, _ = extent
        mark = self.mark()
        missed = any(each.concerns(measurement) for each in self.tombstones.missed)
        if self.dry_run or self.filter is not None or missed:
            return Found(_points(self.source, extent), Points(), mark), None
        counted = self._counts.read(measurement, window)
        limit = _BYTES if window.length > 1 else sys.maxsize
        answer = of_measurement(measurement.name, self.source.ask_binary(extent.points, limit))
        kinds: dict[str, str] = {}
        self._find_kinds(kinds, extent, types, {name for each in answer for name in each.columns[1:]})
        points = sum(len(each.values) for each in answer)
        lines = [line for each in answer for line in series_lines(measurement.name, each, kinds) if line]
        message = self._write(measurement, iter(lines), mark)
        if not message and len(lines) == points and counted == (self._counts.read(measurement, window) or ()):
            self.copied += points
            return None, ""
        return Found(read_points(answer), Points(), mark), message

    def _mend(self, extent: Extent, types: Types, found: Found, said: str | None) -> set[Point]:
        measurement, window, _ = extent
        ours: Replaceable = {}
        kinds: dict[str, str] = {}
        message = ""
        lacking, differing = self._lacking(measurement, window, found, ours)
        overwritten = differing if self.overwrite else set()
        copied = [lacking]
        while lacking and not self.dry_run:
            if said is None:
                self._find_kinds(kinds, extent, types, _names_of(lacking))
                message = self._write(measurement, _lines(measurement, lacking, kinds), found.mark) or message
            else:
                message, said = said, None
            if self._are_same(extent):
                lacking = {}
                break
            for tags, points in lacking.items():
                having = found.target.get(tags, {})
                for time, fields in points.items():
                    has = having.get(time, {})
                    ours |= {((tags, time), name): (value, has.get(name)) for name, value in fields.items()}
            found = self._read_both(extent)
            before = lacking
            lacking, differing = self._lacking(measurement, window, found, ours)
            if lacking == before:
                break
            copied.append(lacking)
        left = set() if self.dry_run else _points_of(lacking)
        if left or overwritten or len(copied) > 1:
            everything = set().union(*map(_points_of, copied))
            self.copied += len(everything - overwritten - left)
        else:
            self.copied += sum(map(len, copied[0].values()))
        self.overwritten += len(overwritten - left)
        self.differing += 0 if self.overwrite else len(differing)
        if left:
            self._find_kinds(kinds, extent, types, _names_of(lacking))
            self._note(measurement, lacking, kinds, message)
        return _points_of(lacking) if self.dry_run else set()

    def _lacking(
        self, measurement: Measurement, window: Window, found: Found, ours: Replaceable
    ) -> tuple[Points, set[Point]]:
        """Return the fields to be written of each point, and the points that have other values on the target."""
        lacking: Points = {}
        differing: set[Point] = set()
        for tags, points in found.source.items():
            if self.filter is not None and not self._takes(measurement, tags):
                continue
            having = found.target.get(tags)
            if not having:
                lacking[tags] = points
                continue
            for time, fields in points.items():
                has, point = having.get(time, {}), (tags, time)
                for name, value in fields.items():
                    if name in has and not _differ(value, has[name]):
                        continue
                    if name in has and (point, name) not in ours:
                        differing.add(point)
                    if name not in has or self._is_replaced(has[name], ours.get((point, name))):
                        lacking.setdefault(tags, {}).setdefault(time, {})[name] = value
        return self.tombstones.hold(self.source, measurement, window, lacking), differing

    def _is_replaced(self, value: Any, ours: tuple[Any, Any] | None) -> bool:
        """Say whether a value of the target is to be replaced: a newer one is not."""
        return self.overwrite if ours is None else not all(_differ(each, value) for each in ours)

    def _takes(self, measurement: Measurement, tags: Tags) -> bool:
        assert self.filter is not None  # noqa: S101 (asked for where there is one)
        series = series_line(measurement.name, tags)
        return not series or all(self.filter.judge([series.encode("utf-8", "surrogateescape")]))

    def _find_kinds(self, kinds: dict[str, str], extent: Extent, types: Types, names: Iterable[str]) -> None:
        """Find out what the numbers are: JSON shows the float 1 as the integer 1."""
        for name in set(names) - kinds.keys():
            if len(known := types.get(name, set())) == 1:
                (kinds[name],) = known
            else:
                kinds[name] = read_type(
                    self.source.ask(statements.explained_field(extent.measurement, extent.window, name))
                )

    def _write(self, measurement: Measurement, every: Iterator[str], mark: str) -> str:
        message = ""
        waiting: list[str] = []
        for batch in _batches(every):
            for lines in [batch] if are_lines(batch) else [[line] for line in batch]:
                if waiting:
                    message = self.writer.write(measurement, waiting, mark, last=False) or message
                waiting = lines
        if waiting:
            message = self.writer.write(measurement, waiting, mark, last=True) or message
        return message

    def _are_same(self, extent: Extent) -> bool:
        """Say whether both servers answer the same to the question for all points; most of the time they do."""
        one, other = (each.fetch(extent.points) for each in (self.source, self.target))
        return one == other and is_json(one) and b'"error":' not in one

    def _read_both(self, extent: Extent) -> Found:
        mark = self.mark()
        both = at_once((self.source, self.target), lambda each: _points(each, extent))
        (_, source), (_, target) = both
        return Found(source, target, mark)

    def _note(self, measurement: Measurement, left: Points, kinds: Mapping[str, str], message: str) -> None:
        """Note what could not be copied, and why."""
        unwritable: list[int] = []
        refused: list[int] = []
        for tags, points in left.items():
            for time, fields in points.items():
                written = any(_lines(measurement, {tags: {time: fields}}, kinds))
                (refused if written else unwritable).append(time)
        for times, words in ((unwritable, _UNWRITABLE), (refused, message or "it was taken, and is not there")):
            if times:
                self.uncopied.append(Uncopied(measurement, min(times), max(times) + 1, len(times), words))


def _points(server: Server, extent: Extent) -> Points:
    return read_points(of_measurement(extent.measurement.name, server.ask(extent.points)))


def _names_of(points: Points) -> set[str]:
    return {name for times in points.values() for fields in times.values() for name in fields}


def _points_of(points: Points) -> set[Point]:
    return {(tags, time) for tags, times in points.items() for time in times}


def _differ(one: Any, other: Any) -> bool:
    if one == other:
        return isinstance(one, bool) is not isinstance(other, bool)
    is_shown_as_integer = {type(one), type(other)} == {int, float}  # JSON has not all digits of a large float
    return not (is_shown_as_integer and float(one) == float(other))


def _lines(measurement: Measurement, points: Points, kinds: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of points; those that cannot be written are left out."""
    for tags, times in points.items():
        series = series_line(measurement.name, tags)
        for time, fields in times.items():
            if line := point_line(series, fields, kinds, time):
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
        default = next((name for name, row in policies.items() if row.get("default")), "") if having is None else ""
        if having is None:
            created[database, default] = statements.create_database(database, default, policies.get(default))
        for name, row in sorted(policies.items()):
            if row and name not in (having or {}) and (database, name) not in created:  # else it is not mapped
                created[database, name] = statements.create_policy(database, name, row)
    return created
