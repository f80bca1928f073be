"""Whatever is asked of a backend beside writes: pings, statements, queries.

Requests use the same pool of connections, the same parser and the same failures as the posts of
:mod:`influxrelay.delivery.exchange`. Our own short questions go through treq. What a client asks goes through
:meth:`BackendClient.request`, since treq would ask for gzip, and unpack it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from treq import collect
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IClientRequest, IResponse
from zope.interface import implementer

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.delivery.connection_pool import ConnectionPool, Exchange, Gate
from influxrelay.delivery.response_reader import (
    MAX_ANSWER,
    PARSER_ERRORS,
    ResponseReader,
    read_reply,
    shown_headers,
    unreadable_reply,
)

_MAX_HEAD = 64 * 1024  # bytes
_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"te"))


class BackendClient:
    """Asks one backend.

    :param host: for the ``Host`` header.
    """

    def __init__(self, reactor: Any, pool: ConnectionPool, host: bytes) -> None:
        self._reactor = reactor
        self._pool = pool
        self._host = host
        self._under_way: set[Response] = set()

    def request(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: bytes = b"",
        *,
        timeout: float | None = None,
        gate: Gate | None = None,
    ) -> Deferred[Response]:
        """Ask, and pass the response on while it comes.

        :param method: any but HEAD, whose response could not be told from one with a body.
        :param target: path and query.
        :param headers: those that frame the message are ours to set, and left out.
        :param timeout: seconds for everything, to the last byte of the response; None for no limit.
        :param gate: tells, directly before the bytes of the request, whether they may be sent.
        :return: fires with the head of the response; fails with :class:`BackendFailure`. To cancel it breaks the
            connection.
        """
        lines = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, printable(target), self._host)]
        for name, values in headers.getAllRawHeaders():
            if name.lower() not in _FRAMING:
                lines += [b"%b: %b\r\n" % (name, value) for value in values]
        if body or method != b"GET":
            lines.append(b"Content-Length: %d\r\n" % len(body))
        response = Response(self._pool, [b"".join([*lines, b"\r\n", body])], self._under_way.discard)
        response.gate = gate
        self._under_way.add(response)
        if timeout is not None:
            response.limit_time(self._reactor, timeout)
        self._pool.submit(response)
        return response.head

    def ask(self, method: bytes, target: bytes, headers: Headers, *, timeout: float) -> Deferred[Reply]:
        """Ask, and collect the response, which must be short.

        :param timeout: seconds for everything.
        :return: fails with :class:`BackendFailure` where there is no clear status line.
        """
        return Deferred.fromCoroutine(self._ask(method, target, headers, timeout))

    async def _ask(self, method: bytes, target: bytes, headers: Headers, seconds: float) -> Reply:
        response: Any = await HTTPClient(_Agent(self, seconds)).request(
            method.decode("ascii"),
            b"http://backend" + printable(target),  # treq knows no names such as my_influxdb_1
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        headers_of_all = response.headers.getAllRawHeaders()
        raw = [(name, value) for name, values in headers_of_all for value in values if value]  # treq empties some
        pieces = bytearray()

        def take(piece: bytes) -> None:
            pieces.extend(piece)
            if len(pieces) > MAX_ANSWER:
                raise BackendFailure("garbage", f"an answer of more than {MAX_ANSWER} bytes")

        try:
            await collect(response, take)
        except BackendFailure as problem:
            return unreadable_reply(response.code, raw, problem)
        return Reply(response.code, shown_headers(raw) if response.code >= 300 else (), bytes(pieces))

    def abort(self) -> None:
        """Fail what is under way, with the reason ``stopped``."""
        for response in list(self._under_way):
            response.give_up(BackendFailure("stopped", "the relay is shutting down"))

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._under_way)


def printable(target: bytes) -> bytes:
    """Return a request target in which bytes that HTTP does not allow there are percent-encoded."""
    return re.sub(rb"[^!-~]", lambda byte: b"%%%02X" % byte[0][0], target)


@implementer(IResponse, IPushProducer)
class Response(Exchange):
    """A request, and its response while it comes.

    Until somebody takes the body, and while whoever does so has paused, no more is read than has come already.

    :ivar head: fires with the response when its head has come.
    :ivar is_intact: whether all of the head could be read; else there is a status, and a body of ours.
    """

    version = (b"HTTP", 1, 1)
    length = UNKNOWN_LENGTH
    request: IClientRequest | None = None
    previousResponse: IResponse | None = None

    def __init__(self, pool: ConnectionPool, pieces: Sequence[bytes], on_end: Callable[[Response], None]) -> None:
        super().__init__(pieces)
        self.code = 0
        self.phrase = b""
        self.headers = Headers()
        self.is_intact = True
        self.head: Deferred[Response] = Deferred(lambda _: self.stopProducing())
        self._pool = pool
        self._on_end = on_end
        self._timer: IDelayedCall | None = None
        self._reader = ResponseReader()
        self._raw_head = b""
        self._problem: BackendFailure | None = None
        self._outcome: Failure | None = None
        self._receiver: Any = None
        self._paused = self._held_back = False

    def limit_time(self, reactor: IReactorTime, seconds: float) -> None:
        """Fail if the response is not complete after this time."""
        problem = BackendFailure("timeout", f"no complete answer within {seconds:g} s")
        self._timer = reactor.callLater(seconds, self.give_up, problem)

    @property
    def is_framed(self) -> bool:
        """Whether the head tells where the body ends; else it ends with the connection, as it does when it is cut."""
        named = any(self.headers.hasHeader(name) for name in (b"Content-Length", b"Transfer-Encoding"))
        return named or self.code in (204, 304)

    # -- called by the connection

    def feed(self, data: bytes) -> bool:
        """Take bytes of the response; return whether nothing more is expected."""
        reader = self._reader
        if not self.code:
            self._raw_head += data
        try:
            reader.feed(data)
        except PARSER_ERRORS as error:
            self._problem = BackendFailure("garbage", str(error))
        if not self.code:
            if reader.status:
                self._begin(reader.status, reader.reason, reader.headers)
            elif len(self._raw_head) > _MAX_HEAD:
                self._problem = BackendFailure("garbage", f"a head of more than {_MAX_HEAD} bytes")
        self._deliver()
        if not reader.complete and self._problem is None:
            self._hold_back(self.code > 0 and (self._receiver is None or self._paused))
            return False
        self._hold_back(False)
        self.keep_alive = reader.keep_alive
        return True

    def finish(self) -> None:
        """Report the outcome."""
        self._conclude(self._problem)

    def fail(self, problem: BackendFailure, *, closed: bool = False) -> None:
        """Report the outcome where nothing more of the response will come."""
        if closed:
            self._reader.end()
        self._conclude(None if self._reader.complete else problem)

    def _begin(self, status: int, reason: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.code, self.phrase, self._raw_head = status, reason, b""
        for name, value in headers:
            self.headers.addRawHeader(name, value)
        if not self.head.called:
            self.head.callback(self)

    def _conclude(self, problem: BackendFailure | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._on_end(self)
        if problem is not None and not self.code:
            read = read_reply(self._raw_head, problem) if self._raw_head else problem
            if isinstance(read, BackendFailure):
                self._outcome = Failure(read)
                if not self.head.called:
                    self.head.errback(self._outcome)
                return
            problem = None
            self.is_intact = False
            self._reader.body = [read.body]
            self._begin(read.status, b"", read.headers)
        self._outcome = Failure(ResponseDone()) if problem is None else Failure(problem)
        self._deliver()

    def give_up(self, problem: BackendFailure) -> None:
        """End the exchange now, and the connection with it."""
        if self._outcome is None:
            self._pool.interrupt(self)
            self._conclude(problem)

    # -- called by whoever takes the body

    def deliverBody(self, protocol: IProtocol) -> None:
        """Pass the body on to a protocol, whose transport can pause, resume and break the response.

        Its ``connectionLost`` gets ``ResponseDone``, or :class:`BackendFailure` if the body is not complete.
        """
        self._receiver = protocol
        transport: Any = self  # the IPushProducer that IResponse speaks of
        protocol.makeConnection(transport)
        self._deliver()
        self._hold_back(self._paused)

    def setPreviousResponse(self, response: IResponse) -> None:
        """Keep what has redirected here, for treq."""
        self.previousResponse = response

    def _deliver(self) -> None:
        body = self._reader.body
        while body and self._receiver is not None and not self._paused:
            self._receiver.dataReceived(body.pop(0))
        if not body and self._receiver is not None and not self._paused and self._outcome is not None:
            receiver, self._receiver = self._receiver, None
            receiver.connectionLost(self._outcome)

    def _hold_back(self, hold: bool) -> None:  # noqa: FBT001
        """Read no more from the connection, or read again."""
        if hold != self._held_back and self.connection is not None:
            self._held_back = hold
            if hold:
                self.connection.transport.pauseProducing()
            else:
                self.connection.transport.resumeProducing()

    def pauseProducing(self) -> None:
        """Deliver nothing for now."""
        self._paused = True
        self._hold_back(True)

    def resumeProducing(self) -> None:
        """Deliver again."""
        self._paused = False
        self._deliver()
        self._hold_back(self._paused)

    def stopProducing(self) -> None:
        """Break the connection: whoever took the response has no more use for it, and is told nothing more."""
        self._receiver = None
        self.give_up(BackendFailure("stopped", "the request was given up"))

    loseConnection = abortConnection = stopProducing  # as treq and Twisted call it


@implementer(IAgent)
class _Agent:
    """Lets treq ask."""

    def __init__(self, client: BackendClient, timeout: float) -> None:
        self._client = client
        self._timeout = timeout

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803 (the interface's)
    ) -> Deferred[IResponse]:
        """Ask the backend for the path and query of the URI."""
        if bodyProducer is not None:
            raise ValueError("bodies are not for treq")
        target = b"/" + uri.split(b"/", 3)[3]
        response = self._client.request(method, target, headers or Headers(), timeout=self._timeout)
        return cast("Deferred[IResponse]", response)
