"""The listeners: each takes writes at a port, and has the roads to its backends."""

from __future__ import annotations

import time
from collections.abc import Collection
from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.web.resource import Resource

from influxrelay import udp
from influxrelay.build import (
    RoadChanges,
    http_outputs,
    journal_limits,
    make_backend,
    make_filter,
    make_keeper,
    make_road,
)
from influxrelay.config_values import HTTPListener, HTTPOutput, UDPListener, UDPOutput
from influxrelay.errors import JournalError, ListenError
from influxrelay.guard import Limits
from influxrelay.health import LocalExaminer
from influxrelay.journal import find_again
from influxrelay.keeper import Keeper
from influxrelay.ports import PortService, SiteService, cannot_start, show_address
from influxrelay.query import parse
from influxrelay.queued import QueuedRoad
from influxrelay.queues import Ticket
from influxrelay.ratelimit import TokenBucket
from influxrelay.relay import Relay
from influxrelay.reload import Steps
from influxrelay.resources import PingResource, WriteResource
from influxrelay.road import Backend, Road
from influxrelay.sockets import Sockets
from influxrelay.status import serve_health
from influxrelay.web import RelaySite
from influxrelay.write import Destination, Write

Backlogs = dict[str, list[tuple[Destination, int]]]
"""Up to where each backend has passed its destinations."""


