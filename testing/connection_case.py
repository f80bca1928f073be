"""A connection over a transport in memory, before a page."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from zope.interface import implementer

from influxrelay.core.write import Reply
from influxrelay.http.overload import ClientLimits
from influxrelay.http.request import Request
from influxrelay.http.site import RelaySite
from testing.scripted import parse_head
from testing.transports import MemoryTransport

FINE = Reply(200, ((b"Content-Type", b"text/plain"),), b"fine")


class Page(Resource):
    """Keeps the requests that it gets; answers none by itself."""

    def __init__(self, *, streams_body: bool = False) -> None:
        super().__init__()
        self.streams_body = streams_body
        self.requests: list[Request] = []
        self.on_request: Callable[[Request], None] | None = None

    def render(self, request: Request) -> None:
        """Keep a request."""
        self.requests.append(request)
        if self.on_request is not None:
            self.on_request(request)


@implementer(IPushProducer)
class Producer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        """Note it."""
        self.told.append("pause")

    def resumeProducing(self) -> None:
        """Note it."""
        self.told.append("resume")

    def stopProducing(self) -> None:
        """Note it."""
        self.told.append("stop")


class ConnectionTestCase(SynchronousTestCase):
    """A site with a page that waits, one that streams, and a client."""

    def setUp(self) -> None:
        """Make all of them."""
        self.clock = Clock()
        self.page, self.stream = Page(), Page(streams_body=True)
        root = Resource()
        root.putChild(b"page", self.page)
        root.putChild(b"stream", self.stream)
        limits = ClientLimits(in_flight=100_000)
        self.site = RelaySite("test", root, self.clock, max_body_size=50_000, limits=limits)
        self.client = self.connect()

    def connect(self) -> MemoryTransport:
        """Connect a client."""
        return MemoryTransport(self.site.buildProtocol(None))

    @property
    def connection(self) -> Any:
        """The oldest connection."""
        return self.site.connections[0]

    def turn(self) -> None:
        """Let the reactor go on."""
        self.clock.advance(0)

    def heads(self) -> list[tuple[int, dict[bytes, bytes]]]:
        """Take what was written, as statuses and headers of responses without bodies."""
        found = []
        for each in re.findall(rb"HTTP/1.1 .*?(?=\r\n\r\n)", self.client.take(), re.DOTALL):
            (_, status, *_), headers = parse_head(each)
            found.append((int(status), dict(headers)))
        return found

    def statuses(self) -> list[int]:
        """Take what was written, as statuses."""
        return [status for status, _ in self.heads()]
