"""Comparing one measurement: windows by aggregates that the servers compute, then points."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Protocol

import attrs

from influxrelay.verification import statements
from influxrelay.verification.differences import Difference, Ledger
from influxrelay.verification.gaps import find_gaps
from influxrelay.verification.points import Points, differing, read_points, runs
from influxrelay.verification.progress import Memory, Record
from influxrelay.verification.schema import compare_types
from influxrelay.verification.server import Overflowed, Series, Server, TooLarge, TooSlow, at_once, read_series
from influxrelay.verification.statements import Measurement, Window
from influxrelay.verification.windows import (
    PARTS,
    Aggregates,
    are_equal,
    halves,
    parts_of,
    points_of,
    read_aggregates,
    width_of_parts,
)

Types = Mapping[str, set[str]]
"""The types that each field has on a server."""

PIECE = 10_000  # points that are read at a time, and of a window that is always read in full
GAP = 40_000  # points that are copied at a time where nothing has to be compared
FULL = 200_000  # points of the first windows of a measurement, which are read in full, too
LARGEST = 1_000_000  # points of a window in which something differs that are all read
SAMPLED = 50  # of so many pieces of a window with equal aggregates one is read
_BYTES = 16 * 1024 * 1024  # of an answer
_LOOKS = 3  # for a piece that has points, before they are counted
_LONG = 60.0  # seconds that the aggregates of a window may take, or it is divided
_BRIEF = 10.0  # seconds that they should take then
_SHORTEST = 10**9  # nanoseconds of a window that is not divided for that reason
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


@attrs.define
class Outcome:
    """What was found.

    :ivar windows: that were compared by aggregates, and ``large``: those of them that were not read in full, of which
        ``sampled`` of ``large_points`` points were read.
    :ivar points: that were compared one by one.
    """

    differences: list[Difference] = attrs.field(factory=list)
    windows: int = 0
    large: int = 0
    large_points: int = 0
    sampled: int = 0
    points: int = 0
    unreadable: list[Measurement] = attrs.field(factory=list)


@attrs.define
class Setting:
    """What the comparisons of all measurements share.

    :ivar now: nanoseconds since 1970, when the comparison began.
    :ivar report: is called now and then, with the part of the window at hand that is done.
    """

    outcome: Outcome
    memory: Memory
    random: Random
    sleep: Callable[[float], None]
    now: int
    mender: Mender | None
    report: Callable[[float], None]

    def is_settled(self, window: Window) -> bool:
        """Say whether no write should be under way any more that may be missing in a window."""
        return window.until <= self.now - _SETTLING


@attrs.define
class MeasurementComparison:
    """Compares one measurement, window by window.

    :param types: those that each field has on each server.
    """

    setting: Setting
    servers: Sequence[Server]
    measurement: Measurement
    types: Mapping[str, Types]
    _ledger: Ledger = attrs.field(factory=Ledger, init=False)
    _large: list[tuple[Window, int]] = attrs.field(factory=list, init=False)
    _full: int = attrs.field(factory=lambda: FULL, init=False)  # points that may still be read in full
    _rate: float = attrs.field(default=0, init=False)  # points in a nanosecond of the last window
    _length: int = attrs.field(default=0, init=False)  # of windows that the servers can do in time; 0 for any

    def compare_types(self, windows: Iterable[Window]) -> None:
        """Compare what types the fields have in windows that each lie within one shard group."""
        self.setting.outcome.differences += compare_types(self.servers, self.measurement, windows, self.types)

    def compare(self, window: Window) -> None:
        """Compare a window that lies within one shard group, but for what was compared before an interruption."""
        for part in [window] if self.setting.mender is None else self._copied(self.setting.mender, window):
            self._compare_in_time(part)

    def _copied(self, mender: Mender, window: Window) -> list[Window]:
        """Have what the second server lacks as a whole copied, and return what is left to be compared."""
        if not self.setting.is_settled(window):
            return [window]
        gaps, found = find_gaps(self.servers[0], self.servers[1], self.measurement, window, GAP)
        total = sum(part.points for part in (*gaps, *found))
        done = 0
        for part in reversed(gaps):
            mender.mend(self.measurement, part.window, self.types[self.servers[0].name], None)
            done += part.points
            self.setting.report(done / total)
        return [part.window for part in found]

    def _compare_in_time(self, window: Window) -> None:
        """Compare a window in as many parts as the servers need to answer in time."""
        since = window.since
        while since < window.until:
            record = self.setting.memory.of(self.measurement, since)
            if record is not None and record.until is not None:
                self._take_over(record)
                since = record.until
                continue
            part = Window(since, min(window.until, since + (self._length or window.length)))
            try:
                self._compare(part)
            except TooSlow:
                if part.length < _SHORTEST:
                    raise
                self._length = part.length // 4
            else:
                since = part.until

    def finish(self) -> None:
        """Read some of what had equal aggregates, and tell what was found."""
        outcome = self.setting.outcome
        outcome.large += len(self._large)
        outcome.large_points += sum(points for _, points in self._large)
        record = self.setting.memory.of(self.measurement, None)
        before = outcome.windows, outcome.points
        if record is not None:
            self._take_over(record)
        else:
            self._read_some()
            self._remember(None, before)
        outcome.sampled += outcome.points - before[1]
        outcome.differences += self._ledger.differences(self.measurement)

    def _read_some(self) -> None:
        for window, points in self._large:
            for _ in range(-(-points // (PIECE * SAMPLED))):
                self._ledger.skip()
                self._read(self._piece_of(window, points))

    def _remember(self, window: Window | None, before: tuple[int, int], large: int | None = None) -> None:
        """Remember what was found in a window, or in the sample.

        :param before: how many windows and points were compared before.
        :param large: how many large windows there were before; None if no more have come.
        """
        windows, points = before
        outcome = self.setting.outcome
        since, until = window or (None, None)
        found = outcome.windows - windows, outcome.points - points, self._full
        more = [] if large is None else self._large[large:]
        self.setting.memory.add(Record(self.measurement, since, until, *found, more, *self._ledger.news()))

    def _take_over(self, record: Record) -> None:
        self.setting.outcome.windows += record.windows
        self.setting.outcome.points += record.points
        self._full = record.full
        self._large += record.large
        self._ledger.take_over(record.pieces, record.runs)

    # -- windows

    def _compare(self, window: Window) -> None:
        outcome = self.setting.outcome
        before, large = (outcome.windows, outcome.points), len(self._large)
        began = time.monotonic()
        full = max(PIECE, self._full)
        may_be_small = self._rate * window.length <= 2 * full
        number = self._count(window) if may_be_small else full + 1
        if number <= full:
            outcome.windows += number > 0
            self._full = max(0, self._full - number)
            self._read_all(window, number)
        else:
            number = self._divide(window, 1, _LONG)
        took = time.monotonic() - began
        if self._length and took > _BRIEF:
            self._length = max(_SHORTEST, int(window.length * _BRIEF / took))
        self._rate = number / window.length
        self._remember(window, before, large)

    def _divide(self, window: Window, parts: int, patience: float | None = None) -> int:
        """Compare the parts of a window by their aggregates, and those that need it by their points.

        :return: how many points it has.
        """
        width = width_of_parts(window, parts)
        try:
            asked = self._asked(statements.aggregates(self.measurement, window, width), patience)
            is_complete = True
        except Overflowed:  # the points will tell
            asked = self._asked(statements.aggregates(self.measurement, window, width, statements.COUNT), patience)
            is_complete = False
        found = [read_aggregates(answer, window, width) for answer in asked]
        total = 0
        for part in sorted(set().union(*found)):
            values: list[Aggregates] = [each.get(part, {}) for each in found]
            points = max(map(points_of, values))
            total += points
            self.setting.outcome.windows += 1
            if is_complete and are_equal(values):
                if points <= PIECE:
                    self._read_all(part, points)
                else:
                    self._ledger.skip()
                    self._large.append((part, points))
            elif points <= LARGEST or part.length == 1:
                self._read_all(part, points)
            elif width:
                self._divide(part, min(PARTS, max(2, 2 * points // LARGEST)))
            else:
                for half in halves(part):
                    self._divide(half, 1)
        self.setting.report(0.0)
        return total

    def _count(self, window: Window) -> int:
        """Return how many points a window has on the server that has most."""
        width = width_of_parts(window, 1)
        asked = self._asked(statements.aggregates(self.measurement, window, width, statements.COUNT), _LONG)
        return max(sum(map(points_of, read_aggregates(answer, window, width).values())) for answer in asked)

    def _piece_of(self, window: Window, points: int) -> Window:
        """Return a part of a window, by chance, that has points, but no more than are read at a time."""
        length = max(1, window.length * PIECE // (2 * points))
        for _ in range(_LOOKS):
            since = self.setting.random.randrange(window.since, window.until - length + 1)
            piece = Window(since, since + length)
            if 0 < self._count(piece) <= PIECE:
                return piece
        while points > PIECE and window.length > 1:  # they lie close together
            width = width_of_parts(window, min(PARTS, 2 * points // PIECE))
            if not width:
                break
            (answer, *_) = self._asked(statements.aggregates(self.measurement, window, width, statements.COUNT))
            parts = sorted(read_aggregates(answer, window, width).items())
            if not parts:
                break
            window, values = self.setting.random.choice(parts)
            points = points_of(values)
        return window

    def _asked(self, statement: str, patience: float | None = None) -> list[list[Series]]:
        """Ask all servers at the same time."""

        def ask(server: Server) -> list[Series]:
            return server.ask(statement) if patience is None else server.ask_within(statement, patience)

        return [answer for _, answer in at_once(self.servers, ask)]

    # -- points

    def _read_all(self, window: Window, points: int) -> None:
        """Compare all points of a window, some at a time."""
        for part in parts_of(window, -(-points // PIECE)) if points else ():
            self._read(part)

    def _read(self, window: Window) -> None:
        """Compare points; what differs is looked at twice, since writes may be under way."""
        try:
            points = self._same(window)
        except TooLarge:
            for half in halves(window):
                self._read(half)
            return
        if points is None:
            points = self._compare_points(window)
        else:
            self._ledger.add([])
        self.setting.outcome.points += points
        self.setting.report(0.0)

    def _same(self, window: Window) -> int | None:
        """Return how many points there are if the servers give the same answer; None if they do not."""
        statement = statements.points(self.measurement, window)
        limit = _BYTES if window.length > 1 else None
        (_, answer), *others = at_once(self.servers, lambda each: each.fetch(statement, limit))
        if any(other != answer for _, other in others) or b'"error":' in answer:
            return None
        kinds = set().union(*(kinds for fields in self.types.values() for kinds in fields.values()))
        if "string" in kinds:  # which may look like anything
            return sum(len(series.values) for series in read_series(answer))
        return answer.count(b'"values":[[') + answer.count(b"],[")

    def _compare_points(self, window: Window) -> int:
        setting, mender = self.setting, self.setting.mender
        mark = mender.mark() if mender is not None else ""
        servers = self._points(window)
        found = differing(servers)
        is_recent = not setting.is_settled(window)
        if found and (is_recent or mender is None):
            if is_recent:
                setting.sleep(_PAUSE)
            mark = mender.mark() if mender is not None else ""
            servers = self._points(window)
            found &= differing(servers)
        if found and mender is not None:
            source, target = (servers[each.name] for each in self.servers)
            mender.mend(self.measurement, window, self.types[self.servers[0].name], Found(source, target, mark))
        self._ledger.add(runs(found, servers))
        return max(sum(map(len, points.values())) for points in servers.values())

    def _points(self, window: Window) -> dict[str, Points]:
        statement = statements.points(self.measurement, window)
        return {
            each.name: read_points(answer) for each, answer in at_once(self.servers, lambda each: each.ask(statement))
        }
