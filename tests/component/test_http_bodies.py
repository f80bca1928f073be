"""Bodies of requests: how they arrive, their encodings and their limits."""

from __future__ import annotations

import gzip
import os
import re

from twisted.internet.defer import Deferred

from influxrelay.http import connection as connection_module
from testing.http_case import HTTPTestCase
from testing.scripted import LINE, Answer, Hold, answer, in_chunks, reactor, request, until

BARE = b"cpu value=1\n"
TOO_LARGE = "Request Entity Too Large"


class BodyTests(HTTPTestCase):
    """The body of a write."""

    async def test_byte_for_byte(self) -> None:
        """Lines that have timestamps arrive as they were sent."""
        await self.begin()
        for body in (
            LINE,
            LINE.strip(),
            b"# comment\r\n\n" + LINE * 3 + b"\n\n",
            b'm,t=a\\ b s="x y\n\\"z",i=1i 12\nm v=1 -1',
            b"no line protocol at all \xff\x00\n",
            LINE * 50_000,
        ):
            self.assertEqual((await self.asked(request(body=body))).status, 204)
            self.assertEqual(self.server.requests[-1].body, body)

    async def test_stamp(self) -> None:
        """Lines without a timestamp get the same one for every backend, in the write's precision."""
        backends = [self.backend(answer(503), answer(204)) for _ in range(3)]
        relay = self.relay(*backends)
        for precision, digits in ((b"", 19), (b"u", 16), (b"ms", 13), (b"s", 10), (b"m", 8), (b"h", 6)):
            await self.ask(relay, request(b"/write?db=db&precision=" + precision, BARE + b"cpu value=2 5\n" + BARE))
            await until(lambda: len({len(each.requests) for each in backends}) == 1 and relay.senders[0].is_idle)
            (body,) = {each.requests[-1].body for each in backends}
            expected = rb"cpu value=1 (\d{%d})\ncpu value=2 5\ncpu value=1 \1\n" % digits
            self.assertRegex(body, re.compile(rb"\A" + expected + rb"\Z"))

    async def test_blank(self) -> None:
        """A body in which there is no point is answered 204 without asking a backend."""
        await self.begin()
        for body in (b"", b"\n", b" \t\n\n", b"# only\n# comments", b"#\n \n"):
            self.assertEqual((await self.asked(request(body=body))).status, 204, body)
        self.assertEqual((await self.asked(in_chunks(b"/write?db=db"))).status, 204)
        self.assertEqual((await self.asked(request(body=b"", length=-1))).status, 204)
        packed = request(b"/write?db=db", gzip.compress(b""), b"Content-Encoding: gzip")
        self.assertEqual((await self.asked(packed)).status, 204)
        self.assert_not_asked()

    async def test_blank_without_database(self) -> None:
        """A body without points does not excuse bad parameters."""
        await self.begin()
        self.assert_error(await self.asked(request(b"/write", b"")), 400, "database is required")

    async def test_chunked(self) -> None:
        """A chunked body is put together."""
        await self.begin()
        self.assertEqual((await self.asked(in_chunks(b"/write?db=db", LINE[:5], LINE[5:], LINE))).status, 204)
        self.assertEqual(self.server.requests[0].body, LINE * 2)

    async def test_pieces(self) -> None:
        """A request that comes in pieces is put together, chunked or not."""
        await self.begin()
        for data in (request(), in_chunks(b"/write?db=db", LINE[:9], LINE[9:])):
            for size in (1, 7, 64):
                await self.user.send_in_pieces(data, size)
                self.assertEqual((await self.user.answer()).status, 204)
        self.assertEqual([each.body for each in self.server.requests], [LINE] * 6)

    async def test_forms(self) -> None:
        """A body of curl's default type is no form: what looks like a parameter in it changes nothing."""
        await self.begin()
        body = b"cpu,a=b v=1 1\n&db=evil&precision=nonsense"
        for kind in (b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"multipart/form-data"):
            found = await self.asked(request(b"/write?db=good", body, b"Content-Type: " + kind))
            self.assertEqual(found.status, 204)
            last = self.server.requests[-1]
            self.assertEqual((last.query, last.body), (b"db=good", body))
            found = await self.asked(request(b"/write", b"db=evil", b"Content-Type: " + kind))
            self.assert_error(found, 400, "database is required")

    async def test_too_short(self) -> None:
        """A body that never becomes complete is no write."""
        await self.begin()
        self.user.send(request(length=len(LINE) + 1))
        await until(lambda: not all(each.is_idle() for each in self.service.site.connections))
        self.user.vanish()
        await until(lambda: not self.service.site.connections)
        self.assert_not_asked()


