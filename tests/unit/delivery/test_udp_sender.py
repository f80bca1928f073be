"""Lines out as datagrams: how they are packed, and what becomes of them."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from twisted.internet.interfaces import IHostnameResolver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from influxrelay.delivery.udp_sender import RESOLVE_INTERVAL, DatagramSender, pack
from testing.logs import watch_log
from testing.udp import FakeReactor


class PackTests(SynchronousTestCase):
    """The filling of datagrams."""

    def test_nothing(self) -> None:
        """No lines make no datagram."""
        self.assertEqual(pack([], 10), ([], 0))

    def test_whole_lines_up_to_the_mtu(self) -> None:
        """Lines are joined while they fit with the newlines between them, to the very byte."""
        self.assertEqual(pack([b"aaaa", b"bbbbb"], 10), ([(b"aaaa\nbbbbb", 2)], 0))
        self.assertEqual(pack([b"aaaa", b"bbbbbb"], 10), ([(b"aaaa", 1), (b"bbbbbb", 1)], 0))

    def test_line_as_large_as_the_mtu(self) -> None:
        """A line of exactly the MTU travels alone, and one byte more is too large."""
        self.assertEqual(pack([b"a", b"b" * 10, b"c"], 10), ([(b"a", 1), (b"b" * 10, 1), (b"c", 1)], 0))
        self.assertEqual(pack([b"b" * 11], 10), ([], 1))

    def test_too_large_among_others(self) -> None:
        """Too large lines are counted and left out, and the others stay together in their order."""
        lines = [b"x" * 11, b"a", b"x" * 12, b"b", b"x" * 99]
        self.assertEqual(pack(lines, 10), ([(b"a\nb", 2)], 3))

    def test_any_lines(self) -> None:
        """Datagrams hold all lines that fit, in order, within the MTU, and no line that had room in the one before."""
        random = Random(4)
        for _ in range(500):
            mtu = random.randint(1, 40)
            lines = [b"x" * random.randint(1, 45) for _ in range(random.randint(0, 30))]
            datagrams, too_large = pack(lines, mtu)
            fitting = [line for line in lines if len(line) <= mtu]
            self.assertEqual([line for datagram, _ in datagrams for line in datagram.split(b"\n")], fitting)
            self.assertEqual(
                [count for _, count in datagrams], [datagram.count(b"\n") + 1 for datagram, _ in datagrams]
            )
            self.assertEqual(too_large, len(lines) - len(fitting))
            for datagram, _ in datagrams:
                self.assertLessEqual(len(datagram), mtu)
            for (one, _), (two, _) in pairwise(datagrams):
                self.assertGreater(len(one) + 1 + len(two.partition(b"\n")[0]), mtu)


class OutputTests(SynchronousTestCase):
    """The output to a host and port, on a Clock."""

    def setUp(self) -> None:
        """Make an output to a name."""
        self.reactor = FakeReactor()
        self.names = self.reactor.nameResolver
        verifyObject(IHostnameResolver, self.names)
        self.log = watch_log(self)
        self.output = DatagramSender("relay", "out", self.reactor, "db.example", 8089, mtu=20)

    def start(self, *hosts: str) -> None:
        """Start the output, and answer its look-up."""
        self.output.start()
        self.names.answer(*hosts)
        self.reactor.advance(0)

    @property
    def written(self) -> list[tuple[bytes, tuple[str, int]]]:
        """What was sent, on whatever socket."""
        return [datagram for port in self.reactor.ports for datagram in port.written]

    def test_look_up(self) -> None:
        """The name is looked up at the start, and lines go to its first address, packed."""
        self.output.start()
        self.assertEqual(self.names.asked, ["db.example"])
        self.names.answer("192.0.2.1", "192.0.2.2")
        self.output.send([b"a v=1 1", b"b v=2 2", b"c v=3 3"])
        address = ("192.0.2.1", 8089)
        self.assertEqual(self.written, [(b"a v=1 1\nb v=2 2", address), (b"c v=3 3", address)])
        self.assertEqual((self.output.lines_out, self.output.dropped), (3, {}))
        self.assertEqual(self.log, ["relay: backend out is at 192.0.2.1"])

    def test_any_name(self) -> None:
        """Whatever the resolver takes is a host's name, and a name with a zone is an address."""
        for name in ("my_influxdb_1", "db--01", "-db-", "db."):
            output = DatagramSender("relay", "out", self.reactor, name, 8089, mtu=20)
            output.start()
            self.assertEqual(self.names.asked[-1], name)
            self.names.answer("192.0.2.1")
            output.send([b"a v=1 1"])
            self.assertEqual(self.reactor.ports[-1].written, [(b"a v=1 1", ("192.0.2.1", 8089))])
        output = DatagramSender("relay", "out", self.reactor, "fe80::1%eth0", 8089, mtu=20)
        output.start()
        output.send([b"a v=1 1"])
        self.assertEqual(self.reactor.ports[-1].written, [(b"a v=1 1", ("fe80::1%eth0", 8089))])

    def test_ipv6(self) -> None:
        """To an IPv6 address datagrams leave from an IPv6 socket."""
        self.start("2001:db8::1")
        self.output.send([b"a v=1 1"])
        self.assertEqual(self.reactor.ports[0].interface, "::")
        self.assertEqual(self.written, [(b"a v=1 1", ("2001:db8::1", 8089))])

    def test_ipv4_first(self) -> None:
        """A name with addresses of both kinds means its first IPv4 one, as in Go: datagrams have no second attempt."""
        self.start("::1", "192.0.2.1", "192.0.2.2")
        self.output.send([b"a v=1 1"])
        self.assertEqual(self.written, [(b"a v=1 1", ("192.0.2.1", 8089))])

    def test_unresolved(self) -> None:
        """While a name is not resolved nothing blocks: lines are dropped, counted and logged, throttled."""
        self.output.send([b"a v=1 1"])  # not even started
        self.output.start()
        self.output.send([b"a v=1 1", b"b v=2 2"])
        self.names.answer()
        self.output.send([b"c v=3 3"])
        self.assertEqual(self.output.dropped, {"unresolved": 4})
        self.assertEqual(self.output.lines_out, 0)
        self.assertEqual(self.reactor.ports, [])
        self.assertEqual(len(self.log), 1)
        self.assertIn("unresolved: db.example", self.log[0])
        self.reactor.advance(10)
        self.output.send([b"d v=4 4"])
        self.assertEqual(len(self.log), 2)
        self.assertIn("3 times", self.log[1])

    def test_resolved_later(self) -> None:
        """A name that did not resolve is looked up again after the interval, and lines flow."""
        self.start()
        self.reactor.advance(RESOLVE_INTERVAL)
        self.names.answer("192.0.2.1")
        self.output.send([b"a v=1 1"])
        self.assertEqual(len(self.written), 1)

    def test_look_up_fails_later(self) -> None:
        """A name that resolved once keeps its address while the name server is down."""
        self.start("192.0.2.1")
        self.reactor.advance(RESOLVE_INTERVAL)
        self.output.send([b"a v=1 1"])
        self.names.answer()
        self.output.send([b"b v=2 2"])
        self.assertEqual([address for _, address in self.written], [("192.0.2.1", 8089)] * 2)
        self.assertEqual(len(self.reactor.ports), 1)

    def test_same_address(self) -> None:
        """While the address stays the same so does the socket."""
        self.start("192.0.2.1")
        for _ in range(3):
            self.reactor.advance(RESOLVE_INTERVAL)
            self.names.answer("192.0.2.1")
            self.reactor.advance(0)
        self.assertEqual(len(self.reactor.ports), 1)
        self.assertEqual(len(self.log), 1)

    def test_address_changes(self) -> None:
        """When the name gets another address, of another family too, the lines go there, and the look-ups go on."""
        self.start("192.0.2.1")
        self.output.send([b"v4 v=1 1"])
        for host in ("2001:db8::1", "192.0.2.2", "192.0.2.3"):
            self.reactor.advance(RESOLVE_INTERVAL)
            self.names.answer(host)
            self.reactor.advance(0)
            self.output.send([b"to v=1 1"])
            self.assertEqual(self.written[-1], (b"to v=1 1", (host, 8089)))
        self.assertEqual([port.listening for port in self.reactor.ports].count(True), 1)
        self.assertEqual(self.output.lines_out, 4)
        self.assertEqual(len(self.log), 4)

    def test_no_socket(self) -> None:
        """Where no socket can be had for an address lines are dropped and counted, and it is tried again later."""
        self.reactor.refuses = True
        self.start("2001:db8::1")
        self.output.send([b"a v=1 1"])
        self.assertEqual((self.output.lines_out, sum(self.output.dropped.values())), (0, 1))
        self.reactor.refuses = False
        self.reactor.advance(RESOLVE_INTERVAL)
        self.names.answer("2001:db8::1")
        self.reactor.advance(0)
        self.output.send([b"b v=2 2"])
        self.assertEqual(self.written, [(b"b v=2 2", ("2001:db8::1", 8089))])

    def test_no_socket_for_another_address(self) -> None:
        """Where no socket can be had for a new address the lines go on to the old one."""
        self.start("192.0.2.1")
        self.reactor.refuses = True
        self.reactor.advance(RESOLVE_INTERVAL)
        self.names.answer("2001:db8::1")
        self.reactor.advance(0)
        self.output.send([b"a v=1 1"])
        self.assertEqual(self.written, [(b"a v=1 1", ("192.0.2.1", 8089))])
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)  # the next look-up

    def test_address_needs_no_look_up(self) -> None:
        """Lines to a numeric address are sent from the start on, whatever the name server does."""
        for host in ("192.0.2.1", "2001:db8::1"):
            output = DatagramSender("relay", "out", self.reactor, host, 8089, mtu=20)
            output.start()
            output.send([b"a v=1 1"])
            self.assertEqual((output.lines_out, output.dropped), (1, {}), host)

    def test_too_large_lines(self) -> None:
        """Lines over the MTU are dropped, counted and logged; the others go."""
        self.start("192.0.2.1")
        self.output.send([b"a v=1 1", b'b s="' + b"x" * 20 + b'" 1', b"c v=1 1"])
        self.assertEqual([datagram for datagram, _ in self.written], [b"a v=1 1\nc v=1 1"])
        self.assertEqual((self.output.lines_out, self.output.dropped), (2, {"mtu": 1}))
        self.assertIn("larger than the MTU of 20 bytes", self.log[-1])

    def test_send_errors(self) -> None:
        """What the system refuses to send is dropped, counted and logged, and the next lines are tried again."""
        self.start("192.0.2.1")
        port = self.reactor.ports[0]
        for error in (OSError(101, "Network is unreachable"), OSError(90, "Message too long")):
            port.error = error
            self.output.send([b"a v=1 1", b"b v=2 2", b"c v=3 3"])
        port.error = None
        self.output.send([b"d v=4 4"])
        self.assertEqual((self.output.lines_out, self.output.dropped), (1, {"send": 6}))
        self.assertIn("Network is unreachable", self.log[-1])

    def test_stop(self) -> None:
        """A stopped output closes its socket, looks up no more, and an answer that comes late changes nothing."""
        self.start("192.0.2.1")
        self.output.stop()
        self.reactor.advance(0)
        self.assertFalse(self.reactor.ports[0].listening)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        other = DatagramSender("relay", "out", self.reactor, "db.example", 8089, mtu=20)
        other.start()
        other.stop()
        self.names.answer("192.0.2.1")
        self.assertEqual(len(self.reactor.ports), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
