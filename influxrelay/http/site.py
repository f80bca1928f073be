"""The HTTP server of a listener: its connections, its paths, and its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any, cast
from urllib.parse import unquote_to_bytes
from uuid import uuid1

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.web.http import datetimeToString
from twisted.web.resource import Resource
from twisted.web.server import Site

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.slices import Desk
from influxrelay.http.connection import Head, RelayChannel
from influxrelay.http.cors import CrossOriginPolicy
from influxrelay.http.overload import ClientLimits, Guard
from influxrelay.http.request import VERSION, RelayRequest
from influxrelay.lineprotocol.query_string import without

IDLE_GRACE = 1.0  # seconds that a connection which may be used again has for its last request at a gentle end ...
FRESH_GRACE = 5.0  # ... and one that has been accepted has for its first
_HEADS = 2048  # heads remembered: clients send the same one with each request, but for the length ...
_HEAD_LENGTH = 2048  # ... and the longest of them, in bytes


class RelaySite(Site):
    """The HTTP server of one listener.

    :param max_body_size: bytes of a body as sent, see :class:`Collector`.
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
    ) -> None:
        super().__init__(root, RelayRequest, parsePOSTFormSubmission=False, reactor=reactor)
        self.reconfigure(max_body_size=max_body_size)
        self.branches: dict[bytes, Resource] = {}
        self.closing = False
        self.answers: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self._refusing = False
        self._partings: list[IDelayedCall] = []
        self.guard = Guard(ClientLimits(), reactor)
        self.desk, self.uploads = Desk(reactor), Desk(reactor)
        self._time = reactor.seconds
        self._second = -1
        self._common_headers = b""
        self._request_ids = count()
        self._request_id_prefix = str(uuid1())[:24].encode()
        self.heads: dict[bytes, Head] = {}
        self._empty: list[Deferred[None]] = []

    def reconfigure(
        self,
        *,
        max_body_size: int,
        max_decoded_size: int = 0,
        cors_origins: Sequence[str] = ("*",),
        access_log: bool = False,
    ) -> None:
        """Let other settings hold for the next request."""
        self.max_body_size = max_body_size
        self.max_decoded_size = max_decoded_size
        self.cors = CrossOriginPolicy(cors_origins)
        self.access_log = access_log

    def buildProtocol(self, addr: object) -> Any:  # noqa: ARG002 (the interface's)
        """Make the channel itself, without Twisted's wrapper that negotiates HTTP/2."""
        channel: Any = RelayChannel()
        channel.factory = self
        channel.callLater = self.reactor.callLater
        return channel

    def remember(self, raw: bytes, head: Head) -> None:
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
