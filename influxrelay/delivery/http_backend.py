"""A backend that is reached over HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any
from urllib.parse import quote_plus, unquote, urlsplit

import attrs
from isal import igzip
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from influxrelay import __version__
from influxrelay.core.replies import json_error
from influxrelay.core.write import LINES, REMOTE_WRITE, STATEMENT, Reply, Write
from influxrelay.delivery.asking import collect_reply
from influxrelay.delivery.client import BackendClient, Response, printable
from influxrelay.delivery.connection_pool import ConnectionPool, Gate
from influxrelay.delivery.conversions import AT_ONCE, Conversions
from influxrelay.delivery.exchange import Exchanges
from influxrelay.delivery.failures import explain
from influxrelay.delivery.queries import QUERY, Question
from influxrelay.delivery.statements import Change, as_change, read_result
from influxrelay.delivery.write_apis import V1, WriteAPI
from influxrelay.lineprotocol.query_string import without
from influxrelay.lineprotocol.timestamps import convert_slowly, multiply, rescale
from influxrelay.remotewrite.headers import OWN_PARAMETERS, has_counts, is_version_2, request_headers
from influxrelay.remotewrite.snappy import joined
from influxrelay.transport.client import ClientEndpoint
from influxrelay.transport.tls import ClientTLS

_PORTS = {"http": 80, "https": 443}
_GZIP_LEVEL = 1  # of 0 to 3; line protocol shrinks to a sixth already
_OF_QUERIES = (b"q", b"db", b"rp", b"precision", b"epoch", b"params", b"consistency")
_JOINED = 64 * 1024  # bytes up to which a request is made one piece: a copy of more costs more than a longer write


class HTTPBackend:
    """Writes to one server, and asks it whatever else there is to ask.

    :param write_url: where writes go, without a query string.
    :param remote_write_url: where Prometheus' remote writes go; empty if this server takes none.
    :param names_database: whether it wants to know for which database they are, as InfluxDB does.
    :param timeout: seconds for a whole exchange, from a free connection to the last byte of the answer.
    :param api: that of the server's generation.
    :param authorization: the output's own ``Authorization`` header; it replaces all credentials of the client.
    :param gzip: whether to compress what is sent; None sends each body as it came.
    :param headers: more headers for each request; they replace others of the same name.
    :param max_connections: connections for writes at a time, as many for queries, and as many for everything else. What
        exceeds them waits for a free one.
    :param ping_url: at the same server; what :meth:`ping` asks.
    :param ping_timeout: seconds that it may take.
    :param query_url: at the same server; what :meth:`query` asks. Empty for ``query`` beside the write URL.
    :ivar settings: what decides how requests are sent.
    :ivar client: for everything but writes and queries.
    """

    def __init__(
        self,
        name: str,
        write_url: str,
        reactor: Any,
        tls: ClientTLS,
        *,
        timeout: float,
        api: WriteAPI = V1(),  # noqa: B008 (frozen, and without state)
        authorization: bytes | None = None,
        gzip: bool | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        max_connections: int = 64,
        ping_url: str = "",
        ping_timeout: float = 10.0,
        query_url: str = "",
        remote_write_url: str = "",
        names_database: bool = True,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.settings = (
            (write_url, tls, timeout, api, authorization, gzip, dict(headers)),
            (max_connections, ping_url, ping_timeout, query_url),
            (remote_write_url, names_database),
        )
        parts = urlsplit(write_url)
        host = unquote(parts.hostname or "")  # the percent sign before an IPv6 zone is written %25 (RFC 6874)
        endpoint = ClientEndpoint(
            reactor,
            host,
            parts.port or _PORTS[parts.scheme],
            timeout=max(timeout, ping_timeout),
            tls=tls if parts.scheme == "https" else None,
        )
        self._pools = [ConnectionPool(reactor, endpoint, max_connections) for _ in range(3)]
        self._conversions = Conversions(reactor)
        self._exchanges = Exchanges(reactor, self._pools[0], timeout)
        netloc = re.sub(r"%25[^]]*", "", parts.netloc).encode("ascii")  # a zone means nothing to the server (RFC 6874)
        self._write_path = _target(write_url)
        self._query_path = _target(query_url) if query_url else self._write_path.rpartition(b"/")[0] + b"/query"
        self._ping_target = _target(ping_url)
        self._ping_timeout = ping_timeout
        self._api = api
        self._gzip = gzip
        self._headers = {b"Host": netloc, b"User-Agent": b"influxrelay/" + __version__.encode()}
        if authorization is not None:
            self._headers[b"Authorization"] = authorization
        for header, value in headers.items():
            self._headers[header.title().encode("ascii")] = value.encode("ascii")
        self._has_credentials = b"Authorization" in self._headers
        self.client = BackendClient(reactor, self._pools[1], self._headers[b"Host"])
        self._queries = BackendClient(reactor, self._pools[2], self._headers[b"Host"])
        self._executing: set[Deferred[Any]] = set()
        self._gate: Gate | None = None
        self._remote_path, _, self._remote_query = _target(remote_write_url).partition(b"?")
        self._names_database = names_database
        self._remote_head_of = lru_cache(maxsize=1024)(self._make_remote_head)
        self._head_of = lru_cache(maxsize=1024)(self._make_head)  # there are few: one for each destination

    def _forwarded(self, query: bytes) -> bytes:
        return printable(without(query, b"u", b"p") if self._has_credentials else query)

    def _make_head(self, query: bytes, authorization: bytes, gzipped: bool) -> tuple[bytes, int]:  # noqa: FBT001
        """Return the head of a post, up to the value of ``Content-Length``, and the factor for its timestamps."""
        addressed = self._api.address(query, authorization)
        query, authorization = addressed.query, addressed.authorization
        headers = {b"Host": b"", b"User-Agent": b"", b"Content-Type": b"text/plain; charset=utf-8"}
        if gzipped:
            headers[b"Content-Encoding"] = b"gzip"
        if authorization:
            headers[b"Authorization"] = re.sub(rb"[\0\r\n]", b" ", authorization)
        headers |= self._headers
        first = b"POST %b?%b HTTP/1.1\r\n" % (self._write_path, self._forwarded(query))
        head = first + b"".join(b"%b: %b\r\n" % each for each in headers.items()) + b"Content-Length: "
        return head, addressed.factor

    def _make_remote_head(self, query: bytes, authorization: bytes, precision: bytes) -> tuple[bytes, bool]:
        """Return the head of a remote write, up to the value of ``Content-Length``, and whether it is of 2.0."""
        headers = {b"Host": b"", b"User-Agent": b"", **dict(request_headers(query, precision))}
        counts = is_version_2(query)
        if authorization:
            headers[b"Authorization"] = authorization
        headers = {name: re.sub(rb"[\0\r\n]", b" ", value) for name, value in headers.items()} | self._headers
        query = self._forwarded(without(query, *OWN_PARAMETERS))
        if not self._names_database:
            query = without(query, b"db", b"rp", b"u", b"p", b"precision", b"consistency")
        query = b"&".join(filter(None, (self._remote_query, query)))
        target = self._remote_path + (b"?" + query if query else b"")
        first = b"POST %b HTTP/1.1\r\n" % target
        head = first + b"".join(b"%b: %b\r\n" % each for each in headers.items()) + b"Content-Length: "
        return head, counts

    def _post_remote(self, write: Write, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        body = body_parts[0]
        if len(body_parts) > 1:
            body = joined(body_parts)
        beginning, counts = self._remote_head_of(write.query, write.authorization, write.destination.precision)
        head = b"%b%d\r\n\r\n" % (beginning, len(body))
        posted = self._exchanges.post((head, body), wants_headers=counts)
        return posted.addCallback(_understood) if counts else posted

    def post(self, write: Write, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        """Send a body to where ``write`` goes: the parts, one behind the other.

        :return: fires with any final answer within the timeout; fails with :class:`BackendFailure`, for the reasons of
            :func:`influxrelay.delivery.failures.explain` or ``stopped``, where there was no clear status line.
        """
        kind = write.destination.kind
        if kind != LINES:
            return self._post_remote(write, body_parts) if kind == REMOTE_WRITE else self._execute(write)
        gzipped = write.gzipped if self._gzip is None else self._gzip
        beginning, factor = self._head_of(write.query, write.authorization, gzipped)
        if gzipped is not write.gzipped or factor != 1:
            body = b"".join(body_parts)
            if write.gzipped:
                body = igzip.decompress(body)
            if factor != 1 and len(body) > AT_ONCE:
                converted = self._conversions.convert(convert_slowly(body, partial(multiply, factor=factor)))
                return converted.addCallback(lambda body: self._send(beginning, (_packed(body, gzipped),)))
            if factor != 1:
                body = rescale(body, factor)
            body_parts = (_packed(body, gzipped),)
        return self._send(beginning, body_parts)

    def _send(self, beginning: bytes, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        size = sum(map(len, body_parts))
        head = b"%b%d\r\n\r\n" % (beginning, size)
        pieces = (head, *body_parts)
        return self._exchanges.post(pieces if size > _JOINED else (b"".join(pieces),))

    def _execute(self, write: Write) -> Deferred[Reply]:
        """Ask for the execution of a statement, however long that takes."""
        change = as_change(write)
        asked: Deferred[Any] = self.query(change.question, own_credentials=change.own_credentials, gate=self._gate)
        asked.addCallback(collect_reply)
        asked.addCallbacks(read_result, lambda failure: Failure(explain(failure)), callbackArgs=(self,))
        self._executing.add(asked)

        def end(result: Any) -> Any:
            self._executing.discard(asked)
            return result

        return asked.addBoth(end)

    def abort_changes(self) -> None:
        """Fail the statements in flight, with the reason ``timeout``."""
        for asked in list(self._executing):
            asked.cancel()

    def _create_databases(self, change: Change) -> Deferred[Reply]:
        """Create the databases that a statement names, as the same user; by itself if that is what it is for."""
        question = change.question
        if change.scope.kind != "CREATE DATABASE":
            statements = b";".join(map(_create, sorted(change.scope.databases)))
            query = without(question.query, *_OF_QUERIES)
            query = b"q=" + quote_plus(statements).encode() + (b"&" + query if query else b"")
            question = attrs.evolve(question, method=b"POST", query=query, body=b"")
        asked: Deferred[Any] = self.query(question, own_credentials=change.own_credentials, timeout=self.timeout)
        asked.addCallback(collect_reply)
        return asked.addErrback(lambda failure: Failure(explain(failure)))

    def create_database(self, write: Write) -> Deferred[Reply]:
        """Create the database that ``write`` goes to, as the same user; fires and fails as :meth:`post` does.

        Of a statement they are those that it names.
        """
        if write.destination.kind == STATEMENT:
            return self._create_databases(as_change(write))
        statement = _create(write.destination.database)
        query = self._forwarded(without(write.query, b"db", b"rp", b"precision", b"consistency", *OWN_PARAMETERS))
        target = self._query_path + b"?q=" + quote_plus(statement).encode()
        if query:
            target += b"&" + query
        return self._ask(b"POST", target, self.timeout, write.authorization)

    def answers(self, endpoint: str) -> bool:
        """Tell whether there is such an endpoint: remote reads are a matter of InfluxDB 1.x."""
        return endpoint == QUERY or isinstance(self._api, V1)

    def query(
        self,
        question: Question,
        *,
        own_credentials: bool = False,
        timeout: float | None = None,
        gate: Gate | None = None,
    ) -> Deferred[Response]:
        """Ask what a client asks, as the client, and pass the response on while it comes.

        :param own_credentials: ask as the user of the output instead, if it has one.
        :param timeout: seconds for everything, to the last byte of the response; None for no limit.
        :param gate: tells, directly before the bytes of the request, whether they may be sent.
        :return: fires with the head of the response; fails with :class:`BackendFailure`.
        """
        path, query, body = self._query_path, self._api.locate(question.query), question.body
        if body and question.endpoint == QUERY:
            body = self._api.locate(body)
        if question.endpoint != QUERY:
            path = path.rpartition(b"/")[0] + b"/api/v1/prom/read"
        headers = Headers()
        for name, value in question.headers:
            headers.addRawHeader(name, value)
        own_credentials = own_credentials and self._has_credentials
        for name, value in self._headers.items():
            if name != b"User-Agent" and (own_credentials or name != b"Authorization"):
                headers.setRawHeaders(name, [value])
        if own_credentials:
            query = without(query, b"u", b"p")
        target = b"%b?%b" % (path, query) if query else path
        return self._queries.request(question.method, target, headers, body, timeout=timeout, gate=gate)

    def ping(self) -> Deferred[Reply]:
        """Ask whether the server lives; fires and fails as :meth:`post` does, within a time of its own."""
        return self._ask(b"GET", self._ping_target, self._ping_timeout)

    def _ask(self, method: bytes, target: bytes, timeout: float, authorization: bytes = b"") -> Deferred[Reply]:
        headers = Headers()
        if authorization:
            headers.setRawHeaders(b"Authorization", [authorization])
        for name, value in self._headers.items():
            headers.setRawHeaders(name, [value])
        return self.client.ask(method, target, headers, timeout=timeout)

    def guard(self, gate: Gate) -> None:
        """Send no write and no change if this says so directly before its bytes."""
        self._gate = self._exchanges.gate = gate

    def abort_writes(self) -> None:
        """Fail the writes and changes in flight."""
        self._conversions.abort()
        self._exchanges.abort()
        self.abort_changes()

    def abort(self) -> None:
        """Fail what is under way, with the reason ``stopped``."""
        self.abort_writes()
        self.client.abort()
        self._queries.abort()

    def close(self) -> Deferred[Any]:
        """Do what :meth:`retire` does; fires when the connections that are idle now are closed."""
        self._exchanges.stop_timer()
        return DeferredList([pool.close() for pool in self._pools])

    def retire(self) -> None:
        """Close each connection as soon as it is idle: there will be no more requests."""
        for pool in self._pools:
            pool.retire()
        self._exchanges.stop_timer()

    def is_busy(self) -> bool:
        """Tell whether a request is under way."""
        return self._conversions.busy or self._exchanges.busy or self.client.busy or self._queries.busy

    def does_the_same(self, other: object) -> bool:
        """Tell whether another transport sends the same in the same way, whatever its name."""
        return isinstance(other, HTTPBackend) and self.settings == other.settings


def _packed(body: bytes, gzipped: bool) -> bytes:  # noqa: FBT001 (whether it is to be)
    packed: bytes = igzip.compress(body, _GZIP_LEVEL) if gzipped else body
    return packed


def _create(database: bytes) -> bytes:
    return b'CREATE DATABASE "%b"' % database.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _understood(reply: Reply) -> Reply:
    """Read the answer to a remote write of 2.0.

    A server that knows only 1.0 finds nothing in it and says 2xx, without the headers that 2.0 demands; the
    specification wants that to be read as 415.
    """
    if reply.status >= 300 or has_counts(reply):
        return reply
    return json_error(415, "the backend does not understand remote write 2.0")


def _target(url: str) -> bytes:
    """Return the path of a URL, and its query if there is one."""
    parts = urlsplit(url)
    return (parts._replace(scheme="", netloc="", fragment="").geturl() or "/").encode("ascii")
