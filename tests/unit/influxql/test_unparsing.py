"""SELECTs as text again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.influxql.parser import parse
from influxrelay.influxql.tokens import QueryError
from influxrelay.influxql.unparsing import Writer
from testing.influxql_cases import READS, mutated, table

NOW = 1_700_000_000_123_456_789


class UnparsingTests(SynchronousTestCase):
    """A SELECT, parsed and written."""

    def check(self, text: str) -> int:
        """Check that what is written reads as what was there; return how many SELECTs that concerned."""
        checked = 0
        for statement in parse(text):
            if statement.kind != "SELECT" or statement.select is None or statement.select.target is not None:
                continue
            written = Writer(NOW).select(statement.select)
            (again,) = parse(written)
            if statement.nows:
                self.assertEqual(again.nows, ())
            else:
                self.assertEqual(again.select, statement.select, written)
            checked += 1
        return checked

    def test_cases(self) -> None:
        """Every SELECT that InfluxDB's own tests have is the same afterwards."""
        self.assertGreater(sum(self.check(text) for text, *_ in table(READS)), 50)

    def test_mutations(self) -> None:
        """So are those that chance makes of them."""
        checked = 0
        for text in mutated(1, 2000):
            try:
                parse(text)
            except QueryError:
                continue
            checked += self.check(text)
        self.assertGreater(checked, 20)

    def test_trees(self) -> None:
        """Quotes, exponents and all clauses keep their meaning."""
        for text in (
            r"""SELECT "a\"b\\c'd" AS "e\nf" FROM "g"..h, /i\/j\.k/, "l".m WHERE n = 'o\'p"q\\' AND r =~ /\//""",
            "SELECT mean(*) / 0.000000000000000000000001, a FROM (SELECT * FROM m) GROUP BY *, time(1h30m, -5m), /a/",
            "SELECT max(a::float) FROM m GROUP BY time(1u) fill(-3.5) ORDER BY time DESC LIMIT 5 tz('Europe/Berlin')",
            "SELECT DISTINCT a FROM m WHERE time > 9223372036854775807 OR b::field = true LIMIT 1 SLIMIT 2 SOFFSET 3",
        ):
            self.assertEqual(self.check(text), 1)

    def test_signs(self) -> None:
        """A sign, which is a product for the parser, keeps what it belongs to by parentheses."""
        (statement,) = parse("SELECT 2 / -a * -(b - -3) - (c - d) FROM m")
        written = Writer(NOW).select(statement.select)  # type: ignore[arg-type]
        self.assertEqual(written, 'SELECT 2 / (-1 * "a") * (-1 * ("b" - -3)) - ("c" - "d") FROM "m"')
