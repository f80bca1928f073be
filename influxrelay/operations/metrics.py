"""What Prometheus is told: plain attributes of everything that works, read when it asks."""

from __future__ import annotations

import platform
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from twisted.application.service import Service
from twisted.copyright import version as twisted_version
from twisted.internet.defer import DeferredList
from twisted.web.resource import Resource

from influxrelay import __version__
from influxrelay.core.histogram import Histogram
from influxrelay.core.timeouts import within
from influxrelay.core.write import REMOTE_WRITE, Reply
from influxrelay.delivery.answer_rules import DEAD_LETTER, STALE
from influxrelay.delivery.change_order import CHANGE_OUTCOMES
from influxrelay.delivery.sender import STATES, Sender
from influxrelay.delivery.udp_sender import DatagramSender
from influxrelay.http.request import Request
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import Drop
from influxrelay.journal.statistics import JournalCounts
from influxrelay.listeners.http import HTTPService
from influxrelay.listeners.shard import ShardService
from influxrelay.listeners.tcp import TCPService
from influxrelay.listeners.udp import UDPService
from influxrelay.operations.metric_families import FAMILIES, Family
from influxrelay.operations.reactor_lag import ReactorLag
from influxrelay.operations.resources import QuestionResource
from influxrelay.operations.verifications import Verifications
from influxrelay.operations.views import DROP_REASONS

_KINDS: dict[type, str] = {HTTPService: "http", ShardService: "shard", UDPService: "udp", TCPService: "tcp"}
Listener = HTTPService | ShardService | UDPService | TCPService
PATIENCE = 1.0  # seconds that a scrape waits for what is counted in another thread
_USUAL_ANSWERS = (204, 400, 500, 503)  # there from the start: Prometheus does not see how a new series has begun
_USUAL_FAILURES = ("refused", "reset", "timeout")
_USUAL_STALE = ("out of order", "too old", "out of bounds", "duplicate sample")
_UDP_REASONS = ("mtu", "send", "unresolved")
_BATCH_REASONS = ("400", "503")


