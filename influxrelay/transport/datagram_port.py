"""Ports that receive datagrams, many in each turn of the reactor."""

from __future__ import annotations

import socket
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from influxrelay.transport.addresses import to_address
from influxrelay.transport.watched_port import WatchedPort

MAX_DATAGRAM = 65536  # bytes
_AT_ONCE = 256 * 1024  # bytes that are received in a turn, and what a datagram itself counts for
_OVERHEAD = 1024


class Receiver(Protocol):
    """A :class:`twisted.internet.protocol.DatagramProtocol` that takes several datagrams at a time."""

    def makeConnection(self, transport: Any) -> None:
        """Receive at a port."""

    def datagrams_received(self, datagrams: list[bytes]) -> None:
        """Take what has come in a turn."""

    def doStop(self) -> None:
        """Receive at it no more."""


@implementer(IListeningPort, IReadDescriptor)
class DatagramPort(WatchedPort):
    """An open port.

    Twisted's own asks for the sender of each datagram and calls the protocol for each, which takes as long as to read
    the lines.

    :param sock: bound; it is closed with the port.
    """

    _log = Logger()

    def __init__(self, reactor: Any, sock: socket.socket, receiver: Receiver) -> None:
        super().__init__(reactor, sock, to_address(sock.getsockname(), "UDP"))
        self._receiver = receiver

    def startListening(self) -> None:
        """Receive datagrams."""
        self._is_open = True
        self._receiver.makeConnection(self)
        self._watch()

    def stopListening(self) -> Deferred[None]:
        """Receive no more."""
        if self._is_open:
            self._is_open = False
            self._ignore()
            self._socket.close()
            self._receiver.doStop()
        return succeed(None)

    def doRead(self) -> None:
        """Receive some of the datagrams that wait; called by the reactor."""
        receive, room = self._socket.recv, _AT_ONCE
        datagrams: list[bytes] = []
        try:
            while room > 0:
                datagram = receive(MAX_DATAGRAM)
                datagrams.append(datagram)
                room -= len(datagram) + _OVERHEAD
        except OSError:  # there are no more
            pass
        if datagrams:
            try:
                self._receiver.datagrams_received(datagrams)
            except Exception:  # noqa: BLE001 (a mistake with one datagram must not be felt by others)
                self._log.failure("unexpected error with datagrams")

    def getHandle(self) -> socket.socket:
        """Return the socket."""
        return self._socket
