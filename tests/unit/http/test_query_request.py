"""What a request to ``/query`` asks."""

from __future__ import annotations

from typing import cast

import attrs
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import InvalidRequest
from influxrelay.http.head import parse_head
from influxrelay.http.query_request import Query, read_query
from influxrelay.http.request import Request

FORM = b"application/x-www-form-urlencoded"


@attrs.define
class _Request:
    """What is read of a request."""

    raw: bytes
    body: bytes

    @property
    def head(self) -> object:
        return parse_head(self.raw)

    @property
    def method(self) -> bytes:
        return self.raw.partition(b" ")[0]

    def take_body(self) -> bytes:
        return self.body


def read(query: bytes, body: bytes = b"", kind: bytes = b"", method: bytes = b"POST") -> Query:
    """Read a request."""
    raw = b"%b /query?%b HTTP/1.1\r\nHost: relay\r\nContent-Type: %b\r\nTE: x\r\n\r\n" % (method, query, kind)
    return read_query(cast("Request", _Request(raw, body)))


def part(name: bytes, content: bytes, more: bytes = b"") -> bytes:
    """Return a part of a multipart body."""
    return b'--x\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name, more, content)


class ReadQueryTests(SynchronousTestCase):
    """Requests, where InfluxDB looks for their parameters."""

    def test_places(self) -> None:
        """A form body wins over the URL, the URL over multipart values, these over a multipart file."""
        file = b'; filename="f"'
        multipart = b"multipart/form-data; boundary=x"
        for query, body, kind, text in (
            (b"q=a", b"", b"", "a"),
            (b"q=a", b"q=b", FORM + b"; charset=utf-8", "b"),
            (b"q=a", b"q=b", b"text/plain", "a"),
            (b"q=a", part(b"q", b"b") + b"--x--", multipart, "a"),
            (b"", part(b"q", b"c", file) + part(b"q", b"b") + b"--x--", multipart, "b"),
            (b"", part(b"q", b"c\r\nd", file) + b"--x--", multipart, "c\r\nd"),
            (b"", part(b"other", b"c", file) + b"--x--", multipart, ""),
            (b"", b"q=b", b"multipart/form-data", ""),
        ):
            self.assertEqual(read(query, body, kind).text, text, (query, body))
        self.assertEqual(read(b"q=a", b"q=b", FORM, b"GET").text, "a")

    def test_forwarded(self) -> None:
        """A backend gets what the client sent, without the choice of a backend and what servers read differently."""
        found = read(b"db=d&backend=b&x=%zz&q=SHOW%20USERS;", b"a=1;q=DROP+DATABASE+d&epoch=ms", FORM)
        self.assertEqual(found.backend, "b")
        self.assertEqual((found.question.query, found.question.body), (b"db=d", b"epoch=ms"))
        self.assertEqual(found.question.headers, ((b"content-type", FORM),))
        self.assertEqual(found.text, "")

    def test_another_text(self) -> None:
        """Another text takes the place of ``q`` wherever that was."""
        asked = read(b"db=d&q=a", b"q=b&epoch=ms", FORM).ask("SHOW USERS")
        self.assertEqual((asked.query, asked.body), (b"db=d", b"q=SHOW+USERS&epoch=ms"))
        asked = read(b"db=d&q=a", method=b"GET").ask("SHOW USERS")
        self.assertEqual((asked.query, asked.body), (b"q=SHOW+USERS&db=d", b""))

    def test_statements(self) -> None:
        """Statements are known, with the values of ``params``, unless they cannot be parsed; passwords are hidden."""
        found = read(b"q=SELECT+v+FROM+m+WHERE+h+%3D+$h&params=%7B%22h%22:%22a%22%7D&db=d")
        self.assertEqual([each.kind for each in found.statements or ()], ["SELECT"])
        self.assertEqual(found.database, "d")
        for q in (b"SELECT", b"SELECT+v+FROM+m+WHERE+h+%3D+$h", b"("):
            self.assertIsNone(read(b"q=" + q).statements)
        self.assertIsNone(read(b"q=SHOW+USERS&params=x").statements)
        self.assertNotIn("secret", read(b"q=CREATE+USER+me+WITH+PASSWORD+'secret'").shown)
        self.assertNotIn("secret", read(b"q=CREATE+USERS+me+WITH+PASSWORD+'secret'").shown)

    def test_read_as_in_go(self) -> None:
        """What Go's decoder takes for ``params`` is taken here, and what is nested too deeply is refused."""
        for params in (b"{}x", b'%20{"a":"%ff"}'):
            found = read(b"q=DROP+DATABASE+d&params=" + params).statements or ()
            self.assertEqual([each.kind for each in found], ["DROP DATABASE"])
        nested = b"q=DROP+DATABASE+d&params=" + b"[" * 100_000 + b"]" * 100_000
        for body in (nested, b"q=DELETE+FROM+m+WHERE+" + b"(" * 200 + b"a=1" + b")" * 200):
            with self.assertRaisesRegex(InvalidRequest, "nested too deeply"):
                read(b"", body, FORM)
