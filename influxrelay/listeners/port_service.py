"""Services with a port: opening it, moving it while clients go on, closing it."""

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
    """Opens its port before ``twistd`` gives up its privileges, or at the start.

    :ivar config: the configuration in force.
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
        """The address to listen on, as the configuration has it."""
        return str(self.config.bind_addr)

    @property
    def is_ready(self) -> bool:
        """Whether it listens, its journal is open, and it is not stopping."""
        return bool(self.running) and self._listening and not self._stopping

    def listen(self) -> None:
        """Open the port.

        :raises ListenError: the port cannot be opened.
        """
        raise NotImplementedError

    def privilegedStartService(self) -> None:
        """Open the port while the process has the privileges for it."""
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
        """Open the port as a step of a reload.

        :raises ListenError: the port cannot be opened.
        """
        self.listen()
        steps.back(self.stop_listening)

    def stop_listening(self) -> Deferred[Any]:
        """Receive nothing more; fires when what was received is with the senders."""
        raise NotImplementedError


class StreamService(PortService):
    """A port for connections."""

    _listening_line: str
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
        """Open the port, if the configuration has one."""
        if self.config.endpoint:
            self._use(*self._open(self.config))
        else:
            self._listening = True

    def _open(self, config: Any) -> tuple[Endpoint, ListeningPort]:
        """Open the port of a configuration, or return the present one if the address is the same.

        :raises ListenError: the port cannot be opened.
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
        """Receive connections at this port from now on, and close the one before."""
        before, self._port = self._port, port
        self._endpoint, self._listening = endpoint, True
        port.tls = endpoint.tls
        if before is not port:
            self.log.info(
                self._listening_line, relay=self.name, address=show_address(port.getHost()), backends=self._backends()
            )
            if before is not None:
                before.stopListening()

    def move(self, config: Any, steps: Transaction) -> None:
        """Open the port of another configuration, and replace the present one when the reload is applied.

        :raises ListenError: the port cannot be opened.
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
    _listening_line = "{relay}: listening for HTTP on {address}, backends: {backends}"

    @property
    def _factory(self) -> RelaySite:
        return self.site

    def stop_listening(self) -> Deferred[Any]:
        """Accept no more connections and requests; fires when every client has its response.

        If the socket is inherited, clients can connect to the next process at once, and requests that are on their way
        are still answered.
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
        """Reset the connections that are left."""
        self.site.abort()


class AdminService(SiteService):
    """The HTTP listener for operators; :attr:`root` holds its resources."""

    name = "admin"
    _listening_line = "{relay}: listening for HTTP on {address}"

    def __init__(self, config: AdminConfig, reactor: Any, sockets: Sockets) -> None:
        self.config = config
        self._reactor = reactor
        self._sockets = sockets
        self.check_endpoint()
        self.root = Resource()
        self.root.putChild(b"ping", PingResource())
        self.site = RelaySite(self.name, self.root, reactor, max_body_size=_MAX_ADMIN_BODY, limits=_LIMITS)

    def reconfigure(self, config: AdminConfig) -> None:
        """Apply another configuration, except for the port."""
        self.config = config


def cannot_start(log: Logger, line: str) -> NoReturn:
    """End the start of the process with one line for the operator."""
    log.error("{line}", line=line)  # Twisted would also print a critical one, before the log begins
    if sys.__stderr__ is not None:
        print(line, file=sys.__stderr__)
    raise StartError(line)
