"""One backend's HTTP transport, on treq."""

from __future__ import annotations

import re
import zlib
from collections.abc import Hashable, Sequence
from functools import lru_cache
from socket import gaierror
from ssl import SSLError
from time import perf_counter
from typing import Any
from urllib.parse import quote_plus, unquote, urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.interfaces import IConsumer, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    ResponseDone,
    ResponseNeverReceived,
    _HTTP11ClientFactory,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from influxrelay import __version__
from influxrelay.core.errors import BackendFailure
from influxrelay.core.histogram import LATENCIES, Histogram
from influxrelay.core.write import Reply, Write
from influxrelay.lineprotocol.query_string import without
from influxrelay.transport.client import ClientEndpoint
from influxrelay.transport.tls import ClientTLS

MAX_ANSWER = 1024 * 1024  # bytes of an answer's body that are read; no InfluxDB answers a write with more
_SHOWN_HEADERS = (
    b"Content-Type",
    b"Content-Encoding",
    b"X-Influxdb-Error",
    b"Retry-After",
    b"WWW-Authenticate",
)
_PORTS = {"http": 80, "https": 443}
_GZIP_LEVEL = 1  # line protocol shrinks to a sixth already, at four times the speed of the default level


class Pool(HTTPConnectionPool):
    """Twisted's pool, which remembers where the last connection came from.

    :ivar reused: whether the last connection given out had been used before, and so may be stale.
    :ivar retired: whether connections are closed, and not kept, when their request is done.
    """

    retryAutomatically = False
    cachedConnectionTimeout = 120
    reused = False
    retired = False

    def getConnection(self, key: Hashable, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        """Give a connection out of the pool, or a new one."""
        connection = super().getConnection(key, endpoint)
        self.reused = bool(connection.called)
        return connection

    def _putConnection(self, key: Hashable, connection: Any) -> None:
        if self.retired:
            connection.transport.loseConnection()
        else:
            super()._putConnection(key, connection)


@implementer(IBodyProducer)
class _Body:
    """Hands the whole body to the transport in one piece, which keeps it as one object until the kernel has it."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        self._body = b""  # Twisted keeps this object until the connection's next request
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to pause."""

    def resumeProducing(self) -> None:
        """Nothing is left to resume."""

    def stopProducing(self) -> None:
        """Nothing is left to stop."""


class _Connection(HTTP11ClientProtocol):
    """A connection that can be given up although its other end no longer reads."""

    def abort(self) -> Deferred[None]:
        """Break it, without the polite end that TLS would wait for."""
        done: Deferred[None] = super().abort()
        if not done.called:
            transport: Any = self.transport
            transport.abortConnection()
        return done


class _ConnectionFactory(_HTTP11ClientFactory):
    noisy = False

    def buildProtocol(self, addr: object) -> _Connection:  # noqa: ARG002 (the interface's)
        return _Connection(self._quiescentCallback)


@implementer(IAgentEndpointFactory)
class _OneEndpoint:
    """Knows the one server that a backend talks to, once and for all: Agent would look at the URL with each request."""

    def __init__(self, url: str, reactor: Any, tls: ClientTLS, timeout: float) -> None:
        parts = urlsplit(url)
        host = unquote(parts.hostname or "")  # an IPv6 zone's percent sign is written %25 (RFC 6874)
        port = parts.port or _PORTS[parts.scheme]
        encrypted = tls if parts.scheme == "https" else None
        self._endpoint = ClientEndpoint(reactor, host, port, timeout=timeout, tls=encrypted)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: ARG002 (the interface's)
        """Return the endpoint."""
        return self._endpoint


class HTTPBackend:
    """Posts to one server's write endpoint.

    :param write_url: the endpoint, without a query string.
    :param timeout: seconds for a whole exchange, from the connection to the last byte of the answer.
    :param authorization: our own ``Authorization`` header; it replaces all credentials of the client.
    :param gzip: compress what is sent.
    :ivar latency: seconds from a write's request to its complete answer, whatever that says.
    :param ping_url: at the same server; what :meth:`ping` asks.
    :param ping_timeout: seconds that it may take.
    """

    def __init__(
        self,
        name: str,
        write_url: str,
        reactor: Any,
        tls: ClientTLS,
        *,
        timeout: float,
        authorization: bytes | None = None,
        gzip: bool = False,
        ping_url: str = "",
        ping_timeout: float = 10.0,
        max_connections: int = 64,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.reactor = reactor
        self.pool = Pool(reactor, persistent=True)
        self.pool.maxPersistentPerHost = max_connections
        self.pool._factory = _ConnectionFactory  # noqa: SLF001 (Twisted's would log each connection)
        endpoints = _OneEndpoint(write_url, reactor, tls, timeout)
        self.client = WriteClient(Agent.usingEndpointFactory(reactor, endpoints, self.pool))
        self._under_way: set[_Exchange] = set()
        self._write_url = write_url.encode("ascii")
        self._query_url = self._write_url.rpartition(b"/")[0] + b"/query"
        self._ping_url = ping_url.encode("ascii")
        self._ping_timeout = ping_timeout
        self._authorization = authorization
        self._gzip = gzip
        self.settings = (write_url, tls, timeout, authorization, gzip, ping_url, ping_timeout)
        self._host = re.sub(
            rb"%25[^]]*", b"", urlsplit(write_url).netloc.encode("ascii")
        )  # an IPv6 zone is not for servers (RFC 6874)
        # Both are asked for with each request, and there are few of them: one for each destination.
        self.latency = Histogram(LATENCIES)
        self._url_of = lru_cache(maxsize=1024)(self._make_url)
        self._headers_of = lru_cache(maxsize=1024)(self._make_headers)

    def _make_url(self, query: bytes) -> bytes:
        if self._authorization is not None:
            query = without(query, b"u", b"p")
        return self._write_url + b"?" + query

    def _make_headers(self, authorization: bytes) -> Headers:
        headers = Headers(
            {
                b"Host": [self._host],
                b"User-Agent": [b"influxrelay/" + __version__.encode()],
                b"Content-Type": [b"text/plain; charset=utf-8"],
            }
        )
        authorization = self._authorization or authorization
        if authorization:
            headers.setRawHeaders(b"Authorization", [authorization])
        if self._gzip:
            headers.setRawHeaders(b"Content-Encoding", [b"gzip"])
        return headers

    def post(self, write: Write, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        """Send a body, of one part or several, to where ``write`` goes.

        :return: fires with any final answer, within the timeout; fails with :class:`BackendFailure`: ``refused``,
            ``reset``, ``timeout``, ``unresolved``, ``unreachable``, ``tls``, ``garbage``.
        """
        body = body_parts[0] if len(body_parts) == 1 else b"".join(body_parts)
        if self._gzip:
            compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
            body = compressor.compress(body) + compressor.flush()
        url, headers = self._url_of(write.query), self._headers_of(write.authorization)
        exchange = _Exchange(self, url, headers, body, self.latency)
        self._under_way.add(exchange)
        return exchange.begin()

    def create_database(self, write: Write) -> Deferred[Reply]:
        """Create the database that ``write`` goes to, as the same user; fires and fails as :meth:`post` does."""
        name = write.destination.database.decode("utf-8", "surrogateescape")
        statement = 'CREATE DATABASE "{}"'.format(name.replace("\\", "\\\\").replace('"', '\\"'))
        query = (
            without(write.query, b"db", b"rp", b"precision", b"consistency")
            + b"&q="
            + quote_plus(statement, errors="surrogateescape").encode()
        )
        url = self._query_url + self._url_of(query)[len(self._write_url) :]
        exchange = _Exchange(self, url, self._headers_of(write.authorization), b"")
        self._under_way.add(exchange)
        return exchange.begin()

    def ping(self) -> Deferred[Reply]:
        """Ask whether the server lives; fires and fails as :meth:`post` does, within a time of its own."""
        headers = self._make_headers(b"").copy()
        for name in (b"Content-Type", b"Content-Encoding"):
            headers.removeHeader(name)
        exchange = _Ping(self, self._ping_url, headers, b"", self._ping_timeout)
        self._under_way.add(exchange)
        return exchange.begin()

    def forget(self, exchange: _Exchange) -> None:
        """Count an exchange no more among those under way."""
        self._under_way.discard(exchange)

    def abort(self) -> None:
        """Fail what is under way, with the reason ``stopped``."""
        for exchange in list(self._under_way):
            exchange.interrupt(BackendFailure("stopped", "the relay is shutting down"))

    def close(self) -> Deferred[None]:
        """Close the idle connections."""
        closed: Deferred[None] = self.pool.closeCachedConnections()
        return closed

    def retire(self) -> None:
        """Close each connection as soon as it is idle: there will be no more requests."""
        self.pool.retired = True
        self.close()

    def is_busy(self) -> bool:
        """Tell whether a request is under way."""
        return bool(self._under_way)

    def does_the_same(self, other: object) -> bool:
        """Tell whether another transport sends the same in the same way, whatever its name."""
        return isinstance(other, HTTPBackend) and self.settings == other.settings


class WriteClient(HTTPClient):
    """treq's client, with a short way for the one request that the relay sends all day."""

    def post_lines(self, url: bytes, headers: Headers, body: bytes) -> Deferred[IResponse]:
        """Post to a URL that is known to be valid; the answer is neither decoded nor redirected.

        treq's ``request`` parses the URL and makes a cookie jar and four wrapped agents, anew each time.
        """
        return self._agent.request(b"POST", url, headers, _Body(body))

    def get_plainly(self, url: bytes, headers: Headers) -> Deferred[IResponse]:
        """Get from a URL that is known to be valid; the answer is neither decoded nor redirected."""
        return self._agent.request(b"GET", url, headers, None)


class _Exchange(Protocol):
    """One request and its answer, within one timeout; a stale pooled connection is tried again once."""

    def __init__(
        self, backend: HTTPBackend, url: bytes, headers: Headers, body: bytes, latency: Histogram | None = None
    ) -> None:
        self._backend = backend
        self._latency = latency
        self._began = perf_counter()
        self._url = url
        self._headers = headers
        self._body = body
        self._retried = False
        self._response: Any = None  # IResponse, of which zope.interface hides the attributes
        self._chunks: list[bytes] = []
        self._received = 0
        self._problem: BackendFailure | None = None
        self._result: Deferred[Reply] = Deferred()

    def begin(self) -> Deferred[Reply]:
        timeout = self._timeout()
        problem = BackendFailure("timeout", f"no complete answer within {timeout:g} s")
        self._timer = self._backend.reactor.callLater(timeout, self.interrupt, problem)
        self._ask()
        return self._result

    def _timeout(self) -> float:
        return self._backend.timeout

    def _request(self) -> Deferred[IResponse]:
        return self._backend.client.post_lines(self._url, self._headers, self._body)

    def _ask(self) -> None:
        self._asked = self._request()
        self._reused = self._backend.pool.reused
        self._asked.addCallbacks(self._got_head, self._got_none)

    def interrupt(self, problem: BackendFailure) -> None:
        """End the exchange now, and the connection with it."""
        self._problem = problem
        if self._response is None:
            self._asked.cancel()
        else:
            proxy: Any = self.transport
            if proxy._producer is not None:  # noqa: SLF001 (its own loseConnection waits for what was written)
                proxy._producer.abortConnection()  # noqa: SLF001

    def _got_none(self, failure: Failure) -> None:
        stale = self._reused and not self._retried and self._problem is None
        if stale and failure.check(ResponseNeverReceived) and _is_closed_connection(failure.value):
            self._retried = True
            self._backend.close()  # the others have been idle for as long
            self._ask()
            return
        self._end_badly(_explain(failure))

    def _got_head(self, response: IResponse) -> None:
        self._response = response
        if response.length == 0:
            self._end()
        else:
            response.deliverBody(self)

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > MAX_ANSWER:
            self.interrupt(BackendFailure("garbage", f"an answer of more than {MAX_ANSWER} bytes"))
        else:
            self._chunks.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._problem is None and reason.check(ResponseDone, PotentialDataLoss):
            self._end()
        else:
            self._end_badly(_explain(reason))

    def _end(self) -> None:
        self._timer.cancel()
        if self._latency is not None:
            self._latency.observe(perf_counter() - self._began)
        self._let_go()
        response = self._response
        headers = []
        if response.code >= 300:
            for name in _SHOWN_HEADERS:
                headers += [(name, value) for value in response.headers.getRawHeaders(name, ())]
        self._result.callback(Reply(response.code, tuple(headers), b"".join(self._chunks)))

    def _let_go(self) -> None:
        self._backend.forget(self)
        self._body = b""  # not for the garbage collector to find: it may be large

    def _end_badly(self, problem: BackendFailure) -> None:
        if self._timer.active():
            self._timer.cancel()
        self._let_go()
        self._result.errback(Failure(self._problem or problem))


class _Ping(_Exchange):
    """A GET within a time of its own."""

    def __init__(self, backend: HTTPBackend, url: bytes, headers: Headers, body: bytes, timeout: float) -> None:
        super().__init__(backend, url, headers, body)
        self._limit = timeout

    def _timeout(self) -> float:
        return self._limit

    def _request(self) -> Deferred[IResponse]:
        return self._backend.client.get_plainly(self._url, self._headers)


def _is_closed_connection(error: Any) -> bool:
    return any(reason.check(ConnectionDone, ConnectionLost) for reason in error.reasons)


_WORDS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((ConnectionRefusedError,), "refused"),
    ((TimeoutError, ConnectingCancelledError, CancelledError), "timeout"),
    ((DNSLookupError, gaierror), "unresolved"),
    ((SSLError,), "tls"),
    ((ConnectError,), "unreachable"),
    ((ConnectionDone, ConnectionLost), "reset"),
)


def _explain(failure: Failure) -> BackendFailure:
    """Turn what Twisted says of a failed request into a reason of ours."""
    error = failure.value
    reasons = [reason.value for reason in getattr(error, "reasons", ())] or [error]
    for classes, word in _WORDS:
        for reason in reasons:
            if isinstance(reason, classes):
                return BackendFailure(word, str(reason) or type(reason).__name__)
    return BackendFailure("garbage", "; ".join(f"{type(reason).__name__}: {reason}" for reason in reasons))
