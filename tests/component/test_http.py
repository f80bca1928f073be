"""What HTTP clients meet, request by request, before and beside the backends' answers."""

from __future__ import annotations

import gzip
import os
import re
import time
from typing import Any

from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from influxrelay import __version__
from influxrelay.config.settings import HTTPOutputConfig
from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.http import connection as connection_module
from influxrelay.http import head as head_module
from influxrelay.http.request import Request
from influxrelay.http.site import RelaySite
from influxrelay.lineprotocol.body import decode
from influxrelay.listeners.http import HTTPService
from testing.certificates import Authority
from testing.logs import watch_events
from testing.scripted import (
    LINE,
    Answer,
    Client,
    Hold,
    RelayTestCase,
    ScriptedBackend,
    answer,
    hang,
    in_chunks,
    reactor,
    request,
    until,
)

BARE = b"cpu value=1\n"
PRECISIONS = "use n, ns, u, ms, s, m or h"
ALLOWED_HEADERS = (
    b"Accept",
    b"Accept-Encoding",
    b"Authorization",
    b"Content-Length",
    b"Content-Type",
    b"X-CSRF-Token",
    b"X-HTTP-Method-Override",
)
TOO_LARGE = "Request Entity Too Large"


class _Case(RelayTestCase):
    """One relay with one backend, and one client."""

    settings: dict[str, Any] = {}  # noqa: RUF012 (replaced, never changed)

    async def begin(self, *script: Any, **settings: Any) -> None:
        """Start all three."""
        self.server = self.backend(*script)
        self.service = self.relay(self.server, **{**self.settings, **settings})
        self.user = await self.client(self.service)

    async def asked(self, *pieces: bytes) -> Answer:
        """Return the answer to a request on the one connection."""
        return await self.user.ask(*pieces)

    def assert_not_asked(self) -> None:
        """Check that the backend has got nothing."""
        self.assertEqual(self.server.requests, [])
        self.assertEqual(self.service.senders[0].writes, 0)


class ParameterTests(_Case):
    """The query string of a write."""

    async def test_no_database(self) -> None:
        """A write without db is refused in InfluxDB's words."""
        await self.begin()
        for target in (b"/write", b"/write?", b"/write?db=", b"/write?rp=db", b"/write?DB=db", b"/write?&&=&db"):
            self.assert_error(await self.asked(request(target)), 400, "database is required")
        self.assert_not_asked()

    async def test_bytes_of_an_error(self) -> None:
        """An error of the relay's own has InfluxDB's form to the byte."""
        await self.begin()
        found = await self.asked(request(b"/write"))
        self.assertEqual(found.body, b'{"error":"database is required"}\n')
        self.assertEqual(found.header("X-Influxdb-Error"), b"database is required")
        self.assertEqual(found.header("Content-Type"), b"application/json")
        self.assertEqual(found.header("Content-Length"), b"33")

    async def test_precision(self) -> None:
        """Each precision that InfluxDB knows is taken, and sent on as written."""
        await self.begin()
        for precision in (b"", b"n", b"ns", b"u", b"ms", b"s", b"m", b"h"):
            query = b"db=db&precision=" + precision
            self.assertEqual((await self.asked(request(b"/write?" + query))).status, 204)
            self.assertEqual(self.server.requests[-1].query, query)

    async def test_bad_precision(self) -> None:
        """Another precision is refused with the value and the allowed ones."""
        await self.begin()
        for precision in ("us", "S", "NS", "nano", "1", "ms ", "rfc3339"):
            target = b"/write?db=db&precision=" + precision.replace(" ", "+").encode()
            self.assert_error(await self.asked(request(target)), 400, f'invalid precision "{precision}" ({PRECISIONS})')
        self.assert_not_asked()

    async def test_nasty_precision(self) -> None:
        """A value of any bytes is named without breaking the header or the JSON."""
        await self.begin()
        found = await self.asked(request(b"/write?db=db&precision=%0d%0aSet-Cookie:%20a%22%00%ff%c3%a9"))
        self.assertEqual((found.status, found.header("Set-Cookie")), (400, None))
        self.assertIn(rb"\"", found.body)
        self.assertFalse([value for _, value in found.headers if b"\r" in value or b"\n" in value or b"\0" in value])

    async def test_consistency(self) -> None:
        """Consistency "one" is taken in any case, and so is none."""
        await self.begin()
        for word in (b"one", b"One", b"ONE", b""):
            self.assertEqual((await self.asked(request(b"/write?db=db&consistency=" + word))).status, 204, word)

    async def test_other_consistency(self) -> None:
        """Every consistency that InfluxDB knows is taken, in any case."""
        await self.begin()
        for word in (b"any", b"quorum", b"all", b"ALL"):
            self.assertEqual((await self.asked(request(b"/write?db=db&consistency=" + word))).status, 204, word)

    async def test_unknown_consistency(self) -> None:
        """An unknown consistency is refused with the value and the allowed ones."""
        await self.begin()
        found = await self.asked(request(b"/write?db=db&consistency=most"))
        self.assert_error(found, 400, 'invalid consistency level "most" (use any, one, quorum or all)')

    async def test_query_oddities(self) -> None:
        """Queries are read as InfluxDB reads them, and sent on as they are."""
        await self.begin()
        for query in (
            b"db=a&db=b",
            b"db=a%20b%2Fc&rp=d+e",
            b"%64%62=x",
            b"db=x&rp=%zz",
            b"db=x&y",
            b"db=x&&z=",
            b"db=a=b",
            b"db=x?y",
            b"db=%C3%A9",
            b"db=x&debug=1;2",
            b"db=x/y:z@,!$'()*~|^`{}<>[]\\\"",
        ):
            self.assertEqual((await self.asked(request(b"/write?" + query))).status, 204, query)
            self.assertEqual(self.server.requests[-1].query, query)

    async def test_broken_escape(self) -> None:
        """A parameter with a broken escape counts as not given."""
        await self.begin()
        for query in (b"db=%zz", b"db=%4", b"db=%", b"%6=x&d%62%=x"):
            self.assert_error(await self.asked(request(b"/write?" + query)), 400, "database is required")

    async def test_raw_non_ascii(self) -> None:
        """Bytes beyond ASCII, which may not be in a URL, are sent on escaped."""
        await self.begin()
        self.assertEqual((await self.asked(request("/write?db=é%20x".encode()))).status, 204)
        self.assertEqual(self.server.requests[0].query, b"db=%C3%A9%20x")

    async def test_number_sign(self) -> None:
        """A number sign in the query is part of it for the backend too, as for InfluxDB (``url.ParseRequestURI``)."""
        await self.begin()
        self.assertEqual((await self.asked(request(b"/write?db=a#b"))).status, 204)
        self.assertIn(self.server.requests[0].query, (b"db=a#b", b"db=a%23b"))

    async def test_default_retention_policy(self) -> None:
        """An empty or missing rp is filled in; one that is given stays."""
        await self.begin(default_retention_policy="a b&c")
        for query, sent in (
            (b"db=x", b"db=x&rp=a+b%26c"),
            (b"db=x&rp=&precision=s", b"db=x&precision=s&rp=a+b%26c"),
            (b"db=x&rp=own", b"db=x&rp=own"),
        ):
            await self.asked(request(b"/write?" + query, b"cpu v=1 1"))
            self.assertEqual(self.server.requests[-1].query, sent)

    async def test_many_destinations(self) -> None:
        """The relay remembers no more than so many destinations, and none with a long query."""
        self.patch(__import__("influxrelay.http.write_resource", fromlist=["x"]), "_MEMORY", 4)
        await self.begin()
        for number in range(10):
            query = b"db=d%d" % number
            await self.asked(request(b"/write?" + query))
            await self.asked(request(b"/write?" + query + b"&x=" + b"y" * 2000))
        resource: Any = self.service.root.children[b"write"]
        self.assertLessEqual(len(resource._routes), 4)
        self.assertEqual(max(len(query) for query, _, _ in resource._routes), 5)


