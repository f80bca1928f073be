"""Which shards a SELECT concerns."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.influxql.ast import Select
from influxrelay.influxql.parser import parse
from influxrelay.influxql.timerange import TimeRange
from influxrelay.sharding.concern import exact_matches, fixed_values, is_one_epoch, leaves, places
from influxrelay.sharding.placement import Epoch, ShardKey, ShardMap

MINUTE = 60 * 10**9
BORDER = 1_000 * MINUTE
NOW = 2_000 * MINUTE


def select_of(text: str) -> Select:
    """Return a parsed SELECT."""
    (statement,) = parse(text)
    assert statement.select is not None
    return statement.select


class KeyTests(SynchronousTestCase):
    """The values that a condition leaves to the key."""

    def check(self, condition: str, *expected: bytes) -> None:
        """Check the only values with which a condition can hold."""
        found = fixed_values(select_of(f"SELECT v FROM m WHERE {condition}").condition, "c")
        self.assertEqual(found, frozenset(expected), condition)

    def test_fixed(self) -> None:
        """Equality, alternatives and expressions that are lists fix the key; AND narrows, OR widens."""
        self.check("c = 'x'", b"x")
        self.check("v > 1 AND (c = 'x' OR c::tag = 'y') AND time > now() - 1h", b"x", b"y")
        self.check("c = 'x' AND c = 'y'")
        self.check("c =~ /^(a|b c|d\\.e)$/ AND host = 'c'", b"a", b"b c", b"d.e")
        self.check("c =~ /^a-b$/", b"a-b")

    def test_free(self) -> None:
        """Anything else leaves it free."""
        for condition in ("c != 'x'", "c = 'x' OR v > 1", "c =~ /^a.*$/", "c =~ /a|b/", "host = 'x'", "c::field = 'x'"):
            found = fixed_values(select_of(f"SELECT v FROM m WHERE {condition}").condition, "c")
            self.assertIsNone(found, condition)
        for pattern in ("a", "^a", "^a|b$", "^(a|(b))$", "^(a+)$", r"^\d$", "(?i)^a$", "^(?i:a)$", "^a$|b"):
            self.assertIsNone(exact_matches(pattern), pattern)


class PlaceTests(SynchronousTestCase):
    """Epochs and shards."""

    shards = ShardMap(
        ShardKey(b"c"),
        [Epoch(None, [("s1", 1)], {}), Epoch(BORDER, [("s1", 1), ("s2", 1)], {b"x": "s2"})],
        default="s1",
    )

    def test_places(self) -> None:
        """A key has a place in each epoch that the range touches; no key has the default shard's."""
        self.assertEqual(places(self.shards, frozenset((b"x",)), TimeRange(0, BORDER - 1)), {"s1"})
        self.assertEqual(places(self.shards, frozenset((b"x",)), TimeRange(BORDER, BORDER)), {"s2"})
        self.assertEqual(places(self.shards, frozenset((b"x",)), TimeRange()), {"s1", "s2"})
        self.assertEqual(places(self.shards, None, TimeRange(BORDER, BORDER + 1)), {"s1", "s2"})
        self.assertEqual(places(self.shards, frozenset((b"",)), TimeRange()), {"s1"})
        self.assertEqual(len(places(self.shards, frozenset(), TimeRange())), 1)
        self.assertEqual(len(places(self.shards, frozenset((b"x",)), TimeRange(5, 4))), 1)
        self.assertTrue(is_one_epoch(self.shards, TimeRange(0, BORDER - 1)))
        self.assertFalse(is_one_epoch(self.shards, TimeRange(0, BORDER)))

    def test_ranges(self) -> None:
        """Subqueries have the range around them; time() ends now; functions that look back read earlier windows."""
        (leaf,) = leaves(
            select_of(f"SELECT max(x) FROM (SELECT v AS x FROM m WHERE time < {BORDER}) WHERE time >= 5"), NOW
        )
        self.assertEqual(leaf.range[:2], (5, BORDER - 1))
        (leaf,) = leaves(select_of("SELECT max(v) FROM m WHERE time >= now() - 1m GROUP BY time(1m)"), NOW)
        self.assertEqual(leaf.range[:2], (NOW - MINUTE, NOW))
        text = f"SELECT {{}} FROM m WHERE time >= {BORDER} AND time <= {BORDER + MINUTE} GROUP BY time(1m)"
        (leaf,) = leaves(select_of(text.format("derivative(max(v))")), NOW)
        self.assertLessEqual(leaf.range.since, BORDER - MINUTE)
        (leaf,) = leaves(select_of(text.format("moving_average(max(v), 5)")), NOW)
        self.assertLessEqual(leaf.range.since, BORDER - 5 * MINUTE)
        (leaf,) = leaves(select_of(text.format("derivative(max(v))") + " ORDER BY time DESC"), NOW)
        self.assertGreaterEqual(leaf.range.until, BORDER + 2 * MINUTE)