class EncodingTests(HTTPTestCase):
    """``Content-Encoding``."""

    async def _packed(self, body: bytes, encoding: bytes = b"gzip") -> Answer:
        return await self.asked(request(b"/write?db=db", body, b"Content-Encoding: " + encoding))

    async def test_gzip(self) -> None:
        """A compressed body arrives as it came, and says so."""
        await self.begin()
        for encoding in (b"gzip", b"GZip", b" gzip "):
            packed = gzip.compress(LINE)
            self.assertEqual((await self._packed(packed, encoding)).status, 204)
            last = self.server.requests[-1]
            self.assertEqual((last.body, last.header("Content-Encoding")), (packed, b"gzip"))

    async def test_stamped(self) -> None:
        """Lines without a timestamp get one within a compressed body, the same for every backend."""
        backends = [self.backend(), self.backend()]
        relay = self.relay(*backends)
        packed = request(b"/write?db=db&precision=s", gzip.compress(BARE + LINE + BARE[:-1]), b"Content-Encoding: gzip")
        self.assertEqual((await self.ask(relay, packed)).status, 204)
        await until(lambda: all(each.requests for each in backends))
        (body,) = {each.requests[0].lines for each in backends}
        self.assertRegex(body, rb"\Acpu value=1 (\d{10})\n" + re.escape(LINE) + rb"cpu value=1 \1\n\Z")

    async def test_merged(self) -> None:
        """Compressed bodies that wait travel as members of one stream, and never beside plain ones."""
        hold = Hold(answer(204))
        await self.begin(hold)
        users = [self.user, *[await self.client(self.service) for _ in range(6)]]
        self.user.send(request(body=b"a v=0 0"))
        await until(lambda: self.server.requests)
        for number, user in enumerate(users[1:], 1):
            line = b"a v=%d %d" % (number, number)
            if number in (3, 4):
                user.send(request(body=line))
            else:
                user.send(request(b"/write?db=db", gzip.compress(line), b"Content-Encoding: gzip"))
            await until(lambda: self.service.writes.writes == number + 1)
        hold.release()
        for user in users:
            self.assertEqual((await user.answer()).status, 204)
        self.assertEqual(
            [each.lines.split(b"\n") for each in self.server.requests],
            [
                [b"a v=0 0"],
                [b"a v=1 1", b"a v=2 2", b""],
                [b"a v=3 3", b"a v=4 4", b""],
                [b"a v=5 5", b"a v=6 6", b""],
            ],
        )

    async def test_unpacked_for_a_backend(self) -> None:
        """With ``gzip = false`` a compressed body arrives unpacked."""
        backend = self.backend()
        relay = self.relay(self.output(backend, gzip=False))
        packed = request(b"/write?db=db", gzip.compress(LINE), b"Content-Encoding: gzip")
        self.assertEqual((await self.ask(relay, packed)).status, 204)
        found = backend.requests[0]
        self.assertEqual((found.body, found.header("Content-Encoding")), (LINE, None))

    async def test_members(self) -> None:
        """Several gzip members are one body, also with empty ones among them."""
        await self.begin()
        parts = [LINE, b"", LINE, LINE[:4], LINE[4:]]
        self.assertEqual((await self._packed(b"".join(map(gzip.compress, parts)))).status, 204)
        self.assertEqual(self.server.requests[0].lines, LINE * 3)

    async def test_chunked_gzip(self) -> None:
        """A compressed body may come in chunks."""
        await self.begin()
        packed = gzip.compress(LINE)
        data = in_chunks(b"/write?db=db", packed[:7], packed[7:], headers=[b"Content-Encoding: gzip"])
        self.assertEqual((await self.asked(data)).status, 204)
        self.assertEqual(self.server.requests[0].lines, LINE)

    async def test_broken(self) -> None:
        """What cannot be unpacked, or breaks off, is refused."""
        await self.begin()
        packed = gzip.compress(LINE)
        for body in (
            b"",
            LINE,
            packed[:-1],
            packed[:10],
            packed[:1],
            packed + packed[:-3],
            packed + b"trailing",
            packed[:15] + b"\xff\xff\xff" + packed[18:],
            packed[:-8] + b"\0\0\0\0" + packed[-4:],
        ):
            with self.subTest(body=body):
                found = await self._packed(body)
                self.assertEqual(found.status, 400)
                self.assertIn(b"gzip", found.header("X-Influxdb-Error") or b"")
        self.assert_not_asked()

    async def test_other_encodings(self) -> None:
        """Another encoding is refused with its name, and sent to no backend as if it were text."""
        await self.begin()
        for encoding in (b"deflate", b"BR", b"zstd", b"compress", b"snappy", b"gzip, gzip", b"utf-8, br"):
            found = await self._packed(LINE, encoding)
            self.assertEqual(found.status, 415, encoding)
            self.assertIn(b"Content-Encoding", found.header("X-Influxdb-Error") or b"")
        self.assert_not_asked()

    async def test_words_that_name_no_encoding(self) -> None:
        """A word that names no encoding is ignored, as InfluxDB does: many Java programs send "UTF-8"."""
        await self.begin()
        words = (b"identity", b"Identity", b"", b"UTF-8", b"utf-8, identity", b"x", b"\xff", b"gzipped")
        for encoding in words:
            self.assertEqual((await self._packed(LINE, encoding)).status, 204, encoding)
        self.assertEqual([each.body for each in self.server.requests], [LINE] * len(words))
        self.assertEqual((await self._packed(gzip.compress(LINE), b"utf-8, gzip")).status, 204)
        self.assertEqual(self.server.requests[-1].lines, LINE)

    async def test_bomb(self) -> None:
        """A small body that unpacks to more than the limit is refused; no more than the limit is unpacked."""
        await self.begin(max_decoded_size=100_000)
        bomb = gzip.compress(bytes(50_000_000))
        self.assertLess(len(bomb), 100_000)
        self.assert_error(await self._packed(bomb), 413, TOO_LARGE)
        two = gzip.compress(LINE * 2000) * 2
        self.assert_error(await self._packed(two), 413, TOO_LARGE)
        self.assertEqual((await self._packed(gzip.compress(LINE * 2000))).status, 204)

    async def test_limit_is_exact(self) -> None:
        """A decoded body of just the limit is taken, one byte more is not."""
        await self.begin(max_decoded_size=len(LINE) * 9)
        self.assertEqual((await self._packed(gzip.compress(LINE * 9))).status, 204)
        self.assert_error(await self._packed(gzip.compress(LINE * 9 + b"#")), 413, TOO_LARGE)

    async def test_limits_of_their_own(self) -> None:
        """A body as sent has one limit, and what it decodes to another."""
        await self.begin(max_body_size=1000, max_decoded_size=10_000)
        packed = gzip.compress(LINE * 200)
        self.assertLess(len(packed), 1000)
        self.assertEqual((await self._packed(packed)).status, 204)
        self.assertEqual(self.server.requests[0].lines, LINE * 200)
        self.assert_error(await self._packed(gzip.compress(os.urandom(1000))), 413, TOO_LARGE)

    async def test_no_limit(self) -> None:
        """With limit 0 a body of any size is unpacked."""
        await self.begin(max_decoded_size=0)
        body = b"#" * 30_000_000 + b"\n" + LINE
        self.assertEqual((await self._packed(gzip.compress(body))).status, 204)
        self.assertEqual(len(self.server.requests[0].lines), len(body))