class Relaying(PortService):
    """A port whose writes go to backends.

    :ivar leaving: the roads of outputs that are no longer configured, until they have finished what they have.
    """

    relays: list[Relay]
    _journal_open = False

    def __init__(self, config: HTTPListener | UDPListener, reactor: Any) -> None:
        self.name = config.name
        self.config = config
        self._reactor = reactor
        self.keeper = self.make_keeper(config)
        self.roads = [self.make_road(each, config.name) for each in http_outputs(config)]
        self.leaving: dict[Road, tuple[str, str]] = {}

    def make_keeper(self, config: HTTPListener | UDPListener) -> Keeper | None:
        """Return what keeps the journal, if there is one."""
        return make_keeper(config.journal, self._reactor)

    def make_road(self, output: HTTPOutput, name: str) -> Road:
        """Return the road to a backend of the listener of this name."""
        return make_road(output, name, self._reactor, self.keeper)

    def make_backend(self, output: HTTPOutput) -> Backend:
        """Return a transport to a backend."""
        return make_backend(output, self._reactor)

    def obstacle(self) -> str:
        """Tell why a write would be answered 5xx now; empty if it would not, as far as is known."""
        obstacles = [relay.obstacle() for relay in self.relays]
        return "" if "" in obstacles else "; ".join(obstacles)

    def hand_over(self) -> Deferred[Any]:
        """Give what has been collected to the roads; fires when they have it."""
        return DeferredList([relay.handed_out() for relay in self.relays])

    def counters(self) -> dict[str, Any]:
        """Return what has been counted since the start, for JSON."""
        return {
            "name": self.name,
            "bind_addr": self.bind_addr,
            "ready": self.is_ready,
            "obstacle": self.obstacle(),
            "backends": [
                {
                    "name": road.name,
                    "objection": road.objection(),
                    "writes": road.writes,
                    "requests": road.requests,
                    "failures": dict(road.failures),
                }
                for road in self.roads
            ],
        }

    # -- the journal

    def startService(self) -> None:
        """Open the journal, then the port."""
        try:
            self.resume(self.open_journal())
        except JournalError as error:
            cannot_start(self.log, f"influxrelay: {error}")
        super().startService()

    def open_journal(self) -> Backlogs:
        """Open the journal, if there is one; may take a while, and be done in another thread.

        :return: where the last process stopped, for :meth:`resume`.
        :raises JournalError: it cannot be used.
        """
        if self.keeper is None or self._journal_open:
            return {}
        try:
            journal = self.keeper.open({each.name: each.write_url for each in http_outputs(self.config)})
        except JournalError as error:
            raise JournalError(f"{self.name}: {error}") from error
        return {road.name: journal.backlog(road.name) for road in self.roads}

    def resume(self, backlogs: Backlogs) -> None:
        """Begin to work with the journal, and read on from where the last process stopped; once."""
        if self.keeper is not None and not self._journal_open:
            self._journal_open = True
            self.keeper.on_drop = self._forget
            self.keeper.start()
            self._read_on(self.keeper, backlogs)

    def _read_on(self, keeper: Keeper, backlogs: Backlogs) -> None:
        (relay,) = self.relays
        for road in self.roads:
            if isinstance(road, QueuedRoad) and road.name in backlogs:
                road.resume(backlogs[road.name], keeper.last_seq, relay.decided())

    def _forget(self, destination: Destination, upto: int) -> None:
        for road in (*self.roads, *self.leaving):
            if isinstance(road, QueuedRoad):
                road.forget(destination, upto)

    # -- another configuration

    async def prepare(self, config: Any, steps: Steps) -> None:
        """Check what can fail of another configuration, but for the port.

        :raises ConfigError: a PEM file cannot be used.
        :raises JournalError: the journal does not tell where a backend that returns has stopped.
        """
        keeper = self.keeper
        changes = RoadChanges.between(self.config, config, self.roads, self.make_road, self.make_backend)
        steps.told += changes.told
        backlogs: Backlogs = {}
        if keeper is not None and changes.added():
            locations = {each.name: each.write_url for each in http_outputs(config)}
            kept = {name: road.queue for name, road in changes.kept.items() if isinstance(road, QueuedRoad)}
            backlogs = await keeper.call(
                lambda journal: journal.passed_before(locations, {name: keeper.names[kept[name]] for name in kept})
            )
        steps.later(self.reconfigure, config, changes, backlogs)

    def reconfigure(self, config: Any, changes: RoadChanges, backlogs: Backlogs) -> None:
        """Let another configuration hold, but for the port."""
        self.hand_over()
        before = self._locations()
        self.leaving.update((road, before[road]) for road in changes.removed)
        changes.apply()
        self.name, self.config, self.roads = config.name, config, changes.roads
        if self.keeper is not None:
            self.keeper.limits = journal_limits(config.journal)
            self.keeper.full_sync = config.journal.sync == "full"
            if self._locations() != before or changes.removed:
                self._register(self.keeper, before)
            self._read_on(self.keeper, backlogs)
        self.furnish()

    def furnish(self) -> None:
        """Let what is configured hold for the next write."""
        raise NotImplementedError

    def forget(self, road: Road) -> None:
        """Know no more of a road that has left."""
        before = self._locations()
        if self.leaving.pop(road, None) is not None and self.keeper is not None:
            self._register(self.keeper, before)

    def _locations(self) -> dict[Road, tuple[str, str]]:
        """Return the name and the location of each backend, those that are leaving included."""
        urls = {each.name: each.write_url for each in http_outputs(self.config)}
        return {**{road: (road.name, urls[road.name]) for road in self.roads}, **self.leaving}

    def _register(self, keeper: Keeper, before: Collection[Road]) -> None:
        """Tell the journal which backends there are now; one that is leaving makes way for another of its name."""
        taken = {road.name for road in self.roads}
        backends = {}
        for road, (name, location) in self._locations().items():
            if isinstance(road, QueuedRoad):
                makes_way = road in self.leaving and name in taken
                backends[road.queue] = (f"{name} ({location})" if makes_way else name, location)
        keeper.register(backends, {road.queue for road in before if isinstance(road, QueuedRoad)})


