"""Ports that accept connections, on the event loop's own transports where the reactor has such a loop."""

from __future__ import annotations

import socket
from collections.abc import Coroutine
from functools import partial
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from influxrelay.core.log_throttle import Throttle
from influxrelay.core.text import times
from influxrelay.transport.addresses import Address, show_address, to_address
from influxrelay.transport.connection import adopt
from influxrelay.transport.sockets import BoundSocket
from influxrelay.transport.tls import ServerTLS
from influxrelay.transport.tls_connection import TLSConnection
from influxrelay.transport.watched_port import WatchedPort

BACKLOG = 4096  # connections that the system completes before they are accepted; Linux caps it at net.core.somaxconn
_ACCEPTED_AT_ONCE = 16
_REST = 0.1  # seconds without accepting when there are no file descriptors left


@implementer(IListeningPort, IReadDescriptor)
class ListeningPort(WatchedPort):
    """An open port.

    In each turn of the reactor it accepts only some of the connections that wait: a flood must not hold up those that
    are there, nor go beyond the files that the process may open, for what is shed for a new connection is closed in the
    next turn.

    :param factory: makes the protocols of the connections.
    :param tls: what the next connections are shown; None for connections without TLS.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, bound: BoundSocket, factory: Any, tls: ServerTLS | None = None, *, backlog: int = BACKLOG
    ) -> None:
        super().__init__(reactor, bound.socket, to_address(bound.socket.getsockname()))
        self.tls = tls
        self._bound = bound
        self._factory = factory
        self._backlog = backlog
        self._resting: Any = None
        self._beginning: set[Coroutine[Any, None, None]] = set()
        self._stopped: list[Deferred[None]] = []
        self._count = 0
        self._exhausted = Throttle(reactor)

    @property
    def is_inherited(self) -> bool:
        """Whether connections wait for the next process, instead of being refused, when the port is closed here."""
        return self._bound.inherited

    def startListening(self) -> None:
        """Accept connections.

        :raises OSError: somebody else listens at the address.
        """
        self._socket.listen(self._backlog)
        self._is_open = True
        self._factory.doStart()
        self._watch()

    def stopListening(self) -> Deferred[None]:
        """Accept no more; the connections that are there stay.

        :return: fires when each connection that was accepted has its protocol.
        """
        if self._is_open:
            self._is_open = False
            if self._resting is not None:
                self._resting.cancel()
            else:
                self._ignore()
            self._bound.close()
            self._factory.doStop()
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        self._tell_stopped()
        return stopped

    def _tell_stopped(self) -> None:
        if not self._beginning:
            stopped, self._stopped = self._stopped, []
            for each in stopped:
                each.callback(None)

    def _watch(self) -> None:
        self._resting = None
        super()._watch()

    def doRead(self) -> None:
        """Accept some of the connections that wait; called by the reactor."""
        for _ in range(_ACCEPTED_AT_ONCE):
            if not self._is_open:
                return
            try:
                connected, peer = self._socket.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:  # the client has left already
                continue
            except OSError as error:
                self._rest(error)
                return
            connected.setblocking(False)
            self._begin(connected, to_address(peer))

    def _rest(self, error: OSError) -> None:
        """Accept nothing for a moment: there are no file descriptors, or no memory, for another connection."""
        count = self._exhausted.admit()
        if count:
            self._log.warn(
                "cannot accept connections, {times}: {reason}", times=times(count), reason=error.strerror or error
            )
        self._ignore()
        self._resting = self._reactor.callLater(_REST, self._watch)

    def _build(self, address: Any) -> Any:
        if self.tls is None:
            return self._factory.buildProtocol(address)
        return TLSConnection(self._factory.buildProtocol, self.tls.context, self._reactor)

    def _begin(self, connected: socket.socket, peer: Address) -> None:
        if self._loop is None:
            self._begin_on_reactor(connected, peer)
            return
        beginning = adopt(self._loop, connected, self._build, peer)
        self._beginning.add(beginning)
        self._go_on(beginning)

    def _go_on(self, beginning: Coroutine[Any, None, None], _: object = None) -> None:
        """Begin with a connection at once: a task would do so in the next turn, and takes more time."""
        try:
            waiter = beginning.send(None)
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001 (a mistake in one connection must not be felt by others)
            self._log.error("unable to set up a connection: {error}", error=error)
        else:
            waiter.add_done_callback(partial(self._go_on, beginning))
            return
        self._beginning.discard(beginning)
        self._tell_stopped()

    def _begin_on_reactor(self, connected: socket.socket, peer: Address) -> None:
        """Do what Twisted's own ports do."""
        transport: Any = None
        try:
            protocol = self._build(peer)
            if protocol is not None:
                self._count += 1
                kind = _UNIXServer if connected.family == socket.AF_UNIX else _TCPServer
                transport = kind(connected, protocol, peer, self._count, self._reactor)
                protocol.makeConnection(transport)
        except Exception:  # noqa: BLE001 (a mistake in one connection must not be felt by others)
            self._log.failure("unable to set up a connection")
            if transport is not None:
                transport.abortConnection()
        if transport is None:
            connected.close()


class _Accepted(tcp.Server):
    """Twisted's transport of an accepted connection, with what it lacks."""

    _peer: Address
    _end_of_file = False

    def __repr__(self) -> str:
        return f"<connection from {show_address(self._peer)}>"

    def getPeer(self) -> Address:
        """Return the address of the other end."""
        return self._peer

    def getHost(self) -> Address:
        """Return the address of this end."""
        return to_address(self.socket.getsockname())

    def readConnectionLost(self, reason: Failure) -> None:
        """Remember that the other end sends no more; called by the reactor."""
        self._end_of_file = True
        super().readConnectionLost(reason)

    def resumeProducing(self) -> None:
        """Read again, unless there is nothing more: Twisted would find the same end again and again."""
        if not self._end_of_file:
            super().resumeProducing()


class _TCPServer(_Accepted):
    def __init__(self, sock: socket.socket, protocol: Any, peer: Address, number: int, reactor: Any) -> None:
        self._peer = peer
        nowhere: Any = None  # for what only Twisted's own ports have
        super().__init__(sock, protocol, (show_address(peer), 0), nowhere, number, reactor)


class _UNIXServer(_Accepted, unix.Server):
    def __init__(self, sock: socket.socket, protocol: Any, peer: Address, number: int, reactor: Any) -> None:
        self._peer = peer
        super().__init__(sock, protocol, show_address(peer), None, number, reactor)
