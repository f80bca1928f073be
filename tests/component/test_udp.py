"""UDP in and out: on a Clock with fakes, and over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery import udp_sender as udp
from influxrelay.delivery.udp_batcher import LineBatcher
from influxrelay.delivery.udp_sender import RESOLVE_INTERVAL, DatagramSender, pack
from influxrelay.lineprotocol.parser import PRECISIONS
from influxrelay.listeners.udp_protocol import MAX_DATAGRAM, LineReceiver
from testing.line_protocol_cases import random_line
from testing.logs import watch_log
from testing.resolver import Resolver
from testing.scripted import LOOPBACK, reactor, until

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

    def write(self, datagram: bytes, addr: tuple[str, int]) -> None:
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


class ListenerTests(SynchronousTestCase):
    """The listener, on a Clock."""

    def setUp(self) -> None:
        """Make a listener with one output, and a time that goes on with each look at it."""
        self.clock = Clock()
        self.sink = Sink()
        self.log = watch_log(self)
        self.now = NOW
        self.listener = self.make()

    def make(self, *outputs: Sink, precision: str = "ns") -> LineReceiver:
        """Make a listener."""
        return LineReceiver("relay", self.clock, outputs or [self.sink], precision=precision, clock=self.tick)

    def tick(self) -> int:
        """Tell the time."""
        self.now += 1
        return self.now

    def receive(self, *datagrams: bytes) -> None:
        """Let datagrams arrive in one reactor turn."""
        for datagram in datagrams:
            self.listener.datagramReceived(datagram, (LOOPBACK, 1))
        self.clock.advance(0)

    def test_one_stamp_for_each_turn(self) -> None:
        """Lines without a timestamp get the same one within a reactor turn, and a new one in the next."""
        self.receive(b"a v=1\nb v=2", b"c v=3\n")
        self.receive(b"d v=4")
        self.assertEqual(
            self.sink.sent,
            [
                [b"a v=1 %d" % (NOW + 1), b"b v=2 %d" % (NOW + 1), b"c v=3 %d" % (NOW + 1)],
                [b"d v=4 %d" % (NOW + 2)],
            ],
        )

    def test_nothing_before_the_turn_is_over(self) -> None:
        """Datagrams wait for the end of the turn, and flush() takes them at once and only once."""
        self.listener.datagramReceived(b"a v=1 1", (LOOPBACK, 1))
        self.assertEqual(self.sink.sent, [])
        self.listener.flush()
        self.clock.advance(0)
        self.assertEqual(self.sink.sent, [[b"a v=1 1"]])

    def test_given_timestamps_stay(self) -> None:
        """A line with a timestamp is not touched."""
        lines = [b'a,t=x v=1,s="q\\" 1\n2" 1234567890', b"b v=2i -5", b"c\\ d v=t 0"]
        self.receive(b"\n".join(lines))
        self.assertEqual(self.sink.lines, lines)

    def test_precisions(self) -> None:
        """The stamp is the arrival time in the listener's precision, rounded down."""
        for precision in ("ns", "u", "ms", "s", "m", "h"):
            self.sink.sent.clear()
            self.listener = self.make(precision=precision)
            self.receive(b"a v=1")
            self.assertEqual(self.sink.lines, [b"a v=1 %d" % (self.now // PRECISIONS[precision.encode()])])

    def test_every_output(self) -> None:
        """Each output gets each line, with the same stamp."""
        sinks = Sink(), Sink(), Sink()
        self.listener = self.make(*sinks)
        self.receive(b"a v=1\nb v=2")
        for sink in sinks:
            self.assertEqual(sink.lines, [b"a v=1 %d" % (NOW + 1), b"b v=2 %d" % (NOW + 1)])

    def test_invalid_lines_travel_with_nobody(self) -> None:
        """A line that is no line protocol is dropped and counted; its neighbours travel without it."""
        self.receive(b"a v=1 1\nrubbish\nb v= 2\nc v=3 3", b"d,v=4 4", b"e v=1u 5\nf v=6 6 6\ng v=7 7")
        self.assertEqual(self.sink.lines, [b"a v=1 1", b"c v=3 3", b"g v=7 7"])
        self.assertEqual(self.listener.dropped, {"invalid": 5})
        self.assertEqual(self.listener.lines_in, 8)
        self.assertEqual(self.listener.datagrams_in, 3)

    def test_timestamps_out_of_range(self) -> None:
        """A timestamp that is out of InfluxDB's range in the listener's precision makes a line invalid."""
        for precision, good, bad in (
            ("ns", 2**63 - 2, 2**63 - 1),
            ("s", 9_223_372_036, 9_223_372_037),
            ("h", 2_562_047, 2_562_048),
        ):
            self.sink.sent.clear()
            self.listener = self.make(precision=precision)
            self.receive(b"a v=1 %d\nb v=2 %d" % (bad, good))
            self.assertEqual(self.sink.lines, [b"b v=2 %d" % good], precision)
            self.assertEqual(self.listener.dropped, {"invalid": 1})

    def test_comments_and_blank_lines(self) -> None:
        """Comments, blank lines and empty datagrams are neither lines nor rubbish."""
        self.receive(b"# hello\n\n  \na v=1 1\n\n", b"", b"\n", b"#")
        self.assertEqual(self.sink.lines, [b"a v=1 1"])
        self.assertEqual((self.listener.lines_in, self.listener.dropped), (1, {}))
        self.assertEqual(self.listener.datagrams_in, 4)

    def test_nothing_valid(self) -> None:
        """An output is not bothered when no line is valid."""
        self.receive(b"rubbish")
        self.assertEqual(self.sink.sent, [])

    def test_log_of_rubbish_is_throttled(self) -> None:
        """A flood of rubbish is one log line in ten seconds, with a count and the start of the last datagram."""
        for _ in range(100):
            self.receive(b"rubbish " + b"x" * 1000)
        self.assertEqual(len(self.log), 1)
        self.assertIn("1 time(s)", self.log[0])
        self.assertIn("rubbish xxx", self.log[0])
        self.assertLess(len(self.log[0]), 250)
        self.clock.advance(10)
        self.receive(b"\xff\x00\n")
        self.assertEqual(len(self.log), 2)
        self.assertIn("100 time(s)", self.log[1])
        self.assertTrue(self.log[1].isprintable(), self.log[1])
        self.assertEqual(self.listener.dropped, {"invalid": 101})


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
        self.assertIn("3 time(s)", self.log[1])

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
        for error in (OSError(101, "Network is unreachable"), MessageLengthError("message too long")):
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


class BatcherTests(SynchronousTestCase):
    """The batches for a sender, on a Clock."""

    def setUp(self) -> None:
        """Make a batcher with a limit of each kind."""
        self.clock = Clock()
        self.sender = FakeFanOut()
        self.destination = Destination(b"db", b"", b"s", (b"", b"", b""))
        self.batcher = LineBatcher(
            self.sender,
            self.clock,
            self.destination,
            b"db=db&precision=s",
            batch_lines=3,
            batch_bytes=100,
            interval=2.0,
        )

    def test_by_count(self) -> None:
        """A batch is sent as soon as it has enough lines, and the rest waits."""
        self.batcher.send([b"l%d v=1 1" % number for number in range(7)])
        self.assertEqual(
            self.sender.bodies,
            [b"l0 v=1 1\nl1 v=1 1\nl2 v=1 1\n", b"l3 v=1 1\nl4 v=1 1\nl5 v=1 1\n"],
        )

    def test_by_bytes(self) -> None:
        """A batch is sent as soon as it has enough bytes, newlines included."""
        self.batcher.send([b"x" * 49])
        self.batcher.send([b"y" * 48])
        self.assertEqual(self.sender.bodies, [])
        self.batcher.send([b"z"])
        self.assertEqual(self.sender.bodies, [b"x" * 49 + b"\n" + b"y" * 48 + b"\nz\n"])
        self.batcher.send([b"x" * 99])
        self.assertEqual(len(self.sender.bodies), 2)

    def test_by_time(self) -> None:
        """A batch is sent when its first line has waited for the interval, whatever came after it."""
        self.batcher.send([b"a v=1 1"])
        self.clock.advance(1.5)
        self.batcher.send([b"b v=1 1"])
        self.assertEqual(self.sender.bodies, [])
        self.clock.advance(0.5)
        self.assertEqual(self.sender.bodies, [b"a v=1 1\nb v=1 1\n"])

    def test_the_time_begins_anew(self) -> None:
        """After a full batch the next line waits for the whole interval again."""
        self.batcher.send([b"a v=1 1"])
        self.clock.advance(1.5)
        self.batcher.send([b"b v=1 1", b"c v=1 1", b"d v=1 1"])
        self.assertEqual(len(self.sender.bodies), 1)
        self.clock.advance(1.5)
        self.assertEqual(len(self.sender.bodies), 1)
        self.clock.advance(0.5)
        self.assertEqual(self.sender.bodies[1:], [b"d v=1 1\n"])

    def test_flush(self) -> None:
        """flush() sends what there is, once, and leaves no timer behind."""
        self.batcher.send([b"a v=1 1"])
        self.batcher.flush()
        self.batcher.flush()
        self.assertEqual(self.sender.bodies, [b"a v=1 1\n"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_lines(self) -> None:
        """No lines start no timer and make no write."""
        self.batcher.send([])
        self.batcher.flush()
        self.assertEqual((self.sender.bodies, self.clock.getDelayedCalls()), ([], []))

    def test_what_is_sent(self) -> None:
        """A batch is a write that may be merged, to the output's destination and with its query."""
        self.batcher.send([b"a v=1 1"])
        self.batcher.flush()
        write, _ = self.sender.submitted[0]
        self.assertEqual(
            (write.destination, write.query, write.authorization, write.mergeable),
            (self.destination, b"db=db&precision=s", b"", True),
        )

    def test_answers(self) -> None:
        """Lines count as sent when the backend has taken them, else as dropped, by the reason."""
        self.batcher.send([b"x v=1 1"] * 12)
        outcomes: list[Reply | Exception] = [
            Reply(204),
            Reply(400),
            BackendFailure("refused", "no"),
            ValueError("a bug"),
        ]
        for (_, answer), outcome in zip(self.sender.submitted, outcomes, strict=True):
            if isinstance(outcome, Reply):
                answer.callback(outcome)
            else:
                answer.errback(outcome)
        self.assertEqual(self.batcher.lines_out, 3)
        self.assertEqual(self.batcher.dropped, {"400": 3, "refused": 3, "error": 3})
        self.assertEqual(self.batcher.name, "fan-out")


class Packets(DatagramProtocol):
    """Keeps what a socket receives."""

    noisy = False

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        """Keep the datagram."""
        self.received.append(datagram)

    @property
    def lines(self) -> bytes:
        """The lines in all datagrams."""
        return b"\n".join(self.received)


class WithNames:
    """The real reactor with another name resolver."""

    def __init__(self, names: Resolver) -> None:
        self.nameResolver = names

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class SocketTests(TestCase):
    """Listener and output over the real reactor's sockets."""

    def setUp(self) -> None:
        """Open a socket that stands for the backend, and one for a client."""
        self.log = watch_log(self)
        self.packets = Packets()
        self.target = self.bind(self.packets)
        self.client = socket.socket(type=socket.SOCK_DGRAM)
        self.addCleanup(self.client.close)

    def bind(self, protocol: DatagramProtocol, interface: str = LOOPBACK) -> Any:
        """Open a port for the time of the test."""
        port = reactor.listenUDP(0, protocol, interface=interface, maxPacketSize=MAX_DATAGRAM)
        port.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.addCleanup(port.stopListening)
        return port

    def listen(self, *outputs: Any, interface: str = LOOPBACK, **settings: Any) -> LineReceiver:
        """Start a listener, and point the client at it."""
        self.listener = LineReceiver("relay", reactor, outputs, **settings)
        self.listener.noisy = False
        port = self.bind(self.listener, interface)
        if interface != LOOPBACK:
            self.client.close()
            self.client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self.addCleanup(self.client.close)
        self.client.connect((interface, port.getHost().port))
        return self.listener

    async def connect(self, mtu: int = 1024, host: str = LOOPBACK, on: Any = reactor) -> DatagramSender:
        """Start an output to the backend's socket."""
        output = DatagramSender("relay", "out", on, host, self.target.getHost().port, mtu=mtu)
        output.start()

        def stop() -> Deferred[None]:
            transport: Any = output.transport
            output.stop()
            return Deferred.fromCoroutine(until(lambda: transport is None or transport.disconnected))

        self.addCleanup(stop)
        if on is reactor:
            await until(lambda: output.transport is not None, "the output is ready")
        return output

    async def arrived(self, size: int, position: int) -> None:
        """Wait until so many bytes have arrived, with the last newline."""
        await until(lambda: len(self.packets.lines) + 1 >= size, f"line {position}")

    async def survives(self, sink: Sink, number: int, datagram: bytes) -> None:
        """Wait for the line that was sent after some rubbish."""
        last = [b"alive v=1 %d" % number]
        await until(lambda: sink.sent and sink.sent[-1][-1:] == last, f"after {datagram[:20]!r}")

    async def test_large_datagrams(self) -> None:
        """A datagram of the largest size that UDP has is read whole."""
        sink = Sink()
        self.listen(sink)
        line = b'a s="%b" 1' % (b"x" * (65507 - 8))
        self.assertEqual(len(line), 65507)
        self.client.send(line)
        await until(lambda: sink.sent)
        many = b"\n".join([b"a v=1 1"] * (65507 // 8))
        self.client.send(many)
        await until(lambda: len(sink.sent) > 1)
        self.assertEqual(sink.sent, [[line], many.split(b"\n")])

    async def test_largest_mtu(self) -> None:
        """A line of the largest datagram's size comes out as it went in."""
        output = await self.connect(65507, host="localhost")
        self.listen(output)
        line = b'a s="%b" 1' % (b"x" * (65507 - 8))
        self.client.send(line)
        await until(lambda: self.packets.received)
        self.assertEqual(self.packets.received, [line])

    async def test_datagram_too_large_for_the_system(self) -> None:
        """A datagram that the system does not take is dropped and counted, and the output goes on."""
        output = await self.connect(70000)
        output.send([b"x" * 65508])
        output.send([b"a v=1 1"])
        await until(lambda: self.packets.received)
        self.assertEqual((output.lines_out, output.dropped), (1, {"send": 1}))

    async def test_nobody_listens(self) -> None:
        """An output whose target is closed goes on sending without a fuss."""
        output = await self.connect()
        await self.target.stopListening()
        for _ in range(10):
            output.send([b"a v=1 1"])
            await deferLater(reactor, 0)
        self.target = self.packets.transport = None
        self.assertEqual(output.lines_out, 10)

    async def test_packets_within_the_mtu(self) -> None:
        """One large datagram becomes packets within the MTU that hold all its lines in order."""
        output = await self.connect(200)
        self.listen(output)
        lines = b"\n".join(b"cpu,host=h%d v=%d %d" % (number % 7, number, number) for number in range(1500))
        self.client.send(lines)
        await until(lambda: len(self.packets.lines) >= len(lines))
        self.assertEqual(self.packets.lines, lines)
        self.assertLessEqual(max(map(len, self.packets.received)), 200)
        self.assertGreater(min(map(len, self.packets.received[:-1])), 170)

    async def test_random_lines(self) -> None:
        """Two thousand random valid lines with timestamps arrive byte for byte, in order."""
        output = await self.connect()
        self.listen(output)
        random = Random(1)
        lines = [random_line(random, NOW + number) for number in range(2000)]
        position = size = 0
        while position < len(lines):
            count = random.randint(1, 100)
            chunk = b"\n".join(lines[position : position + count])
            self.client.send(chunk)
            position += count
            size += len(chunk) + 1
            await self.arrived(size, position)
        self.assertEqual(self.packets.lines, b"\n".join(lines))
        self.assertLessEqual(max(map(len, self.packets.received)), 1024)
        self.assertEqual((self.listener.dropped, output.lines_out), ({}, 2000))

    async def test_rubbish(self) -> None:
        """No rubbish of any kind stops the listener or travels on, and all of it is counted."""
        sink = Sink()
        listener = self.listen(sink)
        random = Random(3)  # with some others one of the hundred is valid: a line need not be UTF-8
        rubbish = [
            b"\x00",
            b"\xff\xfe" * 1000,
            b"," * 65507,
            b"=" * 65507,
            b'"' * 65507,
            b"\\" * 65507,
            b" " * 60000 + b"x",
            b"a " * 30000,
            b'a s="' + b"\n" * 60000,
            b"a v=" + b"9" * 60000 + b"i 1",
            b"a v=1 " + b"9" * 60000,
            b"a v=1 1 1",
            b"a,=b v=1 1",
            b"POST /write?db=x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x1f\x8b\x08\x00garbage",
            "métrique".encode("utf-16"),
            *(random.randbytes(random.randint(1, 3000)) for _ in range(100)),
        ]
        for number, datagram in enumerate(rubbish, 1):
            self.client.send(datagram)
            self.client.send(b"alive v=1 %d" % number)
            await self.survives(sink, number, datagram)
        self.assertEqual([line for line in sink.lines if not line.startswith(b"alive")], [])
        self.assertGreaterEqual(listener.dropped["invalid"], 100)
        self.assertEqual(listener.lines_in, listener.dropped["invalid"] + len(rubbish))
        self.assertEqual(len(self.log), 1)

    async def test_ipv6(self) -> None:
        """A listener takes IPv6, and an output sends it, where the machine has it."""
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            raise SkipTest("no ::1 on this machine") from None
        self.target = self.bind(packets := Packets(), "::1")
        output = await self.connect(host="::1")
        self.listen(output, interface="::1")
        self.client.send(b"a v=1 1")
        await until(lambda: packets.received)
        self.assertEqual(packets.received, [b"a v=1 1"])

    async def test_read_buffer(self) -> None:
        """The socket gets the receive buffer that is asked for, and nothing is logged."""
        listener = LineReceiver("relay", reactor, [Sink()], read_buffer=65536)
        listener.noisy = False
        port = reactor.listenUDP(0, listener, interface=LOOPBACK)
        self.addCleanup(port.stopListening)
        size = port.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.assertIn(size, (65536, 2 * 65536))  # Linux tells the double
        self.assertEqual(self.log, [])

    async def test_read_buffer_over_the_limit(self) -> None:
        """A receive buffer that the system does not grant is a warning that names the setting to change."""
        listener = LineReceiver("relay", reactor, [Sink()], read_buffer=2**30)
        listener.noisy = False
        port = reactor.listenUDP(0, listener, interface=LOOPBACK)
        self.addCleanup(port.stopListening)
        self.assertEqual(len(self.log), 1)
        self.assertIn("not 1073741824: see sysctl net.core.rmem_max", self.log[0])

    async def test_address_changes(self) -> None:
        """An output with a real socket follows its name to another address."""
        names = Resolver()
        output = await self.connect(host="db.example", on=WithNames(names))
        self.patch(udp, "RESOLVE_INTERVAL", 0.01)
        names.answer(LOOPBACK)
        await until(lambda: output.transport is not None)
        output.send([b"a v=1 1"])
        await until(lambda: self.packets.received)
        port = self.target.getHost().port
        moved = Packets()
        moved_port = reactor.listenUDP(port, moved, interface="127.0.0.2")
        self.addCleanup(moved_port.stopListening)
        await until(lambda: names.waiting, "the second look-up")
        names.answer("127.0.0.2")

        def arrived() -> bool:
            output.send([b"b v=2 2"])
            return bool(moved.received)

        await until(arrived, "lines at the new address")
        self.assertEqual(self.packets.received, [b"a v=1 1"])
        await until(lambda: names.waiting, "the third look-up")
