"""Connections to a host with several addresses, on a Clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError, DNSLookupError, TimeoutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from influxrelay.transport.name_endpoint import ATTEMPT_DELAY, NameEndpoint
from testing.resolver import ResolvingClock


@implementer(IStreamClientEndpoint)
class Attempt:
    """An endpoint whose connection comes about when the test says so.

    :ivar too_late: what has connected when the attempt is given up.
    """

    def __init__(self, host: str, port: int) -> None:
        self.where = (host, port)
        self.cancelled = False
        self.too_late: IProtocol | None = None
        self.connected: Deferred[IProtocol] = Deferred(self._cancel)

    def _cancel(self, connected: Deferred[IProtocol]) -> None:
        self.cancelled = True
        if self.too_late is not None:
            connected.callback(self.too_late)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 (the interface's)
        """Begin."""
        return self.connected


class EndpointTests(SynchronousTestCase):
    """Which address is tried when, and which one wins."""

    def setUp(self) -> None:
        """Make an endpoint to a name with three addresses."""
        self.reactor: Any = ResolvingClock({"my_influxdb_1": ["2001:db8::1", "192.0.2.1", "192.0.2.2"]})
        self.attempts: list[Attempt] = []

    def attempt(self, host: str, port: int) -> Attempt:
        """Note an attempt."""
        self.attempts.append(Attempt(host, port))
        return self.attempts[-1]

    def connect(self, host: str = "my_influxdb_1") -> Deferred[IProtocol]:
        """Begin to connect."""
        endpoint = NameEndpoint(self.reactor, host, 8086, self.attempt)
        verifyObject(IStreamClientEndpoint, endpoint)
        return endpoint.connect(Factory.forProtocol(Protocol))

    @property
    def tried(self) -> list[str]:
        """The addresses that were tried, in order."""
        return [host for host, _ in (attempt.where for attempt in self.attempts)]

    def test_first(self) -> None:
        """The address that the resolver prefers is tried first, and no other if it answers."""
        connected = self.connect()
        protocol = Protocol()
        self.attempts[0].connected.callback(protocol)
        self.assertIs(self.successResultOf(connected), protocol)
        self.assertEqual([attempt.where for attempt in self.attempts], [("2001:db8::1", 8086)])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_next_after_failure(self) -> None:
        """When an address fails the next one is tried at once."""
        connected = self.connect()
        self.attempts[0].connected.errback(ConnectionRefusedError())
        self.assertEqual(self.tried, ["2001:db8::1", "192.0.2.1"])
        self.attempts[1].connected.callback(Protocol())
        self.successResultOf(connected)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_next_beside_a_slow_one(self) -> None:
        """An address that takes long gets company; when one connects the others are given up."""
        connected = self.connect()
        self.reactor.advance(ATTEMPT_DELAY)
        self.reactor.advance(ATTEMPT_DELAY)
        self.assertEqual(self.tried, ["2001:db8::1", "192.0.2.1", "192.0.2.2"])
        protocol = Protocol()
        self.attempts[1].connected.callback(protocol)
        self.assertIs(self.successResultOf(connected), protocol)
        self.assertEqual([attempt.cancelled for attempt in self.attempts], [True, False, True])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_all_fail(self) -> None:
        """When all have failed, it is the failure of the first that is reported."""
        connected = self.connect()
        for number, error in enumerate([ConnectionRefusedError, TimeoutError, TimeoutError]):
            self.attempts[number].connected.errback(error())
        self.failureResultOf(connected, ConnectionRefusedError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """A connection that is not wanted any more is given up, with all its attempts."""
        connected = self.connect()
        self.reactor.advance(ATTEMPT_DELAY)
        connected.cancel()
        self.failureResultOf(connected, ConnectingCancelledError)
        self.assertEqual([attempt.cancelled for attempt in self.attempts], [True, True])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_two_at_once(self) -> None:
        """A second connection that came about together with the first is closed."""
        connected = self.connect()
        self.reactor.advance(ATTEMPT_DELAY)
        late = Protocol()
        transport = StringTransport()
        late.makeConnection(transport)
        self.attempts[0].too_late = late
        self.attempts[1].connected.callback(Protocol())
        self.successResultOf(connected)
        self.assertTrue(transport.disconnected)

    def test_unresolved(self) -> None:
        """A name that does not resolve is a look-up error."""
        self.failureResultOf(self.connect("nowhere"), DNSLookupError)

    def test_addresses(self) -> None:
        """A numeric address is not looked up."""
        for host in ("192.0.2.7", "2001:db8::7", "fe80::7%eth0"):
            self.connect(host)
        self.assertEqual(self.tried, ["192.0.2.7", "2001:db8::7", "fe80::7%eth0"])
        self.assertEqual(self.reactor.nameResolver.asked, [])
