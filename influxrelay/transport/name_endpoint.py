"""Connections to a host known by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from influxrelay.core.resolver import Address, is_address, resolve

ATTEMPT_DELAY = 0.25  # seconds until the next address is tried beside the last one (RFC 8305, 5)


@implementer(IStreamClientEndpoint)
class NameEndpoint:
    """Connects to the first address of a host that answers.

    Twisted's ``HostnameEndpoint`` refuses names that IDNA 2008 has no place for, such as ``my_influxdb_1``, although
    the system resolves them.

    :param connect_to: returns the endpoint for one numeric address and port; Twisted's by default.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        connect_to: Callable[[str, int], IStreamClientEndpoint] | None = None,
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._connect_to = connect_to or self._twisted_endpoint

    def _twisted_endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        return (TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint)(self._reactor, host, port)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 (the interface's)
        """Resolve the name, and connect.

        :return: fails with ``DNSLookupError``, or with what was wrong with the address that the resolver prefers.
        """
        if is_address(self._host):
            return self._connect_to(self._host, self._port).connect(protocolFactory)
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        addresses: list[Address] = await resolve(self._reactor, self._host, self._port)
        attempts = (self._connect_to(each.host, each.port).connect(factory) for each in addresses)
        return await _Race(self._reactor, attempts).winner


class _Race:
    """Begins attempts one after the other, each when the one before has failed or has taken long; the first wins.

    :ivar winner: fails with the first failure when all have failed.
    """

    def __init__(self, clock: IReactorTime, attempts: Iterator[Deferred[IProtocol]]) -> None:
        self._clock = clock
        self._attempts = attempts
        self._running: list[Deferred[IProtocol]] = []
        self._problem: Failure | None = None
        self._timer: IDelayedCall | None = None
        self._over = False
        self.winner: Deferred[IProtocol] = Deferred(self._cancelled)
        self._begin_another()

    def _begin_another(self) -> None:
        self._stop_timer()
        attempt = next(self._attempts, None)
        if attempt is not None:
            self._timer = self._clock.callLater(ATTEMPT_DELAY, self._begin_another)
            self._running.append(attempt)
            attempt.addCallbacks(self._connected, self._failed, callbackArgs=(attempt,), errbackArgs=(attempt,))
        elif not self._running:
            self.winner.errback(self._problem)

    def _connected(self, protocol: IProtocol, attempt: Deferred[IProtocol]) -> None:
        self._running.remove(attempt)
        if self._over:
            transport: Any = protocol.transport  # type: ignore[attr-defined]
            transport.abortConnection()
            return
        self._end()
        self.winner.callback(protocol)

    def _failed(self, failure: Failure, attempt: Deferred[IProtocol]) -> None:
        self._running.remove(attempt)
        if self._over:
            return
        self._problem = self._problem or failure
        self._begin_another()

    def _cancelled(self, winner: Deferred[IProtocol]) -> None:
        self._end()
        winner.errback(ConnectingCancelledError(None))

    def _end(self) -> None:
        """Begin nothing more, and give up what runs."""
        self._over = True
        self._stop_timer()
        for attempt in list(self._running):
            attempt.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
