"""Lines out by datagram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.log_throttle import Throttle
from influxrelay.core.resolver import Address, is_address, resolve
from influxrelay.lineprotocol.filters import Filter

RESOLVE_INTERVAL = 60.0  # seconds between two look-ups of a host name ...


FIRST_INTERVAL = 5.0  # ... and until the first one has found something


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


class DatagramSender:
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
        if is_address(self._host):
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

        def finish(found: list[Address] | Failure) -> None:
            if name == self._host:  # else another configuration has begun a look-up of its own
                self._resolved(None if isinstance(found, Failure) else found[0].host)

        resolve(self._reactor, name, self._port, transport="UDP").addBoth(finish)

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
