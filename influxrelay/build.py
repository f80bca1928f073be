"""From configured outputs and journals to roads and keepers."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from influxrelay.backend import HTTPBackend
from influxrelay.config_values import HTTPOutput, Journal, UDPOutput
from influxrelay.filters import Filter
from influxrelay.keeper import Keeper, Limits
from influxrelay.queued import QueuedRoad
from influxrelay.queues import JournalQueue, MemoryQueue, Queue
from influxrelay.road import Road
from influxrelay.tls import BackendPolicy

_KB = 1024
_MB = 1024 * 1024


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
    road: Road
    bounds: dict[str, Any] = {
        "max_batch": output.max_batch_kb * _KB,
        "max_in_flight": output.max_in_flight,
        "max_waiting": output.max_waiting_mb * _MB,
    }
    if keeper is None and not output.buffer_size_mb:
        road = Road(backend, reactor, relay=relay, **bounds)
    else:
        road = QueuedRoad(
            backend,
            reactor,
            relay=relay,
            queue=_make_queue(output, keeper),
            max_delay=output.max_delay_interval,
            create_databases=output.create_databases,
            **bounds,
        )
    road.filter = make_filter(output)
    return road


def _make_queue(output: HTTPOutput, keeper: Keeper | None) -> Queue:
    if keeper is not None:
        return JournalQueue(output.name, keeper)
    drop_oldest = output.buffer_full == "drop-oldest"
    return MemoryQueue(output.name, output.buffer_size_mb * _MB, drop_oldest=drop_oldest)


def make_filter(output: HTTPOutput | UDPOutput) -> Filter | None:
    """Build what decides which lines an output takes; None if it takes all."""
    measurement = [each.measurement_expression for each in output.filters if each.measurement_expression]
    tag = [each.tag_expression for each in output.filters if each.tag_expression]
    return Filter(measurement, tag) if measurement or tag else None


def make_keeper(journal: Journal | None, reactor: Any) -> Keeper | None:
    """Build what keeps a journal."""
    if journal is None:
        return None
    limits = Limits(journal.max_bytes, journal.max_age, journal.full == "drop-oldest")
    return Keeper(reactor, journal.directory, limits, full_sync=journal.sync == "full")
