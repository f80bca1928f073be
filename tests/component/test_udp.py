"""UDP in and out over real sockets."""

from __future__ import annotations

import socket
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface.verify import verifyObject

from influxrelay.delivery import udp_sender as udp
from influxrelay.delivery.udp_sender import DatagramSender
from influxrelay.listeners.udp_protocol import LineReceiver
from influxrelay.transport.datagram_port import MAX_DATAGRAM, DatagramPort
from testing.line_protocol_cases import random_line
from testing.logs import watch_log
from testing.resolver import Resolver
from testing.scripted import LOOPBACK, reactor, until
from testing.udp import NOW, Sink


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
        sock = socket.socket(socket.AF_INET6 if ":" in interface else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((interface, 0))
        port: Any = DatagramPort(reactor, sock, self.listener)
        port.startListening()
        self.addCleanup(port.stopListening)
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

    async def test_any_port(self) -> None:
        """A listener takes datagrams one by one, too, as Twisted's own ports deliver them."""
        sink = Sink()
        listener = LineReceiver("relay", reactor, [sink])
        listener.noisy = False
        port = reactor.listenUDP(0, listener, interface=LOOPBACK)
        self.addCleanup(port.stopListening)
        self.client.connect((LOOPBACK, port.getHost().port))
        self.client.send(b"a v=1 1")
        await until(lambda: sink.sent)
        self.assertEqual(sink.sent, [[b"a v=1 1"]])

    async def test_mistake(self) -> None:
        """A mistake in what takes the lines costs one datagram, not the port."""
        sink = Sink()

        class Broken:
            """Fails once."""

            def send(self, lines: list[bytes]) -> None:
                """Fail, or pass on."""
                if lines == [b"a v=0 0"]:
                    raise ZeroDivisionError
                sink.send(lines)

        self.listen(Broken())
        self.client.send(b"a v=0 0")
        await until(lambda: self.flushLoggedErrors(ZeroDivisionError))
        self.client.send(b"a v=1 1")
        await until(lambda: sink.sent)
        self.assertEqual(sink.sent, [[b"a v=1 1"]])

    async def test_interface(self) -> None:
        """The port is one of Twisted's kind."""
        self.listen(Sink())
        port: Any = self.listener.transport
        verifyObject(IListeningPort, port)
        verifyObject(IReadDescriptor, port)
        self.assertEqual((port.getHost().type, port.fileno()), ("UDP", port.getHandle().fileno()))

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
