"""Queries through the relay: one backend answers a read, and the next one where that does not."""

from __future__ import annotations

import re
from functools import partial

from influxrelay.core.errors import BackendFailure
from testing.query_case import FAILED, JSON, ROWS, QueryTestCase, asking, result
from testing.scripted import (
    Hold,
    answer,
    chunked,
    endless,
    freeze,
    garbage,
    hang,
    lengthless,
    raw,
    request,
    reset,
    until,
)


def unchunked(data: bytes) -> bytes:
    """Return the body of a complete chunked answer; fail where it is not complete."""
    _, _, rest = data.partition(b"\r\n\r\n")
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            assert rest == b"\r\n"
            return body
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


class ReadTests(QueryTestCase):
    """Reads."""

    async def test_passed_on(self) -> None:
        """A read goes to one backend as it is, credentials included, and its response comes back as it is."""
        backends = [self.backend(result(ROWS, (b"X-Influxdb-Build", b"OSS"))) for _ in range(2)]
        relay = self.relay(*backends)
        target = b"/query?db=d&q=SELECT+v+FROM+m&epoch=ms&u=me&p=secret"
        found = await self.ask(relay, request(target, b"", b"Authorization: Basic eDp5", b"Accept: a/b", method=b"GET"))
        self.assertEqual((found.status, found.body), (200, ROWS))
        self.assertEqual(found.header("Content-Type"), b"application/json")
        self.assertEqual(found.header("X-Influxdb-Build"), b"OSS")
        (asked,) = [each for backend in backends for each in backend.requests]
        self.assertEqual(b"%b?%b" % (asked.path, asked.query), target)
        self.assertEqual(asked.header("Authorization"), b"Basic eDp5")
        self.assertEqual(asked.header("Accept"), b"a/b")

    async def test_sticky(self) -> None:
        """A connection stays with one backend, and connections are spread over them."""
        relay = self.relay(self.backend(result()), self.backend(result()))
        names = []
        for _ in range(4):
            client = await self.client(relay)
            names.append({self.named(await client.ask(asking("SHOW DATABASES"))) for _ in range(5)})
        self.assertEqual([len(each) for each in names], [1] * 4)
        self.assertEqual(set.union(*names), {b"backend-0", b"backend-1"})

    async def test_chosen(self) -> None:
        """``backend`` chooses who answers, and does not reach the backend; another name is refused."""
        first, second = self.backend(result()), self.backend(result())
        relay = self.relay(first, second)
        for _ in range(3):
            found = await self.ask(relay, asking("SHOW DATABASES", more=b"&backend=backend-1"))
            self.assertEqual(self.named(found), b"backend-1")
        self.assertEqual((len(first.requests), len(second.requests)), (0, 3))
        self.assertNotIn(b"backend", second.requests[0].query)
        found = await self.ask(relay, asking("SHOW DATABASES", more=b"&backend=x"))
        self.assert_error(found, 400, 'no backend is named "x"; there are: backend-0, backend-1')

    async def test_failover(self) -> None:
        """Another backend answers where one is silent, breaks off before the first byte, or answers 429 or 5xx."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        for bad in (
            *(reset, garbage(), answer(500, FAILED), answer(503), answer(429), lengthless(200, ROWS)),
            *(raw(head, "close"), raw(head + b"Content-Length: 9\r\n\r\n", "close")),
            *(raw(head + b"Transfer-Encoding: chunked\r\n\r\n", "close"),),
        ):
            relay = self.relay(self.backend(bad), self.backend(result(ROWS)))
            client = await self.client(relay)
            for _ in range(3):
                found = await client.ask(asking("SELECT v FROM m"))
                self.assertEqual((found.status, found.body, self.named(found)), (200, ROWS, b"backend-1"))

    async def test_all_fail(self) -> None:
        """Where no backend answers better, a 5xx comes back as it is; without one there is an error that names all."""
        relay = self.relay(self.backend(reset), self.backend(answer(500, FAILED, JSON)))
        found = await self.ask(relay, asking("SELECT v FROM m"))
        self.assertEqual((found.status, found.body, self.named(found)), (500, FAILED, b"backend-1"))
        relay = self.relay(self.backend(reset), await self.refusing_backend())
        found = await self.ask(relay, asking("SELECT v FROM m"))
        self.assertEqual(found.status, 503)
        for words in (b"no backend has answered", b"backend-0: reset: ", b"backend-1: refused: "):
            self.assertIn(words, found.body)

    async def test_refusals_pass(self) -> None:
        """A 4xx comes back as it is."""
        first, second = (self.backend(answer(401, b'{"error":"no"}', JSON, (b"WWW-Authenticate", b"x"))) for _ in "ab")
        found = await self.ask(self.relay(first, second), asking("SHOW USERS"))
        self.assertEqual((found.status, found.body), (401, b'{"error":"no"}'))
        self.assertEqual(found.header("WWW-Authenticate"), b"x")
        self.assertEqual(len(first.requests) + len(second.requests), 1)

    async def test_cut_at_every_byte(self) -> None:
        """Wherever an answer is cut, a client gets a whole one of the next backend, or sees its connection break."""
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(ROWS[at : at + 40]), ROWS[at : at + 40]) for at in (0, 40, 80))
        start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        whole = (
            start + b"Content-Length: %d\r\n\r\n" % len(ROWS) + ROWS,
            start + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
        )
        for full in whole:
            cuts = [raw(full[:at], "close") for at in range(len(full))]
            relay = self.relay(self.backend(*cuts, hang), self.backend(chunked(200, ROWS, headers=[JSON])))
            body_at = full.index(b"\r\n\r\n") + 4
            for at in range(len(full)):
                client = await self.client(relay)
                client.send(asking("SELECT v FROM m", b"Connection: close", more=b"&backend=backend-0"))
                received = await client.end()
                if b" 503 " in received[:20]:
                    self.assertLessEqual(at, body_at + 4, full[:at])
                    continue
                self.assertNotIn(b"\r\n0\r\n\r\n", received)
                length = re.search(rb"Content-Length: (\d+)", received)
                if length:
                    self.assertLess(len(received.partition(b"\r\n\r\n")[2]), int(length[1]))

    async def test_streams(self) -> None:
        """An endless response does not fill the memory while its client reads nothing, and ends with the client."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        piece = b"10000\r\n" + bytes(65536) + b"\r\n"
        backend = self.backend(endless(head, piece))
        relay = self.relay(backend)
        client = await self.client(relay)
        client.transport.pauseProducing()
        client.send(asking("SELECT v FROM m"))
        await until(lambda: relay.readers.counters["backend-0"].bytes > 0, "the first byte")
        before = -1
        while before != relay.readers.counters["backend-0"].bytes:
            before = relay.readers.counters["backend-0"].bytes
            await self.ask(relay, request(b"/ping", b"", method=b"GET"))
        self.assertLess(before, 64 * 1024 * 1024)
        client.transport.resumeProducing()
        await until(lambda: relay.readers.counters["backend-0"].bytes > before, "more of it")
        client.vanish()
        await until(lambda: not backend.connections, "the end of the query")
        self.assertEqual(relay.readers.counters["backend-0"].outcomes["left"], 1)
        self.assertEqual(relay.readers.active, 0)

    async def test_half_close(self) -> None:
        """A client that half-closes ends its read at the backend."""
        backend = self.backend(hang)
        relay = self.relay(backend)
        client = await self.client(relay)
        client.send(asking("SELECT v FROM m"))
        await until(lambda: backend.requests, "the query")
        client.transport.loseWriteConnection()
        await until(lambda: not backend.connections, "the end of the query")
        await client.end()

    async def test_frozen(self) -> None:
        """A backend that is found to be down is not waited for, whether the head of its response has come or not."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for silent in (hang, freeze(head)):
            first, second = self.backend(silent), self.backend(result(ROWS))
            relay = self.relay(first, second)
            client = await self.client(relay)
            client.send(asking("SELECT v FROM m"))
            await until(partial(bool, first.requests), "the query")
            relay.senders[0].pinged(BackendFailure("timeout", "no answer"))
            found = await client.answer()
            self.assertEqual((found.body, self.named(found)), (ROWS, b"backend-1"))

    async def test_none_in_sync(self) -> None:
        """When no backend is in sync, one answers all the same and the response says so, or a 503 tells why."""
        for wanted, status in (("serve", 200), ("refuse", 503)):
            relay = self.relay(self.backend(result(ROWS)), self.backend(result(ROWS)), queries_when_behind=wanted)
            for sender in relay.senders:
                sender.pinged(BackendFailure("timeout", "no answer"))
            found = await self.ask(relay, asking("SELECT v FROM m"))
            self.assertEqual(found.status, status)
            if status == 200:
                self.assertEqual((found.body, found.header("X-Influxrelay-In-Sync")), (ROWS, b"false"))
            else:
                why = "; ".join(f"backend-{number}: down: timeout: no answer" for number in (0, 1))
                self.assert_error(found, 503, f"no backend is in sync: {why}")

    async def test_timeout(self) -> None:
        """``query-timeout`` bounds a read."""
        relay = self.relay(self.backend(hang), query_timeout=0.2)
        found = await self.ask(relay, asking("SELECT v FROM m"))
        self.assert_error(found, 504, "query-timeout of 0.2 s exceeded")

    async def test_limit(self) -> None:
        """``max-queries`` bounds how many there are at a time."""
        held = Hold(result())
        relay = self.relay(self.backend(held), max_queries=1)
        client = await self.client(relay)
        client.send(asking("SELECT v FROM m"))
        await until(lambda: relay.readers.active, "the query")
        found = await self.ask(relay, asking("SELECT v FROM m"))
        self.assert_error(found, 503, "too many queries at a time, the limit is 1 (max-queries)")
        held.release()
        self.assertEqual((await client.answer()).status, 200)

    async def test_off(self) -> None:
        """Without ``queries`` there is no such path."""
        relay = self.relay(self.backend(result()), queries=False)
        self.assert_error(await self.ask(relay, asking("SHOW DATABASES")), 404, "not found")

    async def test_own_credentials(self) -> None:
        """Backends are asked as the client, and as the users of the outputs only where that is wanted."""
        for wanted, authorization in (("client", b"Basic eDp5"), ("output", b"Token abc")):
            backend = self.backend(result())
            output = self.output(backend, token="abc")
            relay = self.relay(output, query_credentials=wanted)
            await self.ask(relay, asking("SHOW DATABASES", b"Authorization: Basic eDp5", more=b"&u=me&p=x"))
            self.assertEqual(backend.requests[0].header("Authorization"), authorization)
            self.assertEqual(b"u=me" in backend.requests[0].query, wanted == "client")

    async def test_bodies(self) -> None:
        """``q`` may be in a form, which wins over the URL, or in a multipart file."""
        backend = self.backend(result())
        relay = self.relay(backend)
        form = b"Content-Type: application/x-www-form-urlencoded"
        await self.ask(relay, request(b"/query?q=SHOW+USERS", b"q=SHOW+DATABASES&db=d", form))
        self.assertEqual(backend.requests[0].body, b"q=SHOW+DATABASES&db=d")
        parts = b'--b\r\nContent-Disposition: form-data; name="q"; filename="f"\r\n\r\nSHOW USERS\n\r\n--b--\r\n'
        await self.ask(relay, request(b"/query?db=d", parts, b"Content-Type: multipart/form-data; boundary=b"))
        self.assertEqual(backend.requests[1].body, b"q=SHOW+USERS%0A")
        self.assertEqual(backend.requests[1].header("Content-Type"), b"application/x-www-form-urlencoded")

    async def test_large(self) -> None:
        """A large query is answered as well, and one that is too large is refused."""
        backend = self.backend(result())
        relay = self.relay(backend)
        form = b"Content-Type: application/x-www-form-urlencoded"
        q = b"SELECT+%b+FROM+m" % b",".join([b"abc"] * 8000)
        self.assertEqual((await self.ask(relay, request(b"/query?db=d", b"q=" + q, form))).status, 200)
        self.assertEqual(backend.requests[0].body, b"q=" + q)
        found = await self.ask(relay, request(b"/query?db=d", b"q=" + b"x" * 1048577, form))
        self.assert_error(found, 413, "the query has more than 1048576 characters")
        self.assertEqual(len(backend.requests), 1)

    async def test_ambiguous(self) -> None:
        """A parameter that servers read differently, by their age, reaches none of them."""
        backend = self.backend(answer(400, b"no q", JSON))
        await self.ask(self.relay(backend), request(b"/query?db=d;q=DROP+DATABASE+d", b"", method=b"GET"))
        self.assertNotIn(b"DROP", backend.requests[0].query)

    async def test_prometheus(self) -> None:
        """A remote read goes to one backend, and to its path for that."""
        backend = self.backend(answer(200, b"\0", (b"Content-Encoding", b"snappy")))
        found = await self.ask(self.relay(backend), request(b"/api/v1/prom/read?db=d", b"\1\2"))
        self.assertEqual((found.status, found.body, found.header("Content-Encoding")), (200, b"\0", b"snappy"))
        self.assertEqual((backend.requests[0].path, backend.requests[0].body), (b"/api/v1/prom/read", b"\1\2"))