class HTTPService(SiteService, Relaying):
    """An HTTP listener, its relay and its roads."""

    def __init__(self, config: HTTPListener, reactor: Any, sockets: Sockets) -> None:
        Relaying.__init__(self, config, reactor)
        self._sockets = sockets
        self._limiter: TokenBucket | None = None
        self._relay = Relay(config.name, self.roads, keeper=self.keeper, clock=time.time)
        self.relays = [self._relay]
        self.writes = WriteResource(self._relay)
        self._root = Resource()
        self._root.putChild(b"write", self.writes)
        self.site = RelaySite(self._root, reactor, max_body_size=config.max_body_size)
        serve_health(self.site, self._root, LocalExaminer(lambda: [self], reactor))
        self.furnish()

    def furnish(self) -> None:
        """Let what is configured hold for the next request."""
        config = self.config
        refuse = config.journal is not None and config.journal.on_error == "refuse"
        self._relay.reconfigure(config.name, self.roads, consistency=config.consistency, refuse_unjournaled=refuse)
        limit = (config.rate_limit, config.burst_limit or 1)
        if not config.rate_limit:
            self._limiter = None
        elif self._limiter is None or self._limiter.limit != limit:
            self._limiter = TokenBucket(*limit, self._reactor.seconds)
        self.writes.reconfigure(default_retention_policy=config.default_retention_policy, limiter=self._limiter)
        self._root.putChild(b"ping", PingResource(config.default_ping_response))
        self.site.max_body_size, self.site.access_log = config.max_body_size, config.access_log
        self.site.guard.name = config.name
        self.site.guard.limits = Limits(
            connections=config.max_connections,
            in_flight=max(config.max_in_flight, config.max_body_size),
            header_timeout=config.header_timeout,
            body_timeout=config.body_timeout,
            idle_timeout=config.idle_timeout,
        )

    def _backends(self) -> str:
        return ", ".join(road.name for road in self.roads)