class Sheet:
    """The families of one scrape."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = {each.name: _make(each) for each in families}

    def add(self, name: str, labels: Sequence[str], value: float) -> None:
        """Add a sample of a counter or gauge."""
        self._families[name].add_metric(labels, value)

    def add_each(self, name: str, labels: Sequence[str], counts: Mapping[Any, float]) -> None:
        """Add a sample for each key of a counter; the key is the last label."""
        for key, value in counts.items():
            self._families[name].add_metric([*labels, str(key)], value)

    def add_histogram(self, name: str, labels: Sequence[str], histogram: Histogram) -> None:
        """Add a histogram."""
        self._families[name].add_metric(labels, histogram.buckets(), histogram.sum)

    def filled(self) -> list[Metric]:
        """Return the families that have samples."""
        return [family for family in self._families.values() if family.samples]


def _make(family: Family) -> Any:
    kinds: dict[str, Any] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    return kinds[family.kind](family.name, family.help, labels=family.labels)


class Metrics(Service):
    """Reads everything there is to tell of one process.

    :param listeners: returns those that there are now.
    :param verifications: what was told of them; None for nothing.
    :param path: of the configuration file.
    :param clock: returns seconds since the epoch.
    :ivar last_reload_successful: whether what the file says holds, as far as is known.
    """

    def __init__(
        self,
        listeners: Callable[[], Sequence[Listener]],
        reactor: Any,
        *,
        verifications: Verifications | None = None,
        path: str = "",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listeners = listeners
        self._reactor = reactor
        self._verifications = verifications
        self._path = path
        self._clock = clock
        self._monotonic = monotonic
        self.lag = ReactorLag(reactor, monotonic)
        self._journals: dict[Journal, JournalCounts] = {}
        self.last_reload_successful = True
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)

    def startService(self) -> None:
        """Begin to measure the reactor's lag."""
        super().startService()
        self.lag.startService()

    def stopService(self) -> None:
        """End what is under way."""
        super().stopService()
        self.lag.stopService()

    async def collect(self) -> list[Metric]:
        """Return all that is known now; of what is in a journal, all that is known within a second."""
        listeners = self._listeners()
        writers = [each.writer for each in listeners if each.writer is not None]
        known = self._journals
        self._journals = {each: known.get(each) or JournalCounts(each, self._monotonic) for each in writers}
        counted = DeferredList([each.refresh() for each in self._journals.values()])
        await within(PATIENCE, counted, self._reactor)
        sheet = Sheet(FAMILIES)
        for listener in listeners:
            self._add_listener(sheet, listener)
            if self._verifications is not None:
                _add_verifications(sheet, listener.name, self._verifications)
        sheet.add_histogram("influxrelay_reactor_lag_seconds", (), self.lag.lags)
        versions = (__version__, platform.python_version(), twisted_version)
        sheet.add("influxrelay_build_info", versions, 1)
        sheet.add("influxrelay_config_info", (self._path,), 1)
        sheet.add("influxrelay_config_last_reload_successful", (), self.last_reload_successful)
        return [*sheet.filled(), *self._registry.collect()]

    def _add_listener(self, sheet: Sheet, listener: Listener) -> None:
        name, writer = listener.name, listener.writer
        kind = _KINDS[type(listener)]
        directory = "" if writer is None else writer.place
        sheet.add("influxrelay_healthy", (name,), listener.is_ready and not listener.why_unavailable())
        sheet.add("influxrelay_listener_info", (name, kind, listener.bind_addr, directory), 1)
        if isinstance(listener, HTTPService):
            _add_http(sheet, listener)
            _add_queries(sheet, listener)
        elif isinstance(listener, ShardService):
            _add_queries(sheet, listener)
        elif isinstance(listener, TCPService):
            _add_tcp(sheet, listener)
        elif isinstance(listener, UDPService):
            _add_udp(sheet, listener)
        for sender in listener.senders:
            _add_sender(sheet, (name, sender.name), sender)
            if sender.backlog.kind == "memory":
                self._add_buffer(sheet, (name, sender.name), sender)
            elif sender.backlog.kind == "none":
                _add_drops(sheet, (name, sender.name), sender.backlog.losses())
        if writer is not None:
            self._add_journal(sheet, listener, writer, self._journals[writer])

    def _add_buffer(self, sheet: Sheet, labels: tuple[str, str], sender: Sender) -> None:
        (writes, _), size = sender.queues.waiting(), sender.queues.memory.size
        sheet.add("influxrelay_queue_limit_bytes", labels, sender.backlog.limit)
        self._add_queue(sheet, labels, writes, size, sender.queues.oldest())
        _add_drops(sheet, labels, sender.backlog.losses())
        sheet.add("influxrelay_dead_letters", labels, len(sender.backlog.dead_letters()))

    def _add_queue(self, sheet: Sheet, labels: tuple[str, str], writes: int, size: int, oldest: float | None) -> None:
        sheet.add("influxrelay_queue_writes", labels, writes)
        sheet.add("influxrelay_queue_bytes", labels, size)
        age = 0.0 if oldest is None else max(0.0, self._clock() - oldest)
        sheet.add("influxrelay_queue_oldest_age_seconds", labels, age)

    def _add_journal(
        self,
        sheet: Sheet,
        listener: Listener,
        writer: Journal,
        journal: JournalCounts,
    ) -> None:
        labels = (listener.name,)
        sheet.add_histogram("influxrelay_journal_commit_duration_seconds", labels, writer.commits)
        sheet.add("influxrelay_journal_used_bytes", labels, writer.used)
        sheet.add("influxrelay_journal_limit_bytes", labels, writer.max_bytes)
        sheet.add("influxrelay_journal_trouble", labels, bool(writer.trouble))
        counts = journal.known
        if counts is None:
            return
        sheet.add("influxrelay_journal_counts_age_seconds", labels, journal.age())
        beside = {sender.name: sender.backlog.losses_beside() for sender in listener.senders}
        for name, depth in counts.depths.items():
            backend = (listener.name, name)
            if depth.active:
                self._add_queue(sheet, backend, depth.writes, depth.bytes, depth.oldest)
            drops = [each for each in counts.drops if each.backend == name]
            _add_drops(sheet, backend, [*drops, *beside.get(name, ())])
            sheet.add("influxrelay_dead_letters", backend, counts.dead_letters.get(name, 0))


