"""HTTP in: requests become writes, and replies become answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any, cast
from urllib.parse import unquote_to_bytes
from uuid import uuid1

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel, Request, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import Site

from influxrelay import __version__
from influxrelay.body import Collector
from influxrelay.errors import InvalidRequest
from influxrelay.guard import Doing, Guard, Limits
from influxrelay.query import without
from influxrelay.relay import json_error
from influxrelay.slices import Desk
from influxrelay.write import Reply

VERSION = f"relay-{__version__}"
LINGER = 10.0  # seconds for which a client may go on sending a body that is refused already
TOO_MUCH = "too many bytes in flight"
RETRY = (b"Retry-After", b"1")
DEAF = 0.2  # seconds for which what follows a malformed head is still read: closing at once would lose the answer
IDLE_GRACE = 1.0  # seconds that a connection which may be used again has for its last request at a gentle end ...
FRESH_GRACE = 5.0  # ... and one that has been accepted has for its first
PATIENCE = 32 * 1024 * 1024  # bytes that are read and dropped behind a final answer
_BULK = 128 * 1024  # bytes of a body that are taken as they come; the rest has to stand in line ...
_BULK_IN_CHUNKS = 16 * 1024  # ... or this, of one in chunks, which have to be told apart ...
_TINY = 256  # ... and so has a body whose chunks are shorter than this on average ...
_PIECE = 2048  # ... of which so many bytes are taken at once, as of requests that come before the last is answered
_OVERHEAD = 16  # bytes of chunks for each byte in them, at the most
MAX_HEAD = 16 * 1024  # bytes of a request's head ...
MAX_HEADERS = 100  # ... and the lines in it
_STATUS_LINES = {code: b"HTTP/1.1 %d %s\r\n" % (code, text) for code, text in RESPONSES.items()}
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_FIRST_LINE = re.compile(rb"(?:\r\n)?[^ \r\n]+ [^ \r\n]+ HTTP/1\.[01]\r\n")
_HEADS = 2048  # heads remembered: clients send the same one with each request, but for the length ...
_HEAD_LENGTH = 2048  # ... and the longest of them, in bytes


class RelayRequest(Request):
    """A request whose body is collected within a limit and never read as a form; it gets one :class:`Reply`."""

    channel: RelayChannel
    path = b""
    query = b""
    body: Collector
    has_head = False
    complete = False
    came = 0
    counted = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        """Prepare for the body; the headers are complete."""
        self.site = self.channel.site
        self.has_head = True
        self.body = Collector(self.site.max_body_size, self.requestHeaders.getRawHeaders(b"Content-Encoding"))
        try:
            self.body.expect(length)
        except InvalidRequest as error:
            self._refuse(error)

    def handleContentChunk(self, data: bytes) -> None:
        """Take a piece of the body."""
        if not self._refused:
            self.site.guard.uploads.add(self)
            self.take(data)

    def take(self, data: bytes) -> None:
        """Add to the body."""
        try:
            self.body.add(data)
        except InvalidRequest as error:
            self._refuse(error)
        else:
            if not self.count(len(data)):
                self.refuse_for_memory()

    def count(self, size: int) -> bool:
        """Note that so much more memory is used for this request, until it is answered; tell whether there is room."""
        guard = self.site.guard
        self.counted += size
        guard.held += size
        return guard.held <= guard.limits.in_flight or guard.make_room(self)

    @property
    def is_gone(self) -> bool:
        """Whether there is nobody any more to answer."""
        return bool(self._disconnected)

    def _let_go(self) -> None:
        guard = self.site.guard
        guard.uploads.discard(self)
        guard.held -= self.counted
        self.counted = 0

    def refuse_for_memory(self) -> None:
        """Answer 503 before the body is complete; the client may try again."""
        self._refuse(InvalidRequest(503, TOO_MUCH), RETRY)

    def refuse_for_time(self) -> None:
        """Answer 408: the body has not come in time."""
        self._refuse(InvalidRequest(408, "the body takes too long"))

    def _refuse(self, error: InvalidRequest, *headers: tuple[bytes, bytes]) -> None:
        """Answer before the body is complete.

        What is still coming is read and dropped for a while, so that the client gets to see the answer (RFC 9112, 9.6).
        """
        if self._refused:
            return
        self._refused = True
        self.body.clear()
        self._let_go()
        self.requestHeaders = self.requestHeaders.copy()
        self.requestHeaders.removeHeader(b"Expect")  # no "100 Continue" behind a final answer
        self.channel.linger(LINGER)
        self.site.refused[error.status] += 1
        self.path = self.channel._path.partition(b"?")[0]  # noqa: SLF001 (ours; the parser has not told us yet)
        self._send(json_error(error.status, error.message, *headers))

    def connectionLost(self, reason: Failure) -> None:
        """Let go of what was collected for a client that has gone; called by the channel."""
        if self.counted:
            self._let_go()
        super().connectionLost(reason)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Answer the complete request; called by the channel."""
        self.complete = True
        self.site.guard.uploads.discard(self)
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, self.query = path.partition(b"?")
        if not path.startswith(b"/"):  # the absolute form of RFC 9112, 3.2.2
            self.path = b"/" + self.path.partition(b"://")[2].partition(b"/")[2]
        if self._refused:
            self.finish()
            return
        try:
            self.site.render(self)
        except InvalidRequest as error:
            self.refuse(json_error(error.status, error.message))
        except Exception:  # noqa: BLE001 (one request's trouble must not be the connection's)
            self.fail(Failure())

    def fail(self, failure: Failure) -> None:
        """Answer what only a mistake of ours can lead to."""
        self._log.failure("{method} {path}", failure, method=self.method, path=self.path)
        self.answer(json_error(500, "internal error"))

    def refuse(self, reply: Reply) -> None:
        """Answer a request about which no backend is asked."""
        self.site.refused[reply.status] += 1
        self.answer(reply)

    def answer(self, reply: Reply) -> None:
        """Send the one answer; a client that has gone away gets none."""
        if not self._disconnected:
            self._let_go()
            self._send(reply)
            self.finish()

    def _send(self, reply: Reply) -> None:
        channel, site, status = self.channel, self.site, reply.status
        headers = self.requestHeaders
        given = headers.getRawHeaders(b"X-Request-Id") or headers.getRawHeaders(b"Request-Id")
        parts = [
            _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status,
            site.common_headers(),
            b"Request-Id: %b\r\nX-Request-Id: %b\r\n" % ((given[0],) * 2 if given else (site.new_request_id(),) * 2),
        ]
        parts += [b"%b: %b\r\n" % header for header in reply.headers]
        if site.closing:
            channel.persistent = 0
        if not channel.persistent:
            parts.append(b"Connection: close\r\n")
        if status != 204:
            parts.append(b"Content-Length: %d\r\n" % len(reply.body))
        parts.append(b"\r\n")
        if self.method != b"HEAD":
            parts.append(reply.body)
        self.code, self.sentLength, self.startedWriting = status, len(reply.body), 1
        if self.path == b"/write":
            site.answers[status] += 1
        channel.send(b"".join(parts))


