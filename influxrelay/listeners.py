"""The listeners: each opens a port, and has the roads to its backends."""

from __future__ import annotations

import sys
import time
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from influxrelay import udp
from influxrelay.build import make_filter, make_keeper, make_road
from influxrelay.config_values import Admin, HTTPListener, HTTPOutput, UDPListener, UDPOutput
from influxrelay.errors import JournalError, StartError
from influxrelay.health import LocalExaminer
from influxrelay.keeper import Keeper
from influxrelay.query import parse
from influxrelay.queued import QueuedRoad
from influxrelay.ratelimit import TokenBucket
from influxrelay.relay import Relay
from influxrelay.resources import PingResource, WriteResource
from influxrelay.road import Road
from influxrelay.sockets import Sockets
from influxrelay.status import serve_health
from influxrelay.web import RelaySite
from influxrelay.write import Destination

_MAX_ADMIN_BODY = 64 * 1024  # bytes


class _PortService(Service):
    """Starts to listen as early as it is told: before twistd gives up its privileges, or at the start."""

    log = Logger()
    name: str
    bind_addr: str
    _listening = False
    _stopping = False

    @property
    def is_ready(self) -> bool:
        """Whether it listens, its journal is open, and it does not stop."""
        return bool(self.running) and self._listening and not self._stopping

    def listen(self) -> None:
        """Open the port; raises, or calls :meth:`_cannot_listen`, if it cannot be had."""
        raise NotImplementedError

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._listen_once()

    def startService(self) -> None:
        super().startService()
        self._listen_once()

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
        cannot_start(self.log, f"influxrelay: {self.name}: cannot listen on {self.bind_addr}: {reason}")


class _Relaying(_PortService):
    """A port whose writes go to backends."""

    keeper: Keeper | None = None
    roads: list[Road]
    relays: list[Relay]
    _locations: dict[str, str]

    def obstacle(self) -> str:
        """Tell why a write would be answered 5xx now; empty if it would not, as far as is known."""
        obstacles = [relay.obstacle() for relay in self.relays]
        return "" if "" in obstacles else "; ".join(obstacles)

    def hand_over(self) -> None:
        """Give what has been collected to the roads."""

    def counters(self) -> dict[str, Any]:
        """Return what has been counted since the start, for JSON."""
        return {
            "name": self.name,
            "bind_addr": self.bind_addr,
            "ready": self.is_ready,
            "backends": [
                {
                    "name": road.name,
                    "writes": road.writes,
                    "requests": road.requests,
                    "failures": dict(road.failures),
                }
                for road in self.roads
            ],
        }

    def startService(self) -> None:
        if self.keeper is not None:
            self._open_journal(self.keeper)
        super().startService()

    def _open_journal(self, keeper: Keeper) -> None:
        """Read on where the last process stopped."""
        try:
            journal = keeper.open(self._locations)
        except JournalError as error:
            cannot_start(self.log, f"influxrelay: {self.name}: {error}")
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


class _SiteService(_PortService):
    """A port that speaks HTTP."""

    site: RelaySite
    _takes = "{relay}: takes HTTP on {address} for {backends}"
    _sockets: Sockets
    _endpoint_description: str
    _port: Any = None

    def listen(self) -> None:
        """Open the port."""
        try:
            endpoint = serverFromString(self._sockets, self._endpoint_description)
        except Exception as error:  # noqa: BLE001 (endpoint parsers are plugins, and raise what they like)
            self._cannot_listen(error)
        problems: list[Failure] = []
        endpoint.listen(self.site).addCallbacks(self._listens, problems.append)
        if problems:  # TCP, TLS, unix and systemd know it at once
            self._cannot_listen(problems[0].value)

    def _listens(self, port: Any) -> None:
        self._port = port
        self.log.info(self._takes, relay=self.name, address=_show(port.getHost()), backends=self._backends())

    def _backends(self) -> str:
        return ""

    def stop_listening(self) -> Deferred[Any]:
        """Take no new connections and no new requests; fires when every client has its answer.

        Where a client that is sent away can connect to a successor at once, what is still coming is answered.
        """
        self._stopping = True
        closed = maybeDeferred(self._port.stopListening) if self._port is not None else None
        gently = self._port is not None and self._sockets.has(self._port.getHost())
        return DeferredList([each for each in (closed, self.site.shut_down(gently=gently)) if each is not None])

    def abort(self) -> None:
        """Break what connections are left."""
        self.site.abort()


