"""Queries over shards in trouble, with clients that leave or do not read."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

from testing.scripted import Action, answer, chunked, endless, hang, raw, request, until
from testing.shard_case import ShardCase, sharded

SCHEMA = (
    b'{"results":[{"statement_id":0,"series":[{"columns":["QUERY PLAN"],"values":[["AUXILIARY FIELDS: v::float"]]}]},'
    b'{"statement_id":1},{"statement_id":2}]}\n'
)
RAW = "SELECT v FROM m"


def rows(*times: int) -> bytes:
    """Return a chunk of rows."""
    series = {"name": "m", "columns": ["time", "v"], "values": [[when, when] for when in times]}
    return json.dumps({"results": [{"statement_id": 0, "series": [series], "partial": True}]}).encode() + b"\n"


def asking(q: str, more: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    return request(b"/query?db=d&q=%b%b" % (quote_plus(q).encode(), more), b"", method=b"GET")


class TroubleTests(ShardCase):
    """Three shards with one backend each."""

    def script(self, **actions: Action) -> None:
        """Let each shard's backend know a field, and then do something."""
        for name, (backend,) in self.backends.items():
            backend.script.clear()
            backend.script.extend((answer(200, SCHEMA), actions.get(name, answer(200, rows(2, 4)))))

    async def ask_json(self, q: str, more: bytes = b"") -> tuple[int, Any]:
        """Return the status and the parsed body of the answer."""
        client = await self.client(self.listener)
        client.send(asking(q, more), b"GET /ping HTTP/1.1\r\nHost: relay\r\n\r\n")
        await until(lambda: b" 204 " in client.unread or client.closed, "the answer")
        head, _, body = client.unread.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            pieces = b""
            while (size := int(body.partition(b"\r\n")[0], 16)) > 0:
                start = body.index(b"\r\n") + 2
                pieces, body = pieces + body[start : start + size], body[start + size + 2 :]
            body = pieces
        else:
            body = body.partition(b"\n")[0]
        client.vanish()
        return int(head.split()[1]), json.loads(body)

    async def test_merged(self) -> None:
        """Rows of all shards come in one order, in the client's precision, and say who answered."""
        self.begin()
        self.script(s1=chunked(200, rows(1, 5), rows(9)), s3=answer(200, b'{"results":[{"statement_id":0}]}\n'))
        status, found = await self.ask_json(RAW, b"&epoch=ns")
        self.assertEqual(status, 200)
        self.assertEqual([row[0] for row in found["results"][0]["series"][0]["values"]], [1, 2, 4, 5, 9])
        asked = self.backends["s2"][0].requests[-1].query
        self.assertIn(quote_plus('SELECT "v"::float FROM "m"').encode(), asked)
        self.assertIn(b"chunked=true", asked)

    async def test_refused_by_one(self) -> None:
        """The refusal of one shard is the client's answer; those of 5xx say which shard it was."""
        self.begin()
        self.script(s2=answer(401, b'{"error":"authorization failed"}'))
        self.assertEqual(await self.ask_json(RAW), (401, {"error": "authorization failed"}))
        self.script(s2=answer(500, b'{"error":"out of memory"}'))
        self.assertEqual(await self.ask_json(RAW), (500, {"error": "shard s2: out of memory"}))
        self.script(s2=answer(200, b"what?\n"))
        status, found = await self.ask_json(RAW)
        self.assertEqual(status, 503)
        self.assertIn("shard s2: a chunk that cannot be read", found["error"])

    async def test_statement_error(self) -> None:
        """What a shard says of a statement while it executes it is the result."""
        self.begin()
        self.script(s2=answer(200, b'{"results":[{"statement_id":0,"error":"shard is closed"}]}\n'))
        expected = {"results": [{"statement_id": 0, "error": "shard is closed"}]}
        self.assertEqual(await self.ask_json("SELECT sum(v) FROM m"), (200, expected))

    async def test_broken_off(self) -> None:
        """Once rows have been sent, an answer that breaks off breaks the client's connection, too."""
        self.begin()
        line = rows(*range(10, 2000))
        cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(line), line)
        self.script(s2=raw(cut))
        client = await self.client(self.listener)
        client.send(asking(RAW))
        await until(lambda: client.unread, "the first rows")
        await self.backends["s2"][0].stop()
        self.assertNotIn(b"\r\n0\r\n\r\n", await client.end())

    async def test_leaves(self) -> None:
        """A client that leaves ends what is asked of every shard."""
        self.begin()
        self.script(s1=hang, s2=hang, s3=hang)
        client = await self.client(self.listener)
        client.send(asking("SELECT sum(v) FROM m"))
        backends = [backend for (backend,) in self.backends.values()]
        await until(lambda: all(len(each.requests) == 2 for each in backends), "the questions")
        client.vanish()
        counters = [shard.readers.counters[f"{shard.config.shard}0"] for shard in self.listener.shards]
        await until(lambda: all(each.outcomes["left"] == 1 for each in counters), "the end of the questions")

    async def test_new_epoch(self) -> None:
        """A shard that a reload adds is asked by queries whose range reaches its epoch, and by no others."""
        three = self.backends.pop("s3")
        self.begin()
        self.script()
        await self.ask_json(RAW)
        self.backends["s3"] = three
        epochs = """
            [[http.epoch]]
            shards = ["s1", "s2"]
            [[http.epoch]]
            since = "2036-12-01T00:00:00Z"
            shards = ["s1", "s2", "s3"]
        """
        await self.reload(sharded(self.backends, after=epochs))
        for condition, expected in (("time < '2036-12-01'", []), ("time <= '2036-12-01'", [2, 4]), ("v > 0", [2, 4])):
            self.script(s1=answer(200, rows(1)), s2=answer(200, rows(1)))
            status, found = await self.ask_json(f"{RAW} WHERE {condition}", b"&epoch=ns")
            self.assertEqual(status, 200)
            times = [row[0] for row in found["results"][0]["series"][0]["values"]]
            self.assertEqual(times, [1, 1, *expected], condition)

    async def test_outlook(self) -> None:
        """Queries are well as long as one shard answers; the message tells of the others."""
        self.begin()
        await self.backends["s2"][0].stop()
        await self.submit(b"m,t=b v=1 1\n")
        found = self.listener.outlook()
        self.assertTrue(found.in_sync)
        self.assertIn("s1: in sync: s10; s2: no backend", found.message)

    async def test_timeout(self) -> None:
        """A query takes no longer than query-timeout."""
        self.begin(listener='query-timeout = "300ms"')
        self.script(s3=hang)
        status, found = await self.ask_json(RAW)
        self.assertEqual(status, 504)
        self.assertIn("query-timeout", found["error"])

    async def test_slow_client(self) -> None:
        """Endless rows fill no memory while the client reads nothing."""
        self.begin()
        line = rows(*[7] * 1000)
        piece = b"%x\r\n%b\r\n" % (len(line), line)
        flood = endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", piece)
        self.script(s1=flood, s2=flood, s3=flood)
        client = await self.client(self.listener)
        client.transport.pauseProducing()
        client.send(asking(RAW))
        counters = [shard.readers.counters[f"{shard.config.shard}0"] for shard in self.listener.shards]
        await until(lambda: all(each.bytes > 0 for each in counters), "the first bytes")
        before = -1
        while before != sum(each.bytes for each in counters):
            before = sum(each.bytes for each in counters)
            for _ in range(20):
                await self.ask(self.listener, request(b"/ping", b"", method=b"GET"))
        self.assertLess(before, 64 * 1024 * 1024)
        client.transport.resumeProducing()
        await until(lambda: sum(each.bytes for each in counters) > before, "more of it")
        client.vanish()
        await until(lambda: not any(each.readers.active for each in self.listener.shards), "the end")
