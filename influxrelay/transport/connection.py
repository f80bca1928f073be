"""A Twisted protocol on a transport of the asyncio event loop."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from influxrelay.transport.addresses import to_address
from influxrelay.transport.turns import turns_of

_SMALL = 16 * 1024  # bytes of a piece that is delivered at once, whatever others have brought in the same turn
_FULL = 200 * 1024  # bytes of a piece behind which more is waiting: loops read up to 256 KB at a time
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, for no time at all


def _ignore(data: object) -> None:
    """Take what is written to a closed connection."""


@implementer(ITCPTransport, IPushProducer, IConsumer)
class LoopConnection(asyncio.Protocol):
    """The protocol that the event loop sees, and the transport that the Twisted protocol sees.

    What is called for each small piece of data costs next to nothing: :attr:`write` is the method of the loop's
    transport, and :meth:`data_received` looks at the size only. Of large pieces each turn of the loop has its share.

    :param build: makes the Twisted protocol when there is a connection; None refuses it. If what comes takes it long to
        read, its ``most_at_once`` tells how many bytes it wants at a time.
    :param sock: the connected socket, which belongs to the loop's transport.
    :param peer: the other end, if it is known already.
    :ivar disconnecting: whether the connection is being closed from this end.
    """

    _log = Logger()
    _protocol: Any = None
    _transport: Any
    _open = False
    _lost = False
    _reading: bool
    _rest = b""
    _most: int | None = None  # bytes that the protocol wants at a time
    _full = _FULL
    _has_turn = False
    _end_of_file = False
    _abort_reason: Failure | None = None
    _producer: Any = None
    _is_pull = False
    _writable = True
    disconnecting = False
    _deliver: Callable[[bytes], None]
    write: Callable[[bytes], None]
    writeSequence: Callable[[Iterable[bytes]], None]

    def __init__(
        self, build: Callable[[IAddress], Any], sock: socket.socket, loop: asyncio.AbstractEventLoop, peer: Any = None
    ) -> None:
        self._build = build
        self._reading = True
        self._socket = sock
        self._loop = loop
        self._turns = turns_of(loop)
        self._peer = to_address(sock.getpeername()) if peer is None else peer
        self._host: Any = None

    # -- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make the protocol, and let it begin."""
        loop_transport: Any = transport
        self._transport = loop_transport
        self.write, self.writeSequence = loop_transport.write, loop_transport.writelines
        try:
            protocol = self._build(self._peer)
            if protocol is None:
                loop_transport.abort()
                return
            self._protocol = protocol
            self._deliver = protocol.dataReceived
            self._most = getattr(protocol, "most_at_once", None)
            self._full = self._most or _FULL
            protocol.makeConnection(self)
        except Exception:  # noqa: BLE001 (a mistake in one connection must not be felt by others)
            self._log.failure("unable to set up a connection")
            self.abortConnection()
        self._open = True
        if not self._reading:  # loops begin to read after this method, whatever was asked for in it
            self._loop.call_soon(self._pause_if_asked)

    def _pause_if_asked(self) -> None:
        if not self._reading:
            self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Pass on what has come; a large piece only if others have not brought much in this turn."""
        if len(data) <= _SMALL and self._reading:  # uvloop reads once before a pause asked for at the beginning
            self._deliver(data)
        elif self._reading and len(data) < self._full and not self._turns.is_over:
            self._turns.spend(self._deliver_large, data)
        else:  # not even read any more before it is its turn: that takes time, too
            self._transport.pause_reading()
            self._rest += data
            if self._reading:
                self._read_on()

    def _deliver_large(self, data: bytes) -> None:
        try:
            self._deliver(data)
        except Exception:  # noqa: BLE001 (as the loop does where it calls the protocol itself)
            self._log.failure("unexpected error in a protocol")
            self._abort(Failure())

    def _deliver_rest(self) -> None:
        self._has_turn = False
        if self._reading:
            most = self._most or len(self._rest)
            part, self._rest = self._rest[:most], self._rest[most:]
            self._turns.spend(self._deliver_large, part)
            if self._reading:
                self._read_on()

    def _read_on(self) -> None:
        """Deliver what has come meanwhile, then read again."""
        if not self._rest:
            self._transport.resume_reading()
        elif not self._has_turn:
            self._has_turn = True
            self._turns.wait(self._deliver_rest)

    def eof_received(self) -> bool:
        """Tell the protocol that the other end sends no more; return whether to keep this end open."""
        self._end_of_file = True
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.readConnectionLost()
            return True
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the protocol why there is no connection any more."""
        self._lost, self.disconnecting = True, False
        self.write = self.writeSequence = _ignore
        protocol, self._protocol = self._protocol, None
        producer, self._producer = self._producer, None
        self._reading, self._rest = False, b""
        self._deliver = self._build = _ignore  # which refer to the protocol, and that to this object
        if producer is not None:
            producer.stopProducing()
        if protocol is None:
            return
        if self._abort_reason is not None:
            reason = self._abort_reason
        elif exc is None:
            reason = connectionDone
        elif isinstance(exc, OSError):
            reason = Failure(ConnectionLost(str(exc)))
        else:
            reason = Failure(exc)
        protocol.connectionLost(reason)

    def pause_writing(self) -> None:
        """Let the producer pause: much is waiting to be sent."""
        self._writable = False
        if self._producer is not None and not self._is_pull:
            self._producer.pauseProducing()

    def resume_writing(self) -> None:
        """Let the producer go on: most has been sent."""
        self._writable = True
        if self._producer is not None:
            # In the next turn: asyncio's loop does not expect that the connection is closed in this method.
            self._loop.call_soon(self._pull if self._is_pull else self._resume_producer)

    def _resume_producer(self) -> None:
        if self._producer is not None and self._writable:
            self._producer.resumeProducing()
            if self.disconnecting and self._writable:
                self._transport.close()

    # -- called by the protocol: writing

    def loseConnection(self) -> None:
        """Close the connection when what was written is sent; a producer that was paused may finish first."""
        if self._lost or self.disconnecting:
            return
        self.disconnecting = True
        self._reading = False
        if self._producer is not None and (self._is_pull or not self._writable):
            self._transport.pause_reading()
        else:
            self._transport.close()

    def abortConnection(self) -> None:
        """Reset the connection at once; what is not sent yet is lost."""
        if self._lost or self._abort_reason is not None:
            return
        self._abort(Failure(ConnectionAborted()))

    def _abort(self, reason: Failure) -> None:
        self._abort_reason = reason
        self.disconnecting = True
        self._reading = False
        self.write = self.writeSequence = _ignore
        self._set_option(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def loseWriteConnection(self) -> None:
        """Send what was written, and then that there is no more; reading goes on."""
        if self._lost or self.disconnecting:
            return
        self.write = self.writeSequence = _ignore
        self._transport.write_eof()
        self._loop.call_soon(self._tell_write_end)

    def _tell_write_end(self) -> None:
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.writeConnectionLost()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001 (the interface's)
        """Let a producer be paused and resumed with the pace of the other end.

        :param streaming: whether it writes by itself; otherwise each ``resumeProducing`` asks for one more piece.
        :raises RuntimeError: there is one already.
        """
        if self._lost:
            producer.stopProducing()
            return
        if self._producer is not None:
            raise RuntimeError(f"cannot register {producer}: {self._producer} is still registered")
        self._producer, self._is_pull = producer, not streaming
        if self._is_pull:
            self._transport.set_write_buffer_limits(high=0)
            self._loop.call_soon(self._pull)
        elif not self._writable:
            producer.pauseProducing()

    def _pull(self) -> None:
        if self._producer is not None and self._is_pull and self._writable:
            self._producer.resumeProducing()
            self._loop.call_soon(self._pull)

    def unregisterProducer(self) -> None:
        """Forget the producer; if the connection is to be closed, close it when all is sent."""
        if self._producer is None:
            return
        if self._is_pull and not self._lost:
            self._transport.set_write_buffer_limits()
        self._producer, self._is_pull = None, False
        if self.disconnecting and not self._lost:
            self._transport.close()

    # -- called by the protocol: reading

    def pauseProducing(self) -> None:
        """Read no more until :meth:`resumeProducing`."""
        self._reading = False
        if self._open:
            self._transport.pause_reading()

    def resumeProducing(self) -> None:
        """Read again."""
        if self._end_of_file or self.disconnecting or self._lost:
            return
        self._reading = True
        if self._open:
            self._read_on()

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()

    # -- called by the protocol: the socket

    def getPeer(self) -> Any:
        """Return the address of the other end."""
        return self._peer

    def getHost(self) -> Any:
        """Return the address of this end."""
        if self._host is None:
            self._host = to_address(self._transport.get_extra_info("sockname"))
        return self._host

    def getTcpNoDelay(self) -> bool:
        """Tell whether small pieces are sent without delay; loops set that from the start."""
        return bool(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001 (the interface's)
        """Send small pieces without delay, or not."""
        self._set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(enabled))

    def getTcpKeepAlive(self) -> bool:
        """Tell whether the system probes an idle connection."""
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001 (the interface's)
        """Let the system probe an idle connection, or not."""
        self._set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(enabled))

    def _set_option(self, level: int, option: int, value: Any) -> None:
        if self._socket.family != socket.AF_UNIX and self._socket.fileno() != -1:
            self._socket.setsockopt(level, option, value)


async def adopt(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, build: Callable[[IAddress], Any], peer: Any = None
) -> None:
    """Let the event loop serve a connected socket, with the protocol that ``build`` makes; returns when it is there."""
    connection = LoopConnection(build, sock, loop, peer)
    await loop.connect_accepted_socket(lambda: connection, sock)
