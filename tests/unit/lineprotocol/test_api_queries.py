"""Query strings of 2.x and 3.x."""

from __future__ import annotations

from base64 import b64encode

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import InvalidRequest
from influxrelay.lineprotocol.api_queries import Addressed, read_v1, read_v2, read_v3
from influxrelay.lineprotocol.credentials import canonical

BASIC = b"Basic " + b64encode(b"user:pass:word")


class V2Tests(SynchronousTestCase):
    """Query strings of ``/api/v2/write``."""

    def read(self, query: bytes, authorization: bytes = b"", policy: str = "") -> Addressed:
        """Read one."""
        return read_v2(query, authorization, policy)

    def refusal(self, query: bytes) -> tuple[int, str]:
        """Return how one is refused."""
        error = self.assertRaises(InvalidRequest, read_v2, query, b"", "")
        return error.status, error.message

    def test_bucket(self) -> None:
        """The first slash divides a bucket into database and retention policy; without one it is a database."""
        for bucket, expected in (
            (b"telegraf", (b"telegraf", b"")),
            (b"telegraf%2Fautogen", (b"telegraf", b"autogen")),
            (b"telegraf/a/b", (b"telegraf", b"a/b")),
            (b"telegraf/", (b"telegraf", b"")),
            (b"a%26b+c/d", (b"a&b c", b"d")),
        ):
            target = self.read(b"org=o&bucket=" + bucket).target
            self.assertEqual((target.database, target.retention_policy), expected)
            again = read_v1(target.forwarded, b"").target
            self.assertEqual((again.database, again.retention_policy), expected)

    def test_no_bucket(self) -> None:
        """A bucket without a database is answered 404, in the words of 1.8."""
        self.assertEqual(self.refusal(b"org=o")[0], 404)
        self.assertEqual(
            self.refusal(b"bucket=%2Frp"), (404, 'bucket name "/rp" is in db/rp form but has an empty database')
        )

    def test_precision(self) -> None:
        """Precisions become those of 1.x; others are refused in the words of this API."""
        for precision, expected in ((b"", b""), (b"ns", b""), (b"us", b"u"), (b"ms", b"ms"), (b"s", b"s")):
            self.assertEqual(self.read(b"bucket=d&precision=" + precision).target.precision, expected)
        for precision in (b"n", b"u", b"m", b"h", b"x"):
            message = f'invalid precision "{precision.decode()}" (use ns, us, ms or s)'
            self.assertEqual(self.refusal(b"bucket=d&precision=" + precision), (400, message))

    def test_consistency(self) -> None:
        """The relay's own parameter is understood in this API too."""
        self.assertEqual(self.read(b"bucket=d&consistency=ALL").target.consistency, "all")

    def test_default_policy(self) -> None:
        """A listener's default retention policy holds for a bucket without one."""
        self.assertEqual(self.read(b"bucket=d", policy="week").target.retention_policy, b"week")
        self.assertEqual(self.read(b"bucket=d/rp", policy="week").target.retention_policy, b"rp")

    def test_token(self) -> None:
        """A token made of a user and a password becomes HTTP's Basic scheme; other tokens stay as they are."""
        self.assertEqual(self.read(b"bucket=d", b"Token user:pass:word").authorization, BASIC)
        for other in (b"Token abc==", b"Bearer abc", BASIC, b""):
            self.assertEqual(self.read(b"bucket=d", other).authorization, other)


class V3Tests(SynchronousTestCase):
    """Query strings of ``/api/v3/write_lp``."""

    def read(self, query: bytes, authorization: bytes = b"") -> Addressed:
        """Read one."""
        return read_v3(query, authorization)

    def test_precision(self) -> None:
        """Long and short names of precisions are understood, and the missing one is to be guessed."""
        for precision, expected in (
            (b"nanosecond", (b"", False)),
            (b"ns", (b"", False)),
            (b"microsecond", (b"u", False)),
            (b"us", (b"u", False)),
            (b"millisecond", (b"ms", False)),
            (b"second", (b"s", False)),
            (b"auto", (b"", True)),
            (b"", (b"", True)),
        ):
            found = self.read(b"db=d&precision=" + precision)
            self.assertEqual((found.target.precision, found.guesses), expected)

    def test_parameters(self) -> None:
        """What 3.x alone has goes on with the write, but for the promise not to wait for the disk."""
        self.assertEqual(self.read(b"db=d/rp&no_sync=true&accept_partial=true").target.forwarded, b"db=d&rp=rp")
        self.assertEqual(
            self.read(b"db=d&precision=second&accept_partial=false").target.forwarded,
            b"db=d&precision=s&accept_partial=false",
        )

    def test_refused(self) -> None:
        """A missing database, an unknown precision and a value that is no boolean are answered 400."""
        for query in (b"", b"db=", b"db=/d", b"db=d&precision=minute", b"db=d&accept_partial=maybe"):
            self.assertEqual(self.assertRaises(InvalidRequest, read_v3, query, b"").status, 400)

    def test_token_in_the_query(self) -> None:
        """A token in the query string becomes a header, and is not sent on in the query."""
        found = self.read(b"db=d&p=secret")
        self.assertEqual(found.authorization, b"Basic " + b64encode(b":secret"))
        self.assertEqual(found.target.forwarded, b"db=d")


class CredentialsTests(SynchronousTestCase):
    """What makes two users one."""

    def test_one_user(self) -> None:
        """A user is the same by a header of either scheme and by the query string."""
        ways = (
            canonical(BASIC),
            canonical(b"Token user:pass:word"),
            canonical(b"", b"user", b"pass:word"),
            canonical(b"Token ignored", b"user", b"pass:word"),
        )
        self.assertEqual(set(ways), {(BASIC, b"", b"")})

    def test_others(self) -> None:
        """Whatever names no user is told apart as it is written."""
        for way in ((b"Token a", b"", b""), (b"Basic ?", b"", b""), (b"", b"user", b""), (b"", b"", b"")):
            self.assertEqual(canonical(*way), way)
