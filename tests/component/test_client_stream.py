"""Requests whose responses are passed on while they come."""

from __future__ import annotations

from typing import Any

from treq import content
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface.verify import verifyObject

from influxrelay.core.errors import BackendFailure
from influxrelay.delivery.client import Response
from influxrelay.delivery.http_backend import HTTPBackend
from testing.backend_case import BackendCase
from testing.scripted import (
    BackendConnection,
    answer,
    chunked,
    garbage,
    gzipped,
    hang,
    lengthless,
    raw,
    reactor,
    reset,
    until,
)

HEAD = b"HTTP/1.1 200 Fine\r\nContent-Type: application/json\r\nX-A: 1\r\nX-A: 2\r\nTransfer-Encoding: chunked\r\n\r\n"


class Receiver(Protocol):
    """Takes a body."""

    transport: Any

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.reason: Failure | None = None

    @property
    def size(self) -> int:
        """How many bytes have come."""
        return sum(map(len, self.pieces))

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece."""
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keep the reason."""
        self.reason = reason


class Source:
    """An action that answers with a body without end, as fast as it is taken.

    :ivar sent: how many bytes of it were sent, to wherever they are now.
    """

    _PIECE = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"

    def __init__(self) -> None:
        self.sent = 0

    def __call__(self, connection: BackendConnection) -> None:
        """Begin."""
        self._transport = connection.transport
        self._transport.write(HEAD)
        self._transport.registerProducer(self, streaming=False)

    def resumeProducing(self) -> None:
        """Send more."""
        self.sent += len(self._PIECE)
        self._transport.write(self._PIECE)

    def stopProducing(self) -> None:
        """Nothing to do: the connection is gone."""