@attrs.frozen(eq=False)
class _Head:
    """A request's head as Twisted's parser has read and judged it; shared by all requests with the same bytes."""

    command: bytes
    path: bytes
    version: bytes
    headers: Headers
    length: int
    persistent: bool


class RelayChannel(HTTPChannel):
    """A client's connection, as :class:`influxrelay.guard.Client` is."""

    site: RelaySite
    factory: RelaySite
    requestFactory = RelayRequest
    maxHeaders = MAX_HEADERS
    totalHeadersSize = MAX_HEAD
    timeOut = None  # the guard looks at the time
    answered = 0
    seen = (Doing.HEAD, 0)
    since = 0.0
    _lingering: IDelayedCall | None = None
    _raw_head = b""
    _head = b""
    _deaf = False
    _dropped = 0
    _cut = False

    def connectionMade(self) -> None:
        """Join the site's connections."""
        self.site = self.factory
        super().connectionMade()
        self._peer, self._host = super().getPeer(), super().getHost()
        self._waiting: list[bytes] = []
        self._working = False
        transport: Any = self.transport
        self._socket: Any = getattr(transport, "transport", transport)  # below TLS
        self.site.guard.admit(self)

    def getPeer(self) -> Any:
        """Return the client's address; each request asks, and it does not change."""
        return self._peer

    def getHost(self) -> Any:
        """Return our own address."""
        return self._host

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Leave the site's connections."""
        if self._lingering is not None:
            if self._lingering.active():
                self._lingering.cancel()
            self._lingering = None
        super().connectionLost(reason)
        self.site.gone(self)

    def dataReceived(self, data: bytes) -> None:
        """Take what has come; a request that is all there, with a head seen before, needs no parsing."""
        if self._deaf:
            self._drop(data)
        elif self.requests:
            if not self._must_wait(data):
                super().dataReceived(data)
        elif self.line_mode and not self._buffer:
            self._begin(self._head + data if self._head else data)
        else:
            super().dataReceived(data)

    def _begin(self, data: bytes) -> None:
        """Take the beginning of a request, if its head is complete."""
        self._head = b""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if self._may_become_a_head(data):
                self._head = data
            else:
                super().dataReceived(data)
            return
        raw = self._raw_head = data[:end]
        head = self.site.heads.get(raw)
        if head is not None and head.length == len(data) - end:
            self._replay(head, data[end:])
        elif end > MAX_HEAD or raw.count(b"\r\n") > MAX_HEADERS + 2:
            self._refuse_head()
        elif b"chunked" in raw.lower() and end < len(data):
            super().dataReceived(raw)
            self.dataReceived(data[end:])
        else:
            super().dataReceived(data)

    def _may_become_a_head(self, data: bytes) -> bool:
        """Tell whether to wait for the rest; what is wrong already is for the parser, which refuses it."""
        if len(data) > MAX_HEAD or data.count(b"\r\n") > MAX_HEADERS + 1:
            self._refuse_head()
        return self._deaf or data.find(b"\r\n", 2) < 0 or _FIRST_LINE.match(data) is not None

    def _drop(self, data: bytes) -> None:
        """Read what comes behind a final answer, so that the client gets to see that; but not for ever."""
        self._dropped += len(data)
        if data.endswith(b"\r\n0\r\n\r\n"):  # a body in chunks has come to its end
            self.loseConnection()
        elif self._dropped > PATIENCE:
            self._networkProducer.pauseProducing()

    def _must_wait(self, data: bytes) -> bool:
        """Let a piece of a body that is large, or costs much, wait for its turn among the others of that kind."""
        request = self.requests[0]
        if not self._waiting:
            if request.complete or not request.has_head:
                return False
            bulk = _BULK if self.length is not None else _BULK_IN_CHUNKS
            if not self._is_tiny(data) and request.came + len(data) <= bulk:
                request.came += len(data)
                return False
        self._put_off(len(self._waiting), data)
        return True

    def _is_tiny(self, data: bytes) -> bool:
        return self.length is None and len(data) > _PIECE and data.count(b"\n") * _TINY > 2 * len(data)

    def setLineMode(self, extra: bytes = b"") -> None:
        """Go on with the next request; one that is there already waits for its turn. Called by the parser."""
        self.line_mode = 1
        rest = extra + self.clearLineBuffer()
        if rest or self._waiting:
            self._put_off(0, rest)

    def _put_off(self, position: int, data: bytes) -> None:
        """Keep what has come, and read no more, until it was this connection's turn."""
        if data:
            self._waiting.insert(position, data)
        self._networkProducer.pauseProducing()
        if not self._working:
            self._working = True
            self.site.uploads.take(self._take_in_turn())

    def resumeProducing(self) -> None:
        """Go on, for the client reads its answers again; called by the transport."""
        super().resumeProducing()
        if self._waiting:
            self._put_off(0, b"")

    def _take_in_turn(self) -> Iterator[None]:
        waiting = self._waiting
        while waiting and not (self._deaf or self._cut or self._handlingRequest or self._waitingForTransport):
            data = waiting[0]
            request = self.requests[0] if self.requests else None
            size = _PIECE
            if request is not None and request.has_head and not self._is_tiny(data):
                size = _BULK if self.length is not None else _BULK_IN_CHUNKS
            waiting[0] = data[size:]
            if not waiting[0]:
                del waiting[0]
            if request is not None:
                request.came += min(size, len(data))
                if self.length is None and request.came > _OVERHEAD * request.counted + _BULK:
                    self._give_up(400, "malformed request")
                    break
            super().dataReceived(data[:size])
            yield
        self._working = False
        if self._deaf or self._cut:
            waiting.clear()
        if not (waiting or self._handlingRequest or self._waitingForTransport):
            self._networkProducer.resumeProducing()

    def _replay(self, head: _Head, body: bytes) -> None:
        """Do what the parser did with the same bytes before."""
        request = RelayRequest(self)
        request.requestHeaders = head.headers
        self.requests.append(request)
        self._command, self._path, self._version = head.command, head.path, head.version
        self.persistent = head.persistent
        request.gotLength(head.length)
        request.take(body)
        self.allContentReceived()

    def allHeadersReceived(self) -> None:
        """Go on to the body; called by the parser."""
        super().allHeadersReceived()
        raw, self._raw_head = self._raw_head, b""
        headers = self.requests[-1].requestHeaders
        if raw and self.length is not None and not headers.hasHeader(b"Expect"):
            head = _Head(self._command, self._path, self._version, headers, self.length, bool(self.persistent))
            self.site.remember(raw, head)

    def send(self, data: bytes) -> None:
        """Write at once if the transport can: the reactor need not be asked whether it may."""
        self.answered += 1
        transport: Any = self.transport
        if isinstance(transport, Connection) and not transport.dataBuffer and not transport._tempDataBuffer:  # noqa: SLF001 (no public way to ask)
            sent = transport.writeSomeData(data)
            if isinstance(sent, int):
                data = data[sent:]
        if data:
            self.write(data)

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Tell whether the connection may stay open; unlike Twisted's, this reads ``close`` in a list, too."""
        tokens = b",".join(request.requestHeaders.getRawHeaders(b"Connection", [])).lower().split(b",")
        return version == b"HTTP/1.1" and b"close" not in (token.strip() for token in tokens)

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Answer what is no HTTP, in the form of all other answers; called by the parser."""
        if self._receivedHeaderSize > MAX_HEAD or self._receivedHeaderCount > MAX_HEADERS:
            self._refuse_head()
        else:
            self._give_up(400, "malformed request")

    def _refuse_head(self) -> None:
        """Answer a head that is too long, in bytes or in lines."""
        self._give_up(431, "request header fields too large")

    def _give_up(self, status: int, message: str) -> None:
        """Answer what was not understood; there is nothing that could be after it."""
        if self._deaf:
            return
        request = self.requests[-1] if self.requests else RelayRequest(self)
        request.site = self.site
        self.site.refused[status] += 1
        self.persistent = 0
        request._send(json_error(status, message))  # noqa: SLF001 (ours)
        self._deaf = True
        self._head = b""
        self.clearLineBuffer()
        self._lingering = self.callLater(DEAF, self.loseConnection)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002 (the interface's)
        """Refuse a head with a line that is too long; called by the parser."""
        self._refuse_head()

    def lineReceived(self, line: bytes) -> None:
        """Take a line of the head; what is not ASCII in the first one is escaped, as Go's clients and servers do."""
        if self._deaf:
            return
        if not self.requests and not line.isascii():
            line = _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], line)
        super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        """Take a line of headers; tell whether it is one. Called by the parser."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a length of more digits than Python reads
            self._respondToBadRequestAndDisconnect()
            return False

    def rawDataReceived(self, data: bytes) -> None:
        """Take a piece of a body; called by the parser."""
        if not self._deaf:
            super().rawDataReceived(data)

    def linger(self, seconds: float) -> None:
        """Answer no more requests, and break the connection after a while if the client does not close it."""
        self.persistent = 0
        self._deaf = self.length is None  # chunks need not be told apart any more
        if self._lingering is None:
            self._lingering = self.callLater(seconds, self.cut)

    def cut(self) -> None:
        """Break the connection."""
        transport: Any = self.transport
        self._cut = True
        transport.abortConnection()

    def is_idle(self) -> bool:
        """Tell whether no request has begun."""
        return not (self.requests or self._head or self._buffer)

    # -- for the guard

    def doing(self) -> Doing:
        """Tell what the connection is about."""
        transport: Any = self.transport
        below = self._socket
        if self._cut or transport.disconnecting or self._lingering is not None:
            return Doing.CLOSING
        if getattr(below, "dataBuffer", b"") or getattr(below, "_tempDataBuffer", b""):
            return Doing.UNREAD
        request = self.requests[0] if self.requests else None
        if request is None or not request.has_head:
            return Doing.IDLE if self.answered and self.is_idle() else Doing.HEAD
        return Doing.ANSWER if request.complete else Doing.BODY

    def body_size(self) -> int:
        """Return how many bytes of a body have come."""
        return self.requests[0].counted if self.requests else 0

    def expire(self, doing: Doing) -> None:
        """End the connection, for it has been about this for too long; who has begun a request is told so."""
        if doing is Doing.IDLE:
            self.loseConnection()
        elif doing is Doing.BODY:
            self.requests[0].refuse_for_time()
        elif doing is Doing.HEAD and not self.is_idle():
            self._give_up(408, "the request takes too long")
        else:
            self.cut()


class RelaySite(Site):
    """The HTTP server of one listener.

    :param max_body_size: bytes, see :class:`Collector`.
    :ivar closing: whether it takes no more connections: each answer is its connection's last.
    :ivar branches: resources that answer all that begins with their path, as it came.
    :ivar answers: to requests at ``/write``, by status.
    :ivar refused: requests at any path that were answered with an error before a backend was asked, by status.
    :ivar desk: where the long work for its requests is done, and :attr:`uploads`: that for large bodies as they come.
    :ivar guard: what its clients can make it hold.
    """

    noisy = False
    _access = Logger()

    def __init__(
        self,
        root: Resource,
        reactor: IReactorTime,
        *,
        max_body_size: int,
        access_log: bool = False,
    ) -> None:
        super().__init__(root, RelayRequest, parsePOSTFormSubmission=False, reactor=reactor)
        self.max_body_size = max_body_size
        self.branches: dict[bytes, Resource] = {}
        self.closing = False
        self.answers: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self._refusing = False
        self._partings: list[IDelayedCall] = []
        self.guard = Guard(Limits(), reactor)
        self.desk, self.uploads = Desk(reactor), Desk(reactor)
        self._time = reactor.seconds
        self._second = -1
        self._common_headers = b""
        self._request_ids = count()
        self._request_id_prefix = str(uuid1())[:24].encode()
        self.access_log = access_log
        self.heads: dict[bytes, _Head] = {}
        self._empty: list[Deferred[None]] = []

    def buildProtocol(self, addr: object) -> Any:  # noqa: ARG002 (the interface's)
        """Make the channel itself, without Twisted's wrapper that negotiates HTTP/2."""
        channel: Any = RelayChannel()
        channel.factory = self
        channel.callLater = self.reactor.callLater
        return channel

    def remember(self, raw: bytes, head: _Head) -> None:
        """Keep a head for the next request that begins with the same bytes."""
        if len(raw) <= _HEAD_LENGTH:
            if len(self.heads) >= _HEADS:
                self.heads.clear()
            self.heads[raw] = head

    def common_headers(self) -> bytes:
        """Return the headers that every answer has, made anew each second."""
        second = int(self._time())
        if second != self._second:
            self._second = second
            self._common_headers = b"Date: %b\r\nX-Influxdb-Version: %b\r\n" % (
                datetimeToString(),
                VERSION.encode(),
            )
        return self._common_headers

    def new_request_id(self) -> bytes:
        """Return an id in the form of a UUID, for a request that came without."""
        return b"%b%012x" % (self._request_id_prefix, next(self._request_ids))

    def render(self, request: RelayRequest) -> None:
        """Have the request answered by the resource at its path.

        :raises InvalidRequest: 404, 503.
        """
        if self._refusing:
            raise InvalidRequest(503, "the relay is shutting down")
        path = request.path
        if b"%" in path:
            path = unquote_to_bytes(path)
        resource = self.resource.children.get(path[1:]) or self._branch(request.path)
        if resource is None:
            raise InvalidRequest(404, "not found")
        resource.render(request)

    def _branch(self, path: bytes) -> Resource | None:
        return next((each for prefix, each in self.branches.items() if path.startswith(prefix)), None)

    def log(self, request: RelayRequest) -> None:  # type: ignore[override]
        """Write the access log's line, if one is wanted; credentials are left out."""
        if self.access_log:
            query = without(request.query, b"u", b"p")
            self._access.info(
                "{client} {method} {path}{query} {status} {size}",
                client=getattr(request.client, "host", "unix"),
                method=request.method.decode("ascii", "backslashreplace"),
                path=request.path.decode("ascii", "backslashreplace"),
                query="?" + query.decode("ascii", "backslashreplace") if query else "",
                status=request.code,
                size=request.sentLength,
            )

    # -- the end

    @property
    def channels(self) -> list[RelayChannel]:
        """All connections, the oldest first."""
        return cast("list[RelayChannel]", list(self.guard.clients))

    def shut_down(self, *, gently: bool = False) -> Deferred[None]:
        """Take no more requests: close what is idle; the Deferred fires when every connection is gone.

        :param gently: answer what still comes for a while, so that no client meets a closed connection: for one that
            has been accepted and asks now, or is used again and again.
        """
        self.closing = True
        if gently and self.channels:
            later = self.reactor.callLater
            self._partings = [later(IDLE_GRACE, self._close_used), later(FRESH_GRACE, self._refuse)]
        else:
            self._refuse()
        done: Deferred[None] = Deferred()
        if self.guard.clients:
            self._empty.append(done)
        else:
            done.callback(None)
        return done

    def _close_used(self) -> None:
        for channel in self.channels:
            if channel.is_idle() and channel.answered:
                channel.loseConnection()

    def _refuse(self) -> None:
        self._refusing = True
        for channel in self.channels:
            if channel.is_idle():
                channel.loseConnection()

    def abort(self) -> None:
        """Break all connections."""
        for channel in self.channels:
            channel.cut()

    def gone(self, channel: RelayChannel) -> None:
        """Forget a lost connection."""
        self.guard.gone(channel)
        if not self.guard.clients:
            for parting in self._partings:
                if parting.active():
                    parting.cancel()
            waiters, self._empty = self._empty, []
            for waiter in waiters:
                waiter.callback(None)
