"""The whole relay: its listeners, its admin socket, and the ordered stop."""

from __future__ import annotations

import time
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from influxrelay import __version__
from influxrelay.admin import AdminSocket
from influxrelay.commands import list_queues
from influxrelay.config_values import Config
from influxrelay.health import LocalExaminer
from influxrelay.listeners import AdminService, HTTPService, UDPService, cannot_start
from influxrelay.metrics import Metrics, serve_metrics
from influxrelay.notify import Notifier
from influxrelay.report import Request, iso, socket_path
from influxrelay.sockets import Sockets
from influxrelay.status import serve_health, serve_status
from influxrelay.within import within

_RESERVE = 10.0  # seconds that the end may take after the shutdown timeout, on a busy machine or a slow disk
_LAST_WORDS = 0.5  # seconds of the shutdown timeout that are kept for answering whoever still waits


class RelayService(MultiService):
    """The whole relay.

    :param config: a loaded configuration.
    :param sockets: opens the ports; without it, the reactor does.
    :param notifier: hears when the relay is ready and when it stops.
    :raises ConfigError: it names a file that cannot be used.
    """

    log = Logger()

    def __init__(
        self, config: Config, reactor: Any, *, sockets: Sockets | None = None, notifier: Notifier | None = None
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._sockets = sockets = sockets or Sockets(reactor)
        self._notifier = notifier or Notifier({}, reactor)
        self._shutdown_timeout = config.shutdown_timeout
        self.listeners: list[HTTPService | UDPService] = [
            *(HTTPService(listener, reactor, sockets) for listener in config.http),
            *(UDPService(listener, reactor, sockets) for listener in config.udp),
        ]
        for listener in self.listeners:
            listener.setServiceParent(self)
        self.admin: AdminService | None = None
        if config.admin is not None:
            self.admin = AdminService(config.admin, reactor, sockets)
            serve_health(self.admin.site, self.admin.root, LocalExaminer(lambda: self.listeners, reactor))
            serve_status(self.admin.root, self.describe)
            self.admin.setServiceParent(self)
            metrics = Metrics(lambda: self.listeners, reactor, path=config.path)
            metrics.setServiceParent(self)
            serve_metrics(self.admin.root, metrics.collect)
        self._started = time.time()
        self._admin_socket = AdminSocket(socket_path(config), self.listeners, reactor)

    def startService(self) -> None:
        """Begin to work."""
        self._started = time.time()
        self.log.info("influxrelay {version} starts", version=__version__)
        super().startService()
        try:
            self._admin_socket.start()
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            cannot_start(self.log, f"influxrelay: cannot open the admin socket {self._admin_socket.path}: {reason}")
        for unused in self._sockets.unused():
            self.log.warn("no listener has the address of an inherited socket: {unused}", unused=unused)
        self._reactor.callWhenRunning(self._ready)

    def _ready(self) -> None:
        """Tell the service manager; every port listens and every journal is open, or the start had failed."""
        if self.running:
            self._notifier.ready(f"at work, {len(self.listeners)} listener(s)")

    async def describe(self) -> dict[str, Any]:
        """Return how everything is, for JSON that people read."""
        return {
            "version": __version__,
            "started": iso(self._started),
            "uptime": round(time.time() - self._started, 3),
            "listeners": [listener.counters() for listener in self.listeners],
            "queues": (await list_queues(self.listeners, Request("queues"), lambda done, total: None))["queues"],  # noqa: ARG005
        }

    def stopService(self) -> Deferred[Any]:
        """Stop listening, answer what is in flight, settle what waits; fires within the shutdown timeout."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._notifier.stopping(within=self._shutdown_timeout + _RESERVE)
        no_socket = self._admin_socket.stop()
        roads = [road for listener in self.listeners for road in listener.roads]
        settled = DeferredList([listener.stop_listening() for listener in self.listeners])
        settled.addCallback(lambda _: DeferredList([road.drained() for road in roads]))
        limit = max(self._shutdown_timeout - _LAST_WORDS, self._shutdown_timeout / 2)
        if not await within(limit, settled, self._reactor):
            self.log.warn("not everything could be settled within {seconds:g} s", seconds=limit)
        for road in roads:
            road.close()  # whoever still waits is told so
            road.backend.abort()
        await within(self._shutdown_timeout - limit, settled, self._reactor)
        for listener in self.listeners:
            listener.abort()
        closed: Deferred[Any] = DeferredList([road.backend.close() for road in roads])
        keepers = [listener.keeper for listener in self.listeners if listener.keeper is not None]
        stopped: list[Deferred[Any]] = [no_socket, closed, *(keeper.stop() for keeper in keepers)]
        if self.admin is not None:  # the last to go: a stop can be watched
            stopped.append(self.admin.stop_listening())
            self.admin.abort()
        await DeferredList(stopped)
        await maybeDeferred(MultiService.stopService, self)
        self._notifier.stopped()
        self.log.info("influxrelay has stopped")
