"""A backend that does what a test tells it, a client that sends what a test tells it, and a relay between them.

All three live in the test's own reactor and talk over loopback sockets. The client is no HTTP library on purpose: it
sends any bytes, whole or in pieces, and shows answers as they came.
"""

from __future__ import annotations

import gzip
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol, ServerFactory, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from influxrelay.config.settings import Config, HTTPListenerConfig, HTTPOutputConfig
from influxrelay.listeners.http import HTTPService
from influxrelay.service.relay_service import RelayService
from testing.servers import free_port

reactor: Any = _reactor
LOOPBACK = "127.0.0.1"
LINE = b"cpu,host=a value=1 1465839830100400200\n"
_PATIENCE = 60.0  # seconds after which a condition that does not come to hold is an error

HeaderList = tuple[tuple[bytes, bytes], ...]


async def until(condition: Callable[[], Any], what: str = "the condition") -> None:
    """Return when the condition holds; not holding in time is an error."""
    deadline = reactor.seconds() + _PATIENCE
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError(f"{what} did not come to hold")
        await deferLater(reactor, 0.002)


def parse_head(head: bytes) -> tuple[list[bytes], HeaderList]:
    """Split a head into the three parts of its first line, and its headers with names in lower case."""
    first, *lines = head.split(b"\r\n")
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.strip().lower(), value.strip()))
    return first.split(b" ", 2), tuple(headers)


@attrs.frozen
class Message:
    """What requests and answers have in common.

    :ivar headers: in the order of arrival, names in lower case.
    """

    headers: HeaderList
    body: bytes

    def all(self, name: str) -> list[bytes]:
        """Return all values of a header."""
        wanted = name.lower().encode()
        return [value for each, value in self.headers if each == wanted]

    def header(self, name: str) -> bytes | None:
        """Return the value of a header that must not be there twice; None if it is missing."""
        values = self.all(name)
        if len(values) > 1:
            raise AssertionError(f"{name} is there {len(values)} times: {values}")
        return values[0] if values else None


@attrs.frozen
class Received(Message):
    """A request as a backend received it.

    :ivar connection: the number of the connection, from 0.
    """

    method: bytes
    path: bytes
    query: bytes
    connection: int

    @property
    def lines(self) -> bytes:
        """The body, decoded."""
        return gzip.decompress(self.body) if self.header("Content-Encoding") == b"gzip" else self.body


@attrs.frozen
class Answer(Message):
    """An answer as a client received it."""

    version: bytes
    status: int
    reason: bytes


# -- the backend

Action = Callable[["BackendConnection"], None]
"""What a backend does when a request is complete."""


def answer(status: int, body: bytes = b"", *headers: tuple[bytes, bytes], close: bool = False) -> Action:
    """Answer as servers do.

    :param close: close the connection afterwards without having said so: it is stale in the client's pool.
    """
    length = () if status == 204 else ((b"Content-Length", b"%d" % len(body)),)
    return raw(_head(status, *headers, *length) + body, end="close" if close else "")


