"""From the configuration of outputs and journals to the objects that do the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from influxrelay.config.settings import (
    HTTPListenerConfig,
    HTTPOutputConfig,
    JournalConfig,
    ListenerConfig,
)
from influxrelay.core.write import LINES, REMOTE_WRITE, STATEMENT, Destination
from influxrelay.delivery.answer_rules import AnswerRule
from influxrelay.delivery.backlog import Backlog, MemoryBacklog
from influxrelay.delivery.http_backend import HTTPBackend
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import EVERYTHING, SenderSettings
from influxrelay.delivery.write_apis import V1, V2, V3, WriteAPI
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.writer import JournalWriter
from influxrelay.listeners.output_settings import make_authorization, make_filter, make_tls
from influxrelay.sharding.placement import Epoch, ShardKey, ShardMap

_KB = 1024
_MB = 1024 * 1024


def http_outputs(listener: ListenerConfig) -> list[HTTPOutputConfig]:
    """Return the outputs that have senders."""
    return [output for output in listener.outputs if isinstance(output, HTTPOutputConfig)]


def make_backend(output: HTTPOutputConfig, reactor: Any) -> HTTPBackend:
    """Build the transport to one HTTP backend.

    :raises ConfigError: a PEM file cannot be used.
    """
    authorization = make_authorization(output)
    return HTTPBackend(
        output.name,
        output.write_url,
        reactor,
        make_tls(output),
        timeout=output.timeout,
        api=make_api(output),
        authorization=authorization.encode() if authorization else None,
        gzip=output.gzip,
        headers=dict(output.headers),
        max_connections=output.max_connections,
        ping_url=output.ping_url,
        ping_timeout=output.health_timeout,
        query_url=output.query_url,
        **_remote_write(output),
    )


def make_api(output: HTTPOutputConfig) -> WriteAPI:
    """Return how an output is written to."""
    if output.api == "v2":
        return V2(output.org or "", output.buckets)
    return V3(output.buckets) if output.api == "v3" else V1()


def _remote_write(output: HTTPOutputConfig) -> dict[str, Any]:
    """Return where a backend takes remote writes, and how."""
    return {"remote_write_url": remote_write_url(output), "names_database": output.type == "influxdb"}


def remote_write_url(output: HTTPOutputConfig) -> str:
    """Return where a backend takes remote writes, with the query string that it wants."""
    if output.type == "prometheus":
        return f"{output.write_url}?{output.query}" if output.query else output.write_url
    return output.write_prom_url or output.write_url.rstrip("/").rpartition("/")[0] + "/api/v1/prom/write"


_STATEMENTS_OF_V2 = frozenset(("DELETE", "DROP MEASUREMENT"))  # influxdb 2.7, v1/coordinator/statement_executor.go


def kinds_taken(output: HTTPOutputConfig) -> frozenset[str]:
    """Return the kinds of writes that an output takes."""
    if output.type == "prometheus":
        return frozenset((REMOTE_WRITE,))
    return {"v1": EVERYTHING, "v2": frozenset((LINES, STATEMENT))}.get(output.api, frozenset((LINES,)))


def remote_write_versions(outputs: Sequence[HTTPOutputConfig]) -> tuple[int, ...]:
    """Return the versions of remote write that all outputs understand which take any; InfluxDB knows only 1.0."""
    takers = [each for each in outputs if REMOTE_WRITE in kinds_taken(each)]
    return (1, 2) if all(each.type == "prometheus" for each in takers) else (1,)


def sender_settings(output: HTTPOutputConfig, listener: str) -> SenderSettings:
    """Return how the sender to an output works.

    :param listener: its name.
    """
    return SenderSettings(
        name=output.name,
        listener=listener,
        max_batch=output.max_batch_kb * _KB,
        max_in_flight=output.max_in_flight,
        max_waiting=output.max_waiting_mb * _MB,
        buffer=output.buffer_size_mb * _MB,
        drop_oldest=output.buffer_full == "drop-oldest",
        max_delay=output.max_delay_interval,
        create_databases=output.create_databases,
        filter=make_filter(output),
        kinds=kinds_taken(output),
        statements=_STATEMENTS_OF_V2 if output.api == "v2" else None,
        answers=tuple(AnswerRule(each.means, each.status, each.text) for each in output.answers),
    )


def make_shard_map(config: HTTPListenerConfig) -> ShardMap:
    """Return where the keys of a listener with shards belong."""
    weights = {each.shard: each.weight for each in config.shards}
    epochs = [
        Epoch(
            each.since, [(name, weights[name]) for name in each.shards], {key.encode(): name for key, name in each.pins}
        )
        for each in config.epochs
    ]
    return ShardMap(ShardKey.read(config.shard_key), epochs, config.default_shard)


def make_sender(output: HTTPOutputConfig, listener: str, reactor: Any, journal: Journal | None) -> Sender:
    """Build the sender to one HTTP backend, with a backlog if there is a journal or a buffer.

    :raises ConfigError: a PEM file cannot be used.
    """
    backlog = Backlog()
    if journal is not None:
        backlog = JournalBacklog(journal, reactor)
    elif output.buffer_size_mb:
        backlog = MemoryBacklog()
    return Sender(make_backend(output, reactor), reactor, sender_settings(output, listener), backlog)


def make_writer(journal: JournalConfig, reactor: Any, on_drop: Callable[[Destination, int], object]) -> JournalWriter:
    """Build what keeps a journal in a directory.

    :param on_drop: is told of a destination, and of the last number in it that a limit has cost.
    """
    limits, full_sync = journal_limits(journal), journal.sync == "full"
    return JournalWriter(
        reactor, journal.directory, limits, full_sync=full_sync, timeout=journal.timeout, on_drop=on_drop
    )


def journal_limits(journal: JournalConfig) -> JournalLimits:
    """Return how much a journal keeps."""
    return JournalLimits(journal.max_bytes, journal.max_age, journal.full == "drop-oldest")
