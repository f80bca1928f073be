"""Statements, by tables and properties."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.influxql.ast import Binary, Bounds, Call, Class, Literal, Measurement, Reference, Regex, Select
from influxrelay.influxql.parser import QueryError, parse
from testing.influxql_cases import CHANGES, OF_ONE_SERVER, READS, mutated, table
from testing.influxql_refused import refused


class TableTests(SynchronousTestCase):
    """What is known of statements."""

    def check(self, text: str, klass: Class) -> None:
        """Compare each line of a table with what the parser says."""
        for query, kind, databases in table(text):
            (statement,) = parse(query)
            found = (statement.kind, statement.klass, statement.databases("db"))
            self.assertEqual(found, (kind, klass, databases), query)
            self.assertEqual(statement.span[0], 0)

    def test_reads(self) -> None:
        """Reads are told from changes, with the databases that they ask."""
        self.check(READS, Class.READ)

    def test_changes(self) -> None:
        """Changes are known, with the databases that they concern."""
        self.check(CHANGES, Class.CHANGE)

    def test_of_one_server(self) -> None:
        """Statements whose numbers mean something to one server only are known."""
        self.check(OF_ONE_SERVER, Class.ONE_SERVER)

    def test_refused(self) -> None:
        """What InfluxDB does not understand is not understood."""
        for query in refused():
            with self.assertRaises(QueryError, msg=query):
                parse(query)

    def test_enough(self) -> None:
        """The tables have more than three hundred statements."""
        self.assertGreater(sum(len(table(each)) for each in (READS, CHANGES, OF_ONE_SERVER)) + len(refused()), 350)


class QueryTests(SynchronousTestCase):
    """Several statements in one query."""

    def test_split(self) -> None:
        """Statements are found between semicolons, not in strings, names, comments or expressions."""
        text = """ ;SELECT "a;b" FROM m WHERE c = ';' AND d =~ /;/ -- ; none
            ; ;; CREATE DATABASE /* ; */ x;"""
        found = [text[slice(*each.span)] for each in parse(text)]
        self.assertEqual(found, ["SELECT \"a;b\" FROM m WHERE c = ';' AND d =~ /;/", "CREATE DATABASE /* ; */ x"])

    def test_empty(self) -> None:
        """A query without a statement is none, and no mistake."""
        for text in ("", " ", ";", "-- a comment", "/* another */ ; ;"):
            self.assertEqual(parse(text), (), text)

    def test_nul(self) -> None:
        """A NUL ends the query, as in InfluxDB."""
        self.assertEqual(len(parse("SHOW DATABASES\0; DROP DATABASE x")), 1)

    def test_deep(self) -> None:
        """What is nested too deeply is refused instead of ending the process."""
        for text in ("SELECT " + "(" * 5000 + "a", "SELECT a FROM " + "(SELECT a FROM " * 5000, "SELECT " + "-" * 5000):
            with self.assertRaises(QueryError):
                parse(text)

    def test_parameters(self) -> None:
        """A parameter stands for its value, whatever that looks like; one without a value is refused."""
        (statement,) = parse("SELECT a FROM m WHERE h = $h AND n > $n", {"h": "x'; DROP DATABASE y", "n": 3})
        assert statement.select is not None
        values = [
            each.right.right
            for each in (statement.select.condition,)
            if isinstance(each, Binary) and isinstance(each.right, Binary)
        ]
        self.assertEqual(values, [Literal("integer", 3)])
        self.assertRaises(QueryError, parse, "SELECT a FROM m WHERE h = $h")


class SelectTests(SynchronousTestCase):
    """What is known of a SELECT."""

    def select(self, text: str) -> Select:
        """Return the only statement's."""
        (statement,) = parse(text)
        assert statement.select is not None
        return statement.select

    def test_precedence(self) -> None:
        """Operators bind as in InfluxDB, from the left."""
        found = self.select("SELECT a FROM m WHERE a = 1 + 2 * 3 - 4 AND b = 1 OR c = 1").condition
        assert isinstance(found, Binary)
        self.assertEqual(found.operator, "OR")
        assert isinstance(found.left, Binary)
        assert isinstance(found.left.left, Binary)
        product = Binary("*", Literal("integer", 2), Literal("integer", 3))
        total = Binary("-", Binary("+", Literal("integer", 1), product), Literal("integer", 4))
        self.assertEqual(found.left.left, Binary("=", Reference("a"), total))

    def test_parts(self) -> None:
        """Fields, sources, target, conditions, dimensions, bounds and zone are all there."""
        found = self.select(
            "SELECT mean(a) AS x, b::tag INTO r.t FROM d.r.m, r./x/, (SELECT * FROM i) WHERE h = 'y'"
            " GROUP BY time(1h, 5m), host, /z/ fill(3) ORDER BY time DESC LIMIT 1 OFFSET 2 SLIMIT 3 SOFFSET 4"
            " tz('Europe/Oslo')"
        )
        self.assertEqual(
            [(each.alias, each.expression) for each in found.fields],
            [("x", Call("mean", (Reference("a"),), (0, 0))), ("", Reference("b", "tag"))],
        )
        self.assertEqual(found.target, Measurement("", "r", "t"))
        self.assertEqual(found.sources[:2], (Measurement("d", "r", "m"), Measurement("", "r", "", Regex("x"))))
        self.assertEqual([each.name for each in found.measurements()], ["m", "", "i"])
        self.assertEqual(found.condition, Binary("=", Reference("h"), Literal("string", "y")))
        self.assertEqual(found.dimensions[1:], (Reference("host"), Regex("z")))
        self.assertEqual(found.interval(), 3600 * 10**9)
        self.assertEqual((found.fill, found.fill_value, found.descending), ("number", 3, True))
        self.assertEqual(found.bounds, Bounds(1, 2, 3, 4))
        self.assertEqual(found.zone, "Europe/Oslo")

    def test_clauses(self) -> None:
        """It is known where each clause stands."""
        text = "SELECT a, b  FROM m  WHERE c = 1 /* x */ GROUP BY *  fill(none) ORDER BY time LIMIT 1 tz('UTC') -- end"
        found = {name: text[slice(*span)] for name, span in self.select(text).clauses.items()}
        self.assertEqual(
            found,
            {
                "fields": "a, b",
                "where": "WHERE c = 1",
                "group": "GROUP BY *",
                "fill": "fill(none)",
                "order": "ORDER BY time",
                "limit": "LIMIT 1",
                "tz": "tz('UTC')",
            },
        )

    def test_raw(self) -> None:
        """A SELECT is raw if it calls no function, at any depth."""
        self.assertTrue(self.select("SELECT a + 1, *::tag FROM m").is_raw)
        self.assertFalse(self.select("SELECT 1 + (2 * max(a)) FROM m").is_raw)


class PropertyTests(SynchronousTestCase):
    """What holds for any text."""

    @settings(max_examples=300)
    @given(st.integers(0, 2**32))
    def test_again(self, seed: int) -> None:
        """A statement cut out of its query says the same alone."""
        for query in mutated(seed, 5):
            try:
                statements = parse(query)
            except QueryError:
                continue
            for each in statements:
                self.assertEqual(parse(query[slice(*each.span)]), (each,))

    @settings(max_examples=300)
    @given(st.text(alphabet=st.sampled_from("SELECT FROMWHEabc01.,;:'\"/\\*()=~!<>$-+ \n\0µ\ud800")))
    def test_any_text(self, text: str) -> None:
        """Any text is understood or refused."""
        try:
            parse(text)
        except QueryError as error:
            self.assertIn("at character", str(error))
