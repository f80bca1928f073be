"""Look-ups of host names."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IHostnameResolver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from influxrelay.core.resolver import is_address, resolve
from testing.resolver import ResolvingClock


class ResolverTests(SynchronousTestCase):
    """Names, and what the resolver hears of them."""

    def setUp(self) -> None:
        """Make a resolver that knows some names."""
        self.reactor: Any = ResolvingClock({"my_influxdb_1": ["192.0.2.1", "2001:db8::1"]})
        verifyObject(IHostnameResolver, self.reactor.nameResolver)

    def test_addresses(self) -> None:
        """All addresses of a name are found, in the resolver's order, with the port."""
        found = self.successResultOf(resolve(self.reactor, "my_influxdb_1", 8086, transport="UDP"))
        self.assertEqual(
            [(each.type, each.host, each.port) for each in found],
            [("UDP", "192.0.2.1", 8086), ("UDP", "2001:db8::1", 8086)],
        )

    def test_unknown(self) -> None:
        """A name without an address is a look-up error that names it."""
        error = self.failureResultOf(resolve(self.reactor, "nowhere", 1), DNSLookupError)
        self.assertIn("nowhere", str(error.value))

    def test_any_name(self) -> None:
        """Any name reaches the resolver: as text, or as bytes where getaddrinfo() would refuse the text."""
        names = ["my_influxdb_1", "db--01", "-a-", "xn--a", "größe", "a..b", "x" * 80]
        for name in names:
            resolve(self.reactor, name, 1).addErrback(lambda failure: failure.trap(DNSLookupError))
        asked: list[Any] = self.reactor.nameResolver.asked
        self.assertEqual(asked, [*names[:5], b"a..b", b"x" * 80])

    def test_addresses_are_no_names(self) -> None:
        """Numeric addresses are told from names, an IPv6 zone included."""
        for host in ("127.0.0.1", "::1", "fe80::1%eth0"):
            self.assertTrue(is_address(host), host)
        for host in ("localhost", "my_influxdb_1", "127.1", ""):
            self.assertFalse(is_address(host), host)
