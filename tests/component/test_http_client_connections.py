"""The connections to a backend: the same for posts, and for whatever else it is asked."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from testing.backend_case import ClientSuite, PostCase, QuestionCase
from testing.scripted import (
    LINE,
    Hold,
    answer,
    chunked,
    freeze,
    gzipped,
    hang,
    lengthless,
    raw,
    reactor,
    reset,
    until,
)

STATUS_LINE = b"HTTP/1.1 400 No\r\n"


class ConnectionSuite(ClientSuite):
    """Connections that are used again, that are stale, or too many."""

    async def test_used_again(self) -> None:
        """One connection carries one exchange after the other, whatever their answers."""
        backend = self.backend(answer(204), answer(400, b"bad"), answer(500), chunked(503, b"x"), gzipped(200, b"x"))
        transport = self.transport(backend)
        statuses = [(await self.send(transport)).status for _ in range(6)]
        self.assertEqual(statuses, [204, 400, 500, 503, 200, 200])
        self.assertEqual(backend.connection_count, 1)

    async def test_kept_by_http_1_0(self) -> None:
        """A server of HTTP/1.0 may keep a connection, if it says so."""
        backend = self.backend(raw(b"HTTP/1.0 204 No\r\nConnection: keep-alive\r\n\r\n"))
        transport = self.transport(backend)
        for _ in range(2):
            self.assertEqual((await self.send(transport)).status, 204)
        self.assertEqual(backend.connection_count, 1)

    async def test_not_used_again(self) -> None:
        """A connection that ends with an answer, or brings more than that, is not used again; nothing fails for it."""
        for action in (
            answer(204, b"", (b"Connection", b"close")),
            lengthless(200, b"x"),
            answer(204, close=True),
            raw(b"HTTP/1.0 204 No\r\n\r\n"),
            raw(b"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nbody"),
            raw(b"HTTP/1.1 204 No\r\n\r\nHTTP/1.1 408 Late\r\n\r\n"),
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nxyz", end="close"),
        ):
            backend = self.backend(action)
            transport = self.transport(backend)
            for _ in range(3):
                self.assertLess((await self.send(transport)).status, 300)
                await self.gone(backend)
            self.assertEqual([each.connection for each in backend.requests], [0, 1, 2])

    async def test_unasked(self) -> None:
        """A connection on which something comes that nobody has asked for is not used again."""
        backend = self.backend()
        transport = self.transport(backend)
        await self.send(transport)
        (connection,) = backend.connections
        connection.transport.write(b"HTTP/1.0 408 Request Time-out\r\n\r\n")
        await self.gone(backend)
        self.assertEqual((await self.send(transport)).status, 204)

    async def test_stale(self) -> None:
        """A request on a connection that proves stale is sent again, once, on a fresh one."""
        for ending in (reset, raw(b"", end="close")):
            backend = self.backend(answer(204), ending, answer(204))
            transport = self.transport(backend)
            for _ in range(2):
                self.assertEqual((await self.send(transport)).status, 204)
            self.assertEqual([each.connection for each in backend.requests], [0, 0, 1])
            self.assertEqual(len({each.body for each in backend.requests}), 1)

    async def test_only_once(self) -> None:
        """When the fresh connection breaks too, the request has failed."""
        backend = self.backend(answer(204), reset)
        transport = self.transport(backend)
        await self.send(transport)
        self.assertEqual(await self.reason(transport), "reset")
        self.assertEqual([each.connection for each in backend.requests], [0, 0, 1])

    async def test_only_once_with_other_stale_ones(self) -> None:
        """The second try is on a fresh connection, even if more are kept that may be stale."""
        hold = Hold(answer(204))
        backend = self.backend(hold)
        transport = self.transport(backend)
        asked = [self.send(transport) for _ in range(3)]
        await until(lambda: len(backend.requests) == 3)
        hold.release()
        for each in asked:
            await each
        backend.script.clear()
        backend.script.extend([reset, answer(204)])
        self.assertEqual((await self.send(transport)).status, 204)
        self.assertEqual(backend.requests[-1].connection, 3)
        await until(lambda: len(backend.connections) == 1)

    async def test_only_once_at_the_limit(self) -> None:
        """The second try has the place of the stale connection, before any request that waits for one."""
        hold = Hold(reset)
        backend = self.backend(answer(204), hold, answer(204))
        transport = self.transport(backend, max_connections=1)
        await self.send(transport)
        asked = [self.send(transport) for _ in range(3)]
        await until(lambda: len(backend.requests) == 2)
        hold.release()
        for each in asked:
            self.assertEqual((await each).status, 204)
        self.assertEqual([each.connection for each in backend.requests], [0, 0, 1, 1, 1])

    async def test_not_a_fresh_one(self) -> None:
        """A request on a fresh connection is not sent again when that breaks."""
        backend = self.backend(reset)
        self.assertEqual(await self.reason(self.transport(backend)), "reset")
        self.assertEqual(len(backend.requests), 1)

    async def test_not_after_an_answer_began(self) -> None:
        """A request whose answer had begun is not sent again."""
        backend = self.backend(answer(204), raw(b"HTTP/1.1 2", end="close"))
        transport = self.transport(backend)
        await self.send(transport)
        self.assertEqual(await self.reason(transport), "reset")
        self.assertEqual(len(backend.requests), 2)

    async def test_refused_the_second_time(self) -> None:
        """When the backend is gone altogether, the second try says so."""
        backend = self.backend(answer(204))
        transport = self.transport(backend)
        await self.send(transport)
        await backend.stop()
        self.assertEqual(await self.reason(transport), "refused")

    async def test_retry_within_the_timeout(self) -> None:
        """The second try has what is left of the timeout, not a new one."""
        hold = Hold(reset)
        backend = self.backend(answer(204), hold, hang)
        transport = self.transport(backend, timeout=2.0)
        await self.send(transport)
        asked = self.send(transport)
        timer = reactor.callLater(2.0, lambda: None)
        await until(lambda: len(backend.requests) == 2)
        hold.release()
        self.assertEqual((await self.problem(asked)).reason, "timeout")
        await until(lambda: not timer.active())
        self.assertEqual(len(backend.requests), 3)

    async def test_limit(self) -> None:
        """Requests beyond the limit wait for a free connection, and are served in the order of their arrival."""
        hold = Hold(answer(204))
        backend = self.backend(hold)
        transport = self.transport(backend, max_connections=2)
        done: list[int] = []

        async def send(number: int) -> None:
            await self.send(transport)
            done.append(number)

        asked = [Deferred.fromCoroutine(send(number)) for number in range(20)]
        await until(lambda: len(backend.requests) == 2)
        hold.release()
        for each in asked:
            await each
        self.assertEqual(backend.connection_count, 2)
        self.assertEqual(done[4:], sorted(done[4:]))
        self.assertEqual(len(backend.requests), 20)

    async def test_limit_with_connections_that_end(self) -> None:
        """Requests that wait get a new connection where one has ended, or could not be made."""
        backend = self.backend(answer(204, b"", (b"Connection", b"close")))
        transport = self.transport(backend, max_connections=1)
        for each in [self.send(transport) for _ in range(5)]:
            self.assertEqual((await each).status, 204)
        self.assertEqual([each.connection for each in backend.requests], [0, 1, 2, 3, 4])
        refused = self.transport(await self.refusing_backend(), max_connections=1)
        for each in [self.send(refused) for _ in range(5)]:
            self.assertEqual((await self.problem(each)).reason, "refused")

    async def test_limit_with_a_backend_that_hangs(self) -> None:
        """A backend that never answers gets no more connections than it may, and each request fails in its time."""
        backend = self.backend(lambda _: most.append(len(backend.connections)))
        most: list[int] = []
        transport = self.transport(backend, max_connections=2, timeout=0.3)
        for each in [self.send(transport) for _ in range(10)]:
            self.assertEqual((await self.problem(each)).reason, "timeout")
        self.assertEqual(max(most), 2)

    async def test_kept_to_the_end(self) -> None:
        """Idle connections are closed with the transport."""
        backend = self.backend()
        transport = self.transport(backend)
        await self.send(transport)
        await transport.close()
        await self.gone(backend)

    async def test_retired(self) -> None:
        """A transport that is no longer needed closes its connections, the busy ones after their answers."""
        hold = Hold(answer(204))
        backend = self.backend(answer(204), hold)
        transport = self.transport(backend)
        await self.send(transport)
        asked = self.send(transport)
        await until(lambda: len(backend.requests) == 2)
        transport.retire()
        self.assertTrue(transport.is_busy())
        hold.release()
        self.assertEqual((await asked).status, 204)
        await self.gone(backend)
        self.assertFalse(transport.is_busy())


class PostTests(PostCase, ConnectionSuite):
    """Posts."""

    async def test_early_answer_on_a_kept_connection(self) -> None:
        """A connection whose backend has answered before it has read a large write is not used again."""
        backend = self.backend()
        backend.early = freeze(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        transport = self.transport(backend)
        self.assertEqual((await self.post(transport, LINE * 500_000)).status, 413)
        backend.early = None
        self.assertEqual((await self.post(transport)).status, 204)
        self.assertEqual(backend.requests[-1].connection, 1)

    async def test_large_after_large(self) -> None:
        """Large writes follow each other on one connection."""
        backend = self.backend()
        transport = self.transport(backend)
        for size in (100_000, 1, 200_000):
            self.assertEqual((await self.post(transport, LINE * size)).status, 204)
            self.assertEqual(len(backend.requests[-1].body), size * len(LINE))
        self.assertEqual(backend.connection_count, 1)

    async def test_pings_beside_writes(self) -> None:
        """Writes that occupy all their connections do not keep a ping from its answer."""
        backend = self.backend(hang)
        transport = self.transport(backend, max_connections=1)
        posted = self.post(transport)
        await until(lambda: backend.requests)
        self.assertEqual((await transport.ping()).status, 204)
        transport.abort()
        self.assertEqual((await self.problem(posted)).reason, "stopped")


class QuestionTests(QuestionCase, ConnectionSuite):
    """Whatever else is asked."""
