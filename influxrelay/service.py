"""The wiring: from a configuration to running listeners, and the ordered stop."""

from __future__ import annotations

import sys
import time
from base64 import b64encode
from typing import Any, NoReturn

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from influxrelay import __version__, udp
from influxrelay.admin import AdminSocket
from influxrelay.backend import HTTPBackend
from influxrelay.config_values import Config, HTTPListener, HTTPOutput, Journal, UDPListener, UDPOutput
from influxrelay.errors import JournalError, StartError
from influxrelay.keeper import Keeper, Limits
from influxrelay.query import parse
from influxrelay.queued import QueuedRoad
from influxrelay.queues import JournalQueue, MemoryQueue, Queue
from influxrelay.ratelimit import TokenBucket
from influxrelay.relay import Relay
from influxrelay.report import socket_path
from influxrelay.resources import PingResource, WriteResource
from influxrelay.road import Road
from influxrelay.tls import BackendPolicy
from influxrelay.web import RelaySite
from influxrelay.write import Destination

_KB = 1024
_MB = 1024 * 1024
_LAST_WORDS = 0.5  # seconds of the shutdown timeout that are kept for answering whoever still waits


def make_road(output: HTTPOutput, relay: str, reactor: Any, keeper: Keeper | None) -> Road:
    """Build the road to one HTTP backend, with a queue if there is a journal or a buffer.

    :raises ConfigError: a PEM file cannot be used.
    """
    authorization = None
    if output.token is not None:
        authorization = b"Token " + output.token.encode()
    elif output.username is not None:
        authorization = b"Basic " + b64encode(f"{output.username}:{output.password}".encode())
    policy = BackendPolicy(
        verify=not output.skip_tls_verification,
        ca_file=output.ca_file,
        client_certificate=output.client_certificate,
    )
    backend = HTTPBackend(
        output.name,
        output.write_url,
        reactor,
        policy,
        timeout=output.timeout,
        authorization=authorization,
        gzip=output.gzip,
    )
    bounds: dict[str, Any] = {
        "max_batch": output.max_batch_kb * _KB,
        "max_in_flight": output.max_in_flight,
        "max_waiting": output.max_waiting_mb * _MB,
    }
    queue: Queue
    if keeper is not None:
        queue = JournalQueue(output.name, keeper)
    elif output.buffer_size_mb:
        drop_oldest = output.buffer_full == "drop-oldest"
        queue = MemoryQueue(output.name, output.buffer_size_mb * _MB, drop_oldest=drop_oldest)
    else:
        return Road(backend, reactor, relay=relay, **bounds)
    return QueuedRoad(
        backend,
        reactor,
        relay=relay,
        queue=queue,
        max_delay=output.max_delay_interval,
        create_databases=output.create_databases,
        **bounds,
    )


def make_keeper(journal: Journal | None, reactor: Any) -> Keeper | None:
    """Build what keeps a journal."""
    if journal is None:
        return None
    limits = Limits(journal.max_bytes, journal.max_age, journal.full == "drop-oldest")
    return Keeper(reactor, journal.directory, limits, full_sync=journal.sync == "full")


class _ListenerService(Service):
    """Starts to listen as early as it is told: before twistd gives up its privileges, or at the start."""

    log = Logger()
    name: str
    bind_addr: str
    keeper: Keeper | None = None
    roads: list[Road]
    _locations: dict[str, str]
    _listening = False

    def listen(self) -> None:
        """Open the port; raises, or calls :meth:`_cannot_listen`, if it cannot be had."""
        raise NotImplementedError

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._listen_once()

    def startService(self) -> None:
        super().startService()
        if self.keeper is not None:
            self._open_journal(self.keeper)
        self._listen_once()

    def _open_journal(self, keeper: Keeper) -> None:
        """Read on where the last process stopped."""
        try:
            journal = keeper.open(self._locations)
        except JournalError as error:
            _cannot_start(self.log, f"influxrelay: {self.name}: {error}")
        backlogs = {road.name: journal.backlog(road.name) for road in self.roads}
        keeper.on_drop = self._forget
        keeper.start()
        for road in self.roads:
            if isinstance(road, QueuedRoad):
                road.resume(backlogs[road.name], keeper.last_seq)

    def _forget(self, destination: Destination, upto: int) -> None:
        for road in self.roads:
            if isinstance(road, QueuedRoad):
                road.forget(destination, upto)

    def _listen_once(self) -> None:
        if self._listening:
            return
        self._listening = True
        try:
            self.listen()
        except (CannotListenError, OSError) as error:
            self._cannot_listen(error)

    def _cannot_listen(self, error: BaseException | None) -> NoReturn:
        reason = getattr(error, "socketError", error)
        _cannot_start(self.log, f"influxrelay: {self.name}: cannot listen on {self.bind_addr}: {reason}")


