"""Comparing servers: the schema, then windows by aggregates that the servers compute, then points."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Protocol

import attrs

from influxrelay.core.errors import InfluxRelayError
from influxrelay.verification import statements
from influxrelay.verification.differences import Difference, Ledger
from influxrelay.verification.gaps import find_gaps
from influxrelay.verification.points import SCHEMA, Points, differing, read_points, runs
from influxrelay.verification.schema import (
    Place,
    Schema,
    compare_schemas,
    read_fields,
    read_schema,
    read_type,
)
from influxrelay.verification.server import Overflowed, Series, Server, at_once
from influxrelay.verification.statements import Measurement, Window
from influxrelay.verification.windows import (
    PARTS,
    Aggregates,
    are_equal,
    halves,
    points_of,
    read_aggregates,
    shard_windows,
    width_of_parts,
)

Types = Mapping[str, set[str]]
"""The types that each field has on a server."""

PIECE = 10_000  # points that are read at a time
GAP = 40_000  # points that are copied at a time where nothing has to be compared
SMALL = 1000  # points of a window that is compared in full even if its aggregates are equal
SAMPLED = 50  # of so many larger windows with equal aggregates one is compared in full
_SETTLING = 60 * 10**9  # nanoseconds for which a write may be under way to one of the servers
_PAUSE = 1.0  # seconds before a difference in recent points is believed


@attrs.frozen
class Found:
    """What two servers have in a window.

    :ivar mark: see :meth:`Mender.mark`.
    """

    source: Points
    target: Points
    mark: str = ""


class Mender(Protocol):
    """Does something about points that differ."""

    def mark(self) -> str:
        """Return what tells later whether points that are read from now on are out of date."""

    def mend(self, measurement: Measurement, window: Window, types: Types, found: Found | None) -> None:
        """Do something about a window in which points differ.

        :param types: of the fields on the first server.
        :param found: None where the second server has nothing; then nothing is said of that window.
        """


class NothingToCompare(InfluxRelayError):
    """There is nothing of what is to be compared; ``str()`` is one line for the operator."""


@attrs.frozen
class Selection:
    """What is compared; an empty name is for all."""

    database: str = ""
    policy: str = ""
    measurement: str = ""
    bounds: Window = statements.EVERYTHING


@attrs.define
class Outcome:
    """What was found.

    :ivar windows: that were compared by aggregates, and ``large``: those of them that have many points and equal
        aggregates. Of those ``sampled`` were read, in full or in part.
    :ivar points: that were compared one by one.
    """

    differences: list[Difference] = attrs.field(factory=list)
    windows: int = 0
    large: int = 0
    sampled: int = 0
    points: int = 0
    unreadable: list[Measurement] = attrs.field(factory=list)


@attrs.define
class Comparison:
    """Compares servers.

    :param servers: at least two.
    :param progress: is called with how many measurements are done, of how many, and with what was found so far.
    :param mender: who does something about what differs between two servers. Then the newest windows of all
        measurements come first, and those are counted instead of measurements.
    """

    servers: Sequence[Server]
    selection: Selection
    progress: Callable[[float, int, Outcome], None] = lambda done, total, outcome: None  # noqa: ARG005
    random: Random = attrs.field(factory=Random)
    sleep: Callable[[float], None] = time.sleep
    now: int = attrs.field(factory=time.time_ns)
    mender: Mender | None = None
    outcome: Outcome = attrs.field(factory=Outcome, init=False)
    _done: int = attrs.field(default=0, init=False)
    _total: int = attrs.field(default=0, init=False)

    def run(self) -> Outcome:
        """Compare everything.

        :raises Unanswered: a server does not answer.
        :raises NothingToCompare: no server has it.
        """
        wanted = self.selection
        found = at_once(self.servers, lambda each: read_schema(each, self.now, wanted.database, wanted.policy))
        schemas = {each.name: schema for each, schema in found}
        places = sorted(set().union(*(each.places for each in schemas.values())))
        if (wanted.database or wanted.policy) and not places:
            what = ".".join(filter(None, (wanted.database, wanted.policy)))
            raise NothingToCompare(f"no backend has {what}")
        self.outcome.differences += compare_schemas(schemas)
        fields = {place: self._fields(place, schemas) for place in places}
        measurements = [
            Measurement(*place, name)
            for place in places
            for name in sorted(set().union(*fields[place].values()))
            if wanted.measurement in ("", name)
        ]
        if wanted.measurement and not measurements:
            raise NothingToCompare(f"no backend has a measurement {wanted.measurement}")
        work: list[tuple[_MeasurementComparison, list[Window]]] = []
        for measurement in measurements:
            place = (measurement.database, measurement.policy)
            servers = [each for each in self.servers if place in schemas[each.name].places]
            if "\ufffd" in measurement.name:
                self.outcome.unreadable.append(measurement)
            elif len(servers) > 1:
                groups = [group for each in servers for group in schemas[each.name].groups.get(place, ())]
                windows = shard_windows(groups, wanted.bounds)
                types = {name: each.get(measurement.name, {}) for name, each in fields[place].items()}
                compared = _MeasurementComparison(self, servers, measurement, types)
                work.append((compared, windows))
        self._compare(work)
        return self.outcome

    def _compare(self, work: Sequence[tuple[_MeasurementComparison, list[Window]]]) -> None:
        if self.mender is None:
            self._total = len(work)
            for self._done, (compared, windows) in enumerate(work):
                compared.compare_types(windows)
                for window in windows:
                    compared.compare(window)
                compared.finish()
            return
        steps = [(window, compared) for compared, windows in work for window in windows]
        steps.sort(key=lambda step: step[0].since, reverse=True)
        self._total = len(steps)
        for self._done, (window, compared) in enumerate(steps):
            compared.compare_types([window])
            compared.compare(window)
        for compared, _ in work:
            compared.finish()

    def is_settled(self, window: Window) -> bool:
        """Whether no write should be under way any more that may be missing in a window."""
        return window.until <= self.now - _SETTLING

    def report(self, part: float = 0.0) -> None:
        """Tell how far it is.

        :param part: of the window at hand that is done.
        """
        self.progress(self._done + part, self._total, self.outcome)

    def _fields(self, place: Place, schemas: Mapping[str, Schema]) -> dict[str, dict[str, dict[str, set[str]]]]:
        having = [each for each in self.servers if place in schemas[each.name].places]
        return {each.name: read_fields(keys) for each, keys in _asked(having, statements.field_keys(*place))}

    def types(
        self,
        servers: Sequence[Server],
        measurement: Measurement,
        windows: Iterable[Window],
        types: Mapping[str, Mapping[str, set[str]]],
    ) -> list[Difference]:
        """Return where a field has another type; only what has two types anywhere is asked for, shard by shard."""
        found: list[Difference] = []
        windows = list(windows)
        for field in sorted(set().union(*types.values())):
            if len(set().union(*(each.get(field, set()) for each in types.values()))) == 1:
                continue
            for window in windows:
                asked = _asked(servers, statements.explained_field(measurement, window, field))
                kinds = [(each.name, kind) for each, answer in asked if (kind := read_type(answer))]
                for name, kind in kinds[1:]:
                    if kind == kinds[0][1]:
                        continue
                    message = f'the field "{field}" is {kinds[0][1]} and {kind}'
                    found.append(
                        Difference(
                            measurement.database,
                            measurement.policy,
                            measurement=measurement.name,
                            since=window.since,
                            until=window.until,
                            kind=SCHEMA,
                            backends=(kinds[0][0], name),
                            message=message,
                        )
                    )
        return found


@attrs.define
class _MeasurementComparison:
    """Compares one measurement, window by window."""

    whole: Comparison
    servers: Sequence[Server]
    measurement: Measurement
    types: Mapping[str, Mapping[str, set[str]]]
    ledger: Ledger = attrs.field(factory=Ledger, init=False)
    sample: list[tuple[Window, int]] = attrs.field(factory=list, init=False)

    def compare_types(self, windows: Iterable[Window]) -> None:
        self.whole.outcome.differences += self.whole.types(self.servers, self.measurement, windows, self.types)

    def compare(self, window: Window) -> None:
        mender = self.whole.mender
        others = [window]
        if mender is not None and self.whole.is_settled(window):
            gaps, found = find_gaps(self.servers[0], self.servers[1], self.measurement, window, GAP)
            others = [part.window for part in found]
            total = sum(part.points for part in (*gaps, *found))
            done = 0
            for part in reversed(gaps):
                mender.mend(self.measurement, part.window, self.types[self.servers[0].name], None)
                done += part.points
                self.whole.report(done / total)
        for each in others:
            self._divide(each, PARTS)

    def finish(self) -> None:
        large, outcome = self.sample, self.whole.outcome
        outcome.large += len(large)
        for window, points in sorted(self.whole.random.sample(large, -(-len(large) // SAMPLED))):
            outcome.sampled += 1
            self.ledger.skip()
            self._read(self._piece_of(window, points))
        outcome.differences += self.ledger.differences(self.measurement)

    def _piece_of(self, window: Window, points: int) -> Window:
        """Return a part of a window, by chance, that has points, but no more than are read at a time."""
        while points > PIECE and (width := width_of_parts(window, min(PARTS, 2 * points // PIECE))):
            ((_, answer),) = _asked(
                self.servers[:1], statements.aggregates(self.measurement, window, width, statements.COUNT)
            )
            parts = sorted(read_aggregates(answer, window, width).items())
            if not parts:
                break
            window, values = self.whole.random.choice(parts)
            points = points_of(values)
        return window

    def _divide(self, window: Window, parts: int) -> None:
        """Compare the parts of a window by their aggregates, and those that need it by their points."""
        width = width_of_parts(window, parts)
        try:
            asked, complete = _asked(self.servers, statements.aggregates(self.measurement, window, width)), True
        except Overflowed:  # the points will tell
            counted = statements.aggregates(self.measurement, window, width, statements.COUNT)
            asked, complete = _asked(self.servers, counted), False
        found = [read_aggregates(answer, window, width) for _, answer in asked]
        piece: list[Window] = []
        size = 0
        for part in sorted(set().union(*found)):
            values: list[Aggregates] = [each.get(part, {}) for each in found]
            points = max(map(points_of, values))
            equal = complete and are_equal(values)
            self.whole.outcome.windows += 1
            is_read = points <= (SMALL if equal else PIECE) or (not equal and part.length == 1)
            if piece and (not is_read or size + points > PIECE):
                self._read(Window(piece[0].since, piece[-1].until))
                piece, size = [], 0
            if is_read:
                piece.append(part)
                size += points
            elif equal:
                self.ledger.skip()
                self.sample.append((part, points))
            elif part == window:
                for half in halves(part):
                    self._divide(half, 1)
            else:
                self._divide(part, max(2, min(PARTS, 2 * points // PIECE)))
        if piece:
            self._read(Window(piece[0].since, piece[-1].until))
        self.whole.report()

    def _read(self, window: Window) -> None:
        """Compare points; what differs is looked at twice, since writes may be under way."""
        mender = self.whole.mender
        mark = mender.mark() if mender is not None else ""
        servers = self._points(window)
        self.whole.outcome.points += max(sum(map(len, points.values())) for points in servers.values())
        found = differing(servers)
        is_recent = not self.whole.is_settled(window)
        if found and (is_recent or mender is None):
            if is_recent:
                self.whole.sleep(_PAUSE)
            mark = mender.mark() if mender is not None else ""
            servers = self._points(window)
            found &= differing(servers)
        if found and mender is not None:
            source, target = (servers[each.name] for each in self.servers)
            types = self.types[self.servers[0].name]
            mender.mend(self.measurement, window, types, Found(source, target, mark))
        self.ledger.add(runs(found, servers))
        self.whole.report()

    def _points(self, window: Window) -> dict[str, Points]:
        asked = _asked(self.servers, statements.points(self.measurement, window))
        return {each.name: read_points(answer) for each, answer in asked}


def _asked(servers: Sequence[Server], statement: str) -> list[tuple[Server, list[Series]]]:
    """Ask all servers at the same time."""
    return at_once(servers, lambda each: each.ask(statement))