class LimitTests(HTTPTestCase):
    """``max-body-size``."""

    settings = {"max_body_size": 1000}  # noqa: RUF012

    def setUp(self) -> None:
        """Do not let refused clients go on for long."""
        self.patch(connection_module, "LINGER", 0.3)

    async def test_exact(self) -> None:
        """A body of just the limit is taken."""
        await self.begin()
        for data in (request(body=b"#" * 1000), in_chunks(b"/write?db=db", b"#" * 500, b"#" * 500)):
            self.assertEqual((await self.asked(data)).status, 204)

    async def test_too_long(self) -> None:
        """A body beyond the limit is refused, and the connection ends."""
        for data in (request(body=b"#" * 1001), in_chunks(b"/write?db=db", b"#" * 500, b"#" * 501)):
            for size in (len(data), 300):
                await self.begin()
                await self.user.send_in_pieces(data, size)
                found = await self.user.answer()
                self.assert_error(found, 413, TOO_LARGE)
                self.assertEqual(found.header("Connection"), b"close")
                self.assertEqual(await self.user.end(), b"")
                self.assert_not_asked()

    async def test_twice(self) -> None:
        """A body beyond the limit is refused the second time as well."""
        await self.begin()
        for _ in range(3):
            user = await self.client(self.service)
            self.assert_error(await user.ask(request(body=b"#" * 1001)), 413, TOO_LARGE)
            self.assertEqual(await user.end(), b"")

    async def test_announced(self) -> None:
        """A Content-Length beyond the limit is refused before the body comes."""
        await self.begin()
        found = await self.asked(request(body=b"", length=10**12))
        self.assert_error(found, 413, TOO_LARGE)
        self.assertEqual(await self.user.end(), b"")

    async def test_absurd_length(self) -> None:
        """A Content-Length of many digits is refused: as too large, or as none, where no server could read it."""
        await self.begin()
        self.assert_error(await self.asked(request(body=b"", length=10**18)), 413, TOO_LARGE)
        user = await self.client(self.service)
        self.assert_error(await user.ask(request(body=b"", length=10**400)), 400, "malformed request")

    async def _pour(self, head: bytes, piece: bytes) -> tuple[Answer, int]:
        """Send a body without end; return the answer and the most bytes that the relay held."""
        self.user.send(head)
        most = 0
        for _ in range(100_000):
            if self.user.closed:
                break
            self.user.send(piece)
            for each in self.service.site.connections:
                most = max(most, each.body_size(), each._reader.pending)
            await self._turn()
        return await self.user.answer(), most

    async def _turn(self) -> None:
        turn: Deferred[None] = Deferred()
        reactor.callLater(0, turn.callback, None)
        await turn

    async def test_endless_chunks(self) -> None:
        """A chunked body without end is refused early, is not collected, and the connection ends."""
        await self.begin()
        head = request(b"/write?db=db", b"", b"Transfer-Encoding: chunked", length=-1)
        found, most = await self._pour(head, b"200\r\n" + b"#" * 512 + b"\r\n")
        self.assert_error(found, 413, TOO_LARGE)
        self.assertLess(most, 100_000)
        self.assert_not_asked()

    async def test_endless_chunk(self) -> None:
        """A single chunk without end is refused as well."""
        await self.begin()
        head = request(b"/write?db=db", b"ffffffff\r\n", b"Transfer-Encoding: chunked", length=-1)
        found, most = await self._pour(head, b"#" * 512)
        self.assert_error(found, 413, TOO_LARGE)
        self.assertLess(most, 100_000)

    async def test_lingering_client(self) -> None:
        """A refused client that goes on sending is read for a while, so that it sees the answer, and then cut off."""
        await self.begin()
        found, most = await self._pour(request(body=b"", length=10**12), b"#" * 4096)
        self.assert_error(found, 413, TOO_LARGE)
        self.assertLess(most, 100_000)
        await until(lambda: not self.service.site.connections)

    async def test_vanishing_client(self) -> None:
        """A refused client may vanish."""
        await self.begin()
        self.assertEqual((await self.asked(request(body=b"", length=10**12))).status, 413)
        self.user.vanish()
        await until(lambda: not self.service.site.connections)

    async def test_no_limit(self) -> None:
        """With limit 0 a body of any size is taken."""
        await self.begin(max_body_size=0)
        self.assertEqual((await self.asked(request(body=b"#" * 30_000_000))).status, 204)

    async def test_default_limit(self) -> None:
        """The default limit is 25 MB."""
        await self.begin(max_body_size=25_000_000)
        self.assertEqual((await self.asked(request(body=b"#" * 25_000_000))).status, 204)
        self.assertEqual((await self.asked(request(body=b"", length=25_000_001))).status, 413)

    async def test_expect_and_too_large(self) -> None:
        """A client that asks before it sends too much is told 413, and not to go on."""
        await self.begin()
        found = await self.asked(request(b"/write?db=db", b"", b"Expect: 100-continue", length=1001))
        self.assert_error(found, 413, TOO_LARGE)
        self.assertEqual(self.user.interim, [])