class HTTPService(_ListenerService):
    """An HTTP listener, its relay and its roads."""

    def __init__(self, config: HTTPListener, reactor: Any) -> None:
        self.name = config.name
        self.bind_addr = config.bind_addr
        self.keeper = make_keeper(config.journal, reactor)
        self.roads = [make_road(output, config.name, reactor, self.keeper) for output in config.outputs]
        self._locations = {output.name: output.write_url for output in config.outputs}
        self._reactor = reactor
        self._endpoint_description = config.endpoint
        limiter = None
        if config.rate_limit:
            limiter = TokenBucket(config.rate_limit, config.burst_limit or 1, reactor.seconds)
        root = Resource()
        root.putChild(
            b"write",
            WriteResource(
                Relay(
                    config.name,
                    self.roads,
                    keeper=self.keeper,
                    consistency=config.consistency,
                    refuse_unjournaled=config.journal is not None and config.journal.on_error == "refuse",
                    clock=time.time,
                ),
                default_retention_policy=config.default_retention_policy,
                limiter=limiter,
            ),
        )
        root.putChild(b"ping", PingResource(config.default_ping_response))
        self.site = RelaySite(root, reactor, max_body_size=config.max_body_size, access_log=config.access_log)
        self._port: Any = None

    def listen(self) -> None:
        """Open the port."""
        try:
            endpoint = serverFromString(self._reactor, self._endpoint_description)
        except Exception as error:  # noqa: BLE001 (endpoint parsers are plugins, and raise what they like)
            self._cannot_listen(error)
        problems: list[Failure] = []
        endpoint.listen(self.site).addCallbacks(self._listens, problems.append)
        if problems:  # TCP, TLS, unix and systemd know it at once
            self._cannot_listen(problems[0].value)

    def _listens(self, port: Any) -> None:
        self._port = port
        self.log.info(
            "{relay}: takes HTTP on {address} for {backends}",
            relay=self.name,
            address=_show(port.getHost()),
            backends=", ".join(road.name for road in self.roads),
        )

    def stop_listening(self) -> Deferred[Any]:
        """Take no new connections and no new requests; fires when every client has its answer."""
        closed = maybeDeferred(self._port.stopListening) if self._port is not None else None
        return DeferredList([each for each in (closed, self.site.shut_down()) if each is not None])

    def abort(self) -> None:
        """Break what connections are left."""
        self.site.abort()


class UDPService(_ListenerService):
    """A UDP listener and its outputs."""

    def __init__(self, config: UDPListener, reactor: Any) -> None:
        self.name = config.name
        self.bind_addr = config.bind_addr
        self.keeper = make_keeper(config.journal, reactor)
        self.roads = []
        self._locations = {}
        self.outputs: list[udp.Batcher | udp.UDPOutput] = []
        for output in config.outputs:
            if isinstance(output, UDPOutput):
                self.outputs.append(
                    udp.UDPOutput(config.name, output.name, reactor, output.host, output.port, mtu=output.mtu)
                )
            else:
                self.roads.append(make_road(output, config.name, reactor, self.keeper))
                self._locations[output.name] = output.write_url
                if self.keeper is None:
                    relay = Relay(output.name, self.roads[-1:], consistency="any", clock=time.time)
                    self.outputs.append(self._make_batcher(config, output, relay, reactor))
        if self.keeper is not None:  # one log, and so one batch for all backends
            relay = Relay(config.name, self.roads, keeper=self.keeper, consistency="any", clock=time.time)
            first = next(output for output in config.outputs if isinstance(output, HTTPOutput))
            self.outputs.append(self._make_batcher(config, first, relay, reactor))
        self.protocol = udp.UDPListener(
            config.name,
            reactor,
            self.outputs,
            precision=config.precision,
            read_buffer=config.read_buffer,
        )
        self._reactor = reactor
        self._host = config.host
        self._port_number = config.port
        self._port: Any = None

    def _make_batcher(self, config: UDPListener, output: HTTPOutput, relay: Relay, reactor: Any) -> udp.Batcher:
        query = f"{output.query}&precision={config.precision}".encode()
        target = parse(query)
        destination = Destination(
            target.database,
            target.retention_policy,
            target.precision,
            (b"", target.username, target.password),
        )
        return udp.Batcher(
            relay,
            reactor,
            destination,
            target.forwarded,
            batch_lines=config.batch_lines,
            batch_bytes=config.batch_bytes,
            interval=config.batch_interval,
        )

    def listen(self) -> None:
        """Open the port."""
        self._port = self._reactor.listenUDP(
            self._port_number, self.protocol, interface=self._host, maxPacketSize=udp.MAX_DATAGRAM
        )
        for output in self.outputs:
            if isinstance(output, udp.UDPOutput):
                output.start()
        self.log.info(
            "{relay}: takes UDP on {address} for {backends}",
            relay=self.name,
            address=_show(self._port.getHost()),
            backends=", ".join(output.name for output in self.outputs),
        )

    def stop_listening(self) -> Deferred[Any]:
        """Receive no more, and send on what was received; fires when the socket is closed."""
        self.protocol.flush()
        for output in self.outputs:
            if isinstance(output, udp.Batcher):
                output.flush()
        return maybeDeferred(self._port.stopListening)

    def abort(self) -> None:
        """Close the sockets and tell what became of the lines."""
        for output in self.outputs:
            if isinstance(output, udp.UDPOutput):
                output.stop()
        protocol = self.protocol
        self.log.info(
            "{relay}: {lines_in} line(s) in, dropped: {dropped}; {outputs}",
            relay=self.name,
            lines_in=protocol.lines_in,
            dropped=dict(protocol.dropped),
            outputs="; ".join(
                f"{each.name}: {each.lines_out} out, dropped: {dict(each.dropped)}" for each in self.outputs
            ),
        )


