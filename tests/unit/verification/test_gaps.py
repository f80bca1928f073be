"""Where a server has nothing at all."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import attrs
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.transport.tls import ClientTLS
from influxrelay.verification.connection import TooLarge
from influxrelay.verification.gaps import find_gaps
from influxrelay.verification.measurement import MeasurementComparison
from influxrelay.verification.points import Point
from influxrelay.verification.progress import Memory
from influxrelay.verification.server import Series, Server
from influxrelay.verification.setting import SETTLING, Found, Outcome, Setting, Types
from influxrelay.verification.statements import Extent, Measurement, Window

M = Measurement("d", "rp", "m")
WINDOW = Window(10_000, 10_256)


@attrs.define
class Counting(Server):
    """A server that counts the points of each window; ``times`` are theirs.

    :ivar series: how many of these points each series has, by its tags; None for too many to be told.
    """

    times: list[int] = attrs.field(factory=list)
    series: list[tuple[dict[str, str], int]] | None = attrs.field(factory=list)

    def ask_within(self, statement: str, patience: float, limit: int | None = None) -> list[Series]:
        """Return the counts of each series."""
        assert statement.endswith(" GROUP BY *"), statement
        if self.series is None:
            raise TooLarge("too many series")
        return [Series("m", tags, ["time", "count_f"], [[0, points]]) for tags, points in self.series]

    def ask(self, statement: str) -> list[Series]:
        """Return the counts that are asked for."""
        found = re.fullmatch(
            r'SELECT count\(\*\) FROM "d"\."rp"\."m" WHERE time >= (\d+) AND time <= (\d+)'
            r"(?: GROUP BY time\((\d+)ns, \d+ns\) fill\(none\))?",
            statement,
        )
        assert found is not None, statement
        first, last, width = (int(each or 0) for each in found.groups())
        times = [each for each in self.times if first <= each <= last]
        counts = Counter(each - (each - first) % width if width else first for each in times)
        return [Series("m", {}, ["time", "count_f"], [list(each) for each in sorted(counts.items())])]


@attrs.define
class Copying:
    """Copies windows in which only the first server has points.

    :ivar windows: those.
    """

    windows: list[Window] = attrs.field(factory=list)
    dry_run: bool = False

    def mark(self) -> str:
        """Return any mark."""
        return ""

    def mend(self, extent: Extent, types: Types, found: Found | None) -> set[Point]:
        """Note a window."""
        assert (extent.measurement, extent.series, types, found) == (M, (), {}, None)
        self.windows.append(extent.window)
        return set()


class GapTests(SynchronousTestCase):
    """The parts of a window."""

    def find(self, source: list[int], target: list[int], most: int) -> tuple[list[tuple[int, int, int]], ...]:
        """Return the gaps and the other parts, as first and last time from the start of the window, and points."""
        servers = [
            Counting(name, "", ClientTLS(), times=[10_000 + each for each in times])
            for name, times in (("a", source), ("b", target))
        ]
        return tuple(
            [(each.extent.window.since - 10_000, each.extent.window.until - 10_001, each.points) for each in parts]
            for parts in find_gaps(servers[0], servers[1], M, WINDOW, most)
        )

    def test_gaps(self) -> None:
        """Where only the source has points nothing is compared; what lies between is."""
        self.assertEqual(
            self.find([1, 2, 3, 50, 51, 90], [50, 51, 200], 10),
            ([(1, 3, 3), (90, 90, 1)], [(50, 51, 2), (200, 200, 1)]),
        )
        self.assertEqual(self.find([], [], 10), ([], []))
        self.assertEqual(self.find([1, 2], [1, 2], 10), ([], [(1, 2, 2)]))

    def test_large(self) -> None:
        """A gap has no more points than are to be read at a time, unless they are at one time."""
        gaps, others = self.find([7] * 30 + list(range(20, 40)), [], 10)
        self.assertEqual((gaps, others), ([(7, 7, 30), (19, 26, 7), (27, 34, 8), (35, 39, 5)], []))
        servers = [
            Counting(name, "", ClientTLS(), times=times)
            for name, times in (("a", [10**9 + n * 1000 for n in range(100)]), ("b", []))
        ]
        small, _ = find_gaps(servers[0], servers[1], M, Window(10**9, 2 * 10**9), 10)
        self.assertEqual(sum(each.points for each in small), 100)
        self.assertLessEqual(max(each.points for each in small), 10)

    def of_series(self, *series: tuple[str, int], most: int = 1000) -> list[tuple[list[str], int, int]]:
        """Return the gaps of a server with points of some series.

        :return: the series of each, how many nanoseconds long it is, and its points.
        """
        total = sum(points for _, points in series)
        times = [10_000 + n % 256 for n in range(total)]
        known = [({"h": name, "k": ""}, points) for name, points in series]
        source, target = Counting("a", "", ClientTLS(), times=times, series=known), Counting("b", "", ClientTLS())
        gaps, others = find_gaps(source, target, M, WINDOW, most)
        self.assertEqual(others, [])
        return [([tags["h"] for tags in each.extent.series], each.extent.window.length, each.points) for each in gaps]

    def test_series(self) -> None:
        """The parts of a gap are some long series each, or a part of the time of one that is very long."""
        self.assertEqual(
            self.of_series(("a", 600), ("b", 400), ("c", 700), ("d", 3000)),
            [(["a", "b"], 256, 1000), (["c"], 256, 700), *[(["d"], length, 1000) for length in (86, 86, 84)]],
        )
        many = self.of_series(*[(str(n), 600) for n in range(50)], most=29_000)
        self.assertEqual([len(names) for names, _, _ in many], [20, 20, 10])

    def test_short_series(self) -> None:
        """If series are short, or cannot be asked for, the parts of a gap are parts of its time."""
        for series in ([("a", 400), ("b", 400), ("c", 400)], [("a\n", 800), ("b", 800)], [("a", 2000)]):
            found = self.of_series(*series)
            self.assertGreater(len(found), 1)
            self.assertEqual([names for names, _, _ in found], [[]] * len(found))
            self.assertEqual(sum(points for _, _, points in found), sum(points for _, points in series))
        source = Counting("a", "", ClientTLS(), times=[10_000 + n % 256 for n in range(2000)], series=None)
        gaps, _ = find_gaps(source, Counting("b", "", ClientTLS()), M, WINDOW, 1000)
        self.assertEqual((sum(each.points for each in gaps), {each.extent.series for each in gaps}), (2000, {()}))

    def test_recent(self) -> None:
        """What may still be under way is not copied without a comparison; what is older in the same window is."""
        for now, first, copied in ((10**12, 20_000, 3), (SETTLING + 10_100, 10_100, 2), (0, 10_000, 0)):
            servers = [Counting("a", "", ClientTLS(), times=[10_001, 10_002, 10_200]), Counting("b", "", ClientTLS())]
            mender = Copying()
            reports: list[float] = []
            setting = Setting(Outcome(), Memory(), Random(), lambda _: None, now, mender, reports.append)
            comparison = MeasurementComparison(setting, servers, M, {"a": {}, "b": {}})
            compared: list[Window] = []
            self.patch(MeasurementComparison, "_compare_in_time", lambda _, window: compared.append(window))
            comparison.compare(WINDOW)
            times = servers[0].times
            inside = [each for each in times if any(window.since <= each < window.until for window in mender.windows)]
            self.assertEqual((len(inside), reports[-1:]), (copied, [1.0] if copied else []))
            self.assertEqual(compared, [Window(first, WINDOW.until)] if first < WINDOW.until else [])
