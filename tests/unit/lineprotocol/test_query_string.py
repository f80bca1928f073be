"""The query string of a write, read as Go reads it."""

from __future__ import annotations

from urllib.parse import quote_from_bytes, quote_plus

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import InvalidRequest
from influxrelay.lineprotocol.query_string import flag, parse, without

_VALUES = st.binary(max_size=12)


class ParseTests(SynchronousTestCase):
    """:func:`parse`."""

    def _refused(self, query: bytes) -> str:
        error = self.assertRaises(InvalidRequest, parse, query)
        self.assertEqual(error.status, 400)
        return str(error.message)

    @given(st.binary(min_size=1, max_size=12), _VALUES, _VALUES, _VALUES)
    def test_values(self, database: bytes, policy: bytes, username: bytes, password: bytes) -> None:
        """Escaped values of any bytes are read back, and the query is forwarded as it was."""
        pairs = {"db": database, "rp": policy, "u": username, "p": password}
        query = "&".join(f"{name}={quote_plus(value)}" for name, value in pairs.items()).encode()
        target = parse(query)
        self.assertEqual(
            (target.database, target.retention_policy, target.username, target.password),
            (database, policy, username, password),
        )
        self.assertEqual(target.forwarded, query)
        self.assertEqual((target.precision, target.consistency), (b"", ""))

    def test_first_counts(self) -> None:
        """Of a parameter given twice the first counts, even if it is empty."""
        self.assertEqual(parse(b"db=a&db=b").database, b"a")
        self.assertEqual(self._refused(b"db=&db=b"), "database is required")

    def test_what_go_leaves_out(self) -> None:
        """A pair with a broken escape or a semicolon does not count; the others do."""
        target = parse(b"db=%zz&db=a&rp=x;y&u=%4&precision=s")
        self.assertEqual((target.database, target.retention_policy, target.username), (b"a", b"", b""))
        self.assertEqual(target.precision, b"s")

    def test_plus(self) -> None:
        """A plus sign is a blank, an escaped one is a plus sign."""
        self.assertEqual(parse(b"db=a+b%2Bc").database, b"a b+c")

    def test_names(self) -> None:
        """Names may be escaped, and their case counts."""
        self.assertEqual(parse(b"%64b=a").database, b"a")
        self.assertEqual(self._refused(b"DB=a"), "database is required")

    def test_precision(self) -> None:
        """Each precision but the known ones is refused by its name."""
        for precision in (b"", b"n", b"ns", b"u", b"ms", b"s", b"m", b"h"):
            self.assertEqual(parse(b"db=a&precision=" + precision).precision, precision)
        self.assertEqual(
            self._refused(b"db=a&precision=d%C3%A9"), 'invalid precision "dé" (use n, ns, u, ms, s, m or h)'
        )
        self.assertIn('"\\xff"', self._refused(b"db=a&precision=%ff"))

    def test_consistency(self) -> None:
        """The four levels are known in any case, and come out in lower case."""
        for word in ("any", "one", "quorum", "all"):
            for written in (word, word.upper(), word.title()):
                self.assertEqual(parse(f"db=a&consistency={written}".encode()).consistency, word)
        self.assertIn('"two"', self._refused(b"db=a&consistency=two"))

    def test_default_retention_policy(self) -> None:
        """An empty rp is replaced by the default, which is escaped; one that is given stays."""
        for query, policy, forwarded in (
            (b"db=a", b"x&y z", b"db=a&rp=x%26y+z"),
            (b"rp=&db=a", b"x&y z", b"db=a&rp=x%26y+z"),
            (b"rp=&db=a&rp=b", b"x&y z", b"db=a&rp=x%26y+z"),
            (b"db=a&rp=b", b"b", b"db=a&rp=b"),
        ):
            target = parse(query, "x&y z")
            self.assertEqual((target.retention_policy, target.forwarded), (policy, forwarded))
            self.assertEqual(parse(target.forwarded).retention_policy, policy)

    def test_default_of_any_script(self) -> None:
        """A default retention policy may have any letters."""
        target = parse(b"db=a", "ж")
        self.assertEqual((target.retention_policy, target.forwarded), ("ж".encode(), b"db=a&rp=%D0%B6"))

    def test_bytes_not_in_a_url(self) -> None:
        """Bytes that a URL may not have are escaped, and escapes that are there stay."""
        self.assertEqual(parse("db=é%20 \x7f".encode()).forwarded, b"db=%C3%A9%20%20%7F")
        self.assertEqual(parse("db=é".encode(), "x").forwarded, b"db=%C3%A9&rp=x")

    def test_number_sign(self) -> None:
        """A number sign is escaped: the backends' HTTP client would take it for the beginning of a fragment."""
        self.assertEqual(parse(b"db=a#b").forwarded, b"db=a%23b")

    def test_secrets(self) -> None:
        """User and password are in no repr."""
        self.assertNotIn("secret", repr(parse(b"db=a&u=secret&p=secret")))

    @given(st.binary(max_size=60))
    def test_any_bytes(self, query: bytes) -> None:
        """Any bytes are either read or refused with 400, and what is forwarded is read the same."""
        try:
            target = parse(query)
        except InvalidRequest as error:
            self.assertEqual(error.status, 400)
        else:
            again = parse(target.forwarded)
            self.assertEqual((again.database, again.retention_policy), (target.database, target.retention_policy))

    @given(st.binary(max_size=60))
    def test_stable(self, rest: bytes) -> None:
        """What is forwarded is printable ASCII, and is forwarded unchanged the next time."""
        forwarded = parse(b"db=a&x=" + rest.replace(b"=", b"")).forwarded
        self.assertTrue(all(0x21 <= byte <= 0x7E for byte in forwarded))
        self.assertEqual(parse(forwarded).forwarded, forwarded)


class WithoutTests(SynchronousTestCase):
    """:func:`without`."""

    def test_removed(self) -> None:
        """Parameters of the names are gone however they were written, and the others stay as written."""
        self.assertEqual(without(b"u=a&db=x%20y+z&%75=b&p&uu=1&u", b"u", b"p"), b"db=x%20y+z&uu=1")
        self.assertEqual(without(b"u=a", b"u"), b"")
        self.assertEqual(without(b"", b"u"), b"")

    @given(st.dictionaries(st.binary(min_size=1, max_size=3), _VALUES, max_size=6), st.binary(min_size=1, max_size=3))
    def test_only_the_named(self, pairs: dict[bytes, bytes], name: bytes) -> None:
        """Exactly the pairs of the name are removed."""
        written = [
            (each, f"{quote_from_bytes(each)}={quote_from_bytes(value)}".encode()) for each, value in pairs.items()
        ]
        query = b"&".join(raw for _, raw in written)
        self.assertEqual(without(query, name), b"&".join(raw for each, raw in written if each != name))


class FlagTests(SynchronousTestCase):
    """:func:`flag`."""

    def test_values(self) -> None:
        """Anything but nothing, "0" and "false" is yes."""
        for query in (b"v=1", b"v=true", b"v=x", b"a=b&v=1", b"v=no"):
            self.assertTrue(flag(query, b"v"), query)
        for query in (b"", b"v", b"v=", b"v=0", b"v=false", b"w=1", b"v=%zz"):
            self.assertFalse(flag(query, b"v"), query)

    def test_first_counts(self) -> None:
        """Of a flag given twice the first counts."""
        self.assertFalse(flag(b"v=0&v=1", b"v"))
        self.assertTrue(flag(b"v=1&v=0", b"v"))
