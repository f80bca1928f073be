"""What a backend is sent: addresses, headers, bodies."""

from __future__ import annotations

import gzip
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from influxrelay.config.settings import HTTPOutputConfig
from influxrelay.core.write import Destination
from influxrelay.delivery import connection_pool
from influxrelay.delivery.write_apis import V2
from testing.backend_case import WRITE, BackendCase
from testing.resolver import install_resolver
from testing.scripted import LINE, LOOPBACK, Hold, Received, ScriptedBackend, answer, reactor, request, until


class AddressTests(BackendCase):
    """Where requests go."""

    async def test_names(self) -> None:
        """Whatever the resolver takes is a host's name: for writes, databases to create and pings."""
        for name in ("my_influxdb_1", "db--01", "-db-", "db.", "xn--a", "x" * 64):
            backend = self.backend()
            install_resolver(self, reactor, {name: [LOOPBACK], name.encode(): [LOOPBACK]})  # type: ignore[dict-item]
            transport = self.transport(f"http://{name}:{backend.port}/write")
            for asked in (self.post(transport), transport.create_database(WRITE), transport.ping()):
                self.assertEqual((await asked).status, 204)
            hosts = [each.header("Host") for each in (*backend.requests, *backend.pings)]
            self.assertEqual(hosts, [f"{name}:{backend.port}".encode()] * 3)

    async def test_names_in_the_relay(self) -> None:
        """A relay with such a backend takes writes for it."""
        backend = self.backend()
        install_resolver(self, reactor, {"my_influxdb_1": [LOOPBACK]})
        url = f"http://my_influxdb_1:{backend.port}/write"
        relay = self.relay(HTTPOutputConfig("one", url, url, f"{url}/ping"))
        self.assertEqual((await self.ask(relay, request())).status, 204)

    async def test_ipv6(self) -> None:
        """A backend may have an IPv6 address."""
        backend = ScriptedBackend()
        listening = reactor.listenTCP(0, backend, interface="::1")
        self.addCleanup(listening.stopListening)
        self.addCleanup(lambda: Deferred.fromCoroutine(backend.stop()))
        port = listening.getHost().port
        self.assertEqual((await self.post(self.transport(f"http://[::1]:{port}/write"))).status, 204)
        self.assertEqual(backend.requests[0].header("Host"), b"[::1]:%d" % port)

    async def test_zone(self) -> None:
        """An IPv6 zone belongs to the address, and the server does not hear of it (RFC 6874)."""
        transport = self.transport("http://[::1%25nowhere]:8086/write")
        self.assertIn((await self.problem(self.post(transport))).reason, ("unreachable", "unresolved", "refused"))

    async def test_targets(self) -> None:
        """Writes, databases to create and pings go to the paths that the URLs say."""
        backend = self.backend()
        base = f"http://{LOOPBACK}:{backend.port}"
        for path, query_path in (("/write", b"/query"), ("/influx/a%2fb;c/write", b"/influx/a%2fb;c/query")):
            transport = self.transport(base + path, ping_url=f"{base}/up/ping")
            await self.post(transport)
            await transport.create_database(WRITE)
            await transport.ping()
            self.assertEqual([each.path for each in backend.requests], [path.encode(), query_path])
            self.assertEqual(backend.pings[-1].path, b"/up/ping")
            backend.requests.clear()


