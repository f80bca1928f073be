"""A backend that does what a test tells it, in the test's own reactor."""

from __future__ import annotations

import gzip
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self

from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure

from testing.messages import LOOPBACK, Received, parse_head, reactor, until
from testing.servers import free_port

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
