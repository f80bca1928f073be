"""Who is fast and who is slow on a connection, and many connections at one port; with TLS and without.

``test_reactors`` runs the same on the reactors that the test itself does not use.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

from twisted.internet.interfaces import (
    IPullProducer,
    IPushProducer,
)
from twisted.internet.task import deferLater
from zope.interface import implementer

from influxrelay.transport.event_loop import event_loop
from testing.scripted import reactor, until
from testing.stream_case import LARGE, IPv6Case, StreamCase, TLSCase, UNIXCase, has
from testing.streams import Recorders


class FlowTests(StreamCase):
    """Connections by TCP."""

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
            await until(partial(has, receiver, LARGE))

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


class IPv6Tests(IPv6Case, FlowTests):
    """Connections by TCP over IPv6."""


class UNIXTests(UNIXCase, FlowTests):
    """Connections through unix sockets."""


class TLSTests(TLSCase, FlowTests):
    """Connections with TLS."""

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
