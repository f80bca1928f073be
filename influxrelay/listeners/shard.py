"""A shard: a listener without a port, which gets its writes from the one that it belongs to."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from influxrelay.config.settings import ShardConfig
from influxrelay.delivery.changes import Changes
from influxrelay.delivery.fanout import FanOut
from influxrelay.http.query_resource import QuerySettings, Readers
from influxrelay.listeners.relaying import Relaying
from influxrelay.listeners.transaction import Transaction


class ShardService(Relaying):
    """One shard's fan-out, its senders and its journal."""

    is_shard = True
    config: ShardConfig

    def __init__(self, config: ShardConfig, reactor: Any) -> None:
        super().__init__(config, reactor)
        self.fan_out = FanOut(config.name, self.senders, self.make_hand_out())
        self.fan_outs = [self.fan_out]
        self.readers = Readers(config.name, self._influxdbs(), QuerySettings(), reactor)
        self.changes = Changes(self.fan_out)
        self.furnish()

    def furnish(self) -> None:
        """Let what is configured hold for the next write."""
        config = self.config
        refuse = config.journal is not None and config.journal.on_error == "refuse"
        self.fan_out.reconfigure(config.name, self.senders, consistency=config.consistency, refuse_unjournaled=refuse)

    def furnish_queries(self, settings: QuerySettings) -> None:
        """Let what is configured for queries at its listener hold for the next one."""
        self.changes.reconfigure(own_credentials=settings.own_credentials)
        self.readers.reconfigure(self.config.name, self._influxdbs(), settings)

    @property
    def bind_addr(self) -> str:
        """Nothing: it has no port."""
        return ""

    def listen(self) -> None:
        """Take writes from now on."""
        self._listening = True

    def move(self, config: ShardConfig, steps: Transaction) -> None:
        """Do nothing: there is no port."""

    def stop_listening(self) -> Deferred[Any]:
        """Be ready no more; fires when the senders have what was taken. What its listener still has is taken, too."""
        self._stopping = True
        return self.hand_over()

    def abort(self) -> None:
        """Do nothing: there are no connections."""
