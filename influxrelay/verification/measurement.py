"""Comparing one measurement: windows by aggregates that the servers compute, then points."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from influxrelay.verification import statements
from influxrelay.verification.connection import TooLarge, TooSlow, at_once
from influxrelay.verification.differences import Ledger, Mark
from influxrelay.verification.gaps import find_gaps
from influxrelay.verification.points import MISSING, Flaw, Points, differing, read_points, runs
from influxrelay.verification.progress import Record
from influxrelay.verification.schema import compare_types
from influxrelay.verification.server import Overflowed, Series, Server, is_json, of_measurement, read_series
from influxrelay.verification.setting import Found, Mender, Setting, Types
from influxrelay.verification.statements import Extent, Measurement, Window
from influxrelay.verification.windows import (
    PARTS,
    Aggregates,
    are_equal,
    halves,
    parts_of,
    points_of,
    read_aggregates,
    read_series_aggregates,
    width_of_parts,
)

SMALL = 10_000  # points of a window that is read in full even if its aggregates are equal
PIECE = 50_000  # points that are read at a time: each time the servers unpack the blocks at its ends, of all series
GAP = 20_000  # points that are copied at a time where nothing has to be compared
FULL = 200_000  # points of the first windows of a measurement, which are read in full, too
LARGEST = 1_000_000  # points of a window in which something differs that are all read
SAMPLED = 50  # of so many pieces of a window with equal aggregates one is read
FEW = 100  # series that are read one by one if nothing else differs in a window, with at most so many points:
_FEW_POINTS = 100_000
_BYTES = 16 * 1024 * 1024  # of an answer with points
_SERIES_BYTES = 32 * 1024 * 1024  # of one with the aggregates of each series
_LOOKS = 3  # for a piece that has points, before they are counted
_LONG = 60.0  # seconds that the aggregates of a window may take, or it is divided
_BRIEF = 10.0  # seconds that they should take then
_SHORTEST = 10**9  # nanoseconds of a window that is not divided for that reason
_PAUSE = 1.0  # seconds before a difference in recent points is believed


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
    _by_series: bool = attrs.field(default=True, init=False)  # whether there are not too many series for that

    def compare_types(self, windows: Iterable[Window]) -> None:
        """Compare what types the fields have in windows that each lie within one shard group."""
        self.setting.outcome.differences += compare_types(self.servers, self.measurement, windows, self.types)

    def compare(self, window: Window) -> None:
        """Compare a window that lies within one shard group, but for what was compared before an interruption."""
        mender = self.setting.mender
        for part in [window] if mender is None or mender.dry_run else self._copied(mender, window):
            self._compare_in_time(part)

    def _copied(self, mender: Mender, window: Window) -> list[Window]:
        """Have what the second server lacks as a whole copied, and return what is left to be compared."""
        settled, recent = self.setting.divide(window)
        try:
            gaps, found = find_gaps(self.servers[0], self.servers[1], self.measurement, settled, GAP)
        except TooSlow:
            if window.length < _SHORTEST:
                raise
            return [part for half in reversed(halves(window)) for part in self._copied(mender, half)]
        total = sum(part.points for part in (*gaps, *found))
        done = 0
        for part in reversed(gaps):
            mender.mend(part.extent, self.types[self.servers[0].name], None)
            done += part.points
            self.setting.report(done / total)
        return [each for each in (*(part.extent.window for part in found), recent) if each.length]

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
            before = self._ledger.mark(), len(self._large), self.setting.outcome.windows, self.setting.outcome.points
            try:
                self._compare(part)
            except TooSlow:
                if part.length < _SHORTEST:
                    raise
                self._forget(*before)
                self._length = part.length // 4
            else:
                since = part.until

    def _forget(self, mark: Mark, large: int, windows: int, points: int) -> None:
        """Forget what was found since: it will be found again."""
        self._ledger.rewind(mark)
        del self._large[large:]
        self.setting.outcome.windows, self.setting.outcome.points = windows, points

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
        self._ledger.sample()
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
        full = max(SMALL, self._full)
        may_be_small = self._rate * window.length <= 2 * full
        number = self._count(window) if may_be_small else full + 1
        if number <= full:
            outcome.windows += number > 0
            self._full = max(0, self._full - number)
            self._read_all(window, number)
        else:
            number = self._compare_series(window) if self._by_series else self._divide(window, 1, _LONG)
        took = time.monotonic() - began
        if self._length and took > _BRIEF:
            self._length = max(_SHORTEST, int(window.length * _BRIEF / took))
        elif took < _BRIEF / 4:
            self._length *= 2  # until it is as long as the window
        self._rate = number / window.length
        self._remember(window, before, large)

    def _compare_series(self, window: Window) -> int:
        """Compare a window by the aggregates of each series, and those series that need it by their points.

        :return: how many points it has.
        """
        statement = statements.series_aggregates(self.measurement, window)
        try:
            asked = [
                of_measurement(self.measurement.name, answer)
                for _, answer in at_once(self.servers, lambda each: each.ask_within(statement, _LONG, _SERIES_BYTES))
            ]
        except (TooLarge, Overflowed):
            self._by_series = False
            return self._divide(window, 1, _LONG)
        self.setting.outcome.windows += 1
        found = [read_series_aggregates(answer) for answer in asked]
        points = {tags: max(points_of(each.get(tags, {})) for each in found) for tags in set().union(*found)}
        total = sum(points.values())
        wrong = sorted(tags for tags in points if not are_equal([each.get(tags, {}) for each in found]))
        names = {name for answer in asked for series in answer for name in series.tags}
        differing_points = sum(points[tags] for tags in wrong)
        can_be_asked = all(statements.is_sayable(f"{name}{each}") for tags in wrong for name, each in tags)
        if self.setting.mender is None and len(wrong) <= FEW and differing_points <= _FEW_POINTS and can_be_asked:
            if wrong:
                series = [{**dict.fromkeys(sorted(names), ""), **dict(tags)} for tags in wrong]
                self._read_series(window, series)
            else:
                self._ledger.skip()
            self._large.append((window, total - differing_points))
        elif total <= LARGEST:
            self._read_all(window, total)
        else:
            self._divide(window, min(PARTS, max(2, 2 * total // LARGEST)))
        self.setting.report(0.0)
        return total

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
                if points <= SMALL:
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
        length = min(window.length, max(1, window.length * PIECE // (2 * points)))
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

        return [of_measurement(self.measurement.name, answer) for _, answer in at_once(self.servers, ask)]

    # -- points

    def _read_all(self, window: Window, points: int) -> None:
        """Compare all points of a window, some at a time."""
        for part in parts_of(window, -(-points // PIECE)) if points else ():
            self._read(part)

    def _read(self, window: Window) -> None:
        """Compare points; what differs is looked at twice, since writes may be under way."""
        try:
            points = self._same(window)
            if points is None:
                points = self._compare_points(window, lambda: self._points(window))
            else:
                self._ledger.add([])
        except (TooLarge, TooSlow):
            if window.length == 1:
                raise
            for half in halves(window):
                self._read(half)
            return
        self.setting.outcome.points += points
        self.setting.report(0.0)

    def _same(self, window: Window) -> int | None:
        """Return how many points there are if the servers give the same answer; None if they do not."""
        statement = Extent(self.measurement, window).points
        limit = _BYTES if window.length > 1 else None
        (_, answer), *others = at_once(self.servers, lambda each: each.fetch(statement, limit))
        if any(other != answer for _, other in others) or not is_json(answer) or b'"error":' in answer:
            return None
        kinds = set().union(*(kinds for fields in self.types.values() for kinds in fields.values()))
        if "string" in kinds:  # which may look like anything
            return sum(len(series.values) for series in read_series(answer))
        return answer.count(b'"values":[[') + answer.count(b"],[")

    def _read_series(self, window: Window, series: Sequence[Mapping[str, str]]) -> None:
        """Compare the points of some series.

        :param series: of each, all tags that any series has, empty where it has none.
        """

        def look() -> dict[str, Points]:
            found: dict[str, Points] = {each.name: {} for each in self.servers}
            for tags in series:
                statement = Extent(self.measurement, window, (tags,)).points
                for name, points in self._asked_points(statement).items():
                    found[name] |= points
            return found

        self.setting.outcome.points += self._compare_points(window, look)

    def _compare_points(self, window: Window, look: Callable[[], dict[str, Points]]) -> int:
        setting, mender = self.setting, self.setting.mender
        mark = mender.mark() if mender is not None else ""
        servers = look()
        found = differing(servers)
        is_recent = not setting.is_settled(window)
        if found and (is_recent or mender is None):
            if is_recent:
                setting.sleep(_PAUSE)
            mark = mender.mark() if mender is not None else ""
            servers = look()
            found &= differing(servers)
        if found and mender is not None:
            source, target = (servers[each.name] for each in self.servers)
            extent = Extent(self.measurement, window)
            wanted = mender.mend(extent, self.types[self.servers[0].name], Found(source, target, mark))
            if mender.dry_run:
                lacks = Flaw(MISSING, (self.servers[1].name,))
                found = {each for each in found if each[2] != lacks or each[:2] in wanted}
        self._ledger.add(runs(found, servers))
        return max(sum(map(len, points.values())) for points in servers.values())

    def _points(self, window: Window) -> dict[str, Points]:
        return self._asked_points(Extent(self.measurement, window).points)

    def _asked_points(self, statement: str) -> dict[str, Points]:
        return {
            each.name: read_points(of_measurement(self.measurement.name, answer))
            for each, answer in at_once(self.servers, lambda each: each.ask(statement))
        }
