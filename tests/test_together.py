"""Many clients, and backends that come and go, in front of two real InfluxDB servers."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from influxrelay.config_values import HTTPOutput
from tests.scripted import LOOPBACK, Client, reactor, request, together
from tests.servers import Influxd
from tests.test_influxdb import _Case

CLIENTS = 64
WRITES = 12


class PoisonTests(_Case):
    """Bad writes among good ones, merged or not."""

    async def test_each_client_its_own_truth(self) -> None:
        """From 64 connections each write gets its own answer; all good lines are stored, and none that was refused."""
        relay = self.relay_to_both()
        await self.write(relay, b"p,c=first v=1.0 1")
        tallies = await together(*(self._write_some(relay, number) for number in range(CLIENTS)))
        found = await self.both(1 + sum(tallies))
        self.assertNotIn("bad", str(found))

    async def _write_some(self, relay: Any, number: int) -> int:
        """Write on one connection, good and bad; return how many lines were good."""
        rng = Random(number)
        client = await self.client(relay)
        stored = 0
        for turn in range(WRITES):
            mark, time = f"c{number}t{turn}", 1000 + turn
            good = b"p,c=%b v=%d 1%d" % (mark.encode(), turn, time)
            body, words = rng.choice(
                (
                    (good, b""),
                    (good + b"\n" + good + b"0\n", b""),
                    (b"p,bad=%b v=abc 1" % mark.encode(), b"invalid boolean"),
                    (b'p,bad=%b s="never closed' % mark.encode(), b"unbalanced quotes"),
                    (b"bad-%b" % mark.encode(), b"missing fields"),
                    (b"p,bad=%b v=1i 1" % mark.encode(), b"field type conflict"),
                )
            )
            answer = await client.ask(request(self.url(relay), body))
            if words:
                self.assertEqual(answer.status, 400, body)
                self.assertIn(words, answer.body)
                if words != b"field type conflict":  # of which InfluxDB does not quote the line
                    self.assertIn(mark.encode(), answer.body)
            else:
                self.assertEqual((answer.status, answer.body), (204, b""))
                stored += 1 + body.count(b"\n") // 2
        return stored


class DatabaseTests(_Case):
    """A database that the servers do not have."""

    async def test_created(self) -> None:
        """With ``create-databases`` the first write to a new database is taken by both servers, whatever its name."""
        for gzip in (False, True):
            self.db = f'a "new" one {gzip}'
            relay = self.relay_to_both(buffer_size_mb=1, create_databases=True, gzip=gzip)
            answers = await together(*(self.write(relay, b"p,n=%d v=1 1" % number) for number in range(20)))
            self.assertEqual({found.status for found in answers}, {204})
            for server in self.servers:
                found = await deferToThread(server.query, "SHOW DATABASES")
                self.assertIn([self.db], found["results"][0]["series"][0]["values"])

    async def test_not_created(self) -> None:
        """Without it the client is told what InfluxDB says."""
        self.db = "nowhere"
        found = await self.write(self.relay_to_both(buffer_size_mb=1), b"p v=1 1")
        self.assertEqual((found.status, found.body), (404, b'{"error":"database not found: \\"nowhere\\""}\n'))


class Proxy(Factory):
    """Stands between the relay and a server, and does what ``mode`` says with each request.

    :ivar mode: ``pass``, ``500``, ``hang``, ``reset`` (before the server sees it), ``reset after`` (it has answered).
    """

    noisy = False

    def __init__(self, server: Influxd) -> None:
        self.server = server
        self.mode = "pass"
        self.connections: set[_Front] = set()
        self.port = reactor.listenTCP(0, self, interface=LOOPBACK)
        self.number = self.port.getHost().port

    def buildProtocol(self, addr: object) -> Protocol:
        """Take a connection."""
        return _Front(self)

    async def set_mode(self, mode: str) -> None:
        """Change the mode; ``refuse`` closes the port and all connections."""
        if mode == "refuse":
            await self.port.stopListening()
            self.port = None
            for connection in list(self.connections):
                connection.transport.abortConnection()
        elif self.port is None:
            self.port = reactor.listenTCP(self.number, self, interface=LOOPBACK)
        self.mode = mode

    async def stop(self) -> None:
        """Close everything."""
        await self.set_mode("pass")
        await self.set_mode("refuse")


class _Front(Protocol):
    transport: Any
    back: Client | None = None

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def connectionMade(self) -> None:
        self.proxy.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.proxy.connections.discard(self)
        if self.back is not None:
            self.back.vanish()

    def dataReceived(self, data: bytes) -> None:
        """Deal with a request; those of the test come in one piece."""
        mode = self.proxy.mode
        if mode == "500":
            self.transport.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}")
        elif mode == "reset":
            self.transport.abortConnection()
        elif mode != "hang":
            self._forward(data, mode)

    def _forward(self, data: bytes, mode: str) -> None:

        async def forward() -> None:
            if self.back is None:
                endpoint = TCP4ClientEndpoint(reactor, LOOPBACK, self.proxy.server.http_port)
                self.back = await endpoint.connect(Factory.forProtocol(Client))
            found = await self.back.ask(data)
            if mode == "reset after":
                self.transport.abortConnection()
            else:
                self.transport.write(b"HTTP/1.1 %d %b\r\n" % (found.status, found.reason))
                for name, value in found.headers:
                    self.transport.write(b"%b: %b\r\n" % (name, value))
                self.transport.write(b"\r\n" + found.body)

        Deferred.fromCoroutine(forward()).addErrback(lambda _: self.transport.abortConnection())


class FlappingTests(_Case):
    """One point, overwritten again and again, while its backends flap."""

    async def test_last_value_on_both(self) -> None:
        """Whatever a backend did in between, both servers end with the value that was written last."""
        rng = Random(7)
        proxies = [Proxy(server) for server in self.servers]
        for proxy in proxies:
            self.addCleanup(lambda proxy=proxy: Deferred.fromCoroutine(proxy.stop()))
        relay = self.relay(*(self._output(proxy) for proxy in proxies))
        client = await self.client(relay)
        answers = []
        for turn in range(150):
            if turn % 3 == 0:
                for proxy in proxies:
                    await proxy.set_mode(rng.choice(("pass", "pass", "500", "hang", "reset", "reset after", "refuse")))
            found = await client.ask(request(self.url(relay), b"p v=%d 1" % turn))
            answers.append(found.status)
            self.assertIn(found.status, (204, 500, 503))
        self.assertEqual(set(answers), {204, 500, 503})
        for proxy in proxies:
            await proxy.set_mode("pass")
        await deferLater(reactor, 0.3)  # what hung has timed out
        self.assertEqual((await client.ask(request(self.url(relay), b"p v=1000 1"))).status, 204)
        (point,) = (await self.both(1))["p", ()]
        self.assertEqual(point["v"], 1000)

    def _output(self, proxy: Proxy) -> HTTPOutput:
        url = f"http://{LOOPBACK}:{proxy.number}/write"
        return HTTPOutput(name=str(proxy.number), location=url, write_url=url, ping_url=url, timeout=0.25)
