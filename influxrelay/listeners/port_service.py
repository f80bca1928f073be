"""What opens a port, and can go on with another configuration while it is open."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import Resource

from influxrelay.config.settings import AdminConfig
from influxrelay.core.errors import ConfigError, ListenError, StartError
from influxrelay.http.overload import ClientLimits
from influxrelay.http.site import RelaySite
from influxrelay.http.write_resource import PingResource
from influxrelay.listeners.endpoint import Endpoint
from influxrelay.listeners.transaction import Transaction
from influxrelay.transport.addresses import show_address
from influxrelay.transport.server import ListeningPort
from influxrelay.transport.sockets import Sockets

_MAX_ADMIN_BODY = 64 * 1024  # bytes
_LIMITS = ClientLimits(in_flight=4 * 1024 * 1024)  # of the listener for operators


class PortService(Service):
    """Starts to listen as early as it is told: before twistd gives up its privileges, or at the start.

    :ivar config: what holds now.
    """

    log = Logger()
    name: str
    config: Any
    _port: Any = None
    _listening = False
    _stopping = False

    def address(self) -> Any:
        """Return the address of the port; None if there is none."""
        return None if self._port is None else self._port.getHost()

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


class StreamService(PortService):
    """A port for connections."""

    _takes: str
    _reactor: Any
    _sockets: Sockets
    _endpoint: Endpoint | None = None
    _port: ListeningPort | None = None

    @property
    def _factory(self) -> Any:
        """What makes the protocols of the connections."""
        raise NotImplementedError

    def check_endpoint(self) -> None:
        """Read the files that the endpoint names.

        :raises ConfigError: one of them cannot be used.
        """
        if self.config.endpoint:
            self._read_endpoint(self.config)

    def _read_endpoint(self, config: Any) -> Endpoint:
        try:
            return Endpoint.read(config.endpoint)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error}") from error
        except ValueError as error:
            raise ConfigError(f"{self.name}: {config.bind_addr}: {error}") from error

    def listen(self) -> None:
        """Open the port; none where there is no endpoint."""
        if self.config.endpoint:
            self._use(*self._open(self.config))
        else:
            self._listening = True

    def _open(self, config: Any) -> tuple[Endpoint, ListeningPort]:
        """Listen where a configuration says; at the present port, if that is the same.

        :raises ListenError: the port cannot be had.
        """
        try:
            endpoint = self._read_endpoint(config)
            if self._port is not None and self._endpoint is not None and endpoint.place == self._endpoint.place:
                return endpoint, self._port
            bound = endpoint.bind(self._sockets)
            port = ListeningPort(self._reactor, bound, self._factory, endpoint.tls, backlog=endpoint.backlog)
            try:
                port.startListening()
            except OSError:
                bound.close()
                raise
        except ConfigError as error:
            raise ListenError(str(error)) from error
        except (OSError, LookupError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ListenError(f"{self.name}: cannot listen on {config.bind_addr}: {reason}") from error
        return endpoint, port

    def _use(self, endpoint: Endpoint, port: ListeningPort) -> None:
        """Receive connections at this port from now on."""
        before, self._port = self._port, port
        self._endpoint, self._listening = endpoint, True
        port.tls = endpoint.tls
        if before is not port:
            self.log.info(self._takes, relay=self.name, address=show_address(port.getHost()), backends=self._backends())
            if before is not None:
                before.stopListening()

    def move(self, config: Any, steps: Transaction) -> None:
        """Open the port of another configuration, to be used instead of the present one.

        :raises ListenError: it cannot be had.
        """
        if not config.endpoint:
            return
        endpoint, port = self._open(config)
        if port is not self._port:
            steps.back(port.stopListening)
        elif config.endpoint == self.config.endpoint and endpoint != self._endpoint:
            steps.tell(f"{self.name}: certificate")
        steps.later(self._use, endpoint, port)

    def _backends(self) -> str:
        return ""


class SiteService(StreamService):
    """A port that speaks HTTP."""

    site: RelaySite
    _takes = "{relay}: takes HTTP on {address} for {backends}"

    @property
    def _factory(self) -> RelaySite:
        return self.site

    def stop_listening(self) -> Deferred[Any]:
        """Take no new connections and no new requests; fires when every client has its answer.

        Where a client that is sent away can connect to a successor at once, what is still coming is answered.
        """
        self._stopping = True
        return Deferred.fromCoroutine(self._stop_listening())

    async def _stop_listening(self) -> None:
        gently = False
        if self._port is not None:
            gently = self._port.is_inherited
            await self._port.stopListening()
        await self.site.shut_down(gently=gently)

    def abort(self) -> None:
        """Break what connections are left."""
        self.site.abort()


class AdminService(SiteService):
    """The HTTP listener for those who operate the relay; :attr:`root` has what it answers."""

    name = "admin"
    _takes = "{relay}: answers operators on {address}"

    def __init__(self, config: AdminConfig, reactor: Any, sockets: Sockets) -> None:
        self.config = config
        self._reactor = reactor
        self._sockets = sockets
        self.check_endpoint()
        self.root = Resource()
        self.root.putChild(b"ping", PingResource())
        self.site = RelaySite(self.name, self.root, reactor, max_body_size=_MAX_ADMIN_BODY, limits=_LIMITS)

    def reconfigure(self, config: AdminConfig) -> None:
        """Let another configuration hold, but for the port."""
        self.config = config


def cannot_start(log: Logger, line: str) -> NoReturn:
    """End the process before it has begun, with one line for the operator."""
    log.error("{line}", line=line)  # a critical one would be printed by Twisted, too, before the log begins
    if sys.__stderr__ is not None:
        print(line, file=sys.__stderr__)
    raise StartError(line)
