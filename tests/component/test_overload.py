"""What clients that are slow, endless or many can do to a listener, and what not."""

from __future__ import annotations

import gzip
from typing import Any

import attrs
from twisted.internet.task import deferLater

from influxrelay.core import cooperation
from influxrelay.http import overload
from influxrelay.http.head import MAX_HEAD
from influxrelay.http.overload import OVERHEAD, Activity
from influxrelay.lineprotocol.finished import count_lines
from influxrelay.listeners.http import HTTPService
from testing.scripted import (
    LINE,
    Client,
    Hold,
    RelayTestCase,
    ScriptedBackend,
    answer,
    in_chunks,
    reactor,
    request,
    until,
)


class _Case(RelayTestCase):
    """One relay with one backend."""

    server: ScriptedBackend
    service: HTTPService

    def begin(self, *script: Any, **settings: Any) -> None:
        """Start both."""
        self.server = self.backend(*script)
        self.service = self.relay(self.server, **settings)

    async def clients(self, number: int) -> list[Client]:
        """Connect so often."""
        return [await self.client(self.service) for _ in range(number)]

    async def all_is_let_go(self) -> None:
        """Wait until no memory is counted any more."""
        admission = self.service.site.admission
        await until(lambda: admission.in_flight == 0 and not admission._uploads)


class SlowClientTests(_Case):
    """Clients that take their time."""

    def setUp(self) -> None:
        """Look at clients often."""
        self.patch(overload, "_LOOK", 0.1)

    def hurry(self, **limits: Any) -> None:
        """Shorten the time that clients have, now that they have begun."""
        admission = self.service.site.admission
        admission.reconfigure("test", attrs.evolve(admission.limits, **limits))

    async def has_begun(self) -> None:
        """Wait until the relay has a part of a head."""
        await until(lambda: not all(each.is_idle() for each in self.service.site.connections))

    async def test_half_open(self) -> None:
        """A connection on which nothing comes is closed without a word."""
        self.begin()
        client, other = await self.clients(2)
        self.assertEqual((await other.ask(request())).status, 204)
        self.hurry(header_timeout=0.1)
        self.assertEqual(await client.end(), b"")
        self.assertEqual((await other.ask(request())).status, 204)
        self.assertEqual(self.service.site.admission.closed["header-timeout"], 1)

    async def test_slow_head(self) -> None:
        """A head that does not end is answered 408, however steadily it comes."""
        for data in (request()[:20], request(b"/write?db=db", b"", *[b"X-%d: 1" % number for number in range(90)])):
            self.begin()
            (client,) = await self.clients(1)
            client.send(data[:10])
            await self.has_begun()
            self.hurry(header_timeout=0.3)
            for byte in data[10:-4]:
                client.send(bytes([byte]))
                await deferLater(reactor, 0.01)
                if client.unread:
                    break
            self.assert_error(await client.answer(), 408, "timed out waiting for the request")
            self.assertEqual(await client.end(), b"")

    async def test_slow_second_head(self) -> None:
        """A client that had its answers before is treated the same."""
        self.begin()
        (client,) = await self.clients(1)
        self.assertEqual((await client.ask(request())).status, 204)
        client.send(request()[:20])
        await self.has_begun()
        self.hurry(header_timeout=0.1)
        self.assert_error(await client.answer(), 408, "timed out waiting for the request")

    async def test_slow_body(self) -> None:
        """A body that does not come is answered 408, and what had come of it is let go."""
        chunk = request(b"/write?db=db", b"5\r\ncpu", b"Transfer-Encoding: chunked", length=-1)
        for data in (request(length=1000), chunk):
            self.begin()
            (client,) = await self.clients(1)
            client.send(data)
            await until(lambda: self.service.site.admission._uploads)
            self.hurry(body_timeout=0.1)
            found = await client.answer()
            self.assert_error(found, 408, "timed out waiting for the body")
            self.assertEqual(found.header("Connection"), b"close")
            await self.all_is_let_go()
            self.assertEqual(self.server.requests, [])

    async def test_unread_answers(self) -> None:
        """A client that does not read its answers is cut off, and the relay has read no more requests meanwhile."""
        self.patch(overload, "UNREAD", 0.5)
        self.begin()
        (client,) = await self.clients(1)
        client.transport.pauseProducing()
        ping = request(b"/ping?verbose=1", b"", method=b"GET")
        await until(lambda: self.service.site.connections)
        (channel,) = self.service.site.connections
        while channel.activity() is not Activity.UNREAD:
            client.send(ping * 500)
            await deferLater(reactor, 0.001)
        await until(lambda: not self.service.site.connections)
        self.assertEqual(self.service.site.admission.closed["unread"], 1)


