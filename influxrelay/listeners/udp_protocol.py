"""UDP: lines in by datagram; lines out by datagram, or in batches to a sender."""

from __future__ import annotations

import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from influxrelay.core.log_throttle import Throttle
from influxrelay.core.text import times
from influxrelay.lineprotocol.datagrams import all_simple, split_valid
from influxrelay.lineprotocol.filters import Filter, divide
from influxrelay.lineprotocol.parser import stamp

_SO_MEMINFO = 55  # asm-generic/socket.h; Python has no name for it
_MEMINFO = struct.Struct("=9I")  # linux/sock_diag.h, the last is SK_MEMINFO_DROPS


class Output(Protocol):
    """Where a listener's lines go."""

    def send(self, lines: Sequence[bytes]) -> None:
        """Take valid lines, each with its timestamp and without a newline at its end."""


class LineReceiver(DatagramProtocol):
    """Receives datagrams, and hands their lines on once a reactor turn.

    :param precision: of the timestamps, in and out.
    :param read_buffer: bytes for the socket's receive buffer, 0 for the system's default.
    :param clock: returns nanoseconds since the epoch.
    :ivar datagrams_in: received, with ``bytes_in``.
    :ivar lines_in: lines received, less comments and blank ones.
    :ivar dropped: lines dropped here, by reason.
    :ivar filters: all outputs', if each has one: they tell what nobody wants.
    :ivar lines_unwanted: lines that no output's filter takes.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        name: str,
        reactor: Any,
        outputs: Sequence[Output],
        *,
        precision: str = "ns",
        read_buffer: int = 0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.filters: Sequence[Filter] = ()
        self.reconfigure(name, outputs, precision=precision, read_buffer=read_buffer)
        self.datagrams_in = 0
        self.bytes_in = 0
        self.lines_in = 0
        self.lines_unwanted = 0
        self.dropped: Counter[str] = Counter()
        self._reactor = reactor
        self._clock = clock
        self._received: list[bytes] = []
        self._rubbish = Throttle(reactor)

    def reconfigure(self, name: str, outputs: Sequence[Output], *, precision: str, read_buffer: int) -> None:
        """Let other settings hold for the next datagram; ``read_buffer`` for the next port."""
        self.name = name
        self._outputs = tuple(outputs)
        self._precision = precision.encode()
        self._read_buffer = read_buffer

    def makeConnection(self, transport: Any) -> None:
        """Receive at a port, and for a moment still at the one before."""
        self.transport = None
        super().makeConnection(transport)

    def doStop(self) -> None:
        """Forget a port, unless it is the one before."""
        present = self.transport if self.numPorts > 1 else None
        super().doStop()
        self.transport = present

    def startProtocol(self) -> None:
        """Set the receive buffer; called by the port."""
        self.set_read_buffer(self.transport)

    def set_read_buffer(self, port: Any) -> None:
        """Set a port's receive buffer, as far as the system allows."""
        if self._read_buffer:
            handle = port.getHandle()
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._read_buffer)
            granted = handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # Linux tells the double (socket(7))
            if granted < self._read_buffer:
                self._log.warn(
                    "{relay}: read-buffer is {granted} bytes, not {wanted}: see sysctl net.core.rmem_max",
                    relay=self.name,
                    granted=granted,
                    wanted=self._read_buffer,
                )

    def datagramReceived(self, datagram: bytes, addr: object) -> None:  # noqa: ARG002 (the interface's)
        """Keep the datagram for the end of this reactor turn."""
        if not self._received:
            self._reactor.callLater(0, self.flush)
        self._received.append(datagram)

    def datagrams_received(self, datagrams: list[bytes]) -> None:
        """Take all that has come in this reactor turn."""
        self._received += datagrams
        self.flush()

    def flush(self) -> None:
        """Stamp what has come in this turn, and hand it on."""
        received, self._received = self._received, []
        if not received:
            return
        self.datagrams_in += len(received)
        self.bytes_in += sum(map(len, received))
        together = b"\n".join([datagram.removesuffix(b"\n") for datagram in received]).rstrip(b"\n")
        lines = together.split(b"\n") if all_simple(together, self._precision) else self._read(received)
        self.lines_in += len(lines)
        if self.filters:
            self.lines_unwanted += divide(b"\n".join(lines), self.filters)[1]
        if lines:
            for output in self._outputs:
                output.send(lines)

    def _read(self, received: list[bytes]) -> list[bytes]:
        """Read datagrams one by one; return the lines that are valid, stamped."""
        lines: list[bytes] = []
        precision, now = self._precision, self._clock()
        for datagram in received:
            if all_simple(datagram, precision):
                lines += datagram.removesuffix(b"\n").split(b"\n")
                continue
            valid, invalid = split_valid(datagram, precision)
            lines += [stamp(line, precision, now) for line in valid]
            if invalid:
                self._drop_rubbish(invalid, datagram)
        return lines

    def overflows(self) -> int:
        """Return how many datagrams the kernel has dropped because the receive buffer was full."""
        transport: Any = self.transport
        if transport is None:
            return 0
        counts = transport.getHandle().getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(counts)[-1])

    def _drop_rubbish(self, lines: int, datagram: bytes) -> None:
        self.lines_in += lines
        self.dropped["invalid"] += lines
        count = self._rubbish.admit()
        if count:
            self._log.warn(
                "{relay}: dropped invalid line protocol, {times}, the last: {excerpt!r}",
                relay=self.name,
                times=times(count),
                excerpt=datagram[:100],
            )
