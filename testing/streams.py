"""A protocol that remembers all that happens to it, at either end of a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


class Recorder(Protocol):
    """Keeps what it receives.

    :ivar events: the names of the methods that were called, each ``dataReceived`` left out.
    :ivar received: all bytes.
    :ivar reason: why the connection is gone; None while it is there.
    :ivar on_data: called with each piece.
    :ivar on_connection: called when there is a connection.
    """

    transport: Any

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = bytearray()
        self.reason: Failure | None = None
        self.on_data: Callable[[bytes], None] | None = None
        self.on_connection: Callable[[Recorder], None] | None = None

    def connectionMade(self) -> None:
        """Note it."""
        self.events.append("connectionMade")
        if self.on_connection is not None:
            self.on_connection(self)

    def dataReceived(self, data: bytes) -> None:
        """Keep the data."""
        self.received += data
        if self.on_data is not None:
            self.on_data(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note it."""
        self.events.append("connectionLost")
        self.reason = reason

    @property
    def error(self) -> BaseException | None:
        """Why the connection is gone."""
        return None if self.reason is None else self.reason.value


@implementer(IHalfCloseableProtocol)
class HalfCloseRecorder(Recorder):
    """Goes on when the other end sends no more."""

    def readConnectionLost(self) -> None:
        """Note it."""
        self.events.append("readConnectionLost")

    def writeConnectionLost(self) -> None:
        """Note it."""
        self.events.append("writeConnectionLost")


class Recorders(Factory):
    """Makes protocols that remember, and remembers them.

    :ivar made: in order; ``addresses`` are those of their other ends.
    :ivar kind: of the next one.
    :ivar refuse: whether to make none.
    """

    noisy = False

    def __init__(
        self, kind: type[Recorder] = Recorder, on_connection: Callable[[Recorder], None] | None = None
    ) -> None:
        self.made: list[Recorder] = []
        self.addresses: list[object] = []
        self.kind = kind
        self.on_connection = on_connection
        self.refuse = False

    def buildProtocol(self, addr: object) -> Recorder | None:
        """Make one."""
        if self.refuse:
            return None
        protocol = self.kind()
        protocol.on_connection = self.on_connection
        self.made.append(protocol)
        self.addresses.append(addr)
        return protocol
