"""What connections do, between a port and a client of ours, with TLS and without, on the reactor of the test.

``test_reactors`` runs the same on the reactors that the test itself does not use.
"""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IListeningPort,
    IPushProducer,
    ITransport,
)
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from influxrelay.transport.connection import LoopConnection
from influxrelay.transport.event_loop import event_loop
from influxrelay.transport.tls import ServerTLS
from testing.certificates import Authority
from testing.scripted import LOOPBACK, reactor, until
from testing.stream_case import LARGE, IPv6Case, StreamCase, TLSCase, UNIXCase, ended, has
from testing.streams import HalfCloseRecorder, Recorder


def _call(method: str, end: Recorder) -> None:
    getattr(end.transport, method)()


class StreamTests(StreamCase):
    """Connections by TCP."""

    # -- bytes

    async def test_both_ways(self) -> None:
        """Bytes come through in both directions, in order, by write and writeSequence, from a size of 0 on."""
        client, server = await self.pair()
        verifyObject(ITransport, client.transport)
        verifyObject(IConsumer, client.transport)
        verifyObject(IPushProducer, client.transport)
        verifyObject(IListeningPort, self.port)
        for each in (client, server):
            each.transport.write(b"")
            each.transport.write(b"one ")
            each.transport.writeSequence([b"two ", b"", b"three "])
            each.transport.writeSequence((b"four",))
        for each in (client, server):
            await until(partial(has, each, b"one two three four"))

    async def test_much_at_once(self) -> None:
        """What is larger than all buffers comes through, whole, while the other end sends as much."""
        client, server = await self.pair()
        for each in (client, server):
            each.transport.write(LARGE)
        await until(lambda: len(client.received) + len(server.received) >= 2 * len(LARGE))
        self.assertEqual((client.received == LARGE, server.received == LARGE), (True, True))

    async def test_turns(self) -> None:
        """What a sender sends that is faster than its receiver arrives in pieces, so that others have their turns."""
        client, server = await self.pair()
        pieces: list[int] = []
        server.on_data = lambda data: pieces.append(len(data))
        server.transport.pauseProducing()
        client.transport.write(LARGE)
        await deferLater(reactor, 0.05)
        server.transport.resumeProducing()
        await until(lambda: len(server.received) == len(LARGE))
        self.assertEqual(server.received, LARGE)
        self.assertLessEqual(max(pieces), 512 * 1024)

    async def test_most_at_once(self) -> None:
        """A protocol that says how much it wants at a time gets no more, where the loop's transports are used."""

        class Small(Recorder):
            """Wants little at a time."""

            most_at_once = 10_000

        client, server = await self.pair(theirs=Small)
        pieces: list[int] = []
        server.on_data = lambda data: pieces.append(len(data))
        client.transport.write(LARGE[:1_000_000])
        await until(lambda: len(server.received) == 1_000_000)
        self.assertEqual(server.received, LARGE[:1_000_000])
        if isinstance(server.transport, LoopConnection):
            self.assertLessEqual(max(pieces), 10_000)

    async def test_mistake_in_a_turn(self) -> None:
        """A protocol that raises at a part of much data loses its connection, with that as the reason."""
        client, server = await self.pair()

        def fail(_: bytes) -> None:
            raise ZeroDivisionError

        server.on_data = fail
        server.transport.pauseProducing()
        client.transport.write(LARGE)
        await deferLater(reactor, 0.05)
        server.transport.resumeProducing()
        await until(partial(ended, server, client))
        self.assertIsInstance(server.error, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_answer_in_data_received(self) -> None:
        """What is written while data is received, and the end after it, arrive in order."""

        def answer(server: Recorder) -> None:
            def on_data(data: bytes) -> None:
                server.transport.write(data)
                server.transport.loseConnection()

            server.on_data = on_data

        self.theirs.on_connection = answer
        client, _ = await self.pair()
        client.transport.write(b"question")
        await until(lambda: client.reason)
        self.assertEqual(client.received, b"question")

    async def test_server_first(self) -> None:
        """What a server writes when it is connected arrives."""
        self.theirs.on_connection = lambda each: each.transport.write(b"welcome")
        client, _ = await self.pair()
        await until(lambda: client.received == b"welcome")

    # -- the end

    async def test_lose_connection(self) -> None:
        """A closed connection delivers all that was written before, and both ends hear of it once."""
        for which in (0, 1):
            ends = await self.pair()
            ends[which].transport.write(LARGE)
            ends[which].transport.loseConnection()
            ends[which].transport.loseConnection()
            self.assertTrue(ends[which].transport.disconnecting)
            await until(partial(ended, *ends))
            self.assertEqual(len(ends[1 - which].received), len(LARGE))
            for each in ends:
                self.assertIsInstance(each.error, ConnectionDone)
                self.assertEqual(each.events, ["connectionMade", "connectionLost"])

    async def test_nothing_after_the_end(self) -> None:
        """After the end nothing is received, and what is written or asked for is ignored."""
        client, server = await self.pair()
        transports = client.transport, server.transport
        client.transport.loseConnection()
        await until(lambda: client.reason and server.reason)
        for transport in transports:
            transport.write(b"late")
            transport.writeSequence([b"late"])
            transport.pauseProducing()
            transport.resumeProducing()
            transport.loseConnection()
            transport.abortConnection()
            transport.unregisterProducer()
        await deferLater(reactor, 0)
        self.assertEqual((client.received, server.received), (b"", b""))
        self.assertEqual([len(each.events) for each in (client, server)], [2, 2])

    async def test_abort(self) -> None:
        """An aborted connection is reset: unsent data is dropped, and the other end is told that it is broken."""
        for which in (0, 1):
            ends = await self.pair()
            ends[1 - which].transport.pauseProducing()
            ends[which].transport.write(LARGE)
            ends[which].transport.abortConnection()
            ends[which].transport.abortConnection()
            await until(partial(ended, ends[which]))
            self.assertIsInstance(ends[which].error, ConnectionAborted)
            ends[1 - which].transport.resumeProducing()
            ends[1 - which].transport.write(b"x")
            await until(partial(ended, *ends))
            self.assertIsInstance(ends[1 - which].error, ConnectionLost)
            self.assertLess(len(ends[1 - which].received), len(LARGE))

    async def test_abort_in_data_received(self) -> None:
        """A protocol that aborts while it receives gets nothing more."""
        client, server = await self.pair()
        server.on_data = lambda _: server.transport.abortConnection()
        client.transport.write(LARGE)
        await until(lambda: server.reason)
        received = len(server.received)
        self.assertLess(received, len(LARGE))
        await until(lambda: client.reason)
        self.assertEqual(len(server.received), received)

    async def test_lose_in_connection_made(self) -> None:
        """A server may close or reset a connection as soon as it is made."""
        for method in ("loseConnection", "abortConnection"):
            self.theirs.on_connection = partial(_call, method)
            await self.endpoint().connect(self.ours).addErrback(lambda _: None)
            await until(lambda: self.theirs.made and self.theirs.made[-1].reason)
            self.assertEqual(self.theirs.made[-1].events, ["connectionMade", "connectionLost"])
            await until(lambda: all(each.reason for each in self.ours.made))

    async def test_refused(self) -> None:
        """A factory that makes no protocol has its connection closed, and others go on."""
        self.theirs.refuse = True
        await self.endpoint().connect(self.ours).addErrback(lambda _: None)
        await until(lambda: all(each.reason for each in self.ours.made))
        self.theirs.refuse = False
        await self.pair()

    async def test_mistake(self) -> None:
        """A protocol that raises loses its connection, with what it has raised as the reason, and others go on."""
        client, server = await self.pair()

        def fail(_: bytes) -> None:
            raise ZeroDivisionError

        server.on_data = fail
        client.transport.write(b"x")
        await until(lambda: server.reason and client.reason)
        self.assertIsInstance(server.error, ZeroDivisionError)
        await until(lambda: self.flushLoggedErrors(ZeroDivisionError))
        await self.pair()

    async def test_mistake_at_the_beginning(self) -> None:
        """A protocol that raises when it is connected loses its connection, and others go on."""

        def fail(_: Recorder) -> None:
            raise ZeroDivisionError

        self.theirs.on_connection = fail
        await self.endpoint().connect(self.ours).addErrback(lambda _: None)
        await until(lambda: self.flushLoggedErrors(ZeroDivisionError))
        await until(lambda: all(each.reason for each in self.ours.made))
        self.theirs.on_connection = None
        await self.pair()

    async def test_no_garbage(self) -> None:
        """A connection on an event loop that is gone leaves no cycle for the garbage collector; Twisted's do."""
        client, server = await self.pair()
        gone = [weakref.ref(each.transport) for each in (client, server)]
        client.transport.loseConnection()
        await until(partial(ended, client, server))
        self.ours.made.clear()
        self.theirs.made.clear()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for _ in range(3):
            await deferLater(reactor, 0)
        del client, server
        if event_loop(reactor) is None:
            gc.collect()
        await until(lambda: not any(each() for each in gone), "the end of both transports")

    # -- half of it

    async def test_half_close(self) -> None:
        """An end that sends no more still receives; the other end hears of it and may go on, up to its own end."""
        client, server = await self.pair(HalfCloseRecorder, HalfCloseRecorder)
        client.transport.write(b"question")
        client.transport.loseWriteConnection()
        await until(lambda: "readConnectionLost" in server.events)
        self.assertEqual(server.received, b"question")
        server.transport.resumeProducing()  # which must not find the end again
        server.transport.write(LARGE)
        await until(lambda: len(client.received) == len(LARGE))
        server.transport.loseConnection()
        await until(lambda: "readConnectionLost" in client.events)
        client.transport.loseConnection()
        await until(lambda: client.reason and server.reason)
        self.assertEqual(server.events, ["connectionMade", "readConnectionLost", "connectionLost"])
        self.assertEqual([type(each.error) for each in (client, server)], [ConnectionDone, ConnectionDone])

    async def test_half_close_of_a_whole(self) -> None:
        """A protocol that knows no half-closed connections has its connection closed."""
        client, server = await self.pair(HalfCloseRecorder)
        client.transport.write(b"question")
        client.transport.loseWriteConnection()
        await until(lambda: server.reason)
        self.assertEqual(server.received, b"question")
        self.assertIsInstance(server.error, ConnectionDone)

    # -- addresses and options

    async def test_addresses(self) -> None:
        """Both ends know both addresses, and the port its own."""
        client, server = await self.pair()
        address: Any = self.port.getHost()
        self.assertEqual(client.transport.getPeer(), address)
        self.assertEqual(server.transport.getHost(), address)
        self.assertEqual(server.transport.getPeer(), client.transport.getHost())
        self.assertEqual(self.theirs.addresses, [client.transport.getHost()])
        self.assertIsInstance(address, IPv4Address)

    async def test_options(self) -> None:
        """The options of TCP can be set."""
        for each in await self.pair():
            each.transport.setTcpNoDelay(True)
            each.transport.setTcpKeepAlive(True)


class IPv6Tests(IPv6Case, StreamTests):
    """Connections by TCP over IPv6."""

    async def test_addresses(self) -> None:
        """Both ends know both addresses, and the port its own."""
        client, server = await self.pair()
        address: Any = self.port.getHost()
        self.assertEqual(client.transport.getPeer(), address)
        self.assertEqual(server.transport.getHost(), address)
        self.assertEqual(server.transport.getPeer(), client.transport.getHost())
        self.assertIsInstance(address, IPv6Address)


class UNIXTests(UNIXCase, StreamTests):
    """Connections through unix sockets."""

    async def test_addresses(self) -> None:
        """Both ends know the path, and the client has none."""
        client, server = await self.pair()
        path = self.path.encode()
        self.assertEqual([self.port.getHost(), client.transport.getPeer()], [UNIXAddress(path), UNIXAddress(path)])
        self.assertEqual(server.transport.getHost(), UNIXAddress(path))
        self.assertEqual(server.transport.getPeer(), UNIXAddress(None))

    async def test_abort(self) -> None:
        """An aborted connection is broken at once; a unix socket has no reset, and so the other end sees an end."""
        for which in (0, 1):
            ends = await self.pair()
            ends[1 - which].transport.pauseProducing()
            ends[which].transport.write(LARGE)
            ends[which].transport.abortConnection()
            await until(partial(ended, ends[which]))
            self.assertIsInstance(ends[which].error, ConnectionAborted)
            ends[1 - which].transport.resumeProducing()
            await until(partial(ended, *ends))
            self.assertLess(len(ends[1 - which].received), len(LARGE))


class TLSTests(TLSCase, StreamTests):
    """Connections with TLS."""

    async def test_change_of_certificate(self) -> None:
        """A port whose certificate changes shows the new one to new connections, and those that are there go on."""
        client, server = await self.pair()
        self.authority = Authority(self.mktemp())
        self.port.tls = ServerTLS(self.authority.issue(LOOPBACK))
        await self.pair()
        client.transport.write(b"still here")
        await until(lambda: server.received == b"still here")

    async def test_cut(self) -> None:
        """A connection that ends without TLS's own end is a lost one: what has come may not be all."""
        client, server = await self.pair()
        server.transport.transport.loseConnection()
        await until(lambda: client.reason)
        self.assertIsInstance(client.error, ConnectionLost)