def gzipped(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Action:
    """Answer with a compressed body."""
    return answer(status, gzip.compress(body, mtime=0), (b"Content-Encoding", b"gzip"), *headers)


def chunked(status: int, *pieces: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> Action:
    """Answer in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return raw(_head(status, *headers, (b"Transfer-Encoding", b"chunked")) + body + b"0\r\n\r\n")


def lengthless(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Action:
    """Answer with a body that ends where the connection does."""
    return raw(_head(status, *headers, (b"Connection", b"close")) + body, end="close")


def raw(data: bytes, end: str = "") -> Action:
    """Send bytes; then ``close`` or ``reset`` the connection, or keep it."""

    def act(connection: BackendConnection) -> None:
        connection.transport.write(data)
        if end == "close":
            connection.transport.loseConnection()
        elif end == "reset":
            connection.later(0.01, connection.transport.abortConnection)

    return act


def garbage() -> Action:
    """Answer in another language than HTTP."""
    return raw(b"220 mail.example.org ESMTP\r\n\r\n", end="close")


def reset(connection: BackendConnection) -> None:
    """Break the connection without an answer."""
    connection.transport.abortConnection()


def hang(connection: BackendConnection) -> None:
    """Never answer."""


def freeze(data: bytes) -> Action:
    """Send bytes, and then take no part in anything, not even in the end of the connection."""

    def act(connection: BackendConnection) -> None:
        connection.transport.write(data)
        below = getattr(connection.transport, "transport", connection.transport)  # TLS would go on by itself
        connection.later(0, below.pauseProducing)

    return act


def drip(data: bytes, interval: float = 0.005) -> Action:
    """Send byte by byte."""

    def act(connection: BackendConnection, position: int = 0) -> None:
        if position < len(data):
            connection.transport.write(data[position : position + 1])
            connection.later(interval, act, connection, position + 1)

    return act


def endless(head: bytes, piece: bytes) -> Action:
    """Send a head, and then the same piece for as long as there is someone who reads."""

    def act(connection: BackendConnection) -> None:
        connection.transport.write(head)
        connection.transport.registerProducer(_Endless(connection, piece), streaming=False)

    return act


class _Endless:
    def __init__(self, connection: BackendConnection, piece: bytes) -> None:
        self._connection = connection
        self._piece = piece

    def resumeProducing(self) -> None:
        """Send one more."""
        self._connection.transport.write(self._piece)

    def stopProducing(self) -> None:
        """Nothing to do: the connection is gone."""


class Hold:
    """Does something when the test says so."""

    def __init__(self, action: Action) -> None:
        self._action = action
        self._held: list[BackendConnection] = []
        self._released = False

    def __call__(self, connection: BackendConnection) -> None:
        """Do it, or wait."""
        if self._released:
            self._action(connection)
        else:
            self._held.append(connection)

    def release(self) -> None:
        """Do it, for all requests that wait for it and all that are to come."""
        self._released = True
        held, self._held = self._held, []
        for connection in held:
            self._action(connection)


def _head(status: int, *headers: tuple[bytes, bytes]) -> bytes:
    return b"HTTP/1.1 %d Whatever\r\n" % status + b"".join(b"%b: %b\r\n" % each for each in headers) + b"\r\n"


class BackendConnection(Protocol):
    """A connection to a scripted backend."""

    transport: Any

    def __init__(self, backend: ScriptedBackend) -> None:
        self._backend = backend
        self._buffer = bytearray()
        self._wanted = 0  # bytes without which the next request is not complete
        self._later: list[Any] = []
        self.number = backend.connection_count
        backend.connection_count += 1

    def later(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        """Do something after a while, if the connection is still there."""
        self._later.append(reactor.callLater(seconds, act, *arguments))

    def connectionMade(self) -> None:
        """Join the backend's connections."""
        self._backend.connections.append(self)
        if self._backend.deaf:
            self.transport.pauseProducing()
        elif self._backend.rejects:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the backend's connections."""
        for call in self._later:
            if call.active():
                call.cancel()
        self._backend.connections.remove(self)

    def dataReceived(self, data: bytes) -> None:
        """Hand over each request that is complete."""
        self._buffer += data
        if self._backend.early is not None:
            self._backend.early(self)
            return
        while len(self._buffer) >= self._wanted:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            (method, target, _), headers = parse_head(bytes(self._buffer[:end]))
            length = int(dict(headers).get(b"content-length", b"0"))
            self._wanted = end + 4 + length
            if len(self._buffer) < self._wanted:
                return
            body = bytes(self._buffer[end + 4 : self._wanted])
            del self._buffer[: self._wanted]
            self._wanted = 0
            path, _, query = target.partition(b"?")
            self._backend.received(Received(headers, body, method, path, query, self.number), self)


class ScriptedBackend(ServerFactory):
    """A server that records each request and answers by its script.

    :ivar script: what to do with the next requests; the last action is for all that follow.
    :ivar ping: what to do with a ping, which is not recorded among the requests.
    :ivar deaf: accept connections and read nothing.
    :ivar rejects: break each connection as soon as it is there.
    :ivar early: what to do as soon as the first bytes of a request have come; the request is then not read as such.
    """

    noisy = False

    def __init__(self, *script: Action) -> None:
        self.script = deque(script or [answer(204)])
        self.requests: list[Received] = []
        self.connections: list[BackendConnection] = []
        self.connection_count = 0
        self.ping = answer(204)
        self.pings: list[Received] = []
        self.deaf = False
        self.rejects = False
        self.early: Action | None = None
        self._tls: CertificateOptions | None = None
        self._listening: Any = None
        self.port = 0

    def buildProtocol(self, addr: object) -> BackendConnection:
        """Take a connection."""
        return BackendConnection(self)

    def listen(self, tls: CertificateOptions | None = None) -> Self:
        """Open the port, the same as before if there was one."""
        self.port = self.port or free_port()  # where it can come back: no client's own connection may sit there
        if tls is None:
            self._listening = reactor.listenTCP(self.port, self, interface=LOOPBACK)
        else:
            self._listening = reactor.listenSSL(self.port, self, tls, interface=LOOPBACK)
        self._tls = tls
        return self

    @property
    def url(self) -> str:
        """Where writes go."""
        return f"{'https' if self._tls else 'http'}://{LOOPBACK}:{self.port}/write"

    def received(self, request: Received, connection: BackendConnection) -> None:
        """Record a request, and do what the script says."""
        if request.path.endswith(b"/ping"):
            self.pings.append(request)
            self.ping(connection)
            return
        self.requests.append(request)
        action = self.script.popleft() if len(self.script) > 1 else self.script[0]
        action(connection)

    async def stop(self) -> None:
        """Close the port and break all connections: from now on connections are refused."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        for connection in list(self.connections):
            connection.transport.resumeProducing()  # a paused transport would not notice
            connection.transport.abortConnection()
        await until(lambda: not self.connections, "the end of the backend's connections")


# -- the client


class Client(Protocol):
    """A connection to the relay.

    :ivar interim: the 1xx answers that came.
    :ivar closed: whether the relay, or :meth:`vanish`, has ended the connection.
    :ivar was_reset: whether it was broken then, instead of closed.
    """

    transport: Any

    def __init__(self) -> None:
        self.interim: list[Answer] = []
        self.closed = self.was_reset = False
        self._buffer = b""
        self._waiter: Deferred[None] | None = None

    def send(self, *pieces: bytes) -> None:
        """Send bytes at once."""
        self.transport.write(b"".join(pieces))

    async def send_in_pieces(self, data: bytes, size: int) -> None:
        """Send bytes in pieces that arrive one by one."""
        for start in range(0, len(data), size):
            self.transport.write(data[start : start + size])
            await deferLater(reactor, 0.001)

    def vanish(self) -> None:
        """Break the connection."""
        if not self.closed:
            self.transport.abortConnection()

    async def leave(self) -> None:
        """Break the connection, and return when it has ended."""
        self.vanish()
        await self.end()

    async def answer(self, *, to_head: bool = False) -> Answer:
        """Return the next final answer; it must come before the end of the connection.

        :param to_head: the request was a HEAD, so that the answer has no body.
        """
        while True:
            found = self._parse(to_head=to_head)
            if found is None:
                if self.closed:
                    raise AssertionError(f"the connection has ended without a complete answer: {self._buffer[:300]!r}")
                self._waiter = Deferred()
                await self._waiter
            elif found.status < 200:
                self.interim.append(found)
            else:
                return found

    async def ask(self, *pieces: bytes) -> Answer:
        """Send a request and return the answer."""
        self.send(*pieces)
        return await self.answer()

    async def end(self) -> bytes:
        """Wait for the end of the connection, and return what came before it and was no answer."""
        await until(lambda: self.closed, "the end of the connection")
        return self._buffer

    @property
    def unread(self) -> bytes:
        """What has come and was not returned as an answer."""
        return self._buffer

    def _parse(self, *, to_head: bool) -> Answer | None:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        (version, status, *reason), headers = parse_head(head)
        code = int(status)
        length = 0
        if code >= 200 and code not in (204, 304) and not to_head:
            announced = dict(headers).get(b"content-length")
            if announced is None and not self.closed:
                return None
            length = len(rest) if announced is None else int(announced)
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        return Answer(headers, rest[:length], version, code, b"".join(reason))

    def dataReceived(self, data: bytes) -> None:
        """Keep it until it is asked for."""
        self._buffer += data
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the end."""
        self.closed = True
        self.was_reset = reason.check(ConnectionLost) is not None
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)


def request(
    target: bytes = b"/write?db=db",
    body: bytes = LINE,
    *headers: bytes,
    method: bytes = b"POST",
    version: bytes = b"HTTP/1.1",
    length: int | None = None,
) -> bytes:
    """Return the bytes of a request.

    :param headers: whole lines, without their ends.
    :param length: another Content-Length than the true one; -1 for none.
    """
    lines = [b"%b %b %b" % (method, target, version), b"Host: relay", *headers]
    if length != -1:
        lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join([*lines, b"", body])


PING = request(b"/ping", b"", method=b"GET")


def in_chunks(target: bytes, *pieces: bytes, headers: Sequence[bytes] = ()) -> bytes:
    """Return the bytes of a chunked request."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return request(target, body, b"Transfer-Encoding: chunked", *headers, length=-1)


# -- both, and the relay


class RelayTestCase(TestCase):
    """Has backends, clients and relays that end with the test."""

    timeout = 180  # seconds; only a test that hangs takes as long, also on a busy machine
    pings = False  # of backends by the relays
    _backends: Sequence[ScriptedBackend] = ()

    def backend(self, *script: Action, tls: CertificateOptions | None = None) -> ScriptedBackend:
        """Start a backend."""
        backend = ScriptedBackend(*script).listen(tls)
        self._backends = [*self._backends, backend]
        self.addCleanup(lambda: Deferred.fromCoroutine(backend.stop()))
        return backend

    async def refusing_backend(self) -> ScriptedBackend:
        """Return a backend that refuses connections."""
        backend = ScriptedBackend()
        # A port that is bound but does not listen: it refuses, and nobody else can get it.
        bound = socket.socket()
        self.addCleanup(bound.close)
        bound.bind((LOOPBACK, 0))
        backend.port = bound.getsockname()[1]
        return backend

    def output(self, backend: ScriptedBackend, name: str = "one", **settings: Any) -> HTTPOutputConfig:
        """Return the output that leads to a backend."""
        return HTTPOutputConfig(
            name=name, location=backend.url, write_url=backend.url, ping_url=backend.url + "/ping", **settings
        )

    def relay(
        self,
        *outputs: ScriptedBackend | HTTPOutputConfig,
        endpoint: str = f"tcp:0:interface={LOOPBACK}",
        shutdown_timeout: float = 2.0,
        **settings: Any,
    ) -> HTTPService:
        """Start a relay with one listener, and return that; its service is ``parent``."""
        made = tuple(
            each if isinstance(each, HTTPOutputConfig) else self.output(each, f"backend-{number}")
            for number, each in enumerate(outputs)
        )
        listener = HTTPListenerConfig(name="test", bind_addr="test", endpoint=endpoint, outputs=made, **settings)
        service = RelayService(Config(path="test", shutdown_timeout=shutdown_timeout, http=(listener,)), reactor)
        if not self.pings:
            self.patch(service.prober, "start", lambda: None)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        started = service.listeners[0]
        if not isinstance(started, HTTPService):
            raise TypeError(started)
        return started

    async def _end(self, service: RelayService) -> None:
        for backend in self._backends:  # first, so that none keeps the relay waiting
            await backend.stop()
        if service.running:
            await service.stopService()

    def http(self, service: RelayService, number: int = 0) -> HTTPService:
        """Return a listener for HTTP."""
        found = service.listeners[number]
        assert isinstance(found, HTTPService)
        return found

    async def stop(self, relay: HTTPService) -> None:
        """Stop the service of a relay in order."""
        parent: Any = relay.parent
        await parent.stopService()

    async def client(self, relay: HTTPService, *, tls: Any = None) -> Client:
        """Connect to a relay."""
        host: Any = relay.address()
        if hasattr(host, "port"):
            endpoint: Any = TCP4ClientEndpoint(reactor, LOOPBACK, host.port)
        else:
            endpoint = UNIXClientEndpoint(reactor, host.name)
        if tls is not None:
            endpoint = wrapClientTLS(tls, endpoint)
        factory = Factory.forProtocol(Client)
        factory.noisy = False
        client: Client = await endpoint.connect(factory)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.leave()))
        return client

    async def ask(self, relay: HTTPService, *pieces: bytes) -> Answer:
        """Send a request on a connection of its own and return the answer."""
        client = await self.client(relay)
        found = await client.ask(*pieces)
        client.vanish()
        return found

    def assert_error(self, found: Answer, status: int, message: str) -> None:
        """Check an error of the relay's own, byte for byte."""
        self.assertEqual(found.status, status)
        self.assertEqual(found.body, b'{"error":"%b"}\n' % message.replace('"', '\\"').encode())
        self.assertEqual(found.header("Content-Type"), b"application/json")
        self.assertEqual(found.header("X-Influxdb-Error"), message.encode())

    def assert_unable(self, found: Answer) -> None:
        """Check the answer for a write that no backend answered."""
        self.assert_error(found, 503, "unable to write points")


async def together(*coroutines: Any) -> list[Any]:
    """Run coroutines at the same time and return what they return, or raise the first error."""
    results = await DeferredList([Deferred.fromCoroutine(each) for each in coroutines], consumeErrors=True)
    for success, result in results:
        if not success:
            result.raiseException()
    return [result for _, result in results]
