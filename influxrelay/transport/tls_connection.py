"""TLS on top of any Twisted transport, with the standard library's ``ssl``.

One implementation serves all reactors. On a server, the protocol inside is connected before the handshake, so that its
limits on connections and time hold from the first byte; on a client it is made when the handshake is done.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, NoProtocol
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_RECORD = 16 * 1024  # bytes of content in a TLS record at the most (RFC 8446, 5.1)


@implementer(ITransport, IPushProducer, IConsumer, IHalfCloseableProtocol)
class TLSConnection(Protocol):
    """The protocol of an encrypted connection, and the transport of the protocol inside.

    :param build: makes the protocol inside; None refuses the connection.
    :param server_hostname: who should answer; None on a server.
    :ivar handshake: on a client, fires with the protocol inside when the handshake is done, or fails with the reason
        why it never will be: :class:`ssl.SSLError`, or why the connection below is gone; fires with None when the
        connection is gone again. None on a server.
    :ivar disconnecting: whether the connection is being closed from this end.
    """

    most_at_once = 4 * _RECORD
    _log = Logger()
    _inner: Any = None
    _shaken = False
    _closed = False
    _write_closed = False
    _reading = True
    _end_of_file = False
    _has_producer = False
    _problem: Failure | None = None
    disconnecting = False

    def __init__(
        self,
        build: Callable[[Any], Any],
        context: ssl.SSLContext,
        reactor: Any,
        *,
        server_hostname: str | None = None,
    ) -> None:
        self._build = build
        self._reactor = reactor
        self._is_server = server_hostname is None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=self._is_server, server_hostname=server_hostname
        )
        self._unencrypted: list[bytes] = []
        self.handshake: Deferred[Any] | None = None if self._is_server else Deferred()

    # -- called by the transport below

    def connectionMade(self) -> None:
        """Begin the handshake."""
        self._below: Any = self.transport  # which zope.interface hides
        if self._is_server:
            self._connect_inner()
        self._shake()

    def _connect_inner(self) -> None:
        self._inner = inner = self._build(self.getPeer())
        if inner is None:
            self.abortConnection()
        else:
            inner.makeConnection(self)

    def _shake(self) -> None:
        if self._closed:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError:
            self._fail(Failure())
            return
        self._shaken = True
        self._flush()
        if not self._reading:
            self._below.pauseProducing()
        if not self._is_server:
            self._connect_inner()
            if self._inner is None:
                self._settle(Failure(NoProtocol()))
                return
        if self._unencrypted:
            waiting, self._unencrypted = self._unencrypted, []
            self.writeSequence(waiting)
        if self.disconnecting:
            self._shut()
        self._settle(self._inner)

    def _settle(self, result: Any) -> None:
        if self.handshake is not None and not self.handshake.called:
            self.handshake.callback(result)

    def dataReceived(self, data: bytes) -> None:
        """Decrypt what has come."""
        self._incoming.write(data)
        if not self._shaken:
            self._shake()
        if self._shaken:
            self._read()

    def _read(self) -> None:
        """Hand on what can be decrypted."""
        tls, incoming = self._tls, self._incoming
        pieces: list[bytes] = []
        problem = None
        try:
            while self._reading and not self._closed and (incoming.pending or tls.pending()):
                piece = tls.read(_RECORD)
                if not piece:
                    self._end_of_file = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # after this end's own close_notify
            self._end_of_file = True
        except ssl.SSLError:
            problem = Failure()
        if pieces:
            self._inner.dataReceived(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._outgoing.pending:  # an alert, or what TLS itself has to say
            self._flush()
        if problem is not None:
            self._fail(problem)
        elif self._end_of_file:
            self._end_reading()

    def _end_reading(self) -> None:
        """Pass on that the other end sends no more."""
        self._reading = False
        if self._closed:
            return
        if IHalfCloseableProtocol.providedBy(self._inner):
            self._inner.readConnectionLost()
        else:
            self.loseConnection()

    def readConnectionLost(self) -> None:
        """Close the connection, unless the other end has said in TLS that it is only half closed."""
        if not self._end_of_file or not IHalfCloseableProtocol.providedBy(self._inner):
            self._below.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing: this end never half-closes the connection below."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the protocol inside."""
        cut = not (self._closed or self._end_of_file)
        self._closed = True
        if self._problem is not None:
            reason = self._problem
        elif cut and reason.check(ConnectionDone):
            reason = Failure(ConnectionLost("it ended without TLS's close_notify"))
        inner, self._inner = self._inner, None
        self._build = _refuse
        if inner is not None:
            inner.connectionLost(reason)
        self._settle(reason)
        if self._shaken and self.handshake is not None:
            self.handshake.addCallback(lambda _: None)  # the protocol refers to this object

    def _fail(self, problem: Failure) -> None:
        """Close the connection, for TLS does not allow to go on; the other end is told why."""
        self._problem, self._closed = problem, True
        self._flush()
        self._below.loseConnection()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())

    # -- called by the protocol inside

    def write(self, data: bytes) -> None:
        """Send something, encrypted; before the handshake is done it waits."""
        if self._closed or self._write_closed or not data:
            return
        if not self._shaken:
            self._unencrypted.append(data)
            return
        sent = self._tls.write(data)
        if sent < len(data):
            rest = memoryview(data)
            while sent < len(data):
                sent += self._tls.write(rest[sent:])
        self._below.write(self._outgoing.read())

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send the pieces as one: each would need a record of its own."""
        self.write(b"".join(data))

    def loseWriteConnection(self) -> None:
        """Say that no more is sent, when what was written is sent; reading goes on."""
        if self._shaken and not self._closed:
            self._say_end()
            self._write_closed = True

    def _say_end(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it waits for the other end's close_notify; ours is written
            self._tls.unwrap()
        self._flush()

    def loseConnection(self) -> None:
        """Close the connection when what was written is sent, and a registered producer has finished."""
        if self._closed or self.disconnecting:
            return
        self.disconnecting = True
        self._reading = False
        if not self._has_producer and (self._shaken or not self._unencrypted):
            self._shut()

    def _shut(self) -> None:
        """Say in TLS that no more is sent, and close the connection below without waiting for an answer to that."""
        self._closed = True
        if self._shaken:
            self._say_end()
        self._below.loseConnection()

    def abortConnection(self) -> None:
        """Reset the connection at once."""
        self._closed = self.disconnecting = True
        self._below.abortConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001 (the interface's)
        """Let a producer be paused and resumed with the pace of the other end."""
        self._below.registerProducer(producer, streaming)
        self._has_producer = True

    def unregisterProducer(self) -> None:
        """Forget the producer; if the connection is to be closed, close it."""
        self._below.unregisterProducer()
        self._has_producer = False
        if self.disconnecting and not self._closed:
            self._shut()

    def pauseProducing(self) -> None:
        """Read no more until :meth:`resumeProducing`; the handshake goes on."""
        self._reading = False
        if self._shaken:
            self._below.pauseProducing()

    def resumeProducing(self) -> None:
        """Read again."""
        if self._closed or self.disconnecting or self._end_of_file:
            return
        self._reading = True
        self._below.resumeProducing()
        if self._shaken and (self._incoming.pending or self._tls.pending()):
            self._reactor.callLater(0, self._read_rest)

    def _read_rest(self) -> None:
        """Hand on what had come before the pause; a mistake there ends the connection, as it does elsewhere."""
        try:
            self._read()
        except Exception:  # noqa: BLE001 (a mistake in one connection must not be felt by others)
            self._log.failure("unexpected error in a protocol")
            self._problem = Failure()
            self.abortConnection()

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()

    def getPeer(self) -> Any:
        """Return the address of the other end."""
        return self._below.getPeer()

    def getHost(self) -> Any:
        """Return the address of this end."""
        return self._below.getHost()

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001 (the interface's)
        """Send small pieces without delay, or not."""
        self._below.setTcpNoDelay(enabled)

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001 (the interface's)
        """Let the system probe an idle connection, or not."""
        self._below.setTcpKeepAlive(enabled)


def _refuse(address: Any) -> None:
    """Make no protocol."""
