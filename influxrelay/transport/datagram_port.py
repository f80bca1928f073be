"""Ports that receive datagrams, many in each turn of the reactor."""

from __future__ import annotations

import socket
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from influxrelay.transport.addresses import Address, show_address, to_address
from influxrelay.transport.event_loop import event_loop

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
class DatagramPort:
    """An open port.

    Twisted's own asks for the sender of each datagram and calls the protocol for each, which takes as long as to read
    the lines.

    :param sock: bound; it is closed with the port.
    """

    _log = Logger()

    def __init__(self, reactor: Any, sock: socket.socket, receiver: Receiver) -> None:
        self._reactor = reactor
        self._loop = event_loop(reactor)
        self._socket = sock
        self._receiver = receiver
        self._address = to_address(sock.getsockname(), "UDP")
        self._is_open = False

    def startListening(self) -> None:
        """Receive datagrams."""
        self._is_open = True
        self._receiver.makeConnection(self)
        if self._loop is not None:
            self._loop.add_reader(self._socket.fileno(), self.doRead)
        else:
            self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Receive no more."""
        if self._is_open:
            self._is_open = False
            if self._loop is not None:
                self._loop.remove_reader(self._socket.fileno())
            else:
                self._reactor.removeReader(self)
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

    def getHost(self) -> Address:
        """Return the address of the port."""
        return self._address

    def getHandle(self) -> socket.socket:
        """Return the socket."""
        return self._socket

    def fileno(self) -> int:
        """Return the file descriptor; called by the reactor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return what Twisted's log calls the port."""
        return f"port {show_address(self._address)}"

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 (the interface's)
        """Receive no more; called by the reactor."""
        self.stopListening()
