"""Host names to socket addresses."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from influxrelay.transport.addresses import family_of


@attrs.frozen
class Resolved:
    """One of a host's addresses, as ``socket.connect`` takes it."""

    family: int
    sockaddr: Any


class Resolver:
    """Looks up one host with the system's resolver: whatever that takes is a name, such as ``my_influxdb_1``.

    One thread of the reactor's pool is busy with it at the most; who asks meanwhile gets the same answer.
    """

    def __init__(self, reactor: Any, host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self._reactor = reactor
        self._host = host
        self._lookup = partial(_lookup, host, port, kind)
        self._under_way = False
        self._waiting: list[Deferred[list[Resolved]]] = []

    def addresses(self) -> Deferred[list[Resolved]]:
        """Return the host's addresses in the order of preference.

        Fails with :class:`DNSLookupError`. The lookup goes on if the Deferred is cancelled.
        """
        if family_of(self._host) is not None:
            return succeed(self._lookup(flags=socket.AI_NUMERICHOST))
        waiting: Deferred[list[Resolved]] = Deferred()
        self._waiting.append(waiting)
        if not self._under_way:
            self._under_way = True
            deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._lookup).addBoth(self._answer)
        return waiting

    def _answer(self, result: list[Resolved] | Failure) -> None:
        self._under_way = False
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(result)


def _lookup(host: str, port: int, kind: socket.SocketKind, flags: int = 0) -> list[Resolved]:
    try:
        found = socket.getaddrinfo(host, port, type=kind, flags=flags)
    except socket.gaierror as error:
        raise DNSLookupError(f"{host}: {error.strerror}") from error
    except UnicodeError as error:  # a part of the name is empty or too long
        raise DNSLookupError(f"{host}: {error}") from error
    return [Resolved(family, sockaddr) for family, _, _, _, sockaddr in found]