class RequestTests(BackendCase):
    """Heads and bodies."""

    async def received(self, body: bytes = LINE, *, changes: dict[str, Any] | None = None, **settings: Any) -> Received:
        """Post a body; return what the backend got."""
        backend = self.backend()
        write = attrs.evolve(WRITE, body=body, **(changes or {}))
        await self.post(self.transport(backend, **settings), body, write)
        return backend.requests[0]

    async def test_parts(self) -> None:
        """The parts of a body arrive one behind the other, small or large."""
        for size in (1, 10_000):
            backend = self.backend()
            parts = [LINE * size, b"\n", LINE, b"", LINE * size]
            await self.transport(backend).post(WRITE, parts)
            self.assertEqual(backend.requests[0].body, b"".join(parts))
            self.assertEqual(backend.requests[0].header("Content-Length"), b"%d" % sum(map(len, parts)))

    async def test_awkward_bytes(self) -> None:
        """Bytes that HTTP has no place for cannot end a line of the head: they are encoded, or blanks."""
        query, authorization = b"db=gr\xc3\xb6\xc3\x9fe x\r\nX: y", b"Basic \r\nX: y\0"
        found = await self.received(changes={"query": query, "authorization": authorization})
        self.assertEqual(found.query, b"db=gr%C3%B6%C3%9Fe%20x%0D%0AX:%20y")
        self.assertEqual(found.header("Authorization"), b"Basic   X: y")
        self.assertIsNone(found.header("X"))

    async def test_headers(self) -> None:
        """An output's own headers are added to each request, in place of others of that name."""
        backend = self.backend()
        headers = {"X-Tenant": "a b", "user-agent": "me", "HOST": "db.example.org"}
        transport = self.transport(backend, headers=headers)
        for asked in (self.post(transport), transport.create_database(WRITE), transport.ping()):
            await asked
        for found in (*backend.requests, *backend.pings):
            self.assertEqual(found.header("X-Tenant"), b"a b")
            self.assertEqual(found.header("User-Agent"), b"me")
            self.assertEqual(found.header("Host"), b"db.example.org")

    async def test_authorization_header(self) -> None:
        """An ``Authorization`` among an output's headers replaces all credentials of the client."""
        changes = {"query": b"u=me&db=db&p=pw", "authorization": b"Token theirs"}
        found = await self.received(changes=changes, headers={"authorization": "Bearer ours"})
        self.assertEqual((found.header("Authorization"), found.query), (b"Bearer ours", b"db=db"))

    async def test_ping(self) -> None:
        """A ping brings the output's credentials, and nothing that belongs to a body."""
        backend = self.backend()
        await self.transport(backend, authorization=b"Token ours").ping()
        (found,) = backend.pings
        self.assertEqual((found.method, found.header("Authorization")), (b"GET", b"Token ours"))
        for name in ("Content-Type", "Content-Encoding", "Content-Length"):
            self.assertIsNone(found.header(name))

    async def test_create_database(self) -> None:
        """A database is created by the write's user, whatever its name."""
        backend = self.backend()
        destination = Destination(b'a "b" \\ \xff', b"", b"ns", (b"", b"", b""))
        write = attrs.evolve(WRITE, destination=destination, query=b"db=x&rp=y&u=me&p=pw", authorization=b"Basic x")
        await self.transport(backend).create_database(write)
        (found,) = backend.requests
        self.assertEqual((found.method, found.header("Content-Length")), (b"POST", b"0"))
        self.assertEqual(found.query, b"q=CREATE+DATABASE+%22a+%5C%22b%5C%22+%5C%5C+%FF%22&u=me&p=pw")
        self.assertEqual(found.header("Authorization"), b"Basic x")

    async def test_gzip_as_received(self) -> None:
        """By default a body travels as it came, compressed or not."""
        found = await self.received()
        self.assertEqual((found.body, found.header("Content-Encoding")), (LINE, None))
        body = gzip.compress(LINE) + gzip.compress(LINE)
        found = await self.received(body, changes={"gzipped": True})
        self.assertEqual((found.body, found.header("Content-Encoding")), (body, b"gzip"))

    async def test_gzip_always(self) -> None:
        """With gzip every body travels compressed, and those that are already are not touched."""
        found = await self.received(LINE * 1000, gzip=True)
        self.assertEqual((gzip.decompress(found.body), found.header("Content-Encoding")), (LINE * 1000, b"gzip"))
        self.assertLess(len(found.body), len(LINE) * 100)
        body = gzip.compress(LINE)
        found = await self.received(body, changes={"gzipped": True}, gzip=True)
        self.assertEqual((found.body, found.header("Content-Encoding")), (body, b"gzip"))

    async def test_gzip_never(self) -> None:
        """Without gzip no body travels compressed, of however many members it is made."""
        found = await self.received(gzip=False)
        self.assertEqual((found.body, found.header("Content-Encoding")), (LINE, None))
        body = gzip.compress(LINE) * 3 + gzip.compress(b"") + gzip.compress(LINE * 50_000)
        found = await self.received(body, changes={"gzipped": True}, gzip=False)
        self.assertEqual((found.body, found.header("Content-Encoding")), (LINE * 50_003, None))

    async def test_without_copy(self) -> None:
        """Two transports are equal if they send the same in the same way."""
        backend = self.backend()
        same = [self.transport(backend, headers={"X": "1"}) for _ in range(2)]
        self.assertTrue(same[0].does_the_same(same[1]))
        for settings in ({"headers": {"X": "2"}}, {"gzip": True}, {"max_connections": 3}, {"timeout": 3.0}):
            self.assertFalse(same[0].does_the_same(self.transport(backend, **{"headers": {"X": "1"}, **settings})))


class KeptConnectionTests(BackendCase):
    """Connections between requests."""

    async def test_idle(self) -> None:
        """A connection that is not used for a while is closed, one that is used is kept."""
        self.patch(connection_pool, "IDLE_TIME", 0.1)
        backend = self.backend(answer(204))
        transport = self.transport(backend)
        await self.post(transport)
        await until(lambda: not backend.connections)
        self.assertEqual((await self.post(transport)).status, 204)


class ConversionTests(BackendCase):
    """Large bodies in a precision that the backend lacks."""

    MINUTES = b"".join(b'm,n=%d s="a 5\n",v=1i 28333333\n' % number for number in range(20_000))
    SECONDS = MINUTES.replace(b" 28333333\n", b" 1699999980\n")
    WRITE = attrs.evolve(WRITE, query=b"db=db&precision=m")

    async def test_large(self) -> None:
        """They arrive whole with their times converted, and what is asked meanwhile is answered before them."""
        hold = Hold(answer(204))
        backend = self.backend(hold)
        for gzipped in (False, True):
            transport = self.transport(backend, api=V2("org"), gzip=gzipped)
            posted = self.post(transport, self.MINUTES, self.WRITE)
            self.assertTrue(transport.is_busy())
            self.assertEqual((await transport.ping()).status, 204)
            hold.release()
            self.assertEqual((await posted).status, 204)
            body = backend.requests[-1].body
            self.assertEqual(gzip.decompress(body) if gzipped else body, self.SECONDS)
            self.assertEqual(backend.requests[-1].query, b"org=org&bucket=db&precision=s")
            self.assertFalse(transport.is_busy())

    async def test_aborted(self) -> None:
        """Nothing is sent of what is aborted."""
        backend = self.backend()
        transport = self.transport(backend, api=V2("org"))
        posted = self.post(transport, self.MINUTES, self.WRITE)
        transport.abort()
        self.assertEqual((await self.problem(posted)).reason, "stopped")
        self.assertFalse(transport.is_busy())
        self.assertEqual(backend.requests, [])
