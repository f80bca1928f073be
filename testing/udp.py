"""Doubles for tests of UDP: a port, a reactor with ports, an output and a fan-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock

from influxrelay.core.write import Reply, Write
from testing.resolver import Resolver

NOW = 1_700_000_000_123_456_789  # nanoseconds


class Sink:
    """An output that keeps what it gets."""

    name = "sink"

    def __init__(self) -> None:
        self.sent: list[list[bytes]] = []

    def send(self, lines: Sequence[bytes]) -> None:
        """Keep the lines."""
        self.sent.append(list(lines))

    @property
    def lines(self) -> list[bytes]:
        """All lines, whenever they came."""
        return [line for lines in self.sent for line in lines]


class FakePort:
    """A UDP port that closes in the next reactor turn, as Twisted's does."""

    def __init__(self, clock: Clock, protocol: DatagramProtocol, interface: str) -> None:
        self.interface = interface
        self.written: list[tuple[bytes, tuple[str, int]]] = []
        self.error: Exception | None = None
        self.listening = True
        self._clock = clock
        self._protocol = protocol

    def getHandle(self) -> Self:
        """Stand for the socket, too."""
        return self

    def sendto(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Keep the datagram, or raise the error."""
        assert self.listening
        if self.error is not None:
            raise self.error
        self.written.append((datagram, addr))

    def stopListening(self) -> Deferred[None]:
        """Close in the next turn."""
        self.listening = False
        closed: Deferred[None] = Deferred()
        self._clock.callLater(0, self._close, closed)
        return closed

    def _close(self, closed: Deferred[None]) -> None:
        self._protocol.doStop()
        closed.callback(None)


class FakeReactor(Clock):
    """A Clock with names and UDP ports."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = Resolver()
        self.ports: list[FakePort] = []
        self.refuses = False

    def listenUDP(
        self,
        port: int,
        protocol: DatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,  # noqa: N803 (the interface's)
    ) -> FakePort:
        """Open a port."""
        assert port == 0
        if self.refuses:
            raise CannotListenError(interface, port, OSError(97, "Address family not supported by protocol"))
        self.ports.append(FakePort(self, protocol, interface))
        transport: Any = self.ports[-1]
        protocol.makeConnection(transport)
        return self.ports[-1]


class FakeFanOut:
    """Takes batches, and is answered by the test."""

    name = "fan-out"
    lines_unwanted = 0

    def __init__(self) -> None:
        self.submitted: list[tuple[Write, Deferred[Reply]]] = []

    def submit(self, write: Write) -> Deferred[Reply]:
        """Keep the write."""
        self.submitted.append((write, Deferred()))
        return self.submitted[-1][1]

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of the writes."""
        return [write.body for write, _ in self.submitted]