def _add_http(sheet: Sheet, listener: HTTPService) -> None:
    labels = (listener.name,)
    resource, site = listener.writes, listener.site
    remote = listener.remote_writes
    sheet.add("influxrelay_writes_total", labels, resource.writes + sum(each.writes for each in remote))
    sheet.add_each("influxrelay_api_writes_total", labels, listener.writes_by_api())
    sheet.add("influxrelay_remote_writes_total", labels, sum(each.writes for each in remote))
    sheet.add("influxrelay_remote_write_bytes_total", labels, sum(each.bytes for each in remote))
    sheet.add("influxrelay_lines_total", labels, resource.lines)
    sheet.add("influxrelay_received_bytes_total", labels, resource.bytes)
    sheet.add("influxrelay_unwanted_lines_total", labels, sum(each.lines_unwanted for each in listener.fan_outs))
    answers = {**dict.fromkeys(_USUAL_ANSWERS, 0), **site.answers}
    sheet.add_each("influxrelay_http_answers_total", labels, answers)
    sheet.add_each("influxrelay_http_refused_total", labels, site.refused)
    sheet.add("influxrelay_http_connections", labels, len(site.connections))
    sheet.add("influxrelay_http_accepted_connections_total", labels, site.admission.accepted)
    sheet.add_each("influxrelay_http_closed_connections_total", labels, site.admission.closed)
    sheet.add("influxrelay_http_in_flight_bytes", labels, site.admission.in_flight)


def _add_tcp(sheet: Sheet, listener: TCPService) -> None:
    labels, server, batcher = (listener.name,), listener.server, listener.batcher
    sheet.add("influxrelay_lines_total", labels, server.lines_in)
    sheet.add("influxrelay_received_bytes_total", labels, server.bytes_in)
    sheet.add("influxrelay_unwanted_lines_total", labels, server.lines_unwanted)
    sheet.add("influxrelay_tcp_connections", labels, len(server.connections))
    sheet.add("influxrelay_tcp_accepted_connections_total", labels, server.accepted)
    sheet.add("influxrelay_tcp_refused_connections_total", labels, server.refused)
    sheet.add("influxrelay_tcp_reading", labels, not server.is_paused)
    dropped = server.dropped + batcher.dropped
    usual = dict.fromkeys(("invalid", "too long", "incomplete", "400"), 0)
    sheet.add_each("influxrelay_tcp_dropped_lines_total", labels, {**usual, **dropped})


def _add_queries(sheet: Sheet, listener: HTTPService | ShardService) -> None:
    sheet.add("influxrelay_queries_in_flight", (listener.name,), listener.readers.active)
    sheet.add("influxrelay_refused_queries_total", (listener.name,), listener.readers.refused)
    known = listener.readers.counters
    for sender in [each for each in listener.senders if each.name in known]:
        name, counters = sender.name, known[sender.name]
        labels = (listener.name, name)
        sheet.add_each("influxrelay_queries_total", labels, counters.outcomes)
        sheet.add("influxrelay_query_bytes_total", labels, counters.bytes)
        sheet.add_histogram("influxrelay_query_first_byte_seconds", labels, counters.first_byte)
        for outcome, histogram in counters.durations.items():
            sheet.add_histogram("influxrelay_query_duration_seconds", (*labels, outcome), histogram)
        changes = {each: sender.change_outcomes[each] for each in CHANGE_OUTCOMES}
        sheet.add_each("influxrelay_changes_total", labels, changes)


