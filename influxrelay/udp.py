"""UDP: lines in by datagram; lines out by datagram, or in batches to a road."""

from __future__ import annotations

import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IHostResolution
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.answers import is_not_ready
from influxrelay.errors import BackendFailure
from influxrelay.filters import Filter, divide
from influxrelay.line_protocol import all_simple, split_valid, stamp
from influxrelay.repeats import Throttle
from influxrelay.write import Destination, Reply, Write

MAX_DATAGRAM = 65536  # bytes; Twisted would cut them at 8192
RESOLVE_INTERVAL = 60.0  # seconds between two look-ups of a host name ...
FIRST_INTERVAL = 5.0  # ... and until the first one has found something
_SO_MEMINFO = 55  # asm-generic/socket.h; Python has no name for it
_MEMINFO = struct.Struct("=9I")  # linux/sock_diag.h, the last is SK_MEMINFO_DROPS


class Output(Protocol):
    """Where a listener's lines go."""

    def send(self, lines: Sequence[bytes]) -> None:
        """Take valid lines, each with its timestamp and without a newline at its end."""


class Submitter(Protocol):
    """A relay."""

    name: str
    lines_unwanted: int

    def submit(self, write: Write) -> Deferred[Reply]:
        """Take a batch."""


class UDPListener(DatagramProtocol):
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

    def flush(self) -> None:
        """Stamp what has come in this turn, and hand it on."""
        received, self._received = self._received, []
        if not received:
            return
        self.datagrams_in += len(received)
        self.bytes_in += sum(map(len, received))
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
        self.lines_in += len(lines)
        if self.filters:
            self.lines_unwanted += divide(b"\n".join(lines), self.filters)[1]
        if lines:
            for output in self._outputs:
                output.send(lines)

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
                "{relay}: dropped what is no line protocol, {count} time(s), last {lines} line(s) of {excerpt!r}",
                relay=self.name,
                lines=lines,
                count=count,
                excerpt=datagram[:100],
            )


def pack(lines: Iterable[bytes], mtu: int) -> tuple[list[tuple[bytes, int]], int]:
    """Fill datagrams of at most ``mtu`` bytes with whole lines.

    :return: the datagrams with the number of lines in each, and how many lines are too large for any.
    """
    datagrams = []
    too_large = 0
    held: list[bytes] = []
    size = 0
    for line in lines:
        if len(line) > mtu:
            too_large += 1
            continue
        if size + len(line) > mtu:
            datagrams.append((b"\n".join(held), len(held)))
            held, size = [], 0
        held.append(line)
        size += len(line) + 1
    if held:
        datagrams.append((b"\n".join(held), len(held)))
    return datagrams, too_large


class UDPOutput:
    """Sends lines to one ``host:port``; a host name is looked up at the start and every minute, without blocking.

    :ivar filter: what it takes; None for everything.
    :ivar dropped: lines dropped here, by reason: ``mtu``, ``unresolved``, ``send``.
    """

    _log = Logger()

    def __init__(self, relay: str, name: str, reactor: Any, host: str, port: int, *, mtu: int) -> None:
        self.reconfigure(relay, name, host, port, mtu=mtu)
        self.filter: Filter | None = None
        self.lines_out = 0
        self.dropped: Counter[str] = Counter()
        self._reactor = reactor
        self._address: tuple[str, int] | None = None
        self.transport: Any = None
        self._next_look_up: IDelayedCall | None = None
        self._trouble = Throttle(reactor)
        self._stopped = False

    def reconfigure(self, relay: str, name: str, host: str, port: int, *, mtu: int) -> None:
        """Let other settings hold; :meth:`start` makes it look for another host, and until then nothing is lost."""
        self._relay = relay
        self.name = name
        self._host = host
        self._port = port
        self._mtu = mtu

    @property
    def location(self) -> str:
        """Where the lines go."""
        return f"{self._host}:{self._port}"

    def start(self) -> None:
        """Begin to look up the host, unless it is an address."""
        self._stopped = False
        if isIPAddress(self._host) or isIPv6Address(self._host):
            self._resolved(self._host)
        else:
            self._look_up()

    def stop(self) -> None:
        """Give the sockets back."""
        self._stopped = True
        self._cancel_look_up()
        if self.transport is not None:
            self.transport.stopListening()
            self.transport = None
            self._address = None

    def send(self, lines: Sequence[bytes]) -> None:
        """Send the lines at once, packed; what cannot be sent is dropped and counted."""
        if self.filter is not None:
            lines = self.filter.pick(lines)
        if self._address is None:
            self._drop("unresolved", len(lines), self._host)
            return
        datagrams, too_large = pack(lines, self._mtu)
        if too_large:
            self._drop("mtu", too_large, f"larger than the MTU of {self._mtu} bytes")
        for datagram, count in datagrams:
            try:
                self.transport.write(datagram, self._address)
            except (OSError, MessageLengthError) as error:
                self._drop("send", count, str(error))
            else:
                self.lines_out += count

    def _drop(self, reason: str, lines: int, detail: str) -> None:
        self.dropped[reason] += lines
        count = self._trouble.admit()
        if count:
            self._log.warn(
                "{relay}: backend {backend} lost {lines} line(s), {count} time(s): {reason}: {detail}",
                relay=self._relay,
                backend=self.name,
                lines=lines,
                count=count,
                reason=reason,
                detail=detail,
            )

    def _look_up(self) -> None:
        name = self._host

        def found(host: str | None) -> None:
            if name == self._host:
                self._resolved(host)

        self._reactor.nameResolver.resolveHostName(_First(found), name, transportSemantics="UDP")

    def _cancel_look_up(self) -> None:
        if self._next_look_up is not None and self._next_look_up.active():
            self._next_look_up.cancel()
        self._next_look_up = None

    def _resolved(self, host: str | None) -> None:
        if self._stopped:
            return
        self._cancel_look_up()
        if host is not None and self._address != (host, self._port):
            self._open_socket(host)
        if self._address is None:
            self._next_look_up = self._reactor.callLater(FIRST_INTERVAL, self.start)
        elif host != self._host:
            self._next_look_up = self._reactor.callLater(RESOLVE_INTERVAL, self._look_up)

    def _open_socket(self, host: str) -> None:
        """Send to this address from now on; where there is no socket for it, go on as before."""
        try:
            transport = self._reactor.listenUDP(0, _Sender(), interface="::" if ":" in host else "")
        except CannotListenError as error:
            self._log.warn(
                "{relay}: backend {backend} cannot be reached at {host}: {reason}",
                relay=self._relay,
                backend=self.name,
                host=host,
                reason=error.socketError,
            )
            return
        if self.transport is not None:
            self.transport.stopListening()
        self._address = (host, self._port)
        self.transport = transport
        self._log.info("{relay}: backend {backend} is at {host}", relay=self._relay, backend=self.name, host=host)


