"""Lines in by TCP, or through a unix stream socket."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from influxrelay.core.log_throttle import Throttle
from influxrelay.core.text import count as numbered
from influxrelay.lineprotocol.datagrams import all_simple, split_valid
from influxrelay.lineprotocol.filters import Filter, divide
from influxrelay.lineprotocol.parser import stamp

MAX_LINE = 64 * 1024  # bytes, without the newline


class Output(Protocol):
    """Where the lines go."""

    @property
    def has_room(self) -> bool:
        """Whether more are wanted."""

    def send(self, lines: Sequence[bytes]) -> None:
        """Take valid lines, each with its timestamp and without a newline at its end."""


class LineServer(Factory):
    """Takes the lines of all connections of a listener.

    :param precision: of the timestamps, in and out.
    :param clock: returns nanoseconds since the epoch.
    :ivar accepted: connections so far, with those that were ``refused`` because there were ``max_connections``.
    :ivar lines_in: lines received, less comments and blank ones, with ``bytes_in``.
    :ivar dropped: lines dropped here, by reason: ``invalid``, ``too long``, ``incomplete`` (the connection broke).
    :ivar filters: all outputs', if each has one: they tell what nobody wants.
    :ivar lines_unwanted: lines that no output's filter takes.
    """

    noisy = False
    _log = Logger()

    def __init__(self, name: str, reactor: Any, *, clock: Callable[[], int] = time.time_ns) -> None:
        self.accepted = self.refused = self.bytes_in = self.lines_in = self.lines_unwanted = 0
        self.max_connections = 1000
        self.dropped: Counter[str] = Counter()
        self.filters: Sequence[Filter] = ()
        self.connections: dict[LineConnection, None] = {}
        self.is_paused = False
        self._name = name
        self._precision = b"ns"
        self._output: Output | None = None
        self._clock = clock
        self._rubbish = Throttle(reactor)
        self._crowd = Throttle(reactor)

    def reconfigure(self, name: str, output: Output, *, precision: str, filters: Sequence[Filter]) -> None:
        """Let other settings hold for the next lines."""
        self._name, self._output, self._precision, self.filters = name, output, precision.encode(), filters

    def limit_connections(self, number: int) -> None:
        """Let there be so many connections at a time, from the next one on."""
        self.max_connections = number

    def buildProtocol(self, addr: object) -> LineConnection:  # noqa: ARG002 (the interface's)
        """Take a connection."""
        self.accepted += 1
        return LineConnection(self)

    def admit(self, connection: LineConnection) -> bool:
        """Let a connection join the others, unless there are too many; a sender that is not let in tries again."""
        if len(self.connections) < self.max_connections:
            self.connections[connection] = None
            return True
        self.refused += 1
        count = self._crowd.admit()
        if count:
            self._log.warn(
                "{relay}: refused {connections} above the limit of {limit} (max-connections)",
                relay=self._name,
                connections=numbered(count, "connection"),
                limit=len(self.connections),
            )
        return False

    def take(self, data: bytes) -> None:
        """Stamp whole lines, and hand them on; stop reading if they are one too many."""
        if self._output is None:
            return
        precision, now = self._precision, self._clock()
        self.bytes_in += len(data)
        lines = data.removesuffix(b"\n").split(b"\n")
        if not all_simple(data, precision) or (len(data) > MAX_LINE and any(len(each) > MAX_LINE for each in lines)):
            received, lines = lines, []
            for line in received:
                if len(line) > MAX_LINE:
                    self.drop("too long", line)
                    continue
                valid, invalid = split_valid(line, precision)
                lines += [stamp(each, precision, now) for each in valid]
                if invalid:
                    self.drop("invalid", line)
        self.lines_in += len(lines)
        if self.filters:
            self.lines_unwanted += divide(b"\n".join(lines), self.filters)[1]
        if lines:
            self._output.send(lines)
            if not self._output.has_room:
                self.pause()

    def drop(self, reason: str, line: bytes | bytearray) -> None:
        """Count a line that is dropped, and log it."""
        self.lines_in += 1
        self.dropped[reason] += 1
        count = self._rubbish.admit()
        if count:
            self._log.warn(
                "{relay}: dropped {lines}, the last is {reason}: {excerpt!r}",
                relay=self._name,
                lines=numbered(count, "line"),
                reason=reason,
                excerpt=bytes(line[:80]),
            )

    def pause(self) -> None:
        """Read nothing until further notice, so that senders block."""
        if not self.is_paused:
            self.is_paused = True
            for connection in self.connections:
                connection.pause()

    def resume(self) -> None:
        """Read on."""
        self.is_paused = False
        for connection in list(self.connections):
            if self.is_paused:  # the first of them have brought too much again
                connection.pause()
            else:
                connection.resume()

    def close(self) -> None:
        """Take what the connections have brought so far, and close them."""
        for connection in list(self.connections):
            connection.close()

    def abort(self) -> None:
        """Break the connections that are left."""
        for connection in list(self.connections):
            connection.abort()


@implementer(IHalfCloseableProtocol)
class LineConnection(StreamProtocol):
    """One connection: each newline ends a line."""

    transport: Any
    most_at_once = 16 * 1024

    def __init__(self, server: LineServer) -> None:
        self._server = server
        self._rest = bytearray()
        self._is_skipping = False  # the rest of a line that is too long
        self._is_refused = False

    def connectionMade(self) -> None:
        """Join the others, or be closed at once; a peer that vanishes is found by keep-alive probes (tcp(7))."""
        self.transport.setTcpKeepAlive(True)
        self._is_refused = not self._server.admit(self)
        if self._is_refused:
            self.transport.abortConnection()
        elif self._server.is_paused:
            self.pause()

    def dataReceived(self, data: bytes) -> None:
        """Take whole lines, and keep the beginning of the next one."""
        if self._is_refused:
            return
        end = data.rfind(b"\n") + 1
        if end:
            begin = 0
            if self._is_skipping:
                self._is_skipping = False
                begin = data.index(b"\n") + 1
            lines = bytes(self._rest) + data[begin:end]
            self._rest = bytearray(data[end:])
            if lines:
                self._server.take(lines)
        elif not self._is_skipping:
            self._rest += data
        if len(self._rest) > MAX_LINE:
            self._server.drop("too long", self._rest)
            self._rest.clear()
            self._is_skipping = True

    def readConnectionLost(self) -> None:
        """Take the last line: the client has said everything."""
        self._finish()
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing is ever sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take the last line if the client has closed the connection; a line that broke off is dropped."""
        self._server.connections.pop(self, None)
        if reason.check(ConnectionDone):
            self._finish()
        elif self._rest:
            self._server.drop("incomplete", self._rest)
        self._rest.clear()

    def _finish(self) -> None:
        rest, self._rest = bytes(self._rest), bytearray()
        if rest:
            self._server.take(rest)

    def pause(self) -> None:
        """Read nothing for now."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        self.transport.resumeProducing()

    def close(self) -> None:
        """Close the connection; a line that is not complete is the client's to send again."""
        if self._rest:
            self._server.drop("incomplete", self._rest)
            self._rest.clear()
        self.transport.loseConnection()

    def abort(self) -> None:
        """Break the connection."""
        self.transport.abortConnection()
