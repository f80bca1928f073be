"""Queries have limits of their own, and keep nobody from writing."""

from __future__ import annotations

from functools import partial
from typing import Any

from testing.scripted import LINE, Client, Hold, RelayTestCase, answer, request, until

ROWS = b'{"results":[{"statement_id":0}]}\n'
QUERY = request(b"/query?q=SELECT+v+FROM+m&db=db", b"", method=b"GET")
FORM = b"Content-Type: application/x-www-form-urlencoded"
WRITE = request(b"/write?db=db", LINE)


def large(size: int) -> bytes:
    """Return a query whose body has that many bytes, or a few more."""
    return request(b"/query", b"q=SELECT+v+FROM+m&db=db&x=" + b"x" * size, FORM)


class LimitTests(RelayTestCase):
    """Queries that are held up by a backend, whose writes are not."""

    def setUp(self) -> None:
        """Make the backend."""
        self.held = Hold(answer(200, ROWS, (b"Content-Type", b"application/json")))
        self.slow = self.backend(self.held)
        self.good = self.backend(answer(204))

    async def ask_many(self, relay: Any, sent: bytes, count: int) -> list[Client]:
        """Let clients ask, and wait until all are being answered."""
        clients = []
        for number in range(1, count + 1):
            client = await self.client(relay)
            client.send(sent)
            clients.append(client)
            await until(partial(self.has_come, number), "the query")
        return clients

    def has_come(self, number: int) -> bool:
        """Say whether the backend has this many requests."""
        return len(self.slow.requests) == number

    async def test_connections(self) -> None:
        """Queries have half of the connections; the other half is there for writes, each on a new connection."""
        relay = self.relay(self.slow, max_connections=8, max_queries=100)
        clients = await self.ask_many(relay, QUERY, 4)
        message = "too many queries at a time, the limit is 4 (max-queries)"
        self.assert_error(await self.ask(relay, QUERY), 503, message)
        for _ in range(10):
            self.assertEqual((await self.ask(relay, request(b"/ping", b"", method=b"GET"))).status, 204)
        self.held.release()
        for client in clients:
            self.assertEqual((await client.answer()).body, ROWS)
        durations = relay.readers.counters["backend-0"].durations
        self.assertEqual(
            {outcome: each.count for outcome, each in durations.items()},
            {"answered": 4, "unanswered": 0, "cut": 0, "left": 0},
        )

    async def test_bodies(self) -> None:
        """The bodies of queries have a quarter of the memory for requests in flight; one query may be larger."""
        relay = self.relay(self.slow, max_in_flight=40_000, max_body_size=40_000)
        clients = await self.ask_many(relay, large(9000), 1)
        message = "too many bytes of queries at a time, the limit is 10000"
        self.assert_error(await self.ask(relay, large(9000)), 503, message)
        self.held.release()
        for client in clients:
            self.assertEqual((await client.answer()).body, ROWS)
        self.assertEqual((await self.ask(relay, large(20_000))).status, 200)
        self.assertEqual((await self.ask(relay, large(9000))).status, 200)
        self.assertEqual(relay.readers.refused, 1)

    async def test_backend_connections(self) -> None:
        """Queries that occupy a backend do not occupy its connections for writes."""
        script = Hold(answer(200, ROWS))
        backend = self.backend(*[script] * 3, answer(204))
        relay = self.relay(self.output(backend, "one", max_connections=2))
        clients = []
        for _ in range(2):
            client = await self.client(relay)
            client.send(QUERY)
            clients.append(client)
        await until(lambda: len(backend.requests) == 2, "the queries")
        third = await self.client(relay)
        third.send(QUERY)  # which waits for a connection
        await until(lambda: relay.readers.active == 3, "the third query")
        backend.script.popleft()
        self.assertEqual((await self.ask(relay, WRITE)).status, 204)
        script.release()
        for client in clients:
            self.assertEqual((await client.answer()).status, 200)
        self.assertIn((await third.answer()).status, (200, 204))

    async def test_timeout(self) -> None:
        """``query-timeout`` ends the wait for earlier writes, too."""
        late = self.backend(Hold(answer(204)))
        relay = self.relay(self.good, late, query_timeout=0.1)
        self.assertEqual((await self.ask(relay, WRITE)).status, 204)
        await until(lambda: late.requests, "the write")
        chosen = request(b"/query?q=SELECT+v+FROM+m&db=db&backend=backend-1", b"", method=b"GET")
        self.assert_error(await self.ask(relay, chosen), 504, "query-timeout of 0.1 s exceeded")