class _Sender(DatagramProtocol):
    """Owns a socket that only sends."""

    noisy = False


class _First:
    """Calls back with the first address of a look-up, or None."""

    def __init__(self, found: Callable[[str | None], None]) -> None:
        self._found = found
        self._host: str | None = None

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        """Nothing to prepare."""

    def addressResolved(self, address: Any) -> None:
        """Keep the first one."""
        self._host = self._host or address.host

    def resolutionComplete(self) -> None:
        """Tell what was found."""
        self._found(self._host)


class Batcher:
    """Collects lines into writes for one road.

    A batch is sent when it has ``batch_lines`` lines or ``batch_bytes`` bytes, or when its first line has waited for
    ``interval`` seconds (InfluxDB's ``[[udp]]`` settings ``batch-size`` and ``batch-timeout``).

    :ivar dropped: lines that the backend did not take, by reason.
    :ivar on_lost: is told a batch that the backend did not take, and may have taken at another time.
    """

    def __init__(
        self,
        road: Submitter,
        reactor: Any,
        destination: Destination,
        query: bytes,
        *,
        batch_lines: int,
        batch_bytes: int,
        interval: float,
    ) -> None:
        self.road = road
        self.lines_out = 0
        self.dropped: Counter[str] = Counter()
        self.on_lost: Callable[[Write], None] = lambda write: None  # noqa: ARG005
        self._reactor = reactor
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: IDelayedCall | None = None
        self.reconfigure(destination, query, batch_lines=batch_lines, batch_bytes=batch_bytes, interval=interval)

    def reconfigure(
        self, destination: Destination, query: bytes, *, batch_lines: int, batch_bytes: int, interval: float
    ) -> None:
        """Let other settings hold for the next line; what was collected is sent."""
        self.flush()
        self.name = self.road.name
        self._destination = destination
        self._query = query
        self._batch_lines = batch_lines
        self._batch_bytes = batch_bytes
        self._interval = interval

    def send(self, lines: Sequence[bytes]) -> None:
        """Take lines."""
        for line in lines:
            self._lines.append(line)
            self._size += len(line) + 1
            if len(self._lines) >= self._batch_lines or self._size >= self._batch_bytes:
                self.flush()
        if self._lines and self._timer is None:
            self._timer = self._reactor.callLater(self._interval, self._flush_late)

    def _flush_late(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Send what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        lines, self._lines, self._size = self._lines, [], 0
        write = Write(self._destination, self._query, b"", b"\n".join(lines) + b"\n")
        count, unwanted = len(lines), self.road.lines_unwanted
        answered = self.road.submit(write)
        count -= self.road.lines_unwanted - unwanted
        answered.addCallbacks(self._answered, self._failed, callbackArgs=(count, write), errbackArgs=(count,))

    def _answered(self, reply: Reply, count: int, write: Write) -> None:
        if reply.status < 300:
            self.lines_out += count
            return
        self.dropped[str(reply.status)] += count
        if reply.status >= 500 or is_not_ready(reply):
            self.on_lost(write)

    def _failed(self, failure: Failure, count: int) -> None:
        problem = failure.value
        self.dropped[problem.reason if isinstance(problem, BackendFailure) else "error"] += count