class HTTPService(_SiteService, _Relaying):
    """An HTTP listener, its relay and its roads."""

    def __init__(self, config: HTTPListener, reactor: Any, sockets: Sockets) -> None:
        self.name = config.name
        self.bind_addr = config.bind_addr
        self.keeper = make_keeper(config.journal, reactor)
        self.roads = [make_road(output, config.name, reactor, self.keeper) for output in config.outputs]
        self._locations = {output.name: output.write_url for output in config.outputs}
        self._sockets = sockets
        self._endpoint_description = config.endpoint
        limiter = None
        if config.rate_limit:
            limiter = TokenBucket(config.rate_limit, config.burst_limit or 1, reactor.seconds)
        relay = Relay(
            config.name,
            self.roads,
            keeper=self.keeper,
            consistency=config.consistency,
            refuse_unjournaled=config.journal is not None and config.journal.on_error == "refuse",
            clock=time.time,
        )
        self.relays = [relay]
        self.writes = WriteResource(relay, default_retention_policy=config.default_retention_policy, limiter=limiter)
        root = Resource()
        root.putChild(b"write", self.writes)
        root.putChild(b"ping", PingResource(config.default_ping_response))
        self.site = RelaySite(root, reactor, max_body_size=config.max_body_size, access_log=config.access_log)
        serve_health(self.site, root, LocalExaminer(lambda: [self], reactor))

    def _backends(self) -> str:
        return ", ".join(road.name for road in self.roads)


class AdminService(_SiteService):
    """The HTTP listener for those who operate the relay; :attr:`root` has what it answers."""

    name = "admin"
    _takes = "{relay}: answers operators on {address}"

    def __init__(self, config: Admin, reactor: Any, sockets: Sockets) -> None:
        self.bind_addr = config.bind_addr
        self._sockets = sockets
        self._endpoint_description = config.endpoint
        self.root = Resource()
        self.root.putChild(b"ping", PingResource())
        self.site = RelaySite(self.root, reactor, max_body_size=_MAX_ADMIN_BODY)


class UDPService(_Relaying):
    """A UDP listener and its outputs."""

    def __init__(self, config: UDPListener, reactor: Any, sockets: Sockets) -> None:
        self.name = config.name
        self.bind_addr = config.bind_addr
        self.keeper = make_keeper(config.journal, reactor)
        self.roads = []
        self.relays = []
        self._locations = {}
        self.outputs: list[udp.Batcher | udp.UDPOutput] = []
        for output in config.outputs:
            if isinstance(output, UDPOutput):
                sender = udp.UDPOutput(config.name, output.name, reactor, output.host, output.port, mtu=output.mtu)
                sender.filter = make_filter(output)
                self.outputs.append(sender)
            else:
                self.roads.append(make_road(output, config.name, reactor, self.keeper))
                self._locations[output.name] = output.write_url
                if self.keeper is None:
                    relay = Relay(output.name, self.roads[-1:], consistency="any", clock=time.time)
                    self.relays.append(relay)
                    self.outputs.append(self._make_batcher(config, output, relay, reactor))
        if self.keeper is not None:  # one log, and so one batch for all backends
            relay = Relay(config.name, self.roads, keeper=self.keeper, consistency="any", clock=time.time)
            self.relays.append(relay)
            first = next(output for output in config.outputs if isinstance(output, HTTPOutput))
            self.outputs.append(self._make_batcher(config, first, relay, reactor))
        given = sockets.has(IPv4Address("UDP", config.host, config.port))  # its unit says how large its buffer is
        self.protocol = udp.UDPListener(
            config.name,
            reactor,
            self.outputs,
            precision=config.precision,
            read_buffer=0 if given else config.read_buffer,
        )
        filters = [make_filter(output) for output in config.outputs]
        if None not in filters:
            self.protocol.filters = [each for each in dict.fromkeys(filters) if each is not None]
        self._sockets = sockets
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
        self._port = self._sockets.listenUDP(
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

    def obstacle(self) -> str:
        """Tell why lines would get nowhere now; datagrams go out whatever becomes of them."""
        return "" if any(isinstance(each, udp.UDPOutput) for each in self.outputs) else super().obstacle()

    def hand_over(self) -> None:
        """Give what has been collected to the roads."""
        self.protocol.flush()
        for output in self.outputs:
            if isinstance(output, udp.Batcher):
                output.flush()

    def counters(self) -> dict[str, Any]:
        """Return what has been counted since the start, for JSON."""
        return {
            **super().counters(),
            "datagrams": self.protocol.datagrams_in,
            "lines": self.protocol.lines_in,
            "dropped": dict(self.protocol.dropped),
            "outputs": [
                {"name": each.name, "lines": each.lines_out, "dropped": dict(each.dropped)} for each in self.outputs
            ],
        }

    def stop_listening(self) -> Deferred[Any]:
        """Receive no more, and send on what was received; fires when the socket is closed."""
        self._stopping = True
        self.hand_over()
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


def cannot_start(log: Logger, line: str) -> NoReturn:
    """End the process before it has begun, with one line for the operator."""
    log.error("{line}", line=line)  # a critical one would be printed by Twisted, too, before the log begins
    if sys.__stderr__ is not None:
        print(line, file=sys.__stderr__)
    raise StartError(line)


def _show(address: Any) -> str:
    host = getattr(address, "host", None)
    return f"{host}:{address.port}" if host is not None else str(getattr(address, "name", address))