class EndlessHeadTests(_Case):
    """Heads that are too long."""

    async def test_too_long(self) -> None:
        """A head with too many lines, a long one, or too much in all is answered 431, whole or as it comes."""
        self.begin()
        for headers in (
            [b"X-%d: 1" % number for number in range(200)],
            [b"X-%d: 1" % number for number in range(20_000)],
            [b"X: " + b"x" * 100_000],
            [b"X-%d: " % number + b"x" * 1000 for number in range(20)],
        ):
            data = request(b"/write?db=db", LINE, *headers)
            for part, prefix in ((data, b""), (data[: -len(LINE) - 4], b""), (data, request(b"/write"))):
                (client,) = await self.clients(1)
                client.send(prefix + part)
                if prefix:
                    self.assertEqual((await client.answer()).status, 400)
                self.assert_error(await client.answer(), 431, "request header fields too large")
                await client.end()
        self.assertEqual(self.server.requests, [])
        self.assertEqual(self.service.site.refused[431], 12)

    async def test_long_enough(self) -> None:
        """A hundred headers, or 15 KB of them, are taken."""
        self.begin()
        (client,) = await self.clients(1)
        for headers in ([b"X-%d: 1" % number for number in range(98)], [b"X: " + b"x" * 15_000]):
            self.assertEqual((await client.ask(request(b"/write?db=db", LINE, *headers))).status, 204)

    async def test_no_end(self) -> None:
        """Of a head without end the relay keeps no more than its limit."""
        self.begin()
        (client,) = await self.clients(1)
        client.send(b"GET /ping HTTP/1.1\r\n")
        (channel,) = await self._channels(1)
        most = 0
        while not client.unread:
            client.send(b"X-A: b\r\n" * 10)
            await deferLater(reactor, 0.001)
            most = max(most, channel._reader.pending)
        self.assertEqual((await client.answer()).status, 431)
        self.assertLess(most, MAX_HEAD + 1000)

    async def _channels(self, number: int) -> list[Any]:
        await until(lambda: len(self.service.site.connections) == number)
        return list(self.service.site.connections)


class ManyClientsTests(_Case):
    """``max-connections``."""

    async def test_half_open(self) -> None:
        """Connections without a request give way to those with one, old and new, however many they are."""
        self.begin(max_connections=8)
        (honest,) = await self.clients(1)
        self.assertEqual((await honest.ask(request())).status, 204)
        silent = await self.clients(40)
        for _ in range(5):
            self.assertEqual((await honest.ask(request())).status, 204)
            self.assertEqual((await self.ask(self.service, request())).status, 204)
        await until(lambda: len(self.service.site.connections) <= 8)
        self.assertFalse(honest.closed)
        await until(lambda: sum(client.closed for client in silent) >= 33)
        self.assertGreaterEqual(self.service.site.admission.closed["full"], 33)

    async def test_answers_come(self) -> None:
        """A client that waits for its answer is not closed by those that come later."""
        hold = Hold(answer(204))
        self.begin(hold, max_connections=2)
        waiting = await self.clients(2)
        for client in waiting:
            client.send(request())
        await until(lambda: self.server.requests)
        await until(lambda: all(each.activity() is Activity.RESPONSE for each in self.service.site.connections))
        late = await self.clients(3)
        for client in late:
            await client.end()
        hold.release()
        self.assertEqual([(await client.answer()).status for client in waiting], [204, 204])


