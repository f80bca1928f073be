"""Reads that come behind writes: the backend that is asked has them."""

from __future__ import annotations

from functools import partial

from influxrelay.config.settings import JournalConfig
from influxrelay.http import read
from testing.scripted import LINE, Hold, RelayTestCase, ScriptedBackend, answer, request, until

ROWS = b'{"results":[{"statement_id":0,"series":[{"name":"m","columns":["time","v"],"values":[[1,2]]}]}]}\n'
QUERY = request(b"/query?q=SELECT+v+FROM+m&db=db&backend=backend-1", b"", method=b"GET")
WRITE = request(b"/write?db=db", LINE)
TAKEN, RESULT = answer(204), answer(200, ROWS, (b"Content-Type", b"application/json"))


def _all_asked(backends: list[ScriptedBackend]) -> bool:
    return all(each.requests for each in backends)


class ReadYourWritesTests(RelayTestCase):
    """One backend has a write at once, the other one later."""

    async def test_waits(self) -> None:
        """A read is asked of a backend when the write before it, which another one has acknowledged, is there too."""
        held = Hold(TAKEN)
        late = self.backend(held, RESULT)
        relay = self.relay(self.backend(TAKEN), late)
        self.assertEqual((await self.ask(relay, WRITE)).status, 204)
        client = await self.client(relay)
        client.send(QUERY)
        await until(lambda: relay.readers.active and late.requests, "the query, behind the write")
        self.assertEqual((await self.ask(relay, request(b"/ping", b"", method=b"GET"))).status, 204)
        self.assertEqual([each.path for each in late.requests], [b"/write"])
        held.release()
        self.assertEqual((await client.answer()).body, ROWS)
        self.assertEqual([each.path for each in late.requests], [b"/write", b"/query"])

    async def test_trouble(self) -> None:
        """If that backend does not take the write, it is not waited for, and another one answers."""
        held = Hold(answer(503))
        late = self.backend(held)
        first = self.backend(TAKEN, RESULT)
        relay = self.relay(self.output(first, "good", buffer_size_mb=1), self.output(late, "late", buffer_size_mb=1))
        self.assertEqual((await self.ask(relay, WRITE)).status, 204)
        clients = [await self.client(relay) for _ in range(2)]  # one of them would get the other backend
        for client in clients:
            client.send(QUERY.replace(b"&backend=backend-1", b""))
        await until(lambda: relay.readers.active, "the one that waits")
        held.release()
        for client in clients:
            self.assertEqual((await client.answer()).header("X-Influxrelay-Backend"), b"good")
        self.assertNotIn(b"/query", [each.path for each in late.requests])

    async def test_change(self) -> None:
        """A read waits for a change that was queued for all backends, and is asked of one that has executed it."""
        for behind in ("serve", "refuse"):
            held = [Hold(RESULT), Hold(RESULT)]
            backends = [self.backend(each, RESULT) for each in held]
            outputs = [self.output(each, f"backend-{number}") for number, each in enumerate(backends)]
            relay = self.relay(*outputs, journal=JournalConfig(self.mktemp()), queries_when_behind=behind)
            change = request(b"/query?q=DROP+MEASUREMENT+m&db=db&consistency=any", b"")
            self.assertEqual((await self.ask(relay, change)).status, 200)
            await until(partial(_all_asked, backends), "the change")
            self.assertEqual([sender.queues.are_behind() for sender in relay.senders], [True, True])
            self.assertTrue(relay.readers.outlook().in_sync)
            client = await self.client(relay)
            client.send(QUERY.replace(b"&backend=backend-1", b""))
            await until(partial(getattr, relay.readers, "active"), "the query")
            self.assertEqual([len(each.requests) for each in backends], [1, 1])
            for each in held:
                each.release()
            found = await client.answer()
            self.assertEqual((found.body, found.header("X-Influxrelay-In-Sync")), (ROWS, None))

    async def test_change_elsewhere(self) -> None:
        """A read behind a change is asked of the backend that has executed it, while the other one still does."""
        relay = self.relay(self.backend(RESULT), self.backend(Hold(RESULT)))
        self.assertEqual((await self.ask(relay, request(b"/query?q=DROP+MEASUREMENT+m&db=db", b""))).status, 200)
        for _ in range(4):
            found = await self.ask(relay, QUERY.replace(b"&backend=backend-1", b""))
            self.assertEqual(found.header("X-Influxrelay-Backend"), b"backend-0")

    async def test_not_for_ever(self) -> None:
        """A write that a backend does not answer holds a read up for a moment only."""
        self.patch(read, "_PATIENCE", 0.05)
        late = self.backend(Hold(TAKEN), RESULT)
        relay = self.relay(self.backend(TAKEN), late)
        self.assertEqual((await self.ask(relay, WRITE)).status, 204)
        self.assertEqual((await self.ask(relay, QUERY)).body, ROWS)

    async def test_client_leaves(self) -> None:
        """A client that leaves meanwhile ends the waiting."""
        late = self.backend(Hold(TAKEN), RESULT)
        relay = self.relay(self.backend(TAKEN), late)
        self.assertEqual((await self.ask(relay, WRITE)).status, 204)
        client = await self.client(relay)
        client.send(QUERY)
        await until(lambda: relay.readers.active, "the query")
        client.vanish()
        await until(lambda: not relay.readers.active, "the end of the query")
        self.assertEqual([each.path for each in late.requests], [b"/write"])
