"""Queries before backends of all generations of InfluxDB, which all know ``/query``."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from twisted.internet.threads import deferToThread

from influxrelay.config.settings import HTTPOutputConfig, JournalConfig
from influxrelay.delivery.standing import standing
from testing.influxdb2 import InfluxDB2
from testing.influxdb3 import InfluxDB3
from testing.influxdb_double import InfluxDBDouble
from testing.scripted import Answer, RelayTestCase, answer, request, until

RESULT = b'{"results":[{"statement_id":0}]}\n'
ROWS = [[1, 1.0], [2, 2.0]]
LINES = b"cpu,host=a v=1 1\ncpu,host=a v=2 2\n"
_PATHS = {"v2": "/api/v2/write", "v3": "/api/v3/write_lp"}


class QueryAPITests(RelayTestCase):
    """Doubles of 2.x and 3.x."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Start them."""
        self.two, self.three = InfluxDB2(buckets=["db"]), InfluxDB3()
        for server in (self.two, self.three):
            self.addCleanup(deferToThread, server.stop)
            await deferToThread(server.start)

    def newer(self, name: str, server: InfluxDBDouble, api: str, **settings: Any) -> HTTPOutputConfig:
        """Return an output to a double."""
        org = "org" if api == "v2" else ""
        url = server.url
        return HTTPOutputConfig(
            name=name,
            location=url,
            write_url=url + _PATHS[api],
            ping_url=f"{url}/ping",
            query_url=f"{url}/query",
            api=api,
            org=org,
            **settings,
        )

    def outputs(self, **settings: Any) -> list[HTTPOutputConfig]:
        """Return outputs to both."""
        return [self.newer("two", self.two, "v2", **settings), self.newer("three", self.three, "v3", **settings)]

    async def query(self, relay: Any, q: bytes, *headers: bytes, more: bytes = b"") -> tuple[Answer, Any]:
        """Return the answer, and its result."""
        target = b"/query?db=db&epoch=ns&q=" + q.replace(b" ", b"+") + more
        found = await self.ask(relay, request(target, b"", *headers, method=b"GET", length=-1))
        return found, json.loads(found.body)

    async def write(self, relay: Any) -> None:
        """Write points, and wait until both have them."""
        written = await self.ask(relay, request(b"/write?db=db", LINES, b"Authorization: Token token"))
        self.assertEqual(written.status, 204)
        await until(lambda: all(len(each.contents["db"]) == 2 for each in (self.two, self.three)), "the points")

    async def test_reads(self) -> None:
        """A server of 2.x and one of 3.x answer what is written through the relay, each as the client's user."""
        relay = self.relay(*self.outputs())
        await self.write(relay)
        for name in (b"two", b"three"):
            found, body = await self.query(
                relay, b"SELECT v FROM cpu", b"Authorization: Token token", more=b"&backend=" + name
            )
            self.assertEqual((found.status, found.header("X-Influxrelay-Backend")), (200, name))
            self.assertEqual(body["results"][0]["series"][0]["values"], ROWS)
            found, _ = await self.query(relay, b"SELECT v FROM cpu", more=b"&backend=" + name)
            self.assertEqual(found.status, 401)
            found, _ = await self.query(relay, b"SELECT v FROM cpu", more=b"&u=any&p=token&backend=" + name)
            self.assertEqual(found.status, 200)

    async def test_own_credentials(self) -> None:
        """With ``query-credentials = "output"`` the outputs' tokens are used."""
        relay = self.relay(*self.outputs(token="token"), query_credentials="output")
        await self.write(relay)
        for name in (b"two", b"three"):
            found, body = await self.query(relay, b"SELECT v FROM cpu", more=b"&backend=" + name)
            self.assertEqual((found.status, body["results"][0]["series"][0]["values"]), (200, ROWS))

    async def test_failover(self) -> None:
        """When the one is down, the other one answers."""
        relay = self.relay(*self.outputs())
        await self.write(relay)
        await deferToThread(self.two.stop)
        for _ in range(3):
            found, body = await self.query(relay, b"SELECT v FROM cpu", b"Authorization: Token token")
            self.assertEqual(found.header("X-Influxrelay-Backend"), b"three")
            self.assertEqual(body["results"][0]["series"][0]["values"], ROWS)

    async def test_unknown_there(self) -> None:
        """What a server does not know of InfluxQL, it says itself."""
        relay = self.relay(*self.outputs())
        found, body = await self.query(relay, b"SHOW USERS", b"Authorization: Token token", more=b"&backend=three")
        self.assertEqual((found.status, body["results"][0]["error"]), (200, "not implemented: SHOW"))

    async def test_other_name(self) -> None:
        """A database that has another name on a server of 3.x is asked for by that, be it in the URL or in a form."""
        relay = self.relay(self.newer("three", self.three, "v3", buckets=(("db/week", "weekly"), ("db", "main"))))
        headers = b"Authorization: Token token", b"Content-Type: application/x-www-form-urlencoded"
        for place, name in ((b"db=db", "main"), (b"rp=week&db=db", "weekly"), (b"db=other", "other")):
            written = await self.ask(relay, request(b"/write?" + place, LINES, headers[0]))
            self.assertEqual(written.status, 204)
            self.assertEqual(len(self.three.contents[name]), 2)
            q = b"q=SELECT+v+FROM+cpu&epoch=ns"
            for sent in (
                request(b"/query?%b&%b" % (place, q), b"", headers[0], method=b"GET", length=-1),
                request(b"/query?%b" % place, q, *headers),
                request(b"/query", b"%b&%b" % (q, place), *headers),
            ):
                body = json.loads((await self.ask(relay, sent)).body)
                self.assertEqual(body["results"][0]["series"][0]["values"], ROWS, place)

    def settings(self) -> dict[str, Any]:
        """Return what outputs have that are asked to change something."""
        return {"token": "token", "max_delay_interval": 0.1, "timeout": 2.0}

    async def change(self, relay: Any, q: bytes, consistency: bytes = b"all") -> Answer:
        """Have a statement executed."""
        sent = request(
            b"/query?db=db&consistency=" + consistency,
            b"q=" + q.replace(b" ", b"+"),
            b"Authorization: Token token",
            b"Content-Type: application/x-www-form-urlencoded",
        )
        return await self.ask(relay, sent)

    def changed(self, server: InfluxDBDouble) -> list[str]:
        """Return the statements that a double was sent."""
        return [each.form["q"] for each in server.asked if each.path == "/query" and "q" in each.form]

    async def test_changes(self) -> None:
        """A change is executed by the servers that know it: all by 1.x, two kinds by 2.x, none by 3.x."""
        for journal in (None, JournalConfig(self.mktemp())):
            first = self.backend(answer(204))
            relay = self.relay(self.output(first, "one"), *self.outputs(**self.settings()), journal=journal)
            await self.write(relay)
            first.script[0] = answer(200, RESULT, (b"Content-Type", b"application/json"))
            for q in (b"CREATE DATABASE x", b"DROP MEASUREMENT cpu", b"DROP SERIES FROM cpu"):
                found = await self.change(relay, q)
                self.assertEqual((found.status, json.loads(found.body)), (200, json.loads(RESULT)), q)
            asked = [each for each in first.requests if each.path == b"/query"]
            self.assertEqual(len(asked), 3)
            self.assertEqual(self.changed(self.two), ["DROP MEASUREMENT cpu"])
            self.assertEqual(self.changed(self.three), [])
            self.assertEqual((len(self.two.contents["db"]), len(self.three.contents["db"])), (0, 2))
            self.assertEqual([sender.refused for sender in relay.senders], [Counter()] * 3)
            self.two.asked.clear()

    async def test_nobody_knows(self) -> None:
        """A change that no backend knows is refused; one that 2.x knows is executed there."""
        relay = self.relay(*self.outputs(**self.settings()))
        await self.write(relay)
        message = f"no backend of {relay.name} executes CREATE DATABASE: it is a matter of InfluxDB 1.x"
        self.assert_error(await self.change(relay, b"CREATE DATABASE x"), 400, message)
        self.assertEqual((await self.change(relay, b"DELETE FROM cpu")).body, b'{"results": [{"statement_id": 0}]}')
        self.assertEqual((len(self.two.contents["db"]), len(self.three.contents["db"])), (0, 2))

    async def test_backlog(self) -> None:
        """What a server does not know is no part of its backlog either, also when that is read after a restart."""
        first = self.backend(answer(200, RESULT, (b"Content-Type", b"application/json")))
        outputs = [self.output(first, "one"), self.newer("two", self.two, "v2", **self.settings())]
        journal = JournalConfig(self.mktemp())
        relay = self.relay(*outputs, journal=journal)
        await deferToThread(self.two.stop)
        for q in (b"CREATE DATABASE x", b"DROP MEASUREMENT cpu", b"DROP SERIES FROM cpu", b"DELETE FROM cpu"):
            self.assertEqual((await self.change(relay, q, b"any")).status, 200)
        service: Any = relay.parent
        await service.stopService()
        await deferToThread(self.two.start)
        relay = self.relay(*outputs, journal=journal)
        await until(lambda: len(self.changed(self.two)) == 2, "the backlog")
        await until(lambda: all(standing(each).in_sync for each in relay.senders), "both are in sync")
        self.assertEqual(self.changed(self.two), ["DROP MEASUREMENT cpu", "DELETE FROM cpu"])
        self.assertEqual([sender.refused for sender in relay.senders], [Counter()] * 2)

    async def test_remote_read(self) -> None:
        """Prometheus' remote reads are asked of InfluxDB 1.x only; without one they are 404."""
        first = self.backend(answer(200, b"\0"))
        relay = self.relay(*self.outputs(), self.output(first, "one"))
        for _ in range(3):
            found = await self.ask(relay, request(b"/api/v1/prom/read?db=db", b"\1"))
            self.assertEqual((found.status, found.header("X-Influxrelay-Backend")), (200, b"one"))
        message = "no backend answers a remote read of Prometheus: it is a matter of InfluxDB 1.x"
        found = await self.ask(relay, request(b"/api/v1/prom/read?db=db&backend=two", b"\1"))
        self.assert_error(found, 404, message)
        found = await self.ask(self.relay(*self.outputs()), request(b"/api/v1/prom/read?db=db", b"\1"))
        self.assert_error(found, 404, message)
