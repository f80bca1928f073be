"""The time that a condition leaves."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.influxql.parser import parse
from influxrelay.influxql.timerange import EARLIEST, LATEST, TimeRange, parse_time, time_range

SECOND = 10**9
NOW = 1_700_000_000 * SECOND
DAY = 24 * 3600 * SECOND

RANGES = (
    ("a = 1", EARLIEST, LATEST),
    ("time > 5", 6, LATEST),
    ("time >= 5", 5, LATEST),
    ("time < 5", EARLIEST, 4),
    ("time <= 5", EARLIEST, 5),
    ("time = 5", 5, 5),
    ("5 < time", 6, LATEST),
    ("5 >= time", EARLIEST, 5),
    ("TIME > 5", 6, LATEST),
    ("time > 5s AND time < 7s", 5 * SECOND + 1, 7 * SECOND - 1),
    ("time > 5 OR time < 9", 6, 8),
    ("(time > 5 AND (a = 1 OR time < 9)) AND h = 'x'", 6, 8),
    ("time > 9 AND time < 5", 10, 4),
    ("time > now()", NOW + 1, LATEST),
    ("time > now() - 1h30m", NOW - 5400 * SECOND + 1, LATEST),
    ("time > (now() - 2 * 30m)", NOW - 3600 * SECOND + 1, LATEST),
    ("time < '2023-11-14'", EARLIEST, NOW // DAY * DAY - 1),
    ("time >= '2023-11-14' - 1d", NOW // DAY * DAY - DAY, LATEST),
    ("time >= '2023-11-14T22:13:20Z'", NOW, LATEST),
    ("time >= '2023-11-14T23:13:20.5+01:00'", NOW + SECOND // 2, LATEST),
    ("time >= '2023-11-14 22:13:20.000000001'", NOW + 1, LATEST),
    ("time > -1h", -3600 * SECOND + 1, LATEST),
    ("time > 1500000000.0", 1500000001, LATEST),
)


class RangeTests(SynchronousTestCase):
    """The time that a condition leaves."""

    def range(self, condition: str, zone: str = "") -> TimeRange:
        """Return that of a SELECT."""
        (statement,) = parse(f"SELECT a FROM m WHERE {condition}")
        assert statement.select is not None
        return time_range(statement.select.condition, NOW, zone)

    def test_ranges(self) -> None:
        """Bounds are found wherever they stand, and times in each notation."""
        for condition, since, until in RANGES:
            found = self.range(condition)
            self.assertEqual((found.since, found.until), (since, until), condition)
            self.assertEqual((found.has_since, found.has_until), (since > EARLIEST, until < LATEST), condition)

    def test_zone(self) -> None:
        """A time without a zone is one in the query's, with its summer time."""
        self.assertEqual(self.range("time >= '2026-01-01'", "Europe/Oslo").since, parse_time("2025-12-31T23:00:00Z"))
        self.assertEqual(self.range("time >= '2026-07-01'", "Europe/Oslo").since, parse_time("2026-06-30T22:00:00Z"))

    def test_refused(self) -> None:
        """What InfluxDB would refuse is refused."""
        for condition in (
            "time > 'yesterday'",
            "time > '2026-13-01'",
            "time > '2026-01-01T00:00:00'",
            "time != 5",
            "time =~ /x/",
            "time > host",
            "time > '1500-01-01'",
            "time > now() + now()",
        ):
            with self.assertRaises(ValueError, msg=condition):
                self.range(condition)

    def test_none(self) -> None:
        """Without a condition all of time is asked."""
        self.assertEqual(time_range(None, NOW), TimeRange())
