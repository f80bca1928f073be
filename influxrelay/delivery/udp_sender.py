"""Sends lines in datagrams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.log_throttle import Throttle
from influxrelay.core.resolver import Address, is_address, resolve
from influxrelay.core.text import times
from influxrelay.lineprotocol.filters import Filter

RESOLVE_INTERVAL = 60.0  # seconds between two lookups of a host name that has an address
FIRST_INTERVAL = 5.0  # seconds between two lookups of one that has none yet


def pack(lines: Sequence[bytes], mtu: int) -> tuple[list[tuple[bytes, int]], int]:
    """Fill datagrams of at most ``mtu`` bytes with whole lines.

    :return: the datagrams with the number of lines in each, and how many lines are larger than any datagram.
    """
    fitting = lines if max(map(len, lines), default=0) <= mtu else [line for line in lines if len(line) <= mtu]
    datagrams = []
    first, size = 0, -1
    for last, line in enumerate(fitting):
        size += len(line) + 1
        if size > mtu:
            datagrams.append((b"\n".join(fitting[first:last]), last - first))
            first, size = last, len(line)
    if fitting:
        datagrams.append((b"\n".join(fitting[first:]), len(fitting) - first))
    return datagrams, len(lines) - len(fitting)


def _preferred(addresses: list[Address]) -> str:
    """Return the first IPv4 address, or else the first, as Go's ``net.ResolveUDPAddr`` does.

    Nobody says whether a datagram has arrived, so there is no second attempt: on most machines ``localhost`` is ``::1``
    first, where a server on ``127.0.0.1`` hears nothing.
    """
    return next((each for each in addresses if isinstance(each, IPv4Address)), addresses[0]).host


class DatagramSender:
    """Sends lines to one ``host:port``.

    A host name is looked up at the start and every minute, without blocking; lines go to its first address.

    :param selection: the lines that are sent; None for all.
    :ivar address: the numeric address and the port that datagrams go to; None while the host has no address.
    :ivar dropped: lines dropped here, by reason: ``mtu``, ``unresolved``, ``send``.
    """

    _log = Logger()

    def __init__(
        self, relay: str, name: str, reactor: Any, host: str, port: int, *, mtu: int, selection: Filter | None = None
    ) -> None:
        self.reconfigure(relay, name, host, port, mtu=mtu, selection=selection)
        self._reactor = reactor
        self.lines_out = 0
        self.dropped: Counter[str] = Counter()
        self.address: tuple[str, int] | None = None
        self.transport: Any = None
        self._next_lookup: IDelayedCall | None = None
        self._trouble = Throttle(reactor)
        self._stopped = False

    def reconfigure(
        self, relay: str, name: str, host: str, port: int, *, mtu: int, selection: Filter | None = None
    ) -> None:
        """Change the settings; another host is looked up by :meth:`start`, and lines go to the old one until then."""
        self._relay = relay
        self.name = name
        self._host = host
        self._port = port
        self._mtu = mtu
        self._selection = selection

    @property
    def location(self) -> str:
        """Where the lines go."""
        return f"{self._host}:{self._port}"

    def start(self) -> None:
        """Look up the host, and begin to send as soon as it has an address."""
        self._stopped = False
        if is_address(self._host):
            self._found(self._host)
        else:
            self._look_up()

    def stop(self) -> None:
        """Close the socket, and look up nothing more."""
        self._stopped = True
        self._cancel_lookup()
        if self.transport is not None:
            self.transport.stopListening()
            self.transport = self.address = None

    def send(self, lines: Sequence[bytes]) -> None:
        """Send the lines at once, packed; lines that cannot be sent are dropped and counted."""
        if self._selection is not None:
            lines = self._selection.pick(lines)
        if self.address is None:
            self._drop("unresolved", len(lines), self._host)
            return
        datagrams, too_large = pack(lines, self._mtu)
        if too_large:
            self._drop("mtu", too_large, f"larger than the MTU of {self._mtu} bytes")
        send, address = self.transport.getHandle().sendto, self.address
        for datagram, count in datagrams:
            try:
                send(datagram, address)
            except OSError as error:
                self._drop("send", count, error.strerror or str(error))
            else:
                self.lines_out += count

    def _drop(self, reason: str, lines: int, detail: str) -> None:
        self.dropped[reason] += lines
        count = self._trouble.admit()
        if count:
            self._log.warn(
                "{relay}: lost lines for backend {backend}, {times}, the last time {lines}: {reason}: {detail}",
                relay=self._relay,
                backend=self.name,
                lines=lines,
                times=times(count),
                reason=reason,
                detail=detail,
            )

    def _look_up(self) -> None:
        name = self._host

        def finish(found: list[Address] | Failure) -> None:
            if name == self._host and not self._stopped:  # else the answer comes too late
                self._found(None if isinstance(found, Failure) else _preferred(found))

        resolve(self._reactor, name, self._port, transport="UDP").addBoth(finish)

    def _cancel_lookup(self) -> None:
        if self._next_lookup is not None and self._next_lookup.active():
            self._next_lookup.cancel()
        self._next_lookup = None

    def _found(self, host: str | None) -> None:
        """Send to the address that was found, if any, and look again later."""
        self._cancel_lookup()
        if host is not None and self.address != (host, self._port):
            self._open_socket(host)
        if self.address is None:
            self._next_lookup = self._reactor.callLater(FIRST_INTERVAL, self.start)
        elif not is_address(self._host):
            self._next_lookup = self._reactor.callLater(RESOLVE_INTERVAL, self._look_up)

    def _open_socket(self, host: str) -> None:
        """Send to this address from now on; if no socket can be opened for it, go on as before."""
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
        self.address, self.transport = (host, self._port), transport
        self._log.info("{relay}: backend {backend} is at {host}", relay=self._relay, backend=self.name, host=host)


class _Sender(DatagramProtocol):
    """Owns a socket that only sends."""

    noisy = False
