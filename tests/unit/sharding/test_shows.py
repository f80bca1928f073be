"""SHOW over several shards."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.influxql.parser import parse
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.placement import Epoch, ShardKey, ShardMap
from influxrelay.sharding.results import Block
from influxrelay.sharding.shows import show

MAP = ShardMap(ShardKey(b"c"), [Epoch(None, [("1", 1.0), ("2", 1.0)], {b"x": "1"})], "1")


def block(name: str, column: str, *values: Any) -> Block:
    """Return a series with one column."""
    return Block(name, None, (column,), [[each] for each in values])


class MergeTests(SynchronousTestCase):
    """The whole of what shards show."""

    def merged(self, text: str, *answers: list[Block]) -> list[tuple[str, list[Any]]]:
        """Return the rows of each series."""
        (statement,) = parse(text)
        found = show(statement, text, MAP).merged(answers)
        return [(each.name, [row[0] if len(row) == 1 else tuple(row) for row in each.rows]) for each in found]

    def test_lists(self) -> None:
        """Names are sorted, once each; LIMIT and OFFSET count those of each measurement."""
        one = [block("m", "tagKey", "a", "c"), block("n", "tagKey", "z")]
        two = [block("l", "tagKey", "q"), block("m", "tagKey", "b", "c")]
        expected = [("l", ["q"]), ("m", ["a", "b", "c"]), ("n", ["z"])]
        self.assertEqual(self.merged("SHOW TAG KEYS", one, two), expected)
        self.assertEqual(self.merged("SHOW TAG KEYS LIMIT 1 OFFSET 1", one, two), [("m", ["b"])])

    def test_field_types(self) -> None:
        """A field that has two types is shown with both."""
        one, two = (
            [Block("m", None, ("fieldKey", "fieldType"), [["v", kind], ["w", "float"]])] for kind in ("string", "float")
        )
        expected = [("m", [("v", "float"), ("v", "string"), ("w", "float")])]
        self.assertEqual(self.merged("SHOW FIELD KEYS", one, two), expected)

    def test_series(self) -> None:
        """Series are sorted by what their keys mean, without escapes."""
        one = [block("", "key", r"a\ b,t=x", "m,t=1", r"m,t=a\ b")]
        two = [block("", "key", "a,t=x", "m", "m,t=a!", "m,t=1", "m,t=1,u=2")]
        expected = ["a,t=x", r"a\ b,t=x", "m", "m,t=1", "m,t=1,u=2", r"m,t=a\ b", "m,t=a!"]
        self.assertEqual(self.merged("SHOW SERIES", one, two), [("", expected)])

    def test_databases(self) -> None:
        """Databases keep their order."""
        one, two = [block("databases", "name", "z", "a")], [block("databases", "name", "z", "b")]
        self.assertEqual(self.merged("SHOW DATABASES", one, two), [("databases", ["z", "a", "b"])])

    def test_settings(self) -> None:
        """What should be the same everywhere is shown once, and refused where it differs."""
        one, two = [block("", "name", "autogen", "x")], [block("", "name", "x", "autogen")]
        self.assertEqual(self.merged("SHOW RETENTION POLICIES", one, two), [("", ["autogen", "x"])])
        two = [block("", "name", "autogen")]
        self.assertRaisesRegex(Refused, "different retention", self.merged, "SHOW RETENTION POLICIES", one, two)

    def test_cardinality(self) -> None:
        """The numbers of series are added, since each series is on one shard."""
        one, two = [block("m", "count", 3)], [block("m", "count", 4), block("n", "count", 1)]
        found = self.merged("SHOW SERIES EXACT CARDINALITY", one, two)
        self.assertEqual(found, [("m", [7]), ("n", [1])])

    def test_places(self) -> None:
        """Only the shards of the key are asked, whatever they hold."""
        (statement,) = parse("SHOW TAG VALUES WITH KEY = a WHERE c = 'x' AND b != 'y'")
        self.assertEqual(show(statement, "", MAP).everywhere, {"1"})