class BodyTests(_Case):
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


class EncodingTests(_Case):
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

    async def test_very_many_members(self) -> None:
        """The time to unpack grows with the size of a body, not with size times members."""
        empty = gzip.compress(b"")

        def seconds(members: int) -> float:
            packed = empty * members
            start = time.process_time()
            decode(packed, b"gzip", 25_000_000)
            return time.process_time() - start

        few = min(seconds(4000) for _ in range(3))
        self.assertLess(seconds(64_000), few * 16 * 4 + 0.1)


class LimitTests(_Case):
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


class MethodAndPathTests(_Case):
    """What is there, and what may be done with it."""

    async def test_options(self) -> None:
        """OPTIONS on /write tells what is allowed."""
        await self.begin()
        found = await self.asked(request(b"/write", b"", method=b"OPTIONS"))
        self.assertEqual((found.status, found.header("Allow"), found.body), (204, b"POST", b""))

    async def test_other_methods(self) -> None:
        """Another method on /write is not allowed."""
        await self.begin()
        for method in (b"GET", b"PUT", b"DELETE", b"PATCH", b"post", b"BREW"):
            found = await self.asked(request(method=method))
            self.assert_error(found, 405, "method not allowed")
            self.assertEqual(found.header("Allow"), b"POST")
        self.assert_not_asked()

    async def test_head(self) -> None:
        """HEAD on /write is not allowed, and is told so without a body."""
        await self.begin()
        self.user.send(request(body=b"", method=b"HEAD"), request())
        found = await self.user.answer(to_head=True)
        self.assertEqual((found.status, found.header("Allow")), (405, b"POST"))
        self.assertEqual((await self.user.answer()).status, 204)

    async def test_unknown_paths(self) -> None:
        """An unknown path is answered 404 in JSON."""
        await self.begin()
        for path in (
            b"/",
            b"/writes",
            b"/write/",
            b"/write/x",
            b"//write",
            b"/WRITE",
            b"/%",
            b"/%zz",
            b"*",
            b"/write;x",
        ):
            self.assert_error(await self.asked(request(path + b"?db=db")), 404, "not found")
        self.assert_not_asked()

    async def test_other_forms_of_the_path(self) -> None:
        """A path may be escaped, and be part of a whole URL."""
        await self.begin()
        for target in (
            b"/%77rite?db=db",
            b"/wr%69te?db=db",
            b"http://relay:9096/write?db=db",
            b"HTTP://relay/write?db=db",
            b"https://[::1]:1/%77rite?db=db",
        ):
            self.assertEqual((await self.asked(request(target))).status, 204, target)
            self.assertEqual(self.server.requests[-1].query, b"db=db")

    async def test_ping(self) -> None:
        """/ping is answered 204 with the relay's version."""
        await self.begin()
        for method in (b"GET", b"HEAD"):
            for target in (b"/ping", b"/ping?verbose=false", b"/ping?verbose=0", b"/ping?verbose=", b"/ping?x=1"):
                found = await self.asked(request(target, b"", method=method))
                self.assertEqual((found.status, found.body), (204, b""))
                self.assertEqual(found.header("X-Influxdb-Version"), f"relay-{__version__}".encode())
        self.assert_not_asked()

    async def test_verbose_ping(self) -> None:
        """/ping?verbose=true is answered with the version in JSON."""
        await self.begin()
        for target in (b"/ping?verbose=true", b"/ping?verbose=1", b"/ping?verbose=x"):
            found = await self.asked(request(target, b"", method=b"GET"))
            self.assertEqual(found.status, 200)
            self.assertEqual(found.body, b'{"version":"relay-%b"}\n' % __version__.encode())
            self.assertEqual(found.header("Content-Type"), b"application/json")

    async def test_verbose_ping_head(self) -> None:
        """HEAD on /ping?verbose=true gets the headers only, and the connection goes on."""
        await self.begin()
        self.user.send(request(b"/ping?verbose=true", b"", method=b"HEAD"))
        found = await self.user.answer(to_head=True)
        self.assertEqual(
            (found.status, found.header("Content-Length")), (200, b"%d" % len(f'{{"version":"relay-{__version__}"}}\n'))
        )
        self.assertEqual((await self.asked(request())).status, 204)

    async def test_first_verbose_counts(self) -> None:
        """Of a flag given twice the first counts, as with Go's ``url.Values.Get``."""
        await self.begin()
        found = await self.asked(request(b"/ping?verbose=false&verbose=true", b"", method=b"GET"))
        self.assertEqual(found.status, 204)

    async def test_default_ping_response(self) -> None:
        """/ping is answered with the configured status."""
        await self.begin(default_ping_response=200)
        found = await self.asked(request(b"/ping", b"", method=b"GET"))
        self.assertEqual((found.status, found.body, found.header("Content-Length")), (200, b"", b"0"))

    async def test_ping_with_other_methods(self) -> None:
        """Only GET and HEAD ping."""
        await self.begin()
        found = await self.asked(request(b"/ping", b""))
        self.assert_error(found, 405, "method not allowed")
        self.assertEqual(found.header("Allow"), b"GET, HEAD")


