"""Where a site is entered: an open port, whose certificate can change while it is open."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure


class _Door(Factory):
    """Gives the connections of a TCP port to a factory: through TLS, if there is a certificate now."""

    noisy = False

    def __init__(self, factory: Any, certificate: Any) -> None:
        self._factory = factory
        self.lead(factory, certificate)

    def lead(self, factory: Any, certificate: Any) -> None:
        """Give the next connections to this factory; those that are there keep what they have."""
        self._behind = factory if certificate is None else TLSMemoryBIOFactory(certificate, False, factory)

    def logPrefix(self) -> str:
        """Return what Twisted's log calls a port with it."""
        return "HTTP"

    def doStart(self) -> None:
        """Begin; a port does so when it opens."""
        self._factory.doStart()

    def doStop(self) -> None:
        """End, with the port."""
        self._factory.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        """Take a connection."""
        return self._behind.buildProtocol(addr)


@attrs.define(eq=False)
class Entrance:
    """An endpoint that listens.

    :ivar description: in the words of Twisted's ``serverFromString``.
    :ivar certificate: the context factory of TLS; None without TLS, and where the endpoint keeps it to itself.
    """

    description: str
    port: Any
    certificate: Any = None
    _door: _Door | None = None
    _place: tuple[int, str] | None = None
    _factory: Any = None

    def close(self) -> Any:
        """Stop listening."""
        return self.port.stopListening()

    def is_certified_as(self, other: Entrance) -> bool:
        """Tell whether another entrance shows the same certificate."""
        return bool(_fingerprint(self.certificate) == _fingerprint(other.certificate))

    def take_effect(self) -> None:
        """Receive the next connections as this description says, also where the port was open before."""
        if self._door is not None:
            self._door.lead(self._factory, self.certificate)


class _Opener:
    """Stands for the reactor while an endpoint begins to listen, and puts a door into each TCP port.

    A port that is open already at the same place is not opened again.
    """

    def __init__(self, sockets: Any, present: Entrance | None) -> None:
        self._sockets = sockets
        self._present = present
        self.details: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sockets, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._open(port, factory, None, backlog, interface)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:  # noqa: N803 (Twisted's)
        return self._open(port, factory, contextFactory, backlog, interface)

    def _open(self, port: int, factory: Any, certificate: Any, backlog: int, interface: str) -> Any:
        place, present = (port, interface), self._present
        if present is not None and present._place == place:  # noqa: SLF001 (ours)
            door, opened = present._door, present.port  # noqa: SLF001 (ours)
        else:
            door = _Door(factory, certificate)
            opened = self._sockets.listenTCP(port, door, backlog, interface)
        self.details = {"certificate": certificate, "door": door, "place": place, "factory": factory}
        return opened


def enter(description: str, factory: Any, sockets: Any, present: Entrance | None = None) -> Entrance:
    """Listen as an endpoint's description says; where that is at a present port, prepare to go on with that one.

    :raises Exception: what the endpoint's parser raises, or why the port cannot be had.
    """
    if present is not None and present._place is None and present.description == description:  # noqa: SLF001 (ours)
        return present
    opener = _Opener(sockets, present)
    outcome: list[Any] = []
    serverFromString(opener, description).listen(factory).addBoth(outcome.append)
    if not outcome:
        raise ValueError("it does not listen at once")  # TCP, TLS, unix and systemd do
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return Entrance(description, outcome[0], **opener.details)


def _fingerprint(certificate: Any) -> Any:
    shown = getattr(certificate, "certificate", None)
    return None if shown is None else shown.digest("sha256")
