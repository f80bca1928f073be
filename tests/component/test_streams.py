"""What connections do, between a port and a client of ours, with TLS and without, on the reactor of the test.

``test_reactors`` runs the same on the reactors that the test itself does not use.
"""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IListeningPort,
    IPullProducer,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from influxrelay.transport.client import ClientEndpoint, UNIXEndpoint
from influxrelay.transport.event_loop import event_loop
from influxrelay.transport.server import ListeningPort
from influxrelay.transport.sockets import BoundSocket, Sockets
from influxrelay.transport.tls import ClientTLS, ServerTLS
from testing.certificates import Authority
from testing.directories import short_directory
from testing.scripted import LOOPBACK, reactor, until
from testing.streams import HalfCloseRecorder, Recorder, Recorders

LARGE = bytes(range(256)) * 64 * 1024  # 16 MB: more than the system keeps for a connection


def _has(end: Recorder, data: bytes) -> bool:
    return end.received == data


def _ended(*ends: Recorder) -> bool:
    return all(each.reason for each in ends)


def _call(method: str, end: Recorder) -> None:
    getattr(end.transport, method)()


class StreamTests(TestCase):
    """Connections by TCP."""

    timeout = 120

    def setUp(self) -> None:
        """Open a port, and prepare both ends."""
        self.ours, self.theirs = Recorders(), Recorders()
        self.port = self.open()
        self.addCleanup(self.close)

    def bind(self) -> BoundSocket:
        """Return the socket of the port."""
        return Sockets().tcp(LOOPBACK, 0)

    def open(self, **options: Any) -> ListeningPort:
        """Open the port."""
        port = ListeningPort(reactor, self.bind(), self.theirs, **options)
        port.startListening()
        return port

    def endpoint(self) -> IStreamClientEndpoint:
        """Return the way to the port."""
        address: Any = self.port.getHost()
        return ClientEndpoint(reactor, address.host, address.port, timeout=30.0)

    async def close(self) -> None:
        """End everything."""
        await self.port.stopListening()
        ends = [each for each in (*self.ours.made, *self.theirs.made) if each.transport is not None]
        for each in ends:
            each.transport.abortConnection()
        await until(lambda: all(each.reason for each in ends), "the end of all connections")

    async def pair(self, ours: type[Recorder] = Recorder, theirs: type[Recorder] = Recorder) -> tuple[Any, Any]:
        """Connect, and return the protocols at the client's and the server's end."""
        self.ours.kind, self.theirs.kind = ours, theirs
        before = len(self.theirs.made)
        client: Any = await self.endpoint().connect(self.ours)
        await until(lambda: len(self.theirs.made) > before and self.theirs.made[-1].events, "the server's end")
        return client, self.theirs.made[-1]

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
            await until(partial(_has, each, b"one two three four"))

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
        await until(partial(_ended, server, client))
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
            await until(partial(_ended, *ends))
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
            await until(partial(_ended, ends[which]))
            self.assertIsInstance(ends[which].error, ConnectionAborted)
            ends[1 - which].transport.resumeProducing()
            ends[1 - which].transport.write(b"x")
            await until(partial(_ended, *ends))
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
        await until(partial(_ended, client, server))
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

    # -- flow

    async def test_pause_reading(self) -> None:
        """A paused protocol receives nothing, the other end's data waits there, and all comes when it resumes."""
        for which in (0, 1):
            ends = await self.pair()
            sender, receiver = ends[which], ends[1 - which]
            producer = _Pushing(sender.transport)
            sender.transport.registerProducer(producer, True)
            receiver.transport.pauseProducing()
            sender.transport.write(LARGE)
            await until(partial(_is_paused, producer))
            await deferLater(reactor, 0.05)
            self.assertEqual((receiver.received, producer.calls), (b"", ["pause"]))
            receiver.transport.resumeProducing()
            await until(partial(_has, receiver, LARGE))

    async def test_paused_from_the_beginning(self) -> None:
        """A protocol that pauses when it is connected receives nothing until it resumes, however soon it comes."""
        self.theirs.on_connection = lambda each: each.transport.pauseProducing()
        connecting = self.endpoint().connect(Recorders(on_connection=lambda each: each.transport.write(b"data")))
        client: Any = await connecting
        self.ours.made.append(client)
        await until(lambda: self.theirs.made)
        (server,) = self.theirs.made
        await deferLater(reactor, 0.05)
        self.assertEqual(server.received, b"")
        server.transport.resumeProducing()
        await until(lambda: server.received == b"data")

    async def test_pause_in_data_received(self) -> None:
        """A protocol that pauses while it receives gets no second piece, and every byte in the end."""
        client, server = await self.pair()
        pieces: list[int] = []

        def pause(data: bytes) -> None:
            pieces.append(len(data))
            server.transport.pauseProducing()
            reactor.callLater(0, server.transport.resumeProducing)
            self.assertFalse(paused)
            paused.append(True)
            reactor.callLater(0, paused.clear)

        paused: list[bool] = []
        server.on_data = pause
        client.transport.write(LARGE[: 1024 * 1024])
        await until(lambda: len(server.received) == 1024 * 1024)
        self.assertEqual(server.received, LARGE[: 1024 * 1024])
        self.assertGreater(len(pieces), 1)

    async def test_push_producer(self) -> None:
        """A producer is paused while the other end does not read, resumed when it does, and stopped by the end."""
        client, server = await self.pair()
        producer = _Pushing(client.transport)
        client.transport.registerProducer(producer, True)
        self.assertRaises(RuntimeError, client.transport.registerProducer, producer, True)
        server.transport.pauseProducing()
        while not producer.is_paused:
            producer.write(LARGE[:65536])
        server.transport.resumeProducing()
        await until(lambda: not producer.is_paused)
        self.assertEqual(producer.calls[:2], ["pause", "resume"])
        server.transport.abortConnection()
        await until(lambda: client.reason)
        self.assertEqual(producer.calls[-1], "stop")

    async def test_push_producer_and_loss(self) -> None:
        """A connection that is closed while its producer is paused delivers what the producer still has."""
        client, server = await self.pair()
        producer = _Pushing(client.transport)
        client.transport.registerProducer(producer, True)
        server.transport.pauseProducing()
        while not producer.is_paused:
            producer.write(LARGE[:65536])

        def finish() -> None:
            producer.write(b"the end")
            client.transport.unregisterProducer()

        producer.on_resume = finish
        client.transport.loseConnection()
        server.transport.resumeProducing()
        await until(lambda: server.reason and client.reason)
        self.assertTrue(server.received.endswith(b"the end"))

    async def test_pull_producer(self) -> None:
        """A producer that has to be asked is asked for piece after piece, at the pace of the other end."""
        client, server = await self.pair()
        producer = _Pulled(client.transport, iter([LARGE[n : n + 65536] for n in range(0, len(LARGE), 65536)]))
        server.transport.pauseProducing()
        client.transport.registerProducer(producer, False)
        client.transport.loseConnection()
        await until(lambda: producer.asked > 1)
        await deferLater(reactor, 0.05)
        self.assertLess(producer.asked, len(LARGE) // 65536)
        server.transport.resumeProducing()
        await until(lambda: server.reason and client.reason)
        self.assertEqual(server.received, LARGE)

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

    # -- the port

    async def test_stop_listening(self) -> None:
        """A port that stops accepts nothing more, and keeps the connections that it has."""
        client, server = await self.pair()
        await self.port.stopListening()
        await self.port.stopListening()
        error = await self.endpoint().connect(self.ours).addErrback(lambda failure: failure.value)
        self.assertIsInstance(error, Exception)
        client.transport.write(b"still here")
        await until(lambda: server.received == b"still here")

    async def test_stop_listening_while_accepting(self) -> None:
        """A port has stopped when each connection that it has accepted has its protocol."""
        accept, loop = socket.socket.accept, event_loop(reactor)
        stopped: list[Any] = []

        def accept_and_stop(listening: socket.socket) -> Any:
            accepted = accept(listening)
            self.patch(socket.socket, "accept", accept)
            later = reactor.callFromThread if loop is None else loop.call_soon
            later(lambda: stopped.append(self.port.stopListening().addCallback(lambda _: self.theirs.made[:])))
            return accepted

        self.patch(socket.socket, "accept", accept_and_stop)
        connecting = self.endpoint().connect(self.ours)
        await until(lambda: stopped)
        self.assertEqual([each.events for each in await stopped[0]], [["connectionMade"]])
        await connecting

    async def test_many_at_once(self) -> None:
        """A flood of connections is accepted, each of them."""
        connecting = [self.endpoint().connect(self.ours) for _ in range(100)]
        for each in connecting:
            await each
        await until(lambda: sum(bool(each.events) for each in self.theirs.made) == 100)

    async def test_no_file_descriptors(self) -> None:
        """Where the process may open no more files, connections wait until it may."""
        await self.pair()
        accept = socket.socket.accept
        failing = [True]

        def fail(listening: socket.socket) -> Any:
            if failing:
                raise OSError(24, "Too many open files")
            return accept(listening)

        self.patch(socket.socket, "accept", fail)
        before = len(self.theirs.made)
        connecting = self.endpoint().connect(self.ours)
        await deferLater(reactor, 0.05)
        self.assertEqual(len(self.theirs.made), before)
        failing.clear()
        await connecting
        await until(lambda: len(self.theirs.made) > before)


@implementer(IPushProducer)
class _Pushing:
    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.calls: list[str] = []
        self.is_paused = False
        self.on_resume: Any = None

    def write(self, data: bytes) -> None:
        self._consumer.write(data)

    def pauseProducing(self) -> None:
        self.calls.append("pause")
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.is_paused = False
        if self.on_resume is not None:
            on_resume, self.on_resume = self.on_resume, None
            on_resume()

    def stopProducing(self) -> None:
        self.calls.append("stop")


@implementer(IPullProducer)
class _Pulled:
    def __init__(self, consumer: Any, pieces: Iterator[bytes]) -> None:
        self._consumer = consumer
        self._pieces = pieces
        self.asked = 0

    def resumeProducing(self) -> None:
        self.asked += 1
        piece = next(self._pieces, None)
        if piece is None:
            self._consumer.unregisterProducer()
        else:
            self._consumer.write(piece)

    def stopProducing(self) -> None:
        self._pieces = iter([])


def _is_paused(producer: _Pushing) -> bool:
    return producer.is_paused


class IPv6Tests(StreamTests):
    """Connections by TCP over IPv6."""

    def bind(self) -> BoundSocket:
        """Return the socket of the port."""
        return Sockets().tcp("::1", 0)

    async def test_addresses(self) -> None:
        """Both ends know both addresses, and the port its own."""
        client, server = await self.pair()
        address: Any = self.port.getHost()
        self.assertEqual(client.transport.getPeer(), address)
        self.assertEqual(server.transport.getHost(), address)
        self.assertEqual(server.transport.getPeer(), client.transport.getHost())
        self.assertIsInstance(address, IPv6Address)


class UNIXTests(StreamTests):
    """Connections through unix sockets."""

    def bind(self) -> BoundSocket:
        """Return the socket of the port."""
        self.path = f"{short_directory(self)}/s"
        return Sockets().unix(self.path, 0o600)

    def endpoint(self) -> IStreamClientEndpoint:
        """Return the way to the port."""
        return UNIXEndpoint(reactor, self.path, timeout=30.0)

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
            await until(partial(_ended, ends[which]))
            self.assertIsInstance(ends[which].error, ConnectionAborted)
            ends[1 - which].transport.resumeProducing()
            await until(partial(_ended, *ends))
            self.assertLess(len(ends[1 - which].received), len(LARGE))


class TLSTests(StreamTests):
    """Connections with TLS."""

    def open(self, **options: Any) -> ListeningPort:
        """Open the port, with a certificate."""
        self.authority = Authority(self.mktemp())
        return super().open(tls=ServerTLS(self.authority.issue(LOOPBACK)), **options)

    def endpoint(self) -> IStreamClientEndpoint:
        """Return the way to the port."""
        address: Any = self.port.getHost()
        tls = ClientTLS(ca_file=self.authority.ca_file())
        return ClientEndpoint(reactor, address.host, address.port, timeout=30.0, tls=tls)

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

    async def test_silent_client(self) -> None:
        """A client that never begins the handshake is a connection that the server's protocol can end."""
        address: Any = self.port.getHost()
        with socket.create_connection((address.host, address.port)) as silent:
            await until(lambda: self.theirs.made and self.theirs.made[0].events)
            self.theirs.made[0].transport.write(b"408")
            self.theirs.made[0].transport.abortConnection()
            await until(lambda: self.theirs.made[0].reason)
            with self.assertRaises(ConnectionResetError):
                silent.recv(1)

    async def test_plain_client(self) -> None:
        """A client that speaks no TLS loses its connection, and the protocol hears why."""
        address: Any = self.port.getHost()
        with socket.create_connection((address.host, address.port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await until(lambda: self.theirs.made and self.theirs.made[0].reason)
        self.assertIn("http request", str(self.theirs.made[0].error).lower())
