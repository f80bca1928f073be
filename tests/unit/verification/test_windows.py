"""Windows of time and their aggregates."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.verification import statements
from influxrelay.verification.server import Series
from influxrelay.verification.statements import EVERYTHING, Measurement, Window
from influxrelay.verification.windows import (
    are_equal,
    halves,
    parts_of,
    points_of,
    read_aggregates,
    read_time,
    shard_windows,
    width_of_parts,
)


class WindowTests(SynchronousTestCase):
    """Where windows begin and end."""

    def test_times(self) -> None:
        """Times of shard groups are exact, and those at the ends of time are the ends of what can be asked for."""
        self.assertEqual(read_time("1969-12-29T00:00:00Z"), -3 * 86400 * 10**9)
        self.assertEqual(read_time("1677-09-20T00:00:00Z"), EVERYTHING.since)
        self.assertEqual(read_time("2262-04-11T23:47:16Z"), EVERYTHING.until)

    def test_shard_windows(self) -> None:
        """No window is in two shard groups of a server, and none where no server has a group."""
        groups = [Window(0, 10), Window(20, 30), Window(0, 5), Window(5, 10), Window(28, 40)]
        everywhere = [(0, 5), (5, 10), (20, 28), (28, 30), (30, 40)]
        self.assertEqual(shard_windows(groups, EVERYTHING), everywhere)
        self.assertEqual(shard_windows(groups, Window(7, 29)), [(7, 10), (20, 28), (28, 29)])
        self.assertEqual(shard_windows(groups, Window(12, 18)), [])

    def test_parts(self) -> None:
        """A window is divided into parts of a nanosecond at least, and by halves at the ends of time."""
        self.assertEqual(width_of_parts(Window(0, 1000), 10), 100)
        self.assertEqual(width_of_parts(Window(0, 1001), 10), 101)
        self.assertEqual(width_of_parts(Window(0, 3), 256), 1)
        self.assertEqual(width_of_parts(Window(0, 9), 1), 9)
        self.assertEqual(width_of_parts(Window(EVERYTHING.since, 0), 256), 0)
        self.assertEqual(width_of_parts(Window(0, EVERYTHING.until), 256), 0)
        self.assertEqual(halves(Window(-3, 2)), [(-3, -1), (-1, 2)])
        self.assertEqual(parts_of(Window(-3, 7), 3), [(-3, 1), (1, 5), (5, 7)])
        self.assertEqual(parts_of(Window(0, 2), 3), [(0, 1), (1, 2)])
        self.assertEqual(parts_of(Window(0, 2), 0), [(0, 2)])

    def test_aggregates(self) -> None:
        """Parts with points are read with their own bounds, which are within those of the window."""
        answer = [Series("m", {}, ["time", "count_f", "sum_f"], [[0, 2, 3], [100, None, None], [200, 1, 5]])]
        found = read_aggregates(answer, Window(30, 250), 100)
        self.assertEqual(found, {(30, 100): {"count_f": 2, "sum_f": 3}, (200, 250): {"count_f": 1, "sum_f": 5}})
        self.assertEqual(points_of(found[Window(30, 100)]), 2)
        self.assertEqual(read_aggregates([], Window(0, 1), 0), {})

    def test_equality(self) -> None:
        """Sums of floats may differ by rounding; anything else may not, and no field may be missing."""
        values = {"count_f": 10, "sum_f": 1.0, "min_f": -5.5, "max_f": 5, "first_s": "x"}
        self.assertTrue(are_equal([values, {**values, "sum_f": 1.0 + 1e-12}]))
        self.assertFalse(are_equal([values, {**values, "sum_f": 1.0 + 1e-9}]))
        self.assertFalse(are_equal([values, values, {**values, "first_s": "y"}]))
        self.assertFalse(are_equal([values, {}]))
        large = {"count_f": 10, "sum_f": 2**60, "min_f": 2**59, "max_f": 2**59}
        self.assertFalse(are_equal([large, {**large, "sum_f": 2**60 + 1}]))


class StatementTests(SynchronousTestCase):
    """What servers are asked."""

    def test_names(self) -> None:
        """Names are quoted, whatever is in them, and both ends of time are within what is asked for."""
        odd = Measurement('d"b', "r'p", "a.b\\c d")
        self.assertEqual(
            statements.Extent(odd, EVERYTHING).points,
            'SELECT *::field FROM "d\\"b"."r\'p"."a.b\\\\c d" WHERE time >= -9223372036854775806'
            " AND time <= 9223372036854775806 GROUP BY *",
        )
        series = ({"h'": "x", "k": ""}, {"h'": "a' b", "k": ""})
        self.assertEqual(
            statements.Extent(Measurement("d", "r", "m"), Window(12, 20), series).points,
            'SELECT *::field FROM "d"."r"."m" WHERE time >= 12 AND time <= 19 AND'
            """ ("h'"::tag = 'x' AND "k"::tag = '' OR "h'"::tag = 'a\\' b' AND "k"::tag = '') GROUP BY *""",
        )
        untagged = statements.Extent(Measurement("d", "r", "m"), Window(12, 20), ({},)).points
        self.assertEqual(untagged, statements.Extent(Measurement("d", "r", "m"), Window(12, 20)).points)
        self.assertEqual(
            statements.aggregates(Measurement("d", "r", "m"), Window(12, 20), 5, statements.COUNT),
            'SELECT count(*) FROM "d"."r"."m" WHERE time >= 12 AND time <= 19 GROUP BY time(5ns, 2ns) fill(none)',
        )