class UDPService(Relaying):
    """A UDP listener and its outputs."""

    def __init__(self, config: UDPListener, reactor: Any, sockets: Sockets) -> None:
        super().__init__(config, reactor)
        self._sockets = sockets
        self._port: Any = None
        self.outputs: list[udp.Batcher | udp.UDPOutput] = []
        self.relays = []
        self._batchers: dict[Road | None, tuple[Relay, udp.Batcher]] = {}
        self._datagram_outputs: dict[str, udp.UDPOutput] = {}
        self.protocol = udp.UDPListener(config.name, reactor, (), precision=config.precision)
        self.furnish()

    def furnish(self) -> None:
        """Let what is configured hold for the next datagram."""
        config = self.config
        batchers: dict[Road | None, tuple[Relay, udp.Batcher]] = {}
        if self.keeper is not None:  # one log, and so one batch for all backends
            batchers[None] = self._batcher(None, http_outputs(config)[0], config.name, self.roads)
        else:
            for output, road in zip(http_outputs(config), self.roads, strict=True):
                batchers[road] = self._batcher(road, output, output.name, [road])
        self._batchers = batchers
        self._change_datagram_outputs()
        self.relays = [relay for relay, _ in batchers.values()]
        of_roads = iter([batcher for _, batcher in batchers.values()])
        self.outputs = [
            self._datagram_outputs[each.name] if isinstance(each, UDPOutput) else next(of_roads)
            for each in (config.outputs if self.keeper is None else config.outputs[:1])
        ]
        # The unit of a socket that was given says how large its buffer is.
        given = self._sockets.has(IPv4Address("UDP", config.host, config.port))
        read_buffer = 0 if given else config.read_buffer
        self.protocol.reconfigure(config.name, self.outputs, precision=config.precision, read_buffer=read_buffer)
        filters = list(dict.fromkeys(map(make_filter, config.outputs)))
        self.protocol.filters = [] if None in filters else [each for each in filters if each is not None]

    def _batcher(self, key: Road | None, output: HTTPOutput, name: str, roads: list[Road]) -> tuple[Relay, udp.Batcher]:
        """Return those that there are, or new ones."""
        config = self.config
        target = parse(f"{output.query}&precision={config.precision}".encode())
        where = Destination(
            target.database, target.retention_policy, target.precision, (b"", target.username, target.password)
        )
        settings = {
            "batch_lines": config.batch_lines,
            "batch_bytes": config.batch_bytes,
            "interval": config.batch_interval,
        }
        if key not in self._batchers:
            relay = Relay(
                name,
                roads,
                keeper=self.keeper,
                consistency="any",
                journal_first=self.keeper is not None,
                clock=time.time,
            )
            batcher = udp.Batcher(relay, self._reactor, where, target.forwarded, **settings)
            if key is not None:
                batcher.on_lost = partial(self._note_lost, key)
            return relay, batcher
        relay, batcher = self._batchers[key]
        relay.reconfigure(name, roads, consistency="any")
        batcher.reconfigure(where, target.forwarded, **settings)
        return relay, batcher

    def _change_datagram_outputs(self) -> None:
        present, wanted = self._datagram_outputs, [e for e in self.config.outputs if isinstance(e, UDPOutput)]
        before = find_again(
            {name: each.location for name, each in present.items()},
            {each.name: f"{each.host}:{each.port}" for each in wanted},
        )
        self._datagram_outputs = {}
        for each in wanted:
            old = before.get(each.name)
            if old is None:
                output = udp.UDPOutput(self.name, each.name, self._reactor, each.host, each.port, mtu=each.mtu)
            else:
                output = present.pop(old)
                output.reconfigure(self.name, each.name, each.host, each.port, mtu=each.mtu)
            output.filter = make_filter(each)
            self._datagram_outputs[each.name] = output
            if self.running:
                output.start()
        for output in present.values():
            output.stop()

    def listen(self) -> None:
        """Open the port."""
        self._enter(self._open(self.config))

    def startService(self) -> None:
        """Open the port, and look for the backends."""
        super().startService()
        for output in self._datagram_outputs.values():
            output.start()

    def _open(self, config: UDPListener) -> Any:
        try:
            return self._sockets.listenUDP(
                config.port, self.protocol, interface=config.host, maxPacketSize=udp.MAX_DATAGRAM
            )
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            raise ListenError(f"{self.name}: cannot listen on {config.bind_addr}: {reason}") from error

    def _enter(self, port: Any) -> None:
        before, self._port, self._listening = self._port, port, True
        self.log.info(
            "{relay}: takes UDP on {address} for {backends}",
            relay=self.name,
            address=show_address(port.getHost()),
            backends=", ".join(output.name for output in self.outputs),
        )
        if before is not None:
            before.stopListening()

    def move(self, config: UDPListener, steps: Steps) -> None:
        """Open the port of another configuration, to be used instead of the present one.

        :raises ListenError: it cannot be had.
        """
        if (config.host, config.port) != (self.config.host, self.config.port):
            port = self._open(config)
            steps.back(port.stopListening)
            steps.later(self._enter, port)
        if config.read_buffer != self.config.read_buffer:
            steps.later(lambda: self.protocol.set_read_buffer(self._port))

    def _note_lost(self, road: Road, write: Write) -> None:
        """Count lines that a backend has not taken as lost for it, if another one is well and so may have them."""
        if any(not other.objection() for other in self.roads if other is not road):
            now = time.time()
            if isinstance(road, QueuedRoad):
                road.queue.lost(Ticket(0, now, write), write, "full")
            else:
                road.miss(write, now)

    def obstacle(self) -> str:
        """Tell why lines would get nowhere now; datagrams go out whatever becomes of them."""
        return "" if self._datagram_outputs else super().obstacle()

    def hand_over(self) -> Deferred[Any]:
        """Give what has been collected to the roads; fires when they have it."""
        self.protocol.flush()
        for _, batcher in self._batchers.values():
            batcher.flush()
        return super().hand_over()

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
        """Receive no more, and send on what was received; fires when the roads have it, and the socket is closed."""
        self._stopping = True
        return DeferredList([self.hand_over(), maybeDeferred(self._port.stopListening)])

    def abort(self) -> None:
        """Close the sockets and tell what became of the lines."""
        for output in self._datagram_outputs.values():
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
