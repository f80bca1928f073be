"""Connections to other servers."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectingCancelledError, ConnectionLost, NoProtocol, TimeoutError, getConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from influxrelay.transport.connection import adopt
from influxrelay.transport.event_loop import event_loop
from influxrelay.transport.name_endpoint import NameEndpoint
from influxrelay.transport.tls import ClientTLS
from influxrelay.transport.tls_connection import TLSConnection


@implementer(IStreamClientEndpoint)
class ClientEndpoint:
    """Connects to a host by TCP, and by TLS if that is wanted.

    :param host: a name, as the system's resolver takes it, or an address.
    :param timeout: seconds for the lookup, the connection and the handshake together.
    """

    def __init__(
        self, reactor: IReactorTime, host: str, port: int, *, timeout: float, tls: ClientTLS | None = None
    ) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._tls = tls
        self._endpoint = NameEndpoint(reactor, host, port, self._connect_to)
        self._server_hostname = host.partition("%")[0].rstrip(".")

    def _connect_to(self, host: str, port: int) -> IStreamClientEndpoint:
        """Return the endpoint for a numeric address."""
        loop = event_loop(self._reactor)
        if loop is not None:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return _LoopEndpoint(loop, family, (host, port))
        kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        endpoint: IStreamClientEndpoint = kind(self._reactor, host, port, timeout=self._timeout)
        return endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 (the interface's)
        """Connect a protocol.

        Fails with Twisted's exceptions, :class:`ssl.SSLError` or, if it is cancelled, one that says so: nothing
        was sent then but parts of a handshake.
        """
        if self._tls is None:
            connecting = self._endpoint.connect(protocolFactory)
        else:
            connecting = Deferred.fromCoroutine(self._connect_tls(protocolFactory, self._tls))
        return _within(connecting, self._timeout, self._reactor)

    async def _connect_tls(self, factory: IProtocolFactory, tls: ClientTLS) -> IProtocol:
        def build(address: object) -> TLSConnection:  # noqa: ARG001 (the interface's)
            hostname = self._server_hostname
            return TLSConnection(factory.buildProtocol, tls.context, self._reactor, server_hostname=hostname)

        deadline = self._reactor.seconds() + self._timeout
        connection: Any = await self._endpoint.connect(_Builder(build))
        if self._reactor.seconds() >= deadline:  # a connection that was just made could not be cancelled any more
            connection.handshake.addErrback(lambda _: None)
            connection.abortConnection()
            raise _too_late(self._timeout)
        try:
            protocol: IProtocol | None = await connection.handshake
        except BaseException:
            connection.abortConnection()
            raise
        if protocol is None:
            raise ConnectionLost("it was closed as soon as it was made")
        return protocol


@implementer(IStreamClientEndpoint)
class UNIXEndpoint:
    """Connects to a unix stream socket.

    :param timeout: seconds.
    """

    def __init__(self, reactor: IReactorTime, path: str, *, timeout: float) -> None:
        self._reactor = reactor
        self._timeout = timeout
        loop = event_loop(reactor)
        self._endpoint: IStreamClientEndpoint = (
            UNIXClientEndpoint(reactor, path, timeout=timeout)
            if loop is None
            else _LoopEndpoint(loop, socket.AF_UNIX, path)
        )

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 (the interface's)
        """Connect a protocol; fails with Twisted's exceptions."""
        return _within(self._endpoint.connect(protocolFactory), self._timeout, self._reactor)


class _Builder(Factory):
    """A factory that is a function."""

    noisy = False

    def __init__(self, build: Callable[[Any], Any]) -> None:
        self._build = build

    def buildProtocol(self, addr: Any) -> Any:
        return self._build(addr)


def _within(connecting: Deferred[IProtocol], seconds: float, clock: IReactorTime) -> Deferred[IProtocol]:
    """Limit the time that a connection may take to come about."""

    def explain(result: IProtocol | Failure, seconds: float) -> IProtocol | Failure:
        if isinstance(result, Failure) and result.check(CancelledError, ConnectingCancelledError):
            raise _too_late(seconds)
        return result

    return connecting.addTimeout(seconds, clock, explain)


def _too_late(seconds: float) -> TimeoutError:
    return TimeoutError(string=f"not connected within {seconds:g} s")


@implementer(IStreamClientEndpoint)
class _LoopEndpoint:
    """Connects to one address, with the event loop's own transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop, family: socket.AddressFamily, address: Any) -> None:
        self._loop = loop
        self._family = family
        self._address = address

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 (the interface's)
        """Connect a protocol; fails with Twisted's exceptions."""
        task = self._loop.create_task(self._connect(protocolFactory))
        connecting: Deferred[IProtocol] = Deferred.fromFuture(task)
        return connecting.addErrback(_translate)

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        built: list[Any] = []

        def build(peer: Any) -> Any:
            try:
                built.append(factory.buildProtocol(peer))
            except Exception as error:  # noqa: BLE001 (it is for whoever connects)
                built.append(error)
                return None
            return built[0]

        try:
            sock.setblocking(False)
            await self._loop.sock_connect(sock, self._address)
            await adopt(self._loop, sock, build)
        except BaseException:
            sock.close()
            raise
        (protocol,) = built
        if protocol is None:
            raise NoProtocol
        if isinstance(protocol, Exception):
            raise protocol
        connected: IProtocol = protocol
        return connected


def _translate(failure: Failure) -> Failure:
    """Raise what Twisted would."""
    error = failure.value
    if isinstance(error, asyncio.CancelledError):
        raise CancelledError from error
    if isinstance(error, OSError) and error.errno:
        raise getConnectError((error.errno, os.strerror(error.errno))) from error
    return failure
