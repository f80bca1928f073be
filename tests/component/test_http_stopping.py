"""How a listener for HTTP starts and stops, and on what."""

from __future__ import annotations

import os

from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource

from influxrelay.core.replies import json_error
from influxrelay.http.site import RelaySite
from testing.certificates import Authority
from testing.http_case import HTTPTestCase
from testing.scripted import Hold, RelayTestCase, answer, hang, reactor, request, until


class StoppingTests(HTTPTestCase):
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