class RelayService(MultiService):
    """The whole relay.

    :param config: a loaded configuration.
    :raises ConfigError: it names a file that cannot be used.
    """

    log = Logger()

    def __init__(self, config: Config, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor
        self._shutdown_timeout = config.shutdown_timeout
        self.listeners: list[HTTPService | UDPService] = [
            *(HTTPService(listener, reactor) for listener in config.http),
            *(UDPService(listener, reactor) for listener in config.udp),
        ]
        for listener in self.listeners:
            listener.setServiceParent(self)
        self._admin = AdminSocket(socket_path(config), self.listeners, reactor)

    def startService(self) -> None:
        """Begin to work."""
        self.log.info("influxrelay {version} starts", version=__version__)
        super().startService()
        try:
            self._admin.start()
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            _cannot_start(self.log, f"influxrelay: cannot open the admin socket {self._admin.path}: {reason}")

    def stopService(self) -> Deferred[Any]:
        """Stop listening, answer what is in flight, settle what waits; fires within the shutdown timeout."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        no_admin = self._admin.stop()
        roads = [road for listener in self.listeners for road in listener.roads]
        settled = DeferredList([listener.stop_listening() for listener in self.listeners])
        settled.addCallback(lambda _: DeferredList([road.drained() for road in roads]))
        limit = max(self._shutdown_timeout - _LAST_WORDS, self._shutdown_timeout / 2)
        if not await _within(limit, settled, self._reactor):
            self.log.warn("not everything could be settled within {seconds:g} s", seconds=limit)
        for road in roads:
            road.close()  # whoever still waits is told so
            road.backend.abort()
        await _within(self._shutdown_timeout - limit, settled, self._reactor)
        for listener in self.listeners:
            listener.abort()
        closed: Deferred[Any] = DeferredList([road.backend.close() for road in roads])
        keepers = [listener.keeper for listener in self.listeners if listener.keeper is not None]
        stopped: list[Deferred[Any]] = [no_admin, closed, *(keeper.stop() for keeper in keepers)]
        await DeferredList(stopped)
        await maybeDeferred(MultiService.stopService, self)
        self.log.info("influxrelay has stopped")


async def _within(seconds: float, event: Deferred[Any], reactor: Any) -> bool:
    """Wait for an event that may come later than we can wait; tell whether it has come."""
    waited: Deferred[bool] = Deferred()

    def came_in_time(result: Any) -> Any:
        if not waited.called:
            waited.callback(True)
        return result

    event.addBoth(came_in_time)
    timer = reactor.callLater(seconds, waited.callback, False)
    came = await waited
    if timer.active():
        timer.cancel()
    return came


def _cannot_start(log: Logger, line: str) -> NoReturn:
    log.error("{line}", line=line)  # a critical one would be printed by Twisted, too, before the log begins
    if sys.__stderr__ is not None:
        print(line, file=sys.__stderr__)
    raise StartError(line)


def _show(address: Any) -> str:
    host = getattr(address, "host", None)
    return f"{host}:{address.port}" if host is not None else str(getattr(address, "name", address))
