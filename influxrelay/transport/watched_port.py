"""A port whose socket the reactor watches, with its event loop where it has one."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from influxrelay.transport.addresses import Address, show_address
from influxrelay.transport.event_loop import event_loop


class WatchedPort(ABC):
    """What ports have in common: the part of ``IListeningPort`` and ``IReadDescriptor`` that is about the socket.

    :param sock: bound.
    """

    def __init__(self, reactor: Any, sock: socket.socket, address: Address) -> None:
        self._reactor = reactor
        self._loop = event_loop(reactor)
        self._socket = sock
        self._address = address
        self._is_open = False

    @abstractmethod
    def stopListening(self) -> Deferred[None]:
        """Close the port."""

    @abstractmethod
    def doRead(self) -> None:
        """Take some of what waits at the socket; called by the reactor."""

    def _watch(self) -> None:
        if self._loop is not None:
            self._loop.add_reader(self._socket.fileno(), self.doRead)
        else:
            self._reactor.addReader(self)

    def _ignore(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
        else:
            self._reactor.removeReader(self)

    def getHost(self) -> Address:
        """Return the address of the port."""
        return self._address

    def fileno(self) -> int:
        """Return the file descriptor; called by the reactor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return what Twisted's log calls the port."""
        return f"port {show_address(self._address)}"

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 (the interface's)
        """Close the port; called by the reactor."""
        self.stopListening()
