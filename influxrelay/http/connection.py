"""A client's connection: bytes become requests, within bounds and as fast as can be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.http_headers import Headers

from influxrelay.core.replies import json_error
from influxrelay.http.overload import Doing
from influxrelay.http.request import RelayRequest

if TYPE_CHECKING:
    from influxrelay.http.site import RelaySite

DEAF = 0.2  # seconds for which what follows a malformed head is still read: closing at once would lose the answer
PATIENCE = 32 * 1024 * 1024  # bytes that are read and dropped behind a final answer
_BULK = 128 * 1024  # bytes of a body that are taken as they come; the rest has to stand in line ...
_BULK_IN_CHUNKS = 16 * 1024  # ... or this, of one in chunks, which have to be told apart ...
_TINY = 256  # ... and so has a body whose chunks are shorter than this on average ...
_PIECE = 2048  # ... of which so many bytes are taken at once, as of requests that come before the last is answered
_OVERHEAD = 16  # bytes of chunks for each byte in them, at the most
MAX_HEAD = 16 * 1024  # bytes of a request's head ...
MAX_HEADERS = 100  # ... and the lines in it
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_FIRST_LINE = re.compile(rb"(?:\r\n)?[^ \r\n]+ [^ \r\n]+ HTTP/1\.[01]\r\n")


@attrs.frozen(eq=False)
class Head:
    """A request's head as Twisted's parser has read and judged it; shared by all requests with the same bytes."""

    command: bytes
    path: bytes
    version: bytes
    headers: Headers
    length: int
    persistent: bool


class RelayChannel(HTTPChannel):
    """A client's connection, as :class:`influxrelay.http.overload.Client` is."""

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

    def _replay(self, head: Head, body: bytes) -> None:
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
            head = Head(self._command, self._path, self._version, headers, self.length, bool(self.persistent))
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
