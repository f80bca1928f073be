"""Statements with something else in them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.influxql.parser import parse
from influxrelay.influxql.rewriting import redacted, statement_text

NOW = 1_700_000_000_123_456_789


class NowTests(SynchronousTestCase):
    """The time of acceptance."""

    def test_replaced(self) -> None:
        """Each call of now() becomes that time; strings, names and bodies of continuous queries stay as they are."""
        text = (
            'DELETE WHERE time < NOW( ) - 1h; SELECT a INTO b FROM (SELECT "now()" FROM m WHERE time > now())'
            " WHERE x = 'now()';"
            "CREATE CONTINUOUS QUERY q ON d BEGIN SELECT max(a) INTO b FROM m WHERE time > now() GROUP BY time(1h) END"
        )
        first, second, third = (statement_text(text, each, NOW) for each in parse(text))
        self.assertEqual(first, f"DELETE WHERE time < {NOW}ns - 1h")
        self.assertEqual(
            second, f"SELECT a INTO b FROM (SELECT \"now()\" FROM m WHERE time > {NOW}ns) WHERE x = 'now()'"
        )
        self.assertIn("time > now() GROUP", third)

    def test_without(self) -> None:
        """Without a time a statement is cut out as it is."""
        text = "SHOW DATABASES ;  SELECT a FROM m WHERE time > now()  ; "
        found = [statement_text(text, each) for each in parse(text)]
        self.assertEqual(found, ["SHOW DATABASES", "SELECT a FROM m WHERE time > now()"])


class PasswordTests(SynchronousTestCase):
    """What a log may show."""

    def test_parsed(self) -> None:
        """Passwords go, whatever is in them; the rest stays."""
        for query in (
            "CREATE USER o WITH PASSWORD 'se cret'; SHOW USERS",
            "create user o with password'secret' WITH ALL PRIVILEGES",
            "SET PASSWORD FOR \"o p\" = 'it\\'s secret; yes'",
            "SET PASSWORD FOR o='secret'",
        ):
            shown = redacted(query, parse(query))
            self.assertNotIn("secret", shown)
            self.assertNotIn("se cret", shown)
            self.assertIn("[REDACTED]", shown)

    def test_unparsed(self) -> None:
        """Of statements with a mistake passwords go, too."""
        for query in (
            "CREATE USER o WITH PASSWORD 'se;secret",
            'CREATE USER o WITH PASSWORD "secret"',
            "CREATE USER o WITH PASSWORD secret",
            "CREATE USR o WITH  PASSWORD'secret' AND MORE",
            "SET PASSWORD FOR o= 'a\\'secret' x",
            "SET PASSWORD FOR o = secret x",
            "SET PASSWORD FOR o =\n'secret' x",
        ):
            self.assertNotIn("secret", redacted(query), query)
        self.assertEqual(redacted("SELECT a FROM m"), "SELECT a FROM m")
