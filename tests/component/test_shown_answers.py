"""Whatever a backend answers, as the relay's client sees it."""

from __future__ import annotations

import gzip
from typing import Any

from testing.scripted import (
    Action,
    Answer,
    RelayTestCase,
    answer,
    chunked,
    gzipped,
    lengthless,
    raw,
    request,
)


def _summary(found: Answer) -> tuple[int, bytes, bytes | None, bytes | None]:
    return found.status, found.body, found.header("Content-Type"), found.header("X-Influxdb-Error")


class ShownAnswerTests(RelayTestCase):
    """A backend's answer goes to the client unchanged."""

    async def _shown(self, *actions: Action, **settings: Any) -> Answer:
        outputs = [self.output(self.backend(each), str(number), **settings) for number, each in enumerate(actions)]
        return await self.ask(self.relay(*outputs), request())

    async def test_any_success_is_204(self) -> None:
        """Any 2xx is shown as 204 without body, Content-Length and the backend's headers."""
        for status in (200, 201, 202, 206, 299):
            found = await self._shown(
                answer(status, b"fine", (b"Content-Type", b"text/plain"), (b"X-Influxdb-Error", b"none"))
            )
            self.assertEqual(_summary(found), (204, b"", None, None), status)
            self.assertIsNone(found.header("Content-Length"))

    async def test_chunked(self) -> None:
        """A chunked answer is shown with its whole body."""
        found = await self._shown(chunked(400, b'{"error":', b'"bad"}', headers=[(b"Content-Type", b"a/b")]))
        self.assertEqual(_summary(found), (400, b'{"error":"bad"}', b"a/b", None))

    async def test_without_length(self) -> None:
        """An answer that ends with its connection is shown with its whole body."""
        found = await self._shown(lengthless(400, b"bad", (b"Content-Type", b"a/b")))
        self.assertEqual(_summary(found), (400, b"bad", b"a/b", None))

    async def test_without_body(self) -> None:
        """An answer without body is shown so."""
        found = await self._shown(answer(404))
        self.assertEqual((_summary(found), found.header("Content-Length")), ((404, b"", None, None), b"0"))

    async def test_binary(self) -> None:
        """A body of any bytes is shown byte for byte."""
        body = bytes(range(256)) * 1000
        self.assertEqual((await self._shown(answer(400, body))).body, body)

    async def test_gzip(self) -> None:
        """A compressed answer is shown as it is, and says so."""
        found = await self._shown(gzipped(400, b"bad", (b"Content-Type", b"a/b")))
        self.assertEqual(gzip.decompress(found.body), b"bad")
        self.assertEqual(found.header("Content-Encoding"), b"gzip")

    async def test_retry_after(self) -> None:
        """Retry-After of a shown answer passes through."""
        for status in (429, 503):
            found = await self._shown(answer(status, b"later", (b"Retry-After", b"7")))
            self.assertEqual((found.status, found.header("Retry-After")), (status, b"7"))

    async def test_retry_after_date(self) -> None:
        """Retry-After may be a date, or nonsense, and passes through unchanged."""
        for value in (b"Fri, 31 Dec 1999 23:59:59 GMT", b"soon", b"\xff", b""):
            found = await self._shown(answer(503, b"later", (b"Retry-After", value)))
            self.assertEqual((found.status, found.header("Retry-After")), (503, value))

    async def test_failure_that_cannot_heal(self) -> None:
        """A 5xx that no retry heals is shown if all fail, and is not shown if another backend takes the write."""
        for text in (b"partial write: field type conflict", b"retention policy not found: x"):
            broken = answer(500, b'{"error":"%b"}\n' % text, (b"X-Influxdb-Error", text))
            self.assertEqual((await self._shown(broken)).header("X-Influxdb-Error"), text)
            self.assertEqual((await self._shown(broken, answer(204))).status, 204)
            self.assertEqual((await self._shown(answer(503, b"down"), broken)).status // 100, 5)

    async def test_credentials_wanted(self) -> None:
        """WWW-Authenticate of a 401 passes through."""
        found = await self._shown(answer(401, b"who?", (b"WWW-Authenticate", b'Basic realm="InfluxDB"')))
        self.assertEqual(found.header("WWW-Authenticate"), b'Basic realm="InfluxDB"')

    async def test_other_headers(self) -> None:
        """A backend's own version, date, request id, connection and cookies stay behind."""
        found = await self._shown(
            answer(
                400,
                b"bad",
                (b"X-Influxdb-Version", b"9.9"),
                (b"Request-Id", b"theirs"),
                (b"X-Request-Id", b"theirs"),
                (b"Connection", b"close"),
                (b"Set-Cookie", b"a=b"),
                (b"Date", b"then"),
            )
        )
        self.assertTrue((found.header("X-Influxdb-Version") or b"").startswith(b"relay-"))
        self.assertNotIn(b"theirs", [*found.all("Request-Id"), *found.all("X-Request-Id")])
        self.assertEqual([found.header("Connection"), found.header("Set-Cookie")], [None, None])
        self.assertNotEqual(found.header("Date"), b"then")

    async def test_interim_answers(self) -> None:
        """Answers of 1xx before the final one do not count."""
        for interim in (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"):
            found = await self._shown(raw(interim + b"HTTP/1.1 400 No\r\nContent-Length: 3\r\n\r\nbad"))
            self.assertEqual((found.status, found.body), (400, b"bad"))

    async def test_only_interim_answers(self) -> None:
        """A 1xx that nothing follows is no answer."""
        for interim in (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"):
            self.assert_unable(await self._shown(raw(interim), timeout=0.1))
            self.assert_unable(await self._shown(raw(interim, end="close")))

    async def test_redirects(self) -> None:
        """A redirect is not followed, and is no answer."""
        elsewhere = self.backend()
        for status in (300, 301, 302, 303, 304, 307, 308):
            found = await self._shown(answer(status, b"", (b"Location", elsewhere.url.encode())))
            self.assert_unable(found)
        self.assertEqual(elsewhere.requests, [])

    async def test_unreal_statuses(self) -> None:
        """A status that no answer can have is garbage, and is not shown."""
        for status in (0, 42, 600, 999, 12345):
            self.assert_unable(await self._shown(answer(status, b"?")))

    async def test_unusual_statuses(self) -> None:
        """A 4xx or 5xx that no list has is shown as it is."""
        for status in (418, 499, 520, 599):
            found = await self._shown(answer(status, b"?"))
            self.assertEqual((found.status, found.body), (status, b"?"))

    async def test_garbage(self) -> None:
        """Whatever is not HTTP is no answer."""
        for data in (
            b"\r\n\r\n",
            b"HTTP/1.1 abc No\r\n\r\n",
            b"HTTP/one 204 No\r\n\r\n",
            b"\x16\x03\x01\x00\x05",
            bytes(range(256)) * 4,
        ):
            with self.subTest(data=data):
                self.assert_unable(await self._shown(raw(data, end="close")))

    async def test_clear_status(self) -> None:
        """A clear status line is believed, whatever follows it, and a message of ours stands for the rest."""
        for data in (
            b"Content-Length: many\r\n\r\n",
            b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"Transfer-Encoding: rot13\r\n\r\nxyz\r\n",
            b"Content-Length: 30\r\n\r\nbad",
            b"Content-Le",
        ):
            for status in (400, 500):
                head = b"HTTP/1.1 %d No\r\n" % status
                for end in ("close", "reset"):
                    found = await self._shown(raw(head + data, end=end))
                    self.assertEqual(found.status, status)
                    message = b"the backend answered %d, but the rest of its answer could not be read" % status
                    self.assertIn(message, found.body)

    async def test_broken_header_of_a_backend(self) -> None:
        """A backend cannot put a header of its own making into our answer by a stray line end."""
        found = await self._shown(
            raw(b"HTTP/1.1 400 No\r\nContent-Length: 3\r\nX-Influxdb-Error: a\rSet-Cookie: b\r\n\r\nbad")
        )
        self.assertEqual(found.all("Set-Cookie"), [])
        self.assertFalse([value for _, value in found.headers if b"\r" in value or b"\n" in value])