class BytesInFlightTests(_Case):
    """``max-in-flight-mb``."""

    async def test_small_writes_go_on(self) -> None:
        """With many large bodies half received the largest are refused, and small writes are taken as ever."""
        self.begin(max_in_flight=1_000_000 + 4 * OVERHEAD, max_body_size=900_000)
        uploads = await self.clients(4)
        admission = self.service.site.admission
        for number, client in enumerate(uploads, 1):
            client.send(request(body=b"#" * (100_000 * number), length=800_000))
            await until(lambda: len(admission._uploads) == number)
            expected = 50_000 * number * (number + 1) + number * OVERHEAD
            await until(lambda: admission.in_flight == expected)
        (honest,) = await self.clients(1)
        self.assertEqual((await honest.ask(request())).status, 204)
        found = await uploads[-1].answer()
        self.assert_error(found, 503, "too many bytes in flight")
        self.assertEqual((found.header("Retry-After"), found.header("Connection")), (b"1", b"close"))
        self.assertEqual([client.closed for client in uploads[:-1]], [False] * 3)
        for client in uploads[1:]:
            client.vanish()
        await until(lambda: len(admission._uploads) == 1)
        uploads[0].send(b"#" * 700_000)
        self.assertEqual((await uploads[0].answer()).status, 204)
        await self.all_is_let_go()

    async def test_unanswered_writes(self) -> None:
        """Writes that wait for their answers count, and a new one that does not fit is answered 503."""
        hold = Hold(answer(204))
        self.begin(hold, max_in_flight=100_000, max_body_size=90_000)
        waiting, late = await self.clients(2)
        body = LINE * 2000
        waiting.send(request(body=body))
        await until(lambda: self.server.requests)
        found = await late.ask(request(body=body))
        self.assert_error(found, 503, "too many bytes in flight")
        self.assertEqual(self.service.site.refused[503], 1)
        hold.release()
        self.assertEqual((await waiting.answer()).status, 204)
        await self.all_is_let_go()
        self.assertEqual((await self.ask(self.service, request(body=body))).status, 204)

    async def test_every_end(self) -> None:
        """Whatever becomes of a request, its bytes are let go."""
        self.begin(answer(204), answer(400, b"bad"), answer(503), max_body_size=1000)
        for data in (
            *[request()] * 3,
            request(b"/nothing"),
            request(body=b""),
            request(body=b"#" * 1001),
            request(b"/write?db=db", LINE, b"Content-Encoding: gzip"),
            request(b"/write?db=db", b"zz\r\n", b"Transfer-Encoding: chunked", length=-1),
        ):
            await self.ask(self.service, data)
            await self.all_is_let_go()


