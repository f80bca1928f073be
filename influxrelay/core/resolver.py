"""Addresses of host names, as the system's resolver sees them."""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IHostResolution, IResolutionReceiver
from zope.interface import implementer

Address = IPv4Address | IPv6Address


@implementer(IResolutionReceiver)
class _Receiver:
    def __init__(self, name: str) -> None:
        self._name = name
        self._addresses: list[Address] = []
        self.resolved: Deferred[list[Address]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N803 (the interface's)
        """Do nothing: no resolver of Twisted's can be interrupted."""

    def addressResolved(self, address: Any) -> None:
        """Add one of the addresses."""
        self._addresses.append(address)

    def resolutionComplete(self) -> None:
        """Report what was found."""
        if self.resolved.called:
            return  # cancelled
        if self._addresses:
            self.resolved.callback(self._addresses)
        else:
            self.resolved.errback(DNSLookupError(f"no address found for {self._name}"))


def is_address(host: str) -> bool:
    """Tell whether this is a numeric address, an IPv6 zone included, and no name."""
    return isIPAddress(host) or isIPv6Address(host)


def resolve(reactor: Any, name: str, port: int, *, transport: str = "TCP") -> Deferred[list[Address]]:
    """Look up the addresses of a host name, in the resolver's order of preference.

    Any name goes to the resolver as it is: what a name may look like is the resolver's decision. Docker Compose calls
    containers ``my_influxdb_1``, and a hosts file may hold labels that DNS cannot.

    :param transport: ``TCP`` or ``UDP``.
    :return: fires with at least one address; fails with ``DNSLookupError``.
    """
    receiver = _Receiver(name)
    asked: Any = name
    try:
        name.encode("idna")
    except UnicodeError:  # Python would refuse to ask getaddrinfo(3), unless the name is bytes already
        asked = name.encode()
    reactor.nameResolver.resolveHostName(receiver, asked, port, transportSemantics=transport)
    return receiver.resolved
