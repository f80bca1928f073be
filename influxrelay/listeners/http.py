"""An HTTP listener."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from twisted.web.resource import Resource

from influxrelay.config.settings import HTTPListenerConfig
from influxrelay.core.token_bucket import TokenBucket
from influxrelay.delivery.changes import Changes
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.standing import Outlook
from influxrelay.http.error_forms import in_v2, in_v3
from influxrelay.http.overload import ClientLimits
from influxrelay.http.query_resource import PrometheusReadResource, QueryResource, QuerySettings, Readers
from influxrelay.http.remote_write_resource import RemoteWriteResource
from influxrelay.http.sharded_execution import ShardHandlers
from influxrelay.http.sharded_query_resource import ShardedQueryResource
from influxrelay.http.site import RelaySite
from influxrelay.http.write_resource import NotHereResource, PingResource, WriteResource
from influxrelay.journal.ledger import FILE as JOURNAL_FILE
from influxrelay.lineprotocol.api_queries import read_v1, read_v2, read_v3
from influxrelay.listeners.factory import make_shard_map, remote_write_versions
from influxrelay.listeners.port_service import PortService, SiteService
from influxrelay.listeners.relaying import Relaying
from influxrelay.listeners.shard import ShardService
from influxrelay.listeners.transaction import Transaction
from influxrelay.sharding.fanout import ShardedFanOut
from influxrelay.transport.sockets import Sockets

NAMING_PATHS = (b"api/v1/prom/write",)  # InfluxDB's: a client names the database
_APIS = {"v1": read_v1, "v2": read_v2, "v3": read_v3}
REMOTE_WRITE_PATHS = (*NAMING_PATHS, b"api/v1/write")


MOVED = (
    "points that are written already belong to other shards now: queries do not find them until they are copied there;"
    " to move nothing, let the change begin with a new epoch in the future"
)


class HTTPService(SiteService, Relaying):
    """An HTTP listener, its relay and its senders; :attr:`root` holds the resources that it serves."""

    def __init__(self, config: HTTPListenerConfig, reactor: Any, sockets: Sockets) -> None:
        Relaying.__init__(self, config, reactor)
        self._sockets = sockets
        self.check_endpoint()
        self._limiter: TokenBucket | None = None
        self._fan_out = FanOut(config.name, self.senders, self.make_hand_out())
        self.fan_outs = [self._fan_out]
        self.shards: list[ShardService] = []
        self._sharded = ShardedFanOut(make_shard_map(config), {}) if config.shards else None
        fan_out = self._sharded or self._fan_out
        self.root = Resource()
        self.site = RelaySite(config.name, self.root, reactor, max_body_size=config.max_body_size)
        self.writes = WriteResource(fan_out, self.site.cooperator)
        self.root.putChild(b"write", self.writes)
        self.root.putChild(b"api/v2/write", self.writes.beside(read_v2, in_v2))
        self.root.putChild(b"api/v3/write_lp", self.writes.beside(read_v3, in_v3))
        self.remote_writes = [
            RemoteWriteResource(fan_out, self.site.cooperator, names_database=path in NAMING_PATHS)
            for path in REMOTE_WRITE_PATHS
        ]
        for path, resource in zip(REMOTE_WRITE_PATHS, self.remote_writes, strict=True):
            self.root.putChild(path, resource)
        self.readers = Readers(config.name, self._influxdbs(), QuerySettings(), reactor)
        self.changes = Changes(self._fan_out)
        self._sharded_queries: ShardedQueryResource | None = None
        queries: Resource = QueryResource(self.readers, self.changes)
        reads: Resource = PrometheusReadResource(self.readers)
        if config.shards:
            queries = self._sharded_queries = ShardedQueryResource(self.readers, self.changes, make_shard_map(config))
            reads = NotHereResource("a listener with shards answers no remote reads: ask the shard's backends")
        self._query_resources: dict[bytes, Resource] = {
            b"query": queries,
            b"admin": queries,  # of the Veepee fork
            b"api/v1/prom/read": reads,
        }
        self.furnish()

    def startService(self) -> None:
        """Open the port; warn of a journal that nobody reads, because it is from before the shards."""
        super().startService()
        journals = [each.journal for each in self.config.shards if each.journal and not each.journal.shared]
        for directory in dict.fromkeys(Path(each.directory).parent for each in journals):
            if (directory / JOURNAL_FILE).exists():
                self.log.warn(
                    "{relay}: {directory} holds a journal from before the shards, which is not read: stop the relay,"
                    " and move it to the directory of the shard that has its backends",
                    relay=self.name,
                    directory=str(directory),
                )

    def furnish(self) -> None:
        """Let what is configured hold for the next request."""
        config = self.config
        refuse = config.journal is not None and config.journal.on_error == "refuse"
        self._fan_out.reconfigure(config.name, self.senders, consistency=config.consistency, refuse_unjournaled=refuse)
        limit = (config.rate_limit, config.burst_limit or 1)
        if not config.rate_limit:
            self._limiter = None
        elif self._limiter is None or self._limiter.limit != limit:
            self._limiter = TokenBucket(*limit, self._reactor.seconds)
        self.writes.reconfigure(
            default_retention_policy=config.default_retention_policy,
            max_decoded_size=config.max_decoded_size,
            limiter=self._limiter,
        )
        ping = PingResource(config.default_ping_response)
        for path in (b"ping", b"api/v2/ping"):
            self.root.putChild(path, ping)
        for resource in self.remote_writes:
            resource.reconfigure(
                database=config.prometheus_database,
                default_retention_policy=config.default_retention_policy,
                max_decoded_size=config.max_decoded_size,
                versions=remote_write_versions(
                    [*config.outputs, *(each for shard in config.shards for each in shard.outputs)]
                ),
                consistency=config.consistency,
                limiter=self._limiter,
            )
        self._furnish_queries()
        limits = ClientLimits(
            connections=config.max_connections,
            in_flight=max(config.max_in_flight, config.max_body_size),
            header_timeout=config.header_timeout,
            body_timeout=config.body_timeout,
            idle_timeout=config.idle_timeout,
        )
        self.site.reconfigure(
            config.name,
            limits,
            max_body_size=config.max_body_size,
            cors_origins=config.cors_origins,
            access_log=config.access_log,
        )

    async def prepare(self, config: HTTPListenerConfig, steps: Transaction) -> None:
        """Check what can fail of another configuration, but for the port, and tell whether points lose their place.

        :raises ConfigError: a PEM file cannot be used.
        :raises JournalError: the journal does not tell where a backend that returns has stopped.
        """
        before = self._sharded.shards if self._sharded is not None else None
        if before is not None and not before.agrees_until(time.time_ns(), make_shard_map(config)):
            steps.tell(f"{config.name}: {MOVED}")
        await super().prepare(config, steps)

    def connect(self, shards: Sequence[ShardService]) -> None:
        """Let these shards get the writes; they are those of the configuration."""
        self.shards = list(shards)
        if self._sharded is not None:
            self.fan_outs = [shard.fan_out for shard in shards]
            fan_outs = {shard.config.shard: shard.fan_out for shard in shards}
            self._sharded.reconfigure(make_shard_map(self.config), fan_outs)
        if self._sharded_queries is not None:
            for shard in shards:
                shard.furnish_queries(self._query_settings())
            shard_handlers = {shard.config.shard: ShardHandlers(shard.readers, shard.changes) for shard in shards}
            points = self.config.max_merge_points
            self._sharded_queries.connect(make_shard_map(self.config), shard_handlers, max_points=points)

    def _query_settings(self) -> QuerySettings:
        config = self.config
        return QuerySettings(
            when_behind=config.queries_when_behind,
            timeout=config.query_timeout or 0.0,
            own_credentials=config.query_credentials == "output",
            limit=min(config.max_queries, max(1, config.max_connections // 2)),
            bodies=max(config.max_in_flight, config.max_body_size) // 4,
            slow=config.slow_query or 0.0,
            read_only=config.read_only,
        )

    def _furnish_queries(self) -> None:
        config, settings = self.config, self._query_settings()
        self.changes.reconfigure(own_credentials=settings.own_credentials)
        self.readers.reconfigure(config.name, self._influxdbs(), settings)
        for path, resource in self._query_resources.items():
            self.root.children.pop(path, None)
            if config.queries:
                self.root.putChild(path, resource)

    def outlook(self) -> Outlook | None:
        """Tell what would become of a read; None if there are no queries here.

        With shards it is well as long as one of them answers: queries of the others are answered 503.
        """
        if self.config.queries and self.shards:
            found = [(shard.config.shard, shard.readers.outlook()) for shard in self.shards]
            message = "; ".join(f"{name}: {each.message}" for name, each in found)
            return Outlook(any(each.in_sync for _, each in found), message)
        return self.readers.outlook() if self.config.queries and self.readers.senders else None

    def counters(self) -> dict[str, Any]:
        """Return what has been counted since the start, for JSON."""
        return {**super().counters(), "writes": self.writes_by_api()}

    def writes_by_api(self) -> dict[str, int]:
        """Return how many writes were given to the backends, by the API in which they came."""
        of_lines = {name: self.writes.writes_in(read) for name, read in _APIS.items()}
        of_prometheus = {
            f"prometheus-{version}": sum(each.writes_of[version] for each in self.remote_writes) for version in (1, 2)
        }
        return {**of_lines, **of_prometheus}

    def _backends(self) -> str:
        return ", ".join(sender.name for each in (self, *self.shards) for sender in each.senders)


def connect_shards(listeners: Iterable[PortService]) -> None:
    """Give each of some listeners its shards, which are among them."""
    every = list(listeners)
    shards = {each.name: each for each in every if isinstance(each, ShardService)}
    for each in every:
        if isinstance(each, HTTPService):
            each.connect([shards[shard.name] for shard in each.config.shards])
