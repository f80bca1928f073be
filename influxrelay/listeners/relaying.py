"""The listeners: each takes writes at a port, and has the roads to its backends."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from influxrelay.config.settings import HTTPListenerConfig, HTTPOutputConfig, UDPListenerConfig
from influxrelay.core.errors import JournalError
from influxrelay.core.write import Destination
from influxrelay.delivery.buffered_sender import BufferedSender
from influxrelay.delivery.factory import (
    RoadChanges,
    http_outputs,
    journal_limits,
    make_backend,
    make_keeper,
    make_road,
)
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.sender import Backend, Sender
from influxrelay.journal.writer import JournalWriter
from influxrelay.listeners.port_service import PortService, cannot_start
from influxrelay.listeners.transaction import Transaction

Backlogs = dict[str, list[tuple[Destination, int]]]
"""Up to where each backend has passed its destinations."""


class Relaying(PortService):
    """A port whose writes go to backends.

    :ivar leaving: the roads of outputs that are no longer configured, until they have finished what they have.
    """

    relays: list[FanOut]
    _journal_open = False

    def __init__(self, config: HTTPListenerConfig | UDPListenerConfig, reactor: Any) -> None:
        self.name = config.name
        self.config = config
        self._reactor = reactor
        self.keeper = self.make_keeper(config)
        self.roads = [self.make_road(each, config.name) for each in http_outputs(config)]
        self.leaving: dict[Sender, tuple[str, str]] = {}

    def make_keeper(self, config: HTTPListenerConfig | UDPListenerConfig) -> JournalWriter | None:
        """Return what keeps the journal, if there is one."""
        return make_keeper(config.journal, self._reactor)

    def make_road(self, output: HTTPOutputConfig, name: str) -> Sender:
        """Return the road to a backend of the listener of this name."""
        return make_road(output, name, self._reactor, self.keeper)

    def make_backend(self, output: HTTPOutputConfig) -> Backend:
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

    def _read_on(self, keeper: JournalWriter, backlogs: Backlogs) -> None:
        (relay,) = self.relays
        for road in self.roads:
            if isinstance(road, BufferedSender) and road.name in backlogs:
                road.resume(backlogs[road.name], keeper.last_seq, relay.decided())

    def _forget(self, destination: Destination, upto: int) -> None:
        for road in (*self.roads, *self.leaving):
            if isinstance(road, BufferedSender):
                road.forget(destination, upto)

    # -- another configuration

    async def prepare(self, config: Any, steps: Transaction) -> None:
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
            kept = {name: road.queue for name, road in changes.kept.items() if isinstance(road, BufferedSender)}
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

    def forget(self, road: Sender) -> None:
        """Know no more of a road that has left."""
        before = self._locations()
        if self.leaving.pop(road, None) is not None and self.keeper is not None:
            self._register(self.keeper, before)

    def _locations(self) -> dict[Sender, tuple[str, str]]:
        """Return the name and the location of each backend, those that are leaving included."""
        urls = {each.name: each.write_url for each in http_outputs(self.config)}
        return {**{road: (road.name, urls[road.name]) for road in self.roads}, **self.leaving}

    def _register(self, keeper: JournalWriter, before: Collection[Sender]) -> None:
        """Tell the journal which backends there are now; one that is leaving makes way for another of its name."""
        taken = {road.name for road in self.roads}
        backends = {}
        for road, (name, location) in self._locations().items():
            if isinstance(road, BufferedSender):
                makes_way = road in self.leaving and name in taken
                backends[road.queue] = (f"{name} ({location})" if makes_way else name, location)
        keeper.register(backends, {road.queue for road in before if isinstance(road, BufferedSender)})
