"""Kept connections to one backend, each carrying one exchange at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.delivery.failures import explain

NOT_OURS = "not ours"  # reason of a failure: the request was not sent, for that is no longer up to this process
IDLE_TIME = 60.0  # seconds; a connection that is not used for one to two times as long is closed


Gate = Callable[[], bool]


class Exchange(ABC):
    """A request, and what becomes of it.

    :ivar pieces: the bytes of the request: one piece, or several of a large one.
    :ivar begun: whether any byte of the response has come.
    :ivar keep_alive: whether its connection may carry another exchange afterwards.
    :ivar repeated: whether it was sent a second time, because its first connection had gone stale.
    :ivar connection: the connection that carries it.
    :ivar connecting: the attempt to make a connection for it.
    :ivar gate: tells, directly before the bytes of the request, whether they may still be sent; None if they may.
    """

    __slots__ = ("begun", "connecting", "connection", "gate", "keep_alive", "pieces", "repeated")

    def __init__(self, pieces: Sequence[bytes], gate: Gate | None = None) -> None:
        self.pieces = pieces
        self.gate = gate
        self.begun = self.keep_alive = self.repeated = False
        self.connection: Connection | None = None
        self.connecting: Deferred[Any] | None = None

    @abstractmethod
    def feed(self, data: bytes) -> bool:
        """Take bytes of the response; return whether nothing more is expected."""

    @abstractmethod
    def finish(self) -> None:
        """Report the outcome, after :meth:`feed` has returned True."""

    @abstractmethod
    def fail(self, problem: BackendFailure, *, closed: bool = False) -> None:
        """Report the outcome where nothing more of the response will come.

        :param closed: the backend has closed the connection properly, as it does after a response of unknown length.
        """


class Connection(Protocol):
    """One connection.

    :ivar used: whether it has carried an exchange before, and so may have gone stale.
    :ivar resting: whether it has carried none since the pool looked for such connections.
    """

    transport: Any

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._exchange: Exchange | None = None
        self._watched = self._unsent = False
        self.used = self.resting = False

    def begin(self, exchange: Exchange) -> bool:
        """Send a request; return False if it may no longer be sent."""
        if exchange.gate is not None and not exchange.gate():
            exchange.pieces = ()
            exchange.fail(BackendFailure(NOT_OURS, "another relay delivers to it"))
            return False
        self._exchange, exchange.connection = exchange, self
        self.resting = False
        pieces = exchange.pieces
        if len(pieces) == 1:
            self.transport.write(pieces[0])
        else:
            self._watched = True
            self.transport.registerProducer(self, True)
            self.transport.writeSequence(pieces)
        return True

    def pauseProducing(self) -> None:
        """Note that much of a large request is not sent yet."""
        self._unsent = True

    def resumeProducing(self) -> None:
        """Note that a large request is sent."""
        self._unsent = False

    def stopProducing(self) -> None:
        """Do nothing: the connection is lost, and that is reported otherwise."""

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes of a response on to the exchange."""
        exchange = self._exchange
        if exchange is None:  # nobody has asked for anything
            self._pool.forget(self)
            self.transport.abortConnection()
            return
        exchange.begun = True
        if exchange.feed(data) and self._exchange is exchange:
            self._detach(exchange)
            exchange.finish()

    def _detach(self, exchange: Exchange) -> None:
        """Take an exchange that is over from the connection, which is then free for the next one, or closed."""
        self._exchange = exchange.connection = None
        exchange.pieces = ()
        if self._unsent:  # the backend has answered, and has not read the request; it may never do so
            self.transport.abortConnection()
            return
        if self._watched:
            self._watched = False
            self.transport.unregisterProducer()
        if exchange.keep_alive:
            self.used = True
            self._pool.release(self)
        else:
            self.transport.loseConnection()

    def abandon(self) -> None:
        """Break the connection; its exchange is not told."""
        self._exchange = None
        self.transport.abortConnection()

    def connectionMade(self) -> None:
        """Join the pool's open connections."""
        self._pool.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the pool, and tell the exchange."""
        exchange, self._exchange = self._exchange, None
        closed = reason.check(ConnectionDone) is not None
        if exchange is None:
            self._pool.lost(self)
            return
        exchange.connection = None
        stale = self.used and not exchange.begun and not exchange.repeated
        if stale and (closed or reason.check(ConnectionLost)):
            self._pool.lost(self, exchange)
        else:
            self._pool.lost(self)
            exchange.pieces = ()
            exchange.fail(explain(reason), closed=closed)


class ConnectionPool:
    """Connections to one backend.

    Exchanges beyond the limit wait for a free connection, in the order in which they came.

    A connection that the backend has closed while it was not used is noticed at the next exchange at the latest, which
    then is sent once more on a new connection.

    :param limit: connections at a time, at least 1.
    """

    def __init__(self, reactor: IReactorTime, endpoint: IStreamClientEndpoint, limit: int) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._limit = limit
        self._factory = _Factory(self)
        self._open: set[Connection] = set()
        self._connecting = 0
        self._idle: list[Connection] = []  # the last one is used first
        self._look: IDelayedCall | None = None
        self._waiting: deque[Exchange] = deque()
        self._retired = False
        self._closing: set[Connection] = set()
        self._closed: Deferred[None] | None = None

    def submit(self, exchange: Exchange) -> None:
        """Carry an exchange as soon as there is a connection for it."""
        if self._idle:
            connection = self._idle.pop()
            if not connection.begin(exchange):
                self.release(connection)
        elif len(self._open) + self._connecting < self._limit:
            self._connect(exchange)
        else:
            self._waiting.append(exchange)

    def interrupt(self, exchange: Exchange) -> str:
        """Give up an exchange, which is told nothing more, and its connection.

        :return: what it was waiting for.
        """
        if exchange.connection is not None:
            exchange.connection.abandon()
            exchange.connection = None
            return "no complete answer"
        if exchange.connecting is not None:
            connecting, exchange.connecting = exchange.connecting, None
            connecting.cancel()
            return "no connection"
        self._waiting.remove(exchange)
        return f"none of the {self._limit} connections became free"

    def _connect(self, exchange: Exchange) -> None:
        self._connecting += 1
        exchange.connecting = self._endpoint.connect(self._factory)
        exchange.connecting.addCallbacks(
            self._connected, self._not_connected, callbackArgs=(exchange,), errbackArgs=(exchange,)
        )

    def _connected(self, connection: Connection, exchange: Exchange) -> None:
        self._connecting -= 1
        wanted = exchange.connecting is not None
        exchange.connecting = None
        if not wanted or not connection.begin(exchange):
            self.release(connection)

    def _not_connected(self, failure: Failure, exchange: Exchange) -> None:
        self._connecting -= 1
        wanted = exchange.connecting is not None
        exchange.connecting = None
        self._serve_waiting()
        if wanted:
            exchange.pieces = ()
            exchange.fail(explain(failure))

    def _serve_waiting(self) -> None:
        while self._waiting and len(self._open) + self._connecting < self._limit:
            self._connect(self._waiting.popleft())

    # -- called by connections

    def opened(self, connection: Connection) -> None:
        """Count a connection."""
        self._open.add(connection)

    def release(self, connection: Connection) -> None:
        """Use a connection for the next exchange, or keep it."""
        while self._waiting:
            if connection.begin(self._waiting.popleft()):
                return
        if self._retired:
            connection.transport.loseConnection()
        else:
            self._idle.append(connection)
            if self._look is None:
                self._look = self._reactor.callLater(IDLE_TIME, self._close_resting)

    def forget(self, connection: Connection) -> None:
        """Use a connection no more."""
        if connection in self._idle:
            self._idle.remove(connection)

    def lost(self, connection: Connection, unanswered: Exchange | None = None) -> None:
        """Count a connection no more.

        :param unanswered: what it carried in vain; it is sent again on a new connection, which takes the place of the
            lost one. The idle ones may be as stale.
        """
        self.forget(connection)
        self._open.discard(connection)
        if unanswered is not None:
            unanswered.repeated = True
            self._close_idle()
            self._connect(unanswered)
        self._serve_waiting()
        self._closing.discard(connection)
        if self._closed is not None and not self._closing:
            closed, self._closed = self._closed, None
            closed.callback(None)

    # -- the end of connections

    def _close_resting(self) -> None:
        """Close the connections that have been idle since the last look."""
        self._look = None
        idle, self._idle = self._idle, []
        for connection in idle:
            if connection.resting:
                connection.transport.loseConnection()
            else:
                connection.resting = True
                self._idle.append(connection)
        if self._idle:
            self._look = self._reactor.callLater(IDLE_TIME, self._close_resting)

    def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        self._closing.update(idle)
        for connection in idle:
            connection.transport.loseConnection()
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def retire(self) -> None:
        """Close each connection as soon as it is idle."""
        self._retired = True
        self._close_idle()

    def close(self) -> Deferred[None]:
        """Do what :meth:`retire` does; fires when those that are idle now are closed."""
        self.retire()
        if not self._closing:
            return succeed(None)
        self._closed = self._closed or Deferred()
        return self._closed


class _Factory(Factory):
    noisy = False

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def buildProtocol(self, addr: object) -> Connection:  # noqa: ARG002 (the interface's)
        """Make a connection."""
        return Connection(self._pool)
