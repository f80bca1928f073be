"""What answers at each path of a listener."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
from twisted.internet.task import Cooperator
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.replies import json_error
from influxrelay.core.token_bucket import TokenBucket
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.fanout import AT_ONCE
from influxrelay.http.error_forms import ErrorForm, in_v1
from influxrelay.http.interfaces import AnyFanOut
from influxrelay.http.refusals import TOO_MUCH, method_not_allowed, rate_limited
from influxrelay.http.request import Request
from influxrelay.http.responses import VERSION
from influxrelay.lineprotocol.api_queries import Addressed, read_v1
from influxrelay.lineprotocol.body import decode_slowly, is_gzip
from influxrelay.lineprotocol.credentials import canonical
from influxrelay.lineprotocol.finished import count_lines, finished_lines
from influxrelay.lineprotocol.gzip_body import prepare_packed
from influxrelay.lineprotocol.parser import is_blank_slowly, prepare_slowly
from influxrelay.lineprotocol.query_string import destination_precision, flag
from influxrelay.lineprotocol.scanner import Steps
from influxrelay.lineprotocol.timestamps import convert_slowly, guess

Read = Callable[[bytes, bytes, str], Addressed]
"""Reads the query string of an API, with the ``Authorization`` header and the retention policy where none is given."""

NO_CONTENT = Reply(204)
_MEMORY = 4096  # destinations remembered, far more than a site has
_MEMORY_LENGTH = 1024  # bytes of the longest query string among them
_AT_ONCE = 0.0003  # seconds of the work for a body that is large or odd, after which others have their turn first
_MAY_BE_BLANK = b"# \t\0\n"  # how a body begins that may have nothing in it


class _Prepared(NamedTuple):
    """A write that is ready for the backends.

    :ivar lines: how many came.
    :ivar size: bytes that came, decoded.
    """

    write: Write
    lines: int
    size: int
    division: Any = None


class _Tally:
    """How many writes came in one API."""

    __slots__ = ("writes",)

    def __init__(self) -> None:
        self.writes = 0


@attrs.frozen
class _Route:
    """What requests with one query string and one user have in common.

    :ivar precision: in which lines are stamped.
    :ivar guesses: whether each timestamp is in a precision that its size has to tell.
    """

    destination: Destination
    precision: bytes
    query: bytes = attrs.field(repr=False)
    authorization: bytes = attrs.field(repr=False)
    consistency: str
    guesses: bool
    tally: _Tally


class WriteResource(Resource):
    """``/write``: takes line protocol for the backends. :meth:`beside` makes the same for another API.

    :param cooperator: does the work for large bodies, beside everything else.
    :param clock: returns nanoseconds since the epoch; what lines without a timestamp get.
    :ivar lines: of the writes that were given to the backends, with their ``bytes``, as they came, decoded.
    """

    isLeaf = True
    streams_body = False
    error_form = staticmethod(in_v1)

    def __init__(
        self,
        fan_out: AnyFanOut,
        cooperator: Cooperator,
        *,
        default_retention_policy: str = "",
        max_decoded_size: int = 0,
        limiter: TokenBucket | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__()
        self.lines = 0
        self.bytes = 0
        self._fan_out = fan_out
        self._cooperator = cooperator
        self._clock = clock
        self._tallies: dict[Read, _Tally] = {read_v1: _Tally()}
        self.reconfigure(
            default_retention_policy=default_retention_policy, max_decoded_size=max_decoded_size, limiter=limiter
        )

    def reconfigure(self, *, default_retention_policy: str, max_decoded_size: int, limiter: TokenBucket | None) -> None:
        """Let other settings hold for the next request."""
        self._default_retention_policy = default_retention_policy
        self._max_decoded_size = max_decoded_size
        self._limiter = limiter
        self._routes: dict[tuple[bytes, bytes, Read], _Route] = {}

    @property
    def writes(self) -> int:
        """How many were given to the backends, in any API."""
        return sum(each.writes for each in self._tallies.values())

    def writes_in(self, read: Read) -> int:
        """Return how many of them came in one API."""
        return self._tallies[read].writes

    def beside(self, read: Read, error_form: ErrorForm) -> WriteAPIResource:
        """Return a resource for writes in another API, which shares settings and counters with this one."""
        self._tallies[read] = _Tally()
        return WriteAPIResource(self, read, error_form)

    def render(self, request: Request) -> None:
        """Answer a request of any method."""
        self.answer(request, read_v1)

    def answer(self, request: Request, read: Read) -> None:
        """Answer a request of any method, in an API."""
        head = request.head
        if head.method != b"POST":
            self._answer_other(request)
            return
        try:
            route = self._route(head.query, head.authorization, read)
        except InvalidRequest as error:
            request.refuse(json_error(error.status, error.message))
            return
        if self._limiter is not None:
            seconds = self._limiter.take()
            if seconds:
                request.refuse(rate_limited(seconds))
                return
        body = request.take_body()
        write = Write(route.destination, route.query, route.authorization, body)
        if body and not head.encoding and len(body) <= self._fan_out.at_once and body[:1] not in _MAY_BE_BLANK:
            lines = finished_lines(body, route.precision)
            if lines:
                self._submit(request, route, write, lines, len(body))
                return
        work = self._read(request, body, write, route)
        end = time.perf_counter() + _AT_ONCE
        while next(work, None) is not None:
            if time.perf_counter() > end:
                self._cooperator.coiterate(work)
                return

    def _answer_other(self, request: Request) -> None:
        if request.method == b"OPTIONS":
            request.respond(Reply(204, ((b"Allow", b"POST"),)))
        else:
            request.refuse(method_not_allowed(b"POST"))

    def _read(self, request: Request, body: bytes, write: Write, route: _Route) -> Steps[None]:
        """Do what takes long for a large or an odd body bit by bit, and then submit the write.

        A client that has gone meanwhile changes nothing: a complete write is executed.
        """
        try:
            reading = self._prepare(request, body, write, route)
            while True:
                grown = next(reading)
                if grown and not request.reserve(grown):
                    request.refuse(TOO_MUCH)
                    return
                yield grown
        except StopIteration as end:
            if end.value is None:
                request.respond(NO_CONTENT)
            else:
                self._submit(request, route, *end.value)
        except InvalidRequest as error:
            request.refuse(json_error(error.status, error.message))
        except Exception:  # noqa: BLE001 (one request's trouble must not be that of others)
            request.fail(Failure())

    def _prepare(self, request: Request, body: bytes, write: Write, route: _Route) -> Steps[_Prepared | None]:
        """Read a body, stamp its lines, and look at their names; return None if there are no lines."""
        encoding, precision = request.head.encoding, route.precision
        if encoding and not route.guesses and is_gzip(encoding):
            packed = yield from prepare_packed(body, precision, self._clock(), self._max_decoded_size)
            if packed is None:
                return None
            prepared = attrs.evolve(write, body=packed.body, mergeable=packed.mergeable, gzipped=True)
            division = yield from self._divide(prepared, packed.size)
            return _Prepared(prepared, packed.lines, packed.size, division)
        if encoding:
            body = yield from decode_slowly(body, encoding, self._max_decoded_size)
        if not body or (body[:1] in _MAY_BE_BLANK and (yield from is_blank_slowly(body))):
            return None
        lines = finished_lines(body, precision) if len(body) <= AT_ONCE else 0
        if lines:
            prepared = attrs.evolve(write, body=body)
        else:
            stamped, mergeable = yield from prepare_slowly(body, precision, self._clock())
            if route.guesses:
                stamped = yield from convert_slowly(stamped, guess)
            prepared = attrs.evolve(write, body=stamped, mergeable=mergeable)
        division = yield from self._divide(prepared, len(body))
        return _Prepared(prepared, lines or count_lines(body), len(body), division)

    def _divide(self, prepared: Write, size: int) -> Steps[Any]:
        """Find out who gets which lines, if that is more than a moment's work.

        :param size: bytes of the lines.
        """
        if self._fan_out.divides_lines and size > self._fan_out.at_once:
            return (yield from self._fan_out.divide_slowly(prepared))
        return None

    def _submit(  # noqa: PLR0917 (for every request: keywords cost time)
        self, request: Request, route: _Route, write: Write, lines: int, size: int, division: Any = None
    ) -> None:
        route.tally.writes += 1
        self.lines += lines
        self.bytes += size
        self._fan_out.submit_for(_Waiter(request), write, route.consistency, division)

    def _route(self, query: bytes, authorization: bytes, read: Read) -> _Route:
        """Return where a request goes; clients send the same few again and again."""
        key = (query, authorization, read)
        known = self._routes.get(key)
        if known is None:
            found = read(query, authorization, self._default_retention_policy)
            target = found.target
            destination = Destination(
                target.database,
                target.retention_policy,
                destination_precision(target),
                canonical(found.authorization, target.username, target.password),
            )
            known = _Route(
                destination,
                target.precision,
                target.forwarded,
                found.authorization,
                target.consistency,
                found.guesses,
                self._tallies[read],
            )
            if len(self._routes) >= _MEMORY:
                self._routes.clear()
            if len(query) + len(authorization) <= _MEMORY_LENGTH:
                self._routes[key] = known
        return known


class WriteAPIResource(Resource):
    """``/api/v2/write`` or ``/api/v3/write_lp``: writes for the same backends, in another API."""

    isLeaf = True
    streams_body = False

    def __init__(self, writes: WriteResource, read: Read, error_form: ErrorForm) -> None:
        super().__init__()
        self.error_form = error_form
        self._writes = writes
        self._read = read

    def render(self, request: Request) -> None:
        """Answer a request of any method."""
        self._writes.answer(request, self._read)


class _Waiter:
    """Shows a client the answer: any 2xx as the 204 that InfluxDB gives, everything else as it is."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def callback(self, reply: Reply) -> None:
        try:
            self._request.respond(NO_CONTENT if reply.status < 300 else reply)
        except Exception:  # noqa: BLE001 (others wait for their answers, too)
            self._request.fail(Failure())

    def errback(self, failure: Failure) -> None:
        self._request.fail(failure)


class NotHereResource(Resource):
    """Answers 400 with the reason."""

    isLeaf = True

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reply = json_error(400, reason)

    def render(self, request: Request) -> None:
        """Refuse a request of any method."""
        request.refuse(self._reply)


class PingResource(Resource):
    """``/ping``: tells that the relay itself is there."""

    isLeaf = True

    def __init__(self, status: int = 204) -> None:
        super().__init__()
        self._reply = Reply(status)

    def render(self, request: Request) -> None:
        """Answer as InfluxDB does (``services/httpd/handler.go``, ``servePing``)."""
        if request.method not in (b"GET", b"HEAD"):
            request.refuse(method_not_allowed(b"GET, HEAD"))
        elif flag(request.query, b"verbose"):
            body = json.dumps({"version": VERSION}, separators=(",", ":")).encode() + b"\n"
            request.respond(Reply(200, ((b"Content-Type", b"application/json"),), body))
        else:
            request.respond(self._reply)
