"""Connections to other servers."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import NoProtocol, NoRouteError, TimeoutError, getConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from influxrelay.transport.connection import adopt
from influxrelay.transport.event_loop import event_loop
from influxrelay.transport.resolver import Resolved, Resolver
from influxrelay.transport.tls import ClientTLS
from influxrelay.transport.tls_connection import TLSConnection

_STAGGER = 0.25  # seconds until the next address is tried beside the present one (RFC 8305, 5)


@implementer(IStreamClientEndpoint)
class ClientEndpoint:
    """Connects to a host by TCP, and by TLS if that is wanted.

    A host with several addresses is asked at the next one when the present one fails or takes long.

    :param host: a name, as the system's resolver takes it, or an address.
    :param timeout: seconds for the lookup, the connection and the handshake together.
    """

    def __init__(self, reactor: Any, host: str, port: int, *, timeout: float, tls: ClientTLS | None = None) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._tls = tls
        self._resolver = Resolver(reactor, host, port)
        self._server_hostname = host.partition("%")[0].rstrip(".")

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect a protocol.

        Fails with Twisted's exceptions, :class:`ssl.SSLError` or, if it is cancelled, :class:`CancelledError`: nothing
        was sent then but parts of a handshake.
        """
        connecting: Deferred[IProtocol] = Deferred.fromCoroutine(self._connect(factory))
        return connecting.addTimeout(self._timeout, self._reactor, self._explain_timeout)

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        addresses = await self._resolver.addresses()
        if self._tls is None:
            return await _Race(self._reactor, addresses, factory, self._timeout).run()
        encrypted = _TLSFactory(factory, self._tls, self._reactor, self._server_hostname)
        connection: Any = await _Race(self._reactor, addresses, encrypted, self._timeout).run()
        try:
            protocol: IProtocol = await connection.handshake
        except BaseException:
            connection.abortConnection()
            raise
        return protocol

    def _explain_timeout(self, result: IProtocol | Failure, timeout: float) -> IProtocol | Failure:
        if isinstance(result, Failure) and result.check(CancelledError):
            raise TimeoutError(string=f"not connected within {timeout:g} s")
        return result


@implementer(IStreamClientEndpoint)
class UNIXEndpoint:
    """Connects to a unix stream socket."""

    def __init__(self, reactor: Any, path: str, *, timeout: float) -> None:
        self._reactor = reactor
        self._path = path
        self._timeout = timeout

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect a protocol; fails with Twisted's exceptions."""
        loop = event_loop(self._reactor)
        if loop is None:
            endpoint = UNIXClientEndpoint(self._reactor, self._path, timeout=self._timeout)
            connecting: Deferred[IProtocol] = endpoint.connect(factory)
            return connecting
        return _connect_on_loop(loop, Resolved(socket.AF_UNIX, self._path), factory)


class _TLSFactory(Factory):
    noisy = False

    def __init__(self, factory: IProtocolFactory, tls: ClientTLS, reactor: Any, server_hostname: str) -> None:
        self._factory = factory
        self._tls = tls
        self._reactor = reactor
        self._server_hostname = server_hostname

    def buildProtocol(self, addr: object) -> TLSConnection:  # noqa: ARG002 (the interface's)
        return TLSConnection(
            self._factory.buildProtocol, self._tls.context, self._reactor, server_hostname=self._server_hostname
        )


class _Race:
    """Tries the addresses of a host one after the other, and the next one beside an attempt that takes long."""

    def __init__(self, reactor: Any, addresses: list[Resolved], factory: IProtocolFactory, timeout: float) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._left = list(addresses)
        self._factory = factory
        self._attempts: list[Deferred[Any]] = []
        self._failures: list[Failure] = []
        self._next: Any = None
        self._result: Deferred[IProtocol] = Deferred(lambda _: self._stop())

    def run(self) -> Deferred[IProtocol]:
        """Return what fires with the first protocol that is connected, or fails if there is none."""
        self._try_next()
        return self._result

    def _try_next(self) -> None:
        self._next = None
        attempt = _connect_to(self._reactor, self._left.pop(0), self._factory, self._timeout)
        self._attempts.append(attempt)
        if self._left:
            self._next = self._reactor.callLater(_STAGGER, self._try_next)
        attempt.addCallbacks(self._won, self._lost, callbackArgs=(attempt,), errbackArgs=(attempt,))

    def _won(self, protocol: Any, attempt: Deferred[Any]) -> None:
        if attempt not in self._attempts:  # it was stopped, but too late
            protocol.transport.abortConnection()
            return
        self._attempts.remove(attempt)
        self._stop()
        self._result.callback(protocol)

    def _lost(self, failure: Failure, attempt: Deferred[Any]) -> None:
        if attempt not in self._attempts:  # it was stopped
            return
        self._attempts.remove(attempt)
        self._failures.append(failure)
        if self._left:
            if self._next is not None:
                self._next.cancel()
            self._try_next()
        elif not self._attempts:
            # That there is no way to an address of IPv6 says nothing of a host that has others.
            telling = [each for each in self._failures if not each.check(NoRouteError)]
            self._result.errback((telling or self._failures)[0])

    def _stop(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        attempts, self._attempts = self._attempts, []
        for each in attempts:
            each.cancel()


def _connect_to(reactor: Any, address: Resolved, factory: IProtocolFactory, timeout: float) -> Deferred[IProtocol]:
    loop = event_loop(reactor)
    if loop is not None:
        return _connect_on_loop(loop, address, factory)
    host, port = address.sockaddr[:2]
    kind = TCP4ClientEndpoint if address.family == socket.AF_INET else TCP6ClientEndpoint
    attempt: Deferred[IProtocol] = kind(reactor, host, port, timeout=timeout).connect(factory)
    return attempt


def _connect_on_loop(
    loop: asyncio.AbstractEventLoop, address: Resolved, factory: IProtocolFactory
) -> Deferred[IProtocol]:
    connecting: Deferred[IProtocol] = Deferred.fromFuture(loop.create_task(_open_connection(loop, address, factory)))
    connecting.addErrback(_translate)
    return connecting


async def _open_connection(loop: asyncio.AbstractEventLoop, address: Resolved, factory: IProtocolFactory) -> Any:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
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
        await loop.sock_connect(sock, address.sockaddr)
        await adopt(loop, sock, build)
    except BaseException:
        sock.close()
        raise
    (protocol,) = built
    if protocol is None:
        raise NoProtocol
    if isinstance(protocol, Exception):
        raise protocol
    return protocol


def _translate(failure: Failure) -> Any:
    """Raise what Twisted would."""
    error = failure.value
    if isinstance(error, asyncio.CancelledError):
        raise CancelledError from error
    if isinstance(error, OSError) and error.errno:
        raise getConnectError((error.errno, os.strerror(error.errno))) from error
    return failure