class HeaderTests(_Case):
    """The headers of every answer."""

    async def test_everywhere(self) -> None:
        """Every answer has a date, the version, and a request id of its own, under both names."""
        await self.begin(answer(204), answer(400, b"bad"), answer(503, b"down"), max_body_size=1000)
        ids = set()
        for data in (
            *[request()] * 3,
            request(body=b""),
            request(b"/write"),
            request(b"/nothing"),
            request(method=b"PUT"),
            request(body=b"", method=b"OPTIONS"),
            request(b"/ping", b"", method=b"GET"),
            request(b"/write?db=db", LINE, b"Content-Encoding: br"),
            request(body=b"", length=1001),
        ):
            found = await self.asked(data)
            self.assertEqual(found.header("X-Influxdb-Version"), f"relay-{__version__}".encode())
            self.assertRegex(found.header("Date") or b"", rb"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")
            self.assertRegex(found.header("Request-Id") or b"", rb"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
            self.assertEqual(found.header("Request-Id"), found.header("X-Request-Id"))
            ids.add(found.header("Request-Id"))
        self.assertEqual(len(ids), 11)

    async def test_malformed_requests(self) -> None:
        """A request that is no HTTP is answered 400 with the headers of every answer, and the connection ends."""
        await self.begin()
        for data in (
            b"nonsense\r\n\r\n",
            request(b"/write?db=db", b"", b"Content-Length: many", length=-1),
            request(b"/write?db=db", b"", b"Content-Length: " + b"9" * 5000, length=-1),
            request(b"/write?db=db", LINE, b"Content-Length: 5"),
            request(b"/write?db=db", b"zz\r\n\r\n", b"Transfer-Encoding: chunked", length=-1),
            request(b"/write?db=db", LINE, b"Transfer-Encoding: chunked"),
            request(b"/write?db=db", b"", b"Broken header", length=-1),
        ):
            with self.subTest(data=data[:80]):
                user = await self.client(self.service)
                user.send(data)
                await until(lambda: user.closed)
                head = user.unread
                self.assertTrue(head.startswith(b"HTTP/1.1 400 "), head)
                self.assertIn(b"\r\nX-Influxdb-Version: relay-", head)
                self.assertIn(b"\r\nConnection: close\r\n", head)
        self.assert_not_asked()

    async def test_request_id(self) -> None:
        """The client's X-Request-Id, else its Request-Id, comes back under both names."""
        await self.begin()
        for headers, expected in (
            ((b"X-Request-Id: mine",), b"mine"),
            ((b"Request-Id: other",), b"other"),
            ((b"Request-Id: other", b"X-Request-ID: mine"), b"mine"),
            ((b"X-Request-Id: one", b"X-Request-Id: two"), b"one"),
        ):
            for target in (b"/write?db=db", b"/write"):
                found = await self.asked(request(target, LINE, *headers))
                self.assertEqual(found.header("X-Request-Id"), expected)
                self.assertEqual(found.header("Request-Id"), expected)

    async def test_nasty_request_id(self) -> None:
        """A request id cannot put headers into the answer."""
        await self.begin()
        for value in (b"a\nSet-Cookie: b", b"a\rSet-Cookie: b", b"a\r\n Set-Cookie: b", b"\nSet-Cookie: b"):
            user = await self.client(self.service)
            user.send(request(b"/write?db=db", LINE, b"X-Request-Id: " + value))
            await until(lambda: b"\r\n\r\n" in user.unread)
            lines = re.split(rb"[\r\n]+", user.unread)
            self.assertEqual([line for line in lines if line.startswith(b"Set-Cookie")], [], value)

    async def test_header_oddities(self) -> None:
        """Odd header values, folded, empty or not ASCII, do no harm."""
        await self.begin()
        for header in (
            b"X-Odd: \xff\xfe",
            b"X-Folded: a\r\n  b",
            b"X-Empty:",
            b"Cookie: a=b; c",
            b"content-type:text/x",
        ):
            self.assertEqual((await self.asked(request(b"/write?db=db", LINE, header))).status, 204, header)


class BrowserTests(_Case):
    """Requests of web pages, which have an ``Origin``."""

    origin = b"https://grafana.example.org"

    def assert_allowed(self, found: Answer, origin: bytes) -> None:
        """Check the headers that InfluxDB adds for an origin."""
        for name, value in (
            ("Allow-Origin", origin),
            ("Allow-Methods", b"DELETE, GET, OPTIONS, POST, PUT"),
            (
                "Allow-Headers",
                b", ".join(ALLOWED_HEADERS),
            ),
            ("Expose-Headers", b"Date, X-InfluxDB-Version, X-InfluxDB-Build"),
        ):
            self.assertEqual(found.header(f"Access-Control-{name}"), value)

    def assert_nothing_allowed(self, found: Answer) -> None:
        """Check that nothing is said about origins."""
        self.assertFalse([name for name, _ in found.headers if name.startswith(b"access-control")])

    async def test_all(self) -> None:
        """Every response to a web page has InfluxDB's headers, preflights and errors too; no other response has."""
        await self.begin(answer(204), answer(400, b"bad"), answer(204), max_body_size=1000)
        for data, status in (
            (request(b"/write", b"", b"Access-Control-Request-Method: POST", method=b"OPTIONS"), 204),
            (request(), 204),
            (request(), 400),
            (request(b"/write"), 400),
            (request(b"/nothing"), 404),
            (request(b"/ping", b"", method=b"GET"), 204),
            (request(body=b"", length=1001), 413),
        ):
            head, end, body = data.partition(b"\r\n\r\n")
            user = await self.client(self.service)
            found = await user.ask(head, b"\r\nOrigin: " + self.origin, end, body)
            self.assertEqual(found.status, status)
            self.assert_allowed(found, self.origin)
        self.assert_nothing_allowed(await self.asked(request()))

    async def test_some(self) -> None:
        """With ``cors-origins`` only those that it names are answered so, however they spell a host's name."""
        await self.begin(cors_origins=("https://grafana.example.org", "http://localhost:3000"))
        for origin in (self.origin, b"http://LOCALHOST:3000"):
            self.assert_allowed(await self.asked(request(b"/write?db=db", LINE, b"Origin: " + origin)), origin)
        for origin in (b"https://example.org", b"http://grafana.example.org", b"http://localhost", b"null", b"*", b""):
            found = await self.asked(request(b"/write?db=db", LINE, b"Origin: " + origin))
            self.assertEqual(found.status, 204)
            self.assert_nothing_allowed(found)

    async def test_none(self) -> None:
        """An empty list allows none."""
        await self.begin(cors_origins=())
        self.assert_nothing_allowed(await self.asked(request(b"/write?db=db", LINE, b"Origin: " + self.origin)))


class ConnectionTests(_Case):
    """Versions of HTTP, keep-alive, pipelining, and Expect."""

    async def test_keep_alive(self) -> None:
        """Many requests of all kinds are answered on one connection."""
        await self.begin()
        for _ in range(3):
            self.assertEqual((await self.asked(request())).status, 204)
            self.assertEqual((await self.asked(request(b"/write"))).status, 400)
            self.assertEqual((await self.asked(request(b"/ping", b"", method=b"GET"))).status, 204)
            self.assertEqual((await self.asked(in_chunks(b"/write?db=db", LINE))).status, 204)
            self.assertIsNone((await self.asked(request(b"/nothing"))).header("Connection"))
        self.assertEqual(len(self.server.requests), 6)
        self.assertEqual(len(self.service.site.connections), 1)

    async def test_same_head_again(self) -> None:
        """Requests with the same head are told apart by their bodies, whole or in pieces."""
        await self.begin()
        bodies = [b"cpu value=%d 1\n" % number for number in range(10, 90)]
        for number, body in enumerate(bodies):
            data = request(body=body)
            if number % 3 == 0:
                await self.user.send_in_pieces(data, len(data) - 5)
            else:
                self.user.send(data)
            self.assertEqual((await self.user.answer()).status, 204)
        self.assertEqual([each.body for each in self.server.requests], bodies)

    async def test_same_head_with_credentials(self) -> None:
        """Requests that differ in one header only are never taken for each other."""
        await self.begin()
        for name in [b"a", b"b", b"a", b"c", b"b", b"a"]:
            await self.asked(request(b"/write?db=db", LINE, b"Authorization: Token " + name))
            self.assertEqual(self.server.requests[-1].header("Authorization"), b"Token " + name)

    async def test_blank_line_before_a_request(self) -> None:
        """Blank lines before a request are skipped, however they end and in how many pieces they come."""
        await self.begin()
        for blank in (b"\r\n", b"\n", b"\r\n\r\n", b"\n\n\r\n\n", b"\r\n" * 10_000):
            self.assertEqual((await self.asked(blank, request())).status, 204)
            await self.user.send_in_pieces(blank[:20] + request(), 7)
            self.assertEqual((await self.user.answer()).status, 204)
        self.assertEqual(len(self.server.requests), 10)

    async def test_many_heads(self) -> None:
        """The relay remembers no more than so many heads, and no long ones."""
        self.patch(head_module, "_CACHED_HEADS", 4)
        await self.begin()
        for number in range(20):
            self.assertEqual((await self.asked(request(b"/write?db=db", LINE, b"X-Number: %d" % number))).status, 204)
        self.assertLessEqual(len(self.service.site.heads), 4)
        await self.asked(request(b"/write?db=db", LINE, b"X-Long: " + b"x" * 3000))
        self.assertLess(max(map(len, self.service.site.heads._heads)), 3000)

    async def test_pipelining(self) -> None:
        """Requests sent without waiting are answered in their order."""
        hold = Hold(answer(400, b"first"))
        await self.begin(hold, answer(404, b"second"), answer(204))
        self.user.send(
            request(body=b"a v=1 1"),
            request(b"/write?db=other", b"b v=1 1"),
            request(b"/ping", b"", method=b"GET"),
            request(b"/write"),
            request(body=b""),
            request(b"/ping?verbose=1", b"", method=b"GET"),
            in_chunks(b"/write?db=db", b"c v=1 1"),
        )
        await until(lambda: self.server.requests)
        self.assertEqual(self.user.unread, b"")
        hold.release()
        statuses = [(await self.user.answer()).status for _ in range(7)]
        self.assertEqual(statuses, [400, 404, 204, 400, 204, 200, 204])
        self.assertEqual([each.body for each in self.server.requests], [b"a v=1 1", b"b v=1 1", b"c v=1 1"])

    async def test_deep_pipelining(self) -> None:
        """A client may send many thousand requests before it reads an answer."""
        await self.begin()
        count = 3000
        self.user.send(*[request(b"/write"), request(body=b"")] * count)
        statuses = [(await self.user.answer()).status for _ in range(count * 2)]
        self.assertEqual(statuses, [400, 204] * count)

    async def test_bare_newlines(self) -> None:
        """A head whose lines end in a bare newline, as small devices write it, is read as any other."""
        await self.begin()
        head = b"POST /write?db=db HTTP/1.1\nHost: x\nContent-Length: %d\n\n" % len(LINE)
        for ends in (head, head.replace(b"HTTP/1.1\n", b"HTTP/1.1\r\n"), head.replace(b"\n\n", b"\n\r\n")):
            self.assertEqual((await self.asked(ends, LINE)).status, 204)
            await self.user.send_in_pieces(ends + LINE, 3)
            self.assertEqual((await self.user.answer()).status, 204)
        self.assertEqual([each.body for each in self.server.requests], [LINE] * 6)

    async def test_half_close(self) -> None:
        """A client that closes its side behind its request, as "nc -N" does, gets the answer, and the end."""
        hold = Hold(answer(404, b"words"))
        await self.begin(hold)
        self.user.send(request())
        self.user.transport.loseWriteConnection()
        await until(lambda: self.server.requests)
        self.assertFalse(self.user.closed)
        hold.release()
        self.assertEqual((await self.user.answer()).body, b"words")
        self.assertEqual(await self.user.end(), b"")

    async def test_padded_chunks(self) -> None:
        """Blanks behind the size of a chunk are overlooked."""
        await self.begin()
        body = b"%x  \r\n%b\r\n0 \r\n\r\n" % (len(LINE), LINE)
        data = request(b"/write?db=db", body, b"Transfer-Encoding: chunked", length=-1)
        self.assertEqual((await self.asked(data)).status, 204)
        self.assertEqual(self.server.requests[0].body, LINE)

    async def test_http_1_0(self) -> None:
        """A client of HTTP/1.0 is answered, and its connection ends."""
        await self.begin(answer(204), answer(400, b"bad"))
        for status in (204, 400):
            user = await self.client(self.service)
            found = await user.ask(request(version=b"HTTP/1.0"))
            self.assertEqual((found.status, found.header("Connection")), (status, b"close"))
            self.assertEqual(await user.end(), b"")

    async def test_close(self) -> None:
        """With "Connection: close" the connection ends after the answer, in any spelling, again and again."""
        await self.begin()
        for header in (
            b"Connection: close",
            b"connection: Close",
            b"Connection: keep-alive, close",
            b"Connection: close, TE",
        ):
            for _ in range(2):
                user = await self.client(self.service)
                found = await user.ask(request(b"/write?db=db", LINE, header))
                self.assertEqual((found.status, found.header("Connection")), (204, b"close"), header)
                self.assertEqual(await user.end(), b"")

    async def test_expect(self) -> None:
        """A client that asks before it sends is told to go on, each time."""
        await self.begin()
        for number in range(3):
            self.user.send(request(b"/write?db=db", b"", b"Expect: 100-continue", length=len(LINE)))
            await until(lambda: b"\r\n\r\n" in self.user.unread)
            found = await self.asked(LINE)
            self.assertEqual((found.status, len(self.user.interim)), (204, number + 1))
            self.assertEqual(self.user.interim[-1].status, 100)
        self.assertEqual(self.server.requests[0].body, LINE)

    async def test_idle_connection(self) -> None:
        """A connection on which nothing comes after an answer is closed after a while."""
        await self.begin(idle_timeout=0.05)
        user = await self.client(self.service)
        self.assertEqual((await user.ask(request())).status, 204)
        self.assertEqual(await user.end(), b"")

    async def test_mistake_of_ours(self) -> None:
        """A mistake of ours is logged and answered 500, and the connection goes on."""

        class Broken(Resource):
            def render(self, request: Request) -> None:
                raise ZeroDivisionError

        await self.begin()
        self.service.root.putChild(b"broken", Broken())
        self.assert_error(await self.asked(request(b"/broken")), 500, "internal error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((await self.asked(request())).status, 204)

    async def test_late_mistake_of_ours(self) -> None:
        """A mistake while an answer is made ends in 500 as well."""
        await self.begin()

        def submit(*_: object) -> Deferred[Reply]:
            failed: Deferred[Reply] = Deferred()
            failed.errback(Failure(ZeroDivisionError()))
            return failed

        resource: Any = self.service.root.children[b"write"]
        self.patch(resource._relay, "submit", submit)
        self.assert_error(await self.asked(request()), 500, "internal error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_reader_that_is_slow(self) -> None:
        """A large answer arrives whole at a client that reads slowly."""
        body = bytes(range(256)) * 3900
        await self.begin(answer(400, body))
        self.user.transport.pauseProducing()
        self.user.send(request() * 20)
        await until(lambda: len(self.server.requests) > 1)
        self.user.transport.resumeProducing()
        for _ in range(20):
            self.assertEqual((await self.user.answer()).body, body)


class RateLimitTests(_Case):
    """``rate-limit`` and ``burst-limit``."""

    async def test_burst(self) -> None:
        """Beyond the burst writes are answered 429 with Retry-After, and reach no backend."""
        await self.begin(rate_limit=1, burst_limit=2)
        answers = [await self.asked(request()) for _ in range(3)]
        self.assertEqual([each.status for each in answers], [204, 204, 429])
        self.assert_error(answers[2], 429, "rate limit exceeded")
        self.assertEqual(answers[2].header("Retry-After"), b"1")
        self.assertEqual(len(self.server.requests), 2)
        self.assertEqual((await self.asked(request(b"/ping", b"", method=b"GET"))).status, 204)

    async def test_refill(self) -> None:
        """Writes are admitted again when time has passed."""
        await self.begin(rate_limit=20)
        self.assertEqual([(await self.asked(request())).status for _ in range(2)], [204, 429])
        statuses = []
        while 204 not in statuses:
            statuses.append((await self.asked(request())).status)


class AccessLogTests(_Case):
    """``access-log``."""

    async def _lines(self, relay: HTTPService, user: Client, *requests: bytes) -> list[str]:
        events = watch_events(self)
        for each in requests:
            await user.ask(each)
        return [
            event["log_format"].format(**event)
            for event in events
            if event["log_namespace"].endswith("RelaySite") and "{client}" in (event["log_format"] or "")
        ]

    async def test_lines(self) -> None:
        """Each answer is one line, without credentials."""
        await self.begin(access_log=True, max_body_size=1000)
        lines = await self._lines(
            self.service,
            self.user,
            request(b"/write?db=db&u=secret&p=secret&precision=s"),
            request(b"/ping", b"", method=b"GET"),
            request(b"/nothing%ff"),
        )
        self.assertEqual(
            lines,
            [
                "127.0.0.1 POST /write?db=db&precision=s 204 0",
                "127.0.0.1 GET /ping 204 0",
                "127.0.0.1 POST /nothing%ff 404 22",
            ],
        )

    async def test_refused(self) -> None:
        """A request that is refused before its body is complete has its line too."""
        await self.begin(access_log=True, max_body_size=10)
        lines = await self._lines(self.service, self.user, request(b"/write?db=db", b"#" * 50))
        self.assertEqual(lines, ["127.0.0.1 POST /write?db=db 413 37"])

    async def test_unix(self) -> None:
        """A client on a Unix socket, which has no address, has its line."""
        path = self.mktemp()
        relay = self.relay(self.backend(), endpoint=f"unix:{path}", access_log=True)
        lines = await self._lines(relay, await self.client(relay), request())
        self.assertEqual([line.partition(" ")[2] for line in lines], ["POST /write?db=db 204 0"])

    async def test_off(self) -> None:
        """Without access-log nothing is logged for a request."""
        await self.begin()
        self.assertEqual(await self._lines(self.service, self.user, request()), [])


class ForwardingTests(RelayTestCase):
    """What a backend receives."""

    async def _received(self, data: bytes, **settings: Any) -> tuple[Any, ScriptedBackend]:
        backend = self.backend()
        relay = self.relay(self.output(backend, **settings))
        self.assertEqual((await self.ask(relay, data)).status, 204)
        return backend.requests[0], backend

    async def test_request(self) -> None:
        """A write travels as a POST with the client's query string, and headers of the relay's own."""
        query = b"db=a%20b&rp=x&precision=ns&consistency=ONE&u=me&p=p%26w&other=1&other=2"
        found, backend = await self._received(request(b"/write?" + query, LINE, b"X-Other: 1", b"Cookie: a=b"))
        self.assertEqual((found.method, found.path, found.query, found.body), (b"POST", b"/write", query, LINE))
        self.assertEqual(found.header("Host"), b"127.0.0.1:%d" % backend.port)
        self.assertEqual(found.header("User-Agent"), b"influxrelay/" + __version__.encode())
        self.assertEqual(found.header("Content-Length"), b"%d" % len(LINE))
        self.assertEqual(found.header("Content-Type"), b"text/plain; charset=utf-8")
        for name in ("Authorization", "X-Other", "Cookie", "Content-Encoding", "Transfer-Encoding"):
            self.assertIsNone(found.header(name))

    async def test_authorization(self) -> None:
        """The client's Authorization arrives unchanged."""
        for value in (b"Basic dTpw", b"Token a:b", b"Bearer x.y.z", b"Odd \xe9"):
            found, _ = await self._received(request(b"/write?db=db", LINE, b"Authorization: " + value))
            self.assertEqual(found.header("Authorization"), value)

    async def test_own_password(self) -> None:
        """An output's own user and password replace all credentials of the client."""
        data = request(b"/write?u=me&db=db&p=pw&%75=me&rp=x", LINE, b"Authorization: Token theirs")
        found, _ = await self._received(data, username="relay", password="päss:word")
        self.assertEqual(found.header("Authorization"), b"Basic cmVsYXk6cMOkc3M6d29yZA==")
        self.assertEqual(found.query, b"db=db&rp=x")

    async def test_own_token(self) -> None:
        """An output's own token replaces all credentials of the client."""
        data = request(b"/write?u=me&db=db&p=pw", LINE, b"Authorization: Basic dTpw")
        found, _ = await self._received(data, token="abc:def")
        self.assertEqual(found.header("Authorization"), b"Token abc:def")
        self.assertEqual(found.query, b"db=db")

    async def test_own_credentials_for_one(self) -> None:
        """One output's credentials do not reach another output."""
        first, second = self.backend(), self.backend()
        relay = self.relay(self.output(first, token="secret"), second)
        await self.ask(relay, request(b"/write?db=db&u=a&p=b", LINE, b"Authorization: Basic dTpw"))
        await until(lambda: first.requests and second.requests)
        self.assertEqual(first.requests[0].header("Authorization"), b"Token secret")
        self.assertEqual(second.requests[0].header("Authorization"), b"Basic dTpw")
        self.assertEqual(second.requests[0].query, b"db=db&u=a&p=b")

    async def test_gzip(self) -> None:
        """With gzip bodies travel compressed, and say so."""
        body = LINE * 1000
        found, _ = await self._received(request(body=body), gzip=True)
        self.assertEqual(found.header("Content-Encoding"), b"gzip")
        self.assertEqual(gzip.decompress(found.body), body)
        self.assertLess(len(found.body), len(body) / 10)

    async def test_another_path(self) -> None:
        """The output's path is asked, whatever it is."""
        backend = self.backend()
        output = HTTPOutputConfig("one", backend.url, f"http://127.0.0.1:{backend.port}/a/b;c", backend.url)
        await self.ask(self.relay(output), request())
        self.assertEqual((backend.requests[0].path, backend.requests[0].query), (b"/a/b;c", b"db=db"))


class VanishingTests(_Case):
    """Clients that do not wait."""

    async def test_before_the_answer(self) -> None:
        """A write whose client has gone still goes to every backend, and is answered to nobody."""
        hold = Hold(answer(204))
        backends = [self.backend(hold) for _ in range(3)]
        relay = self.relay(*backends)
        user = await self.client(relay)
        user.send(request())
        await until(lambda: all(each.requests for each in backends))
        user.vanish()
        await until(lambda: not relay.site.connections)
        hold.release()
        await until(lambda: all(sender.is_idle for sender in relay.senders))
        self.assertEqual([each.requests[0].body for each in backends], [LINE] * 3)

    async def test_right_after_sending(self) -> None:
        """A client that vanishes right after it has sent has written."""
        await self.begin()
        self.user.send(request())
        self.user.transport.loseConnection()
        await until(lambda: self.server.requests)
        self.assertEqual(self.server.requests[0].body, LINE)

    async def test_before_the_body_is_read(self) -> None:
        """A complete write of lines that take long to read is executed, whoever has closed the connection meanwhile."""
        for end in ("loseConnection", "abortConnection"):
            await self.begin()
            self.user.send(request(body=b"m,k=1 v=1   \n" * 1000))
            if end == "abortConnection":  # which throws away what is not sent yet, on both sides
                await until(
                    lambda: not all(each.is_idle() for each in self.service.site.connections) or self.server.requests
                )
            getattr(self.user.transport, end)()
            await until(lambda: self.server.requests)
            self.assertRegex(self.server.requests[0].body, rb"\A(m,k=1 v=1 \d{19}\n){1000}\Z")

    async def test_while_others_wait(self) -> None:
        """One client's vanishing does not touch the others' writes in the same lane."""
        hold = Hold(answer(204))
        await self.begin(hold)
        others = [await self.client(self.service) for _ in range(4)]
        self.user.send(request(body=b"a v=0 0"))
        await until(lambda: self.server.requests)
        for number, other in enumerate(others):
            other.send(request(body=b"a v=%d 1" % number))
        await until(lambda: self.service.senders[0].writes == 5)
        others[0].vanish()
        await until(lambda: len(self.service.site.connections) == 4)
        hold.release()
        for user in (self.user, *others[1:]):
            self.assertEqual((await user.answer()).status, 204)
        lines = b"".join(each.body + b"\n" for each in self.server.requests).split()
        self.assertEqual(sorted(lines[1::3]), [b"v=0", b"v=0", b"v=1", b"v=2", b"v=3"])

    async def test_within_the_head(self) -> None:
        """A client that vanishes within the head has written nothing."""
        await self.begin()
        self.user.send(request()[:30])
        await until(lambda: not all(each.is_idle() for each in self.service.site.connections))
        self.user.vanish()
        await until(lambda: not self.service.site.connections)
        self.assert_not_asked()

    async def test_within_pipelined_requests(self) -> None:
        """A client that vanishes does not keep the relay from others."""
        hold = Hold(answer(204))
        await self.begin(hold)
        self.user.send(request() * 5)
        await until(lambda: self.server.requests)
        self.user.vanish()
        await until(lambda: not self.service.site.connections)
        hold.release()
        self.assertEqual((await self.ask(self.service, request())).status, 204)


class StoppingTests(_Case):
    """The end of the relay."""

    async def _stop(self) -> float:
        start = reactor.seconds()
        await self.stop(self.service)
        return float(reactor.seconds() - start)

    async def test_idle(self) -> None:
        """Without anything in flight the relay stops at once, and closes idle connections and the port."""
        await self.begin()
        self.assertEqual((await self.asked(request())).status, 204)
        fresh = await self.client(self.service)
        await until(lambda: len(self.service.site.connections) == 2)
        port = self.service.address().port
        self.assertLess(await self._stop(), 1.0)
        self.assertEqual([await self.user.end(), await fresh.end()], [b"", b""])
        await until(lambda: not self.server.connections)
        with self.assertRaises(OSError):
            __import__("socket").create_connection(("127.0.0.1", port))

    async def test_in_flight(self) -> None:
        """What is in flight is answered, with "Connection: close", before the relay is gone."""
        hold = Hold(answer(404, b"words"))
        await self.begin(hold, shutdown_timeout=10.0)
        self.user.send(request())
        await until(lambda: self.server.requests)
        stopped = Deferred.fromCoroutine(self.stop(self.service))
        await until(lambda: self.service.site.closing)
        self.assertFalse(stopped.called)
        hold.release()
        found = await self.user.answer()
        self.assertEqual((found.status, found.body, found.header("Connection")), (404, b"words", b"close"))
        await stopped
        self.assertEqual(await self.user.end(), b"")

    async def test_new_requests(self) -> None:
        """While the last answer is waited for, a request that is still coming in is answered 503, and that is all."""
        hold = Hold(answer(204))
        await self.begin(hold, shutdown_timeout=10.0)
        other = await self.client(self.service)
        self.assertEqual((await other.ask(request(b"/write"))).status, 400)
        data = request(b"/write?db=other")
        other.send(data[:-5])
        self.user.send(request())
        await until(lambda: self.server.requests and not any(each.is_idle() for each in self.service.site.connections))
        stopped = Deferred.fromCoroutine(self.stop(self.service))
        await until(lambda: self.service.site.closing)
        found = await other.ask(data[-5:])
        self.assert_error(found, 503, "the relay is shutting down")
        self.assertEqual(found.header("Connection"), b"close")
        self.assertEqual(await other.end(), b"")
        self.assertFalse(stopped.called)
        hold.release()
        self.assertEqual((await self.user.answer()).status, 204)
        await stopped
        self.assertEqual(len(self.server.requests), 1)

    async def test_pipelined(self) -> None:
        """Of requests that wait behind the one in flight on its connection none is sent to a backend."""
        hold = Hold(answer(204))
        await self.begin(hold, shutdown_timeout=10.0)
        self.user.send(request(), request())
        await until(lambda: self.server.requests)
        stopped = Deferred.fromCoroutine(self.stop(self.service))
        await until(lambda: self.service.site.closing)
        hold.release()
        self.assertEqual((await self.user.answer()).header("Connection"), b"close")
        await stopped
        await self.user.end()
        self.assertEqual(len(self.server.requests), 1)

    async def test_settling(self) -> None:
        """A backend that is slower than the answered client still gets its write before the relay is gone."""
        hold = Hold(answer(204))
        slow, fast = self.backend(hold), self.backend()
        relay = self.relay(slow, fast, shutdown_timeout=10.0)
        users = [await self.client(relay) for _ in range(2)]
        self.assertEqual((await users[0].ask(request(body=b"a v=1 1\n"))).status, 204)
        self.assertEqual((await users[1].ask(request(body=b"a v=2 1\n"))).status, 204)
        stopped = Deferred.fromCoroutine(self.stop(relay))
        await until(lambda: relay.site.closing and slow.requests)
        self.assertFalse(stopped.called)
        hold.release()
        await stopped
        self.assertEqual([each.body for each in slow.requests], [b"a v=1 1\n", b"a v=2 1\n"])

    async def test_hanging_backends(self) -> None:
        """With backends that hang the relay stops within the shutdown timeout, and the clients that wait get 503."""
        backends = [self.backend(hang), self.backend(hang)]
        backends[1].deaf = True
        self.service = self.relay(*backends, shutdown_timeout=0.6)
        users = [await self.client(self.service) for _ in range(3)]
        for user in users:
            user.send(request())
        await until(lambda: self.service.senders[0].writes == 3 and backends[0].requests)
        self.assertLess(await self._stop(), 0.6)
        for user in users:
            found = await user.answer()
            self.assert_unable(found)
            self.assertEqual(found.header("Connection"), b"close")
            self.assertEqual(await user.end(), b"")
        self.assertEqual(self.service.senders[0].clients.failures, {"stopped": 3})

    async def test_hanging_clients(self) -> None:
        """Clients that never finish a request, or read no answer, do not keep the relay from stopping."""
        await self.begin(answer(400, bytes(1_000_000)), shutdown_timeout=0.6)
        self.user.send(request()[:-1])
        deaf = await self.client(self.service)
        deaf.transport.pauseProducing()
        deaf.send(request() * 50)
        await until(lambda: len(self.server.requests) > 1 and len(self.service.site.connections) == 2)
        self.assertLess(await self._stop(), 0.9)
        await until(lambda: not self.service.site.connections)
        deaf.transport.resumeProducing()
        await self.user.end()

    async def test_dead_backend(self) -> None:
        """Writes that wait for a backend in trouble do not keep the relay from stopping in time."""
        await self.begin(answer(503, b"later", (b"Retry-After", b"5")), shutdown_timeout=0.6)
        self.assertEqual((await self.asked(request())).status, 503)
        self.user.send(request())
        await until(lambda: self.service.senders[0].writes == 2)
        self.assertLess(await self._stop(), 0.6)
        self.assert_unable(await self.user.answer())

    async def test_idle_backend_that_is_deaf(self) -> None:
        """A backend that no longer reads its idle connection does not keep the relay from stopping in time."""
        await self.begin(shutdown_timeout=0.6)
        self.assertEqual((await self.asked(request())).status, 204)
        for connection in self.server.connections:
            connection.transport.pauseProducing()
        self.assertLess(await self._stop(), 0.6)


class EndpointTests(RelayTestCase):
    """Where clients can connect to."""

    async def test_https(self) -> None:
        """A listener with a certificate speaks HTTPS."""
        authority = Authority(self.mktemp())
        pem = authority.issue().replace(":", r"\:")
        backend = self.backend(answer(400, b"x" * 200_000), answer(204))
        relay = self.relay(backend, endpoint=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}")
        with open(authority.ca_file(), "rb") as file:  # noqa: PTH123, ASYNC230 (a small file)
            trust = ssl.Certificate.loadPEM(file.read())
        user = await self.client(relay, tls=ssl.optionsForClientTLS("127.0.0.1", trustRoot=trust))
        self.assertEqual((await user.ask(request())).body, b"x" * 200_000)
        self.assertEqual((await user.ask(request())).status, 204)
        self.assertEqual((await user.ask(request(b"/ping", b"", method=b"GET"))).status, 204)

    async def test_plain_text_to_https(self) -> None:
        """Plain HTTP on an HTTPS port ends that connection only."""
        pem = Authority(self.mktemp()).issue().replace(":", r"\:")
        relay = self.relay(self.backend(), endpoint=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}")
        user = await self.client(relay)
        user.send(request())
        await user.end()
        await until(lambda: not relay.site.connections)

    async def test_unix(self) -> None:
        """A listener on a Unix socket takes writes, and its socket goes when it stops."""
        path = self.mktemp()
        backend = self.backend(answer(204), answer(400, b"x" * 500_000))
        relay = self.relay(backend, endpoint=f"unix:{path}")
        user = await self.client(relay)
        self.assertEqual((await user.ask(request())).status, 204)
        self.assertEqual((await user.ask(request())).body, b"x" * 500_000)
        user.vanish()
        await self.stop(relay)
        self.assertNotIn(os.path.basename(path), os.listdir(os.path.dirname(path)))  # noqa: PTH119, PTH120, PTH208 (one socket)


class SiteTests(RelayTestCase):
    """Corners of the site that no socket leads to."""

    def test_error_text(self) -> None:
        """An error's text is one ASCII line in its header, and itself in the body."""
        reply = json_error(400, 'a\r\n"b"\té')
        self.assertEqual(dict(reply.headers)[b"X-Influxdb-Error"], b'a "b" \\xe9')
        self.assertEqual(reply.body, '{"error":"a\\r\\n\\"b\\"\\té"}\n'.encode())

    def test_no_connections(self) -> None:
        """A site without connections is shut down at once."""
        site = RelaySite("test", Resource(), reactor, max_body_size=0)
        self.successResultOf(site.shut_down())
        site.abort()