class LargeBodyTests(_Case):
    """Bodies that are large, or cost much, beside small ones."""

    def setUp(self) -> None:
        """Do as little as possible in each turn."""
        self.patch(cooperation, "SLICE", 0.0)

    async def test_small_writes_go_on(self) -> None:
        """While a large body of odd lines is read, others are answered."""
        self.begin()
        large, small = await self.clients(2)
        body = b"cpu value=1 \n" * 200_000  # the blank at the end makes them odd
        large.send(request(body=body))
        await until(lambda: self.service.site.cooperator._tasks)
        answered = 0  # a body that is read in one go is never seen there
        while all(len(each.body) < 1000 for each in self.server.requests):
            self.assertEqual((await small.ask(request())).status, 204)
            answered += 1
        self.assertGreater(answered, 100)  # a few turns of the reactor for each, of some 3000 for the large one
        self.assertEqual((await large.answer()).status, 204)
        self.assertEqual(max(each.body.count(b"cpu value=1 1") for each in self.server.requests), 200_000)

    async def test_vanishing_client(self) -> None:
        """A complete body is written although its client has gone before it was read; its bytes count until then."""
        for body in (b"cpu,host=a v=1   \n" * 20_000, b"cpu,host=a v=1 1\n" * 100_000):
            hold = Hold(answer(204))
            self.begin(hold)
            (client,) = await self.clients(1)
            client.send(request(b"/write?db=db", gzip.compress(body), b"Content-Encoding: gzip"))
            await until(lambda: self.service.site.cooperator._tasks)
            client.vanish()
            await until(lambda: not self.service.site.connections)
            await until(lambda: self.server.requests)
            self.assertGreater(self.service.site.admission.in_flight, OVERHEAD)
            hold.release()
            await self.all_is_let_go()
            (written,) = self.server.requests
            self.assertEqual(count_lines(written.lines), count_lines(body))
            self.assertEqual(self.service.writes.writes, 1)

    async def test_compressed_bodies(self) -> None:
        """A compressed body counts as it came: what it holds, even much more than may be in flight, is never kept."""
        hold = Hold(answer(204))
        self.begin(hold, max_in_flight=300_000, max_body_size=300_000)
        clients = await self.clients(3)
        for body in (LINE * 100_000, b"cpu v=1\n" * 100_000, b"# comment\n" * 500_000 + LINE):
            client = clients.pop()
            client.send(request(b"/write?db=db", gzip.compress(body), b"Content-Encoding: gzip"))
        honest = await self.client(self.service)
        honest.send(request())
        await until(lambda: self.service.writes.writes == 4)
        self.assertLess(self.service.site.admission.in_flight, 100_000)
        hold.release()
        self.assertEqual((await honest.answer()).status, 204)
        await self.all_is_let_go()

    async def test_endless_line(self) -> None:
        """What has to be kept of a compressed body counts, and one that needs too much is refused."""
        hold = Hold(answer(204))
        self.begin(hold, max_in_flight=300_000, max_body_size=300_000)
        waiting, greedy = await self.clients(2)
        waiting.send(request())
        await until(lambda: self.server.requests)
        packed = gzip.compress(b'cpu s="' + b"\n" * 20_000_000)
        self.assert_error(
            await greedy.ask(request(b"/write?db=db", packed, b"Content-Encoding: gzip")),
            503,
            "too many bytes in flight",
        )
        hold.release()
        self.assertEqual((await waiting.answer()).status, 204)
        await self.all_is_let_go()

    async def test_tiny_chunks(self) -> None:
        """A body that comes byte by byte is put together, whole requests before and after it, all in order."""
        self.begin()
        (client,) = await self.clients(1)
        body = LINE * 300
        tiny = in_chunks(b"/write?db=db", *(bytes([byte]) for byte in body))
        client.send(request(body=b"a v=1 1\n"), tiny, request(body=b"b v=1 1\n"), tiny, request(b"/nothing"))
        statuses = [(await client.answer()).status for _ in range(5)]
        self.assertEqual(statuses, [204, 204, 204, 204, 404])
        self.assertEqual([each.body for each in self.server.requests], [b"a v=1 1\n", body, b"b v=1 1\n", body])

    async def test_little_in_chunks(self) -> None:
        """Chunks that are hardly more than their extensions are refused."""
        self.begin()
        (client,) = await self.clients(1)
        client.send(request(b"/write?db=db", b"", b"Transfer-Encoding: chunked", length=-1))
        while not client.unread:
            client.send((b"1;" + b"a=b;" * 200 + b"\r\n#\r\n") * 10)
            await deferLater(reactor, 0.001)
        self.assert_error(await client.answer(), 400, "malformed request")
        await client.end()
        await self.all_is_let_go()

    async def test_many_at_once(self) -> None:
        """A client that sends many requests at once gets one answer in its turn, and keeps no one else waiting."""
        self.begin()
        many, other = await self.clients(2)
        many.send(request(b"/nothing", b"") * 3000)
        await until(lambda: many.unread)
        for _ in range(3):
            self.assertEqual((await other.ask(request())).status, 204)
        for _ in range(3000):
            self.assertEqual((await many.answer()).status, 404)