def _add_udp(sheet: Sheet, listener: UDPService) -> None:
    labels, protocol = (listener.name,), listener.protocol
    sheet.add("influxrelay_lines_total", labels, protocol.lines_in)
    sheet.add("influxrelay_received_bytes_total", labels, protocol.bytes_in)
    sheet.add("influxrelay_unwanted_lines_total", labels, protocol.lines_unwanted)
    sheet.add("influxrelay_udp_datagrams_total", labels, protocol.datagrams_in)
    sheet.add("influxrelay_udp_overflows_total", labels, protocol.overflows())
    sheet.add_each("influxrelay_udp_dropped_lines_total", labels, {"invalid": 0, **protocol.dropped})
    for output in listener.outputs:
        backend = (listener.name, output.name)
        usual = _UDP_REASONS if isinstance(output, DatagramSender) else _BATCH_REASONS
        sheet.add("influxrelay_udp_sent_lines_total", backend, output.lines_out)
        sheet.add_each("influxrelay_udp_unsent_lines_total", backend, {**dict.fromkeys(usual, 0), **output.dropped})


def _add_sender(sheet: Sheet, labels: tuple[str, str], sender: Sender) -> None:
    sheet.add("influxrelay_backend_info", (*labels, sender.backlog.kind), 1)
    sheet.add_each("influxrelay_backend_state", labels, {each: each == sender.state for each in STATES})
    sheet.add("influxrelay_backend_requests_total", labels, sender.requests.count)
    sheet.add("influxrelay_backend_requests_in_flight", labels, sender.requests.in_flight)
    sheet.add("influxrelay_backend_writes_total", labels, sender.writes)
    sheet.add("influxrelay_backend_sent_writes_total", labels, sender.requests.writes)
    sheet.add("influxrelay_backend_merged_writes_total", labels, sender.requests.merged)
    _add_answers(sheet, labels, sender)
    usual = dict.fromkeys(_USUAL_FAILURES, 0)
    sheet.add_each("influxrelay_backend_request_failures_total", labels, {**usual, **sender.requests.failures})
    sheet.add_each("influxrelay_backend_failed_writes_total", labels, {**usual, **sender.clients.failures})
    writes, size = sender.queues.waiting()
    sheet.add("influxrelay_backend_waiting_writes", labels, writes)
    sheet.add("influxrelay_backend_waiting_bytes", labels, size)
    sheet.add_histogram("influxrelay_backend_request_duration_seconds", labels, sender.requests.latency)


def _add_answers(sheet: Sheet, labels: tuple[str, str], sender: Sender) -> None:
    for (means, reason), count in sender.requests.answers.items():
        sheet.add("influxrelay_backend_answers_total", (*labels, means, reason), count)
    usual = {(STALE, each): 0 for each in _USUAL_STALE if REMOTE_WRITE in sender.kinds}
    for (means, reason), count in {**usual, (DEAD_LETTER, "400"): 0, **sender.refused}.items():
        outcome = "stale" if means == STALE else "refused"
        sheet.add(f"influxrelay_backend_{outcome}_writes_total", (*labels, reason), count)


def _add_verifications(sheet: Sheet, listener: str, verifications: Verifications) -> None:
    for each in verifications.last(listener):
        sheet.add("influxrelay_verification_timestamp_seconds", (listener, each.scope), each.time)
        sheet.add("influxrelay_verification_differences", (listener, each.scope), each.differences)
    sheet.add_each("influxrelay_repaired_points_total", (listener,), verifications.repaired(listener))


def _add_drops(sheet: Sheet, labels: tuple[str, str], drops: Iterable[Drop]) -> None:
    found = {each.reason: each for each in drops}
    reasons = dict.fromkeys((*DROP_REASONS, *found))
    for reason in reasons:
        drop = found.get(reason)
        sheet.add("influxrelay_dropped_writes_total", (*labels, reason), drop.writes if drop else 0)
        sheet.add("influxrelay_dropped_bytes_total", (*labels, reason), drop.bytes if drop else 0)


def serve_metrics(root: Resource, collect: Callable[[], Awaitable[list[Metric]]]) -> None:
    """Let a site answer ``/metrics``, in the format that Prometheus asks for.

    :param collect: returns what there is to tell.
    """

    async def metrics(request: Request) -> Reply:
        accepted = b",".join(request.head.values(b"accept"))
        encode, kind = choose_encoder(accepted.decode("latin-1"))
        return Reply(200, ((b"Content-Type", kind.encode()),), encode(_Collected(await collect())))

    root.putChild(b"metrics", QuestionResource(metrics))


class _Collected:
    """What prometheus_client takes for a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
