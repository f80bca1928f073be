"""A port and a client of ours, on the reactor of the test: by TCP, over IPv6, through a unix socket, with TLS."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IStreamClientEndpoint,
)
from twisted.trial.unittest import TestCase

from influxrelay.transport.client import ClientEndpoint, UNIXEndpoint
from influxrelay.transport.server import ListeningPort
from influxrelay.transport.sockets import BoundSocket, Sockets
from influxrelay.transport.tls import ClientTLS, ServerTLS
from testing.certificates import Authority
from testing.directories import short_directory
from testing.scripted import LOOPBACK, reactor, until
from testing.streams import Recorder, Recorders

LARGE = bytes(range(256)) * 64 * 1024  # 16 MB: more than the system keeps for a connection


def has(end: Recorder, data: bytes) -> bool:
    """Say whether all of this, and no more, has come."""
    return end.received == data


def ended(*ends: Recorder) -> bool:
    """Say whether all of these have ended."""
    return all(each.reason for each in ends)


class StreamCase(TestCase):
    """Connections by TCP."""

    timeout = 600

    def setUp(self) -> None:
        """Open a port, and prepare both ends."""
        self.ours, self.theirs = Recorders(), Recorders()
        self.port = self.open()
        self.addCleanup(self.close)

    def bind(self) -> BoundSocket:
        """Return the socket of the port."""
        return Sockets().tcp(LOOPBACK, 0)

    def open(self, **options: Any) -> ListeningPort:
        """Open the port."""
        port = ListeningPort(reactor, self.bind(), self.theirs, **options)
        port.startListening()
        return port

    def endpoint(self) -> IStreamClientEndpoint:
        """Return the way to the port."""
        address: Any = self.port.getHost()
        return ClientEndpoint(reactor, address.host, address.port, timeout=30.0)

    async def close(self) -> None:
        """End everything."""
        await self.port.stopListening()
        ends = [each for each in (*self.ours.made, *self.theirs.made) if each.transport is not None]
        for each in ends:
            each.transport.abortConnection()
        await until(lambda: all(each.reason for each in ends), "the end of all connections")

    async def pair(self, ours: type[Recorder] = Recorder, theirs: type[Recorder] = Recorder) -> tuple[Any, Any]:
        """Connect, and return the protocols at the client's and the server's end."""
        self.ours.kind, self.theirs.kind = ours, theirs
        before = len(self.theirs.made)
        client: Any = await self.endpoint().connect(self.ours)
        await until(lambda: len(self.theirs.made) > before and self.theirs.made[-1].events, "the server's end")
        return client, self.theirs.made[-1]


class IPv6Case(StreamCase):
    """Connections by TCP over IPv6."""

    def bind(self) -> BoundSocket:
        """Return the socket of the port."""
        return Sockets().tcp("::1", 0)


class UNIXCase(StreamCase):
    """Connections through unix sockets."""

    def bind(self) -> BoundSocket:
        """Return the socket of the port."""
        self.path = f"{short_directory(self)}/s"
        return Sockets().unix(self.path, 0o600)

    def endpoint(self) -> IStreamClientEndpoint:
        """Return the way to the port."""
        return UNIXEndpoint(reactor, self.path, timeout=30.0)


class TLSCase(StreamCase):
    """Connections with TLS."""

    def open(self, **options: Any) -> ListeningPort:
        """Open the port, with a certificate."""
        self.authority = Authority(self.mktemp())
        return super().open(tls=ServerTLS(self.authority.issue(LOOPBACK)), **options)

    def endpoint(self) -> IStreamClientEndpoint:
        """Return the way to the port."""
        address: Any = self.port.getHost()
        tls = ClientTLS(ca_file=self.authority.ca_file())
        return ClientEndpoint(reactor, address.host, address.port, timeout=30.0, tls=tls)
