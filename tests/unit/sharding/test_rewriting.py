"""SELECTs with types, and without wildcards."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.influxql.parser import parse
from influxrelay.influxql.unparsing import Writer
from influxrelay.sharding.columns import column_names
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.results import Block
from influxrelay.sharding.rewriting import rewritten
from influxrelay.sharding.schema import Schema

SCHEMA = Schema({"v": "float", "n": "integer", "s": "string", "b": "boolean", "x": "float"}, frozenset(("host", "x")))


class RewritingTests(SynchronousTestCase):
    """What a shard is asked."""

    def check(self, text: str, expected: str) -> None:
        """Check what becomes of a SELECT."""
        (statement,) = parse(text)
        assert statement.select is not None
        self.assertEqual(Writer(7).select(rewritten(statement.select, SCHEMA)), expected)

    def test_types(self) -> None:
        """Fields get their types, in functions and conditions too; tags, times and what is unknown stay."""
        self.check(
            "SELECT max(v) / 2, host, q FROM m WHERE s != 'a' AND host = 'b' AND time < now() AND n::field > 3",
            """SELECT max("v"::float) / 2, "host", "q" FROM "m" """
            """WHERE "s"::string != 'a' AND "host" = 'b' AND time < 7ns AND "n"::integer > 3""",
        )
        self.check("SELECT v::integer FROM m", 'SELECT "v"::integer FROM "m"')

    def test_wildcards(self) -> None:
        """Wildcards and expressions become fields and tags by name; tags vanish where they are grouped by."""
        every = '"b"::boolean, "host"::tag, "n"::integer, "s"::string, "v"::float, "x"::float, "x"::tag'
        self.check("SELECT * FROM m", f'SELECT {every} FROM "m"')
        self.check("SELECT *::tag FROM m", 'SELECT "host"::tag, "x"::tag FROM "m"')
        self.check("SELECT /^[nh]/ FROM m", 'SELECT "host"::tag, "n"::integer FROM "m"')
        self.check("SELECT /^[nh]/ FROM m GROUP BY host", 'SELECT "n"::integer FROM "m" GROUP BY "host"')
        self.check("SELECT *::field FROM m GROUP BY /^h/, time(1m)", (
            'SELECT "b"::boolean, "n"::integer, "s"::string, "v"::float, "x"::float FROM "m" '
            'GROUP BY "host", time(60000000000ns)'
        ))  # fmt: skip

    def test_calls(self) -> None:
        """A function of all fields is one of each that it can take."""
        means = 'mean("n"::integer) AS "mean_n", mean("v"::float) AS "mean_v", mean("x"::float) AS "mean_x"'
        self.check("SELECT mean(*) FROM m", f'SELECT {means} FROM "m"')
        self.check("SELECT max(/b|s/) AS q FROM m", 'SELECT max("b"::boolean) AS "q_b" FROM "m"')
        self.check("SELECT derivative(first(/s/), 1s) FROM m", (
            'SELECT derivative(first("s"::string), 1000000000ns) AS "derivative_s" FROM "m"'
        ))  # fmt: skip

    def test_ambiguous(self) -> None:
        """The name of a field and a tag is refused, unless it says which."""
        self.assertRaisesRegex(Refused, "::tag", self.check, "SELECT x FROM m", "")
        self.check("SELECT x::tag FROM m", 'SELECT "x"::tag FROM "m"')


class SchemaTests(SynchronousTestCase):
    """What shards know."""

    def test_read(self) -> None:
        """Fields come from the plan, tags from there and from their list; quoted names are read."""
        plan = Block("", None, ("QUERY PLAN",), [["EXPRESSION: <nil>"], [r'AUXILIARY FIELDS: "a \"b"::float, t::tag']])
        tags = Block("m", None, ("tagKey",), [["u"]])
        found = Schema.read({0: [plan], 1: [tags], 2: [plan]})
        self.assertEqual(found, Schema({'a "b': "float"}, frozenset(("t", "u"))))

    def test_union(self) -> None:
        """Of several types of a field the one counts that one server would choose."""
        union = Schema.union(
            [Schema({"v": "string"}), Schema({"v": "integer"}, frozenset("t")), Schema({"w": "boolean"})]
        )
        self.assertEqual(union, Schema({"v": "integer", "w": "boolean"}, frozenset("t")))


class ColumnTests(SynchronousTestCase):
    """The names of columns."""

    def test_names(self) -> None:
        """Aliases come first; what is there already gets a number; sums are named after their parts."""
        for fields, expected in (
            ("max(a), min(a) AS q, max(b)", ("time", "max", "q", "max_1")),
            ("max(a), max(b), max(c) AS max", ("time", "max_1", "max_2", "max")),
            ("time AS t, mean(a) / (sum(b) + 2), (count(c))", ("t", "mean_sum", "count")),
        ):
            (statement,) = parse(f"SELECT {fields} FROM m")
            assert statement.select is not None
            self.assertEqual(column_names(statement.select.fields), expected)
