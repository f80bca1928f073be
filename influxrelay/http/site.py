"""The HTTP server of a listener: its connections, its paths, and its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from influxrelay.core.cooperation import make_cooperator
from influxrelay.core.replies import json_error
from influxrelay.http.connection import HTTPConnection
from influxrelay.http.cors import CrossOriginPolicy
from influxrelay.http.head import Head, HeadCache
from influxrelay.http.overload import AdmissionControl, Client, ClientLimits
from influxrelay.http.request import Request
from influxrelay.http.responses import ResponseFormatter
from influxrelay.lineprotocol.query_string import without
from influxrelay.transport.event_loop import event_loop
from influxrelay.transport.turns import turns_of

IDLE_GRACE = 1.0  # seconds that a connection which may be used again has for its last request at a gentle end
FRESH_GRACE = 5.0  # seconds that one which has been accepted has for its first request then
WRITE_PATHS = frozenset((b"/write", b"/api/v2/write", b"/api/v3/write_lp", b"/api/v1/prom/write", b"/api/v1/write"))
_NOT_FOUND = json_error(404, "not found")
_SHUTTING_DOWN = json_error(503, "the relay is shutting down")


class RelaySite(Factory):
    """The HTTP server of one listener.

    :param name: the listener's, for the log.
    :param root: the resources by path; there is one level of them.
    :ivar answers: to writes, by status.
    :ivar refused: requests at any path that were answered with an error before a backend was asked, by status.
    :ivar cooperator: where long work for its requests is done, a bit in each turn of the reactor.
    :ivar admission: what its clients can make it hold.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self, name: str, root: Resource, reactor: Any, *, max_body_size: int, limits: ClientLimits | None = None
    ) -> None:
        self._reactor = reactor
        self._root = root
        self._branches: dict[bytes, Resource] = {}
        self.answers: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self.admission = AdmissionControl(name, limits or ClientLimits(), reactor)
        self.heads = HeadCache()
        self.responses = ResponseFormatter(reactor.seconds)
        loop = event_loop(reactor)
        self.cooperator = make_cooperator(reactor, spend=None if loop is None else turns_of(loop).spend_beside)
        self.max_body_size = max_body_size
        self.closing = False
        self._access_log = False
        self._refusing = False
        self._partings: list[IDelayedCall] = []
        self._empty: list[Deferred[None]] = []

    def reconfigure(
        self, name: str, limits: ClientLimits, *, max_body_size: int, cors_origins: Sequence[str], access_log: bool
    ) -> None:
        """Let other settings hold for the next request."""
        self.admission.reconfigure(name, limits)
        self.responses.reconfigure(CrossOriginPolicy(cors_origins))
        self.max_body_size = max_body_size
        self._access_log = access_log

    def add_branch(self, prefix: bytes, resource: Resource) -> None:
        """Let a resource answer at all paths that begin so, as they are written."""
        self._branches[prefix] = resource

    def buildProtocol(self, addr: object) -> HTTPConnection:  # noqa: ARG002 (the interface's)
        """Serve a connection."""
        return HTTPConnection(self)

    def call_later(self, seconds: float, call: Callable[[], object]) -> IDelayedCall:
        """Call something after a while."""
        later: IDelayedCall = self._reactor.callLater(seconds, call)
        return later

    def take_turns(self, turns: Iterator[None], failed: Callable[[], None]) -> None:
        """Go through what may take long, a bit in each turn of the reactor; tell whoever it is if that fails."""

        def fail(failure: Failure) -> None:
            self._log.failure("a connection", failure)
            failed()

        self.cooperator.coiterate(turns).addErrback(fail)

    # -- requests

    def find(self, head: Head) -> Resource | None:
        """Return the resource at a path, if there is one."""
        resource: Resource | None = self._root.children.get(head.route[1:]) if head.route else None
        if resource is None and self._branches:
            path = head.path
            return next((each for prefix, each in self._branches.items() if path.startswith(prefix)), None)
        return resource

    def render(self, request: Request) -> None:
        """Have a request answered by its resource."""
        resource = request.resource
        if self._refusing:
            request.refuse(_SHUTTING_DOWN)
        elif resource is None:
            request.refuse(_NOT_FOUND)
        else:
            try:
                resource.render(request)
            except Exception:  # noqa: BLE001 (one request's trouble must not be the connection's)
                request.fail(Failure())

    def responded(self, request: Request, *, refused: bool) -> None:
        """Count a response, and write the access log's line, if one is wanted, without credentials and statements."""
        if request.head.path in WRITE_PATHS:
            self.answers[request.status] += 1
        if refused:
            self.refused[request.status] += 1
        if self._access_log:
            query = without(request.query, b"u", b"p", b"q", b"params")
            self._log.info(
                "{client} {method} {path}{query} {status} {size}",
                client=getattr(request.client, "host", "unix"),
                method=request.method.decode("ascii", "backslashreplace"),
                path=request.path.decode("ascii", "backslashreplace"),
                query="?" + query.decode("ascii", "backslashreplace") if query else "",
                status=request.status,
                size=request.sent,
            )

    def refused_unread(self, status: int) -> None:
        """Count a response to what could not be read."""
        self.refused[status] += 1

    # -- the end

    @property
    def connections(self) -> list[HTTPConnection]:
        """All connections, the oldest first."""
        return self.admission.connections

    def shut_down(self, *, gently: bool = False) -> Deferred[None]:
        """Take no more requests: close what is idle; the Deferred fires when every connection is gone.

        :param gently: answer what still comes for a while, so that no client meets a closed connection: for one that
            has been accepted and asks now, or is used again and again.
        """
        self.closing = True
        if gently and self.connections:
            self._partings = [
                self.call_later(IDLE_GRACE, self._close_used),
                self.call_later(FRESH_GRACE, self.refuse_requests),
            ]
        else:
            self.refuse_requests()
        done: Deferred[None] = Deferred()
        if self.connections:
            self._empty.append(done)
        else:
            done.callback(None)
        return done

    def _close_used(self) -> None:
        for connection in self.connections:
            if connection.is_idle() and connection.answered:
                connection.close()

    def refuse_requests(self) -> None:
        """Answer 503 from now on, and close what is idle."""
        self._refusing = True
        for connection in self.connections:
            if connection.is_idle():
                connection.close()

    def abort(self) -> None:
        """Break all connections."""
        for connection in self.connections:
            connection.cut()

    def lost(self, connection: Client) -> None:
        """Forget a lost connection."""
        self.admission.forget(connection)
        if self.closing and not self.connections:
            for parting in self._partings:
                if parting.active():
                    parting.cancel()
            waiters, self._empty = self._empty, []
            for waiter in waiters:
                waiter.callback(None)