class StreamTests(BackendCase):
    """The head at first, and then the body."""

    def request(self, transport: HTTPBackend, **settings: Any) -> Deferred[Response]:
        """Ask for something."""
        return transport.client.request(b"GET", b"/query?q=x", Headers(), **settings)

    async def test_request(self) -> None:
        """Method, target, headers and body arrive as they are; what frames the message is the client's own."""
        backend = self.backend(answer(200))
        target = b"/query?q=SELECT+*%20FROM%22a%22&&q=b;c&db=\xc3\xa4"
        headers = Headers(
            {"Accept": ["text/csv", "b"], "Content-Length": ["9"], "Host": ["x"], "Transfer-Encoding": ["chunked"]}
        )
        client = self.transport(backend).client
        await client.request(b"POST", target, headers, b"db=db&q=x")
        await client.request(b"GET", b"/", Headers())
        first, second = backend.requests
        self.assertEqual((first.method, first.path, first.body), (b"POST", b"/query", b"db=db&q=x"))
        self.assertEqual(first.query, b"q=SELECT+*%20FROM%22a%22&&q=b;c&db=%C3%A4")
        self.assertEqual(first.all("Accept"), [b"text/csv", b"b"])
        self.assertEqual(first.all("Content-Length"), [b"9"])
        self.assertEqual(first.header("Host"), b"127.0.0.1:%d" % backend.port)
        self.assertIsNone(first.header("Transfer-Encoding"))
        self.assertIsNone(second.header("Content-Length"))

    async def test_head_first(self) -> None:
        """The head is there as soon as it has come, with all its headers, and the body follows as it comes."""
        backend = self.backend(raw(HEAD + b"3\r\nabc\r\n"))
        transport = self.transport(backend)
        response = await self.request(transport)
        verifyObject(IResponse, response)
        verifyObject(IPushProducer, response)
        self.assertEqual((response.code, response.phrase), (200, b"Fine"))
        self.assertEqual(response.headers.getRawHeaders(b"X-A"), [b"1", b"2"])
        receiver = Receiver()
        response.deliverBody(receiver)
        await until(lambda: receiver.pieces == [b"abc"])
        self.assertIsNone(receiver.reason)
        backend.connections[0].transport.write(b"4\r\ndefg\r\n0\r\n\r\n")
        await until(lambda: receiver.reason)
        self.assertEqual(receiver.pieces, [b"abc", b"defg"])
        self.assertIsInstance(receiver.reason and receiver.reason.value, ResponseDone)
        self.assertFalse(transport.is_busy())

    async def test_bodies(self) -> None:
        """A body is whole, however it is delimited, whoever takes it and however late; it is never unpacked."""
        for action in (
            answer(200, b"x" * 300_000),
            chunked(200, *[b"x" * 1000] * 300),
            lengthless(200, b"x" * 300_000),
            answer(200, b"x" * 300_000, close=True),
        ):
            for read in (readBody, content):
                transport = self.transport(self.backend(action))
                response: Any = await self.request(transport)
                await until(lambda: True)
                self.assertEqual(await read(response), b"x" * 300_000)
                await until(lambda: not transport.is_busy())
        packed = await self.request(self.transport(self.backend(gzipped(200, b"x"))))
        self.assertEqual(packed.headers.getRawHeaders(b"Content-Encoding"), [b"gzip"])
        self.assertTrue((await readBody(packed)).startswith(b"\x1f\x8b"))

    async def test_connection_is_kept(self) -> None:
        """The connection of a response that was read is used again, even if somebody paused at its end."""
        backend = self.backend(answer(200, b"x" * 100_000))
        transport = self.transport(backend)
        for _ in range(3):
            response = await self.request(transport)
            receiver = Receiver()
            response.deliverBody(receiver)
            receiver.transport.pauseProducing()
            receiver.transport.resumeProducing()
            await until(lambda: receiver.reason)
            self.assertEqual(receiver.size, 100_000)
        self.assertEqual(backend.connection_count, 1)

    async def assert_held_back(self, source: Source) -> None:
        """Check that the backend cannot send much more: so many turns of the reactor would be enough for 100 MB."""
        before = source.sent
        for _ in range(3000):
            await deferLater(reactor, 0)
        self.assertLess(source.sent - before, 40_000_000)

    async def test_nobody_takes_the_body(self) -> None:
        """While nobody takes the body hardly any of it is read; whoever takes it late gets all of it."""
        source = Source()
        backend = self.backend(source)
        response = await self.request(self.transport(backend))
        await self.assert_held_back(source)
        receiver = Receiver()
        response.deliverBody(receiver)
        await until(lambda: receiver.size > 100_000_000)
        receiver.transport.stopProducing()
        await until(lambda: not backend.connections)

    async def test_back_pressure(self) -> None:
        """Whoever pauses gets nothing, and the backend is not read; whoever resumes goes on where they were."""
        source = Source()
        backend = self.backend(source)
        response = await self.request(self.transport(backend))
        receiver = Receiver()
        response.deliverBody(receiver)
        for _ in range(2):
            size = receiver.size
            receiver.transport.resumeProducing()
            await until(lambda: receiver.size > size + 60_000_000)
            receiver.transport.pauseProducing()
            size = receiver.size
            await self.assert_held_back(source)
            self.assertEqual(receiver.size, size)
        receiver.transport.abortConnection()
        await until(lambda: not backend.connections)
        self.assertIsNone(receiver.reason)

    async def test_pause_at_the_end(self) -> None:
        """Whoever has paused learns of the end of the body when they resume."""
        backend = self.backend(raw(HEAD + b"1\r\nx\r\n"))
        response = await self.request(self.transport(backend))
        receiver = Receiver()
        response.deliverBody(receiver)
        await until(lambda: receiver.size)
        backend.connections[0].transport.write(b"3\r\nabc\r\n0\r\n\r\n")
        receiver.transport.pauseProducing()
        receiver.transport.resumeProducing()
        await until(lambda: receiver.reason)
        self.assertEqual(b"".join(receiver.pieces), b"xabc")

    async def test_cancelled(self) -> None:
        """A request that is cancelled before its head has come breaks its connection, or makes none."""
        backend = self.backend(hang)
        transport = self.transport(backend, max_connections=1)
        asked, waiting = self.request(transport), self.request(transport)
        await until(lambda: backend.requests)
        for each in (waiting, asked):
            each.cancel()
            with self.assertRaises(BackendFailure) as caught:
                await each
            self.assertEqual(caught.exception.reason, "stopped")
        await until(lambda: not backend.connections)
        self.assertEqual(len(backend.requests), 1)
        self.assertFalse(transport.is_busy())

    async def test_given_up(self) -> None:
        """Whoever gives up a body breaks its connection, and is told nothing more."""
        for method in ("stopProducing", "loseConnection", "abortConnection"):
            backend = self.backend(raw(HEAD + b"3\r\nabc\r\n"))
            response = await self.request(self.transport(backend))
            receiver = Receiver()
            response.deliverBody(receiver)
            getattr(receiver.transport, method)()
            await until(lambda: not backend.connections)
            self.assertIsNone(receiver.reason)

    async def head_in_time(self, transport: HTTPBackend, **settings: float) -> Response:
        """Ask, and again with a longer timeout if a busy machine lets it end before the head has come."""
        try:
            return await self.request(transport, **settings)
        except BackendFailure:
            return await self.head_in_time(transport, **{name: 2 * value for name, value in settings.items()})

    async def test_broken_body(self) -> None:
        """A body that breaks off, that cannot be read or that is late fails, with one of the known reasons."""
        for action, settings, reason in (
            (raw(HEAD + b"3\r\nabc\r\n", end="close"), {}, "reset"),
            (raw(HEAD + b"3\r\nabc\r\n", end="reset"), {}, "reset"),
            (raw(HEAD + b"3\r\nabc\r\nxyz\r\n"), {}, "garbage"),
            (raw(HEAD + b"3\r\nabc\r\n"), {"timeout": 0.1}, "timeout"),
        ):
            transport = self.transport(self.backend(action))
            response = await self.head_in_time(transport, **settings)
            receiver = Receiver()
            response.deliverBody(receiver)
            await until(lambda: receiver.reason)
            error: Any = receiver.reason and receiver.reason.value
            self.assertEqual((error.reason, receiver.pieces), (reason, [b"abc"]))
            self.assertFalse(transport.is_busy())

    async def test_stopped(self) -> None:
        """When the relay stops, a body that is under way fails."""
        transport = self.transport(self.backend(raw(HEAD)))
        response = await self.request(transport)
        receiver = Receiver()
        response.deliverBody(receiver)
        transport.abort()
        error: Any = receiver.reason and receiver.reason.value
        self.assertEqual(error.reason, "stopped")

    async def test_no_head(self) -> None:
        """Without a head the request fails, and failing over to another backend is safe."""
        for action, reason in ((reset, "reset"), (garbage(), "garbage")):
            with self.assertRaises(BackendFailure) as caught:
                await self.request(self.transport(self.backend(action)))
            self.assertEqual(caught.exception.reason, reason)
