"""A transport in memory: what is written stays there, and the other end does what a test says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ITCPTransport, IPushProducer, IConsumer)
class MemoryTransport:
    """One end of a connection; it takes and refuses what a socket's transport does.

    :ivar written: what was sent, until a test takes it.
    :ivar reading: whether data would be read from the socket now.
    :ivar closed: whether this end has closed the connection, after sending everything.
    :ivar aborted: whether this end has reset it.
    """

    def __init__(self, protocol: Protocol) -> None:
        self.written = b""
        self.reading = True
        self.closed = False
        self.aborted = False
        self._protocol: Any = protocol
        self._producer: Any = None
        self._closing = False
        self._blocked = False
        self._gone = False
        protocol.makeConnection(self)

    # -- what the other end does

    def receive(self, data: bytes) -> None:
        """Have data arrive; one that does not read gets it later in truth, so that a test must not do this then."""
        if not self.reading or self._gone:
            raise AssertionError("data arrives at a transport that does not read")
        self._protocol.dataReceived(data)

    def receive_end(self) -> None:
        """Have the other end close its side."""
        self.reading = False
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.readConnectionLost()
        else:
            self.lose()

    def lose(self, reason: Failure = connectionDone) -> None:
        """End the connection."""
        if self._gone:
            return
        self._gone, self.reading = True, False
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self._protocol.connectionLost(reason)

    def block(self) -> None:
        """Have the other end stop reading."""
        self._blocked = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def unblock(self) -> None:
        """Have it read again."""
        self._blocked = False
        if self._producer is not None:
            self._producer.resumeProducing()
        self._finish()

    def take(self) -> bytes:
        """Return what was written since the last time."""
        written, self.written = self.written, b""
        return written

    # -- ITransport

    def write(self, data: bytes) -> None:
        """Send data."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, not {type(data)}")
        if not (self._closing or self.aborted or self._gone):
            self.written += data

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send some pieces."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close the connection when everything is sent."""
        self._closing, self.reading = True, False
        self._finish()

    def _finish(self) -> None:
        if self._closing and not self._blocked and not self.closed:
            self.closed = True
            self.lose()

    def abortConnection(self) -> None:
        """Reset the connection."""
        if not self._gone:
            self.aborted = True
            self.lose(Failure(ConnectionAborted()))

    def loseWriteConnection(self) -> None:
        """Close this side only."""
        raise NotImplementedError

    def getPeer(self) -> IPv4Address:
        """Return the other end's address."""
        return IPv4Address("TCP", "127.0.0.1", 54321)

    def getHost(self) -> IPv4Address:
        """Return this end's address."""
        return IPv4Address("TCP", "127.0.0.1", 9096)

    def getTcpNoDelay(self) -> bool:
        """Tell whether small pieces are sent without delay."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001 (the interface's)
        """Send small pieces without delay, or not."""

    def getTcpKeepAlive(self) -> bool:
        """Tell whether an idle connection is probed."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001 (the interface's)
        """Probe an idle connection, or not."""

    # -- IConsumer and IPushProducer

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001 (the interface's)
        """Have a producer paused while the other end does not read."""
        if self._producer is not None:
            raise RuntimeError(f"cannot register {producer}: {self._producer} is still registered")
        if not streaming:
            raise NotImplementedError
        self._producer = producer
        if self._blocked:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """Forget it."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Read no more."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Read again."""
        if not (self._closing or self._gone):
            self.reading = True

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()
