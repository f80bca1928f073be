"""What opens a port, and can go on with another configuration while it is open."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.web.resource import Resource

from influxrelay.config.settings import AdminConfig
from influxrelay.core.errors import ListenError, StartError
from influxrelay.http.overload import ClientLimits
from influxrelay.http.site import RelaySite
from influxrelay.http.write_resource import PingResource
from influxrelay.listeners.endpoint import Entrance, enter
from influxrelay.listeners.inherited_sockets import Sockets
from influxrelay.listeners.transaction import Transaction

_BACKLOG = 4096  # connections that the system takes before we do; Linux caps it at net.core.somaxconn
_ACCEPTED_AT_ONCE = 16
_MAX_ADMIN_BODY = 64 * 1024  # bytes
_LIMITS = ClientLimits(in_flight=4 * 1024 * 1024)  # of the listener for operators


class PortService(Service):
    """Starts to listen as early as it is told: before twistd gives up its privileges, or at the start.

    :ivar config: what holds now.
    """

    log = Logger()
    name: str
    config: Any
    _listening = False
    _stopping = False

    @property
    def bind_addr(self) -> str:
        """Where it listens, as written in the configuration."""
        return str(self.config.bind_addr)

    @property
    def is_ready(self) -> bool:
        """Whether it listens, its journal is open, and it does not stop."""
        return bool(self.running) and self._listening and not self._stopping

    def listen(self) -> None:
        """Open the port.

        :raises ListenError: it cannot be had.
        """
        raise NotImplementedError

    def privilegedStartService(self) -> None:
        """Open the port while the process may."""
        super().privilegedStartService()
        self._listen_once()

    def startService(self) -> None:
        """Open the port, if it is not open yet."""
        super().startService()
        self._listen_once()

    def _listen_once(self) -> None:
        if self._listening:
            return
        try:
            self.listen()
        except ListenError as error:
            cannot_start(self.log, f"influxrelay: {error}")

    def listen_for(self, steps: Transaction) -> None:
        """Open the port in the course of a reload.

        :raises ListenError: it cannot be had.
        """
        self.listen()
        steps.back(self.stop_listening)

    def stop_listening(self) -> Deferred[Any]:
        """Take nothing more; fires when what was taken is on its way."""
        raise NotImplementedError


class SiteService(PortService):
    """A port that speaks HTTP."""

    site: RelaySite
    _takes = "{relay}: takes HTTP on {address} for {backends}"
    _sockets: Sockets
    _entrance: Entrance | None = None

    @property
    def _port(self) -> Any:
        return self._entrance.port if self._entrance is not None else None

    def listen(self) -> None:
        """Open the port; none where there is no endpoint."""
        if self.config.endpoint:
            self._enter(self._entrance_for(self.config))
        else:
            self._listening = True

    def _entrance_for(self, config: Any) -> Entrance:
        """Listen where a configuration says; at the present port, if that is the same."""
        try:
            return enter(config.endpoint, self.site, self._sockets, self._entrance)
        except Exception as error:  # endpoint parsers are plugins, and raise what they like
            reason = getattr(error, "socketError", error)
            raise ListenError(f"{self.name}: cannot listen on {config.bind_addr}: {reason}") from error

    def _enter(self, entrance: Entrance) -> None:
        before, self._entrance = self._entrance, entrance
        self._listening = True
        entrance.take_effect()
        if before is None or before.port is not entrance.port:
            address = show_address(entrance.port.getHost())
            _accept_few(entrance.port)
            entrance.port.socket.listen(_BACKLOG)  # Twisted's is 50: of more clients at once some would wait a second
            self.log.info(self._takes, relay=self.name, address=address, backends=self._backends())
            if before is not None:
                before.close()

    def move(self, config: Any, steps: Transaction) -> None:
        """Open the port of another configuration, to be entered instead of the present one.

        :raises ListenError: it cannot be had.
        """
        if not config.endpoint:
            return
        entrance, present = self._entrance_for(config), self._entrance
        if present is None or entrance.port is not present.port:
            steps.back(entrance.close)
        elif entrance.description == present.description and not entrance.is_certified_as(present):
            steps.tell(f"{self.name}: certificate")
        steps.later(self._enter, entrance)

    def _backends(self) -> str:
        return ""

    def stop_listening(self) -> Deferred[Any]:
        """Take no new connections and no new requests; fires when every client has its answer.

        Where a client that is sent away can connect to a successor at once, what is still coming is answered.
        """
        self._stopping = True
        port = self._port
        closed = maybeDeferred(port.stopListening) if port is not None else None
        gently = port is not None and port.connected and self._sockets.has(port.getHost())
        return DeferredList([each for each in (closed, self.site.shut_down(gently=gently)) if each is not None])

    def abort(self) -> None:
        """Break what connections are left."""
        self.site.abort()


class AdminService(SiteService):
    """The HTTP listener for those who operate the relay; :attr:`root` has what it answers."""

    name = "admin"
    _takes = "{relay}: answers operators on {address}"

    def __init__(self, config: AdminConfig, reactor: Any, sockets: Sockets) -> None:
        self.config = config
        self._sockets = sockets
        self.root = Resource()
        self.root.putChild(b"ping", PingResource())
        self.site = RelaySite(self.name, self.root, reactor, max_body_size=_MAX_ADMIN_BODY, limits=_LIMITS)

    def reconfigure(self, config: AdminConfig) -> None:
        """Let another configuration hold, but for the port."""
        self.config = config


def _accept_few(port: Any) -> None:
    """Let a port take only some of the connections that wait in each turn of the reactor.

    Twisted takes 100, and ever more while more are waiting. That would hold up those that are there, and go beyond the
    files that the process may open: what is shed for a new connection is closed in the next turn.
    """
    accept = port.doRead

    def accept_few() -> Any:
        port.numberAccepts = _ACCEPTED_AT_ONCE
        return accept()

    port.doRead = accept_few


def cannot_start(log: Logger, line: str) -> NoReturn:
    """End the process before it has begun, with one line for the operator."""
    log.error("{line}", line=line)  # a critical one would be printed by Twisted, too, before the log begins
    if sys.__stderr__ is not None:
        print(line, file=sys.__stderr__)
    raise StartError(line)


def show_address(address: Any) -> str:
    """Return an address as people write it."""
    host = getattr(address, "host", None)
    return f"{host}:{address.port}" if host is not None else str(getattr(address, "name", address))
