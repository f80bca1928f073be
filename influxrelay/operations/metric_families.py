"""The names, types, labels and help texts of the metrics, which ``docs/metrics.rst`` lists too."""

from __future__ import annotations

import attrs


@attrs.frozen
class Family:
    """One metric.

    :ivar kind: ``counter``, ``gauge``, ``histogram``.
    :ivar help: one sentence, shown beside the value.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


_LISTENER = ("listener",)
_BACKEND = ("listener", "backend")
_REASON = (*_BACKEND, "reason")

_RELOAD = Family(
    "influxrelay_config_last_reload_successful",
    "gauge",
    (),
    "0 if the last reload was refused and the previous configuration is still in force, else 1.",
)
_ROWS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (
        "influxrelay_healthy",
        "gauge",
        _LISTENER,
        "1 while the listener can accept a write with its configured consistency, else 0; the same as /health.",
    ),
    # -- clients
    ("influxrelay_writes_total", "counter", _LISTENER, "Writes received over HTTP and passed to the backends."),
    (
        "influxrelay_api_writes_total",
        "counter",
        (*_LISTENER, "api"),
        "The same writes by the API in which they came: v1, v2, v3, prometheus-1, prometheus-2.",
    ),
    (
        "influxrelay_remote_writes_total",
        "counter",
        _LISTENER,
        "Remote writes of Prometheus received and passed to the backends; influxrelay_writes_total counts them too.",
    ),
    (
        "influxrelay_remote_write_bytes_total",
        "counter",
        _LISTENER,
        "Bytes of remote writes received, unpacked.",
    ),
    (
        "influxrelay_lines_total",
        "counter",
        _LISTENER,
        "Lines received; over HTTP, comments and blank lines count too, and large bodies are estimated.",
    ),
    (
        "influxrelay_received_bytes_total",
        "counter",
        _LISTENER,
        "Bytes of line protocol received; gzip bodies count with their unpacked size.",
    ),
    (
        "influxrelay_unwanted_lines_total",
        "counter",
        _LISTENER,
        "Lines that the filters of all backends exclude; their clients get 204.",
    ),
    (
        "influxrelay_http_answers_total",
        "counter",
        (*_LISTENER, "code"),
        "Responses to writes, in the API of any generation, by status.",
    ),
    (
        "influxrelay_http_refused_total",
        "counter",
        (*_LISTENER, "code"),
        "Requests for any path answered with an error before a backend was asked, by status.",
    ),
    ("influxrelay_http_connections", "gauge", _LISTENER, "Open client connections."),
    (
        "influxrelay_http_accepted_connections_total",
        "counter",
        _LISTENER,
        "Accepted client connections.",
    ),
    (
        "influxrelay_http_closed_connections_total",
        "counter",
        (*_LISTENER, "reason"),
        "Client connections closed by the relay: full (max-connections), a timeout, or unread (responses).",
    ),
    (
        "influxrelay_http_in_flight_bytes",
        "gauge",
        _LISTENER,
        "Bytes of bodies that are being received, and of writes that are not answered yet.",
    ),
    ("influxrelay_udp_datagrams_total", "counter", _LISTENER, "Datagrams received."),
    (
        "influxrelay_udp_overflows_total",
        "counter",
        _LISTENER,
        "Datagrams that the kernel dropped because the socket's receive buffer was full.",
    ),
    (
        "influxrelay_udp_dropped_lines_total",
        "counter",
        (*_LISTENER, "reason"),
        "Lines dropped on arrival, by reason; invalid: not line protocol.",
    ),
    (
        "influxrelay_udp_sent_lines_total",
        "counter",
        _BACKEND,
        "Lines sent to a UDP output, or accepted by an HTTP output.",
    ),
    (
        "influxrelay_udp_unsent_lines_total",
        "counter",
        _REASON,
        "Lines of a UDP listener that were not sent or not accepted, by reason.",
    ),
    ("influxrelay_tcp_connections", "gauge", _LISTENER, "Open connections of a TCP listener."),
    ("influxrelay_tcp_accepted_connections_total", "counter", _LISTENER, "Accepted connections of a TCP listener."),
    (
        "influxrelay_tcp_refused_connections_total",
        "counter",
        _LISTENER,
        "Connections of a TCP listener that were closed at once because there were max-connections.",
    ),
    (
        "influxrelay_tcp_reading",
        "gauge",
        _LISTENER,
        "0 while a TCP listener reads nothing, since no backend and no queue takes lines, else 1.",
    ),
    (
        "influxrelay_tcp_dropped_lines_total",
        "counter",
        (*_LISTENER, "reason"),
        "Lines of a TCP listener that were dropped, by reason: invalid, too long, incomplete, or a refusal's status.",
    ),
    # -- backends
    (
        "influxrelay_backend_state",
        "gauge",
        (*_BACKEND, "state"),
        "1 for the backend's state: up, trouble, paused (by an operator) or behind (catching up).",
    ),
    ("influxrelay_backend_requests_total", "counter", _BACKEND, "Requests sent to the backend."),
    (
        "influxrelay_backend_requests_in_flight",
        "gauge",
        _BACKEND,
        "Requests to the backend that are not answered yet.",
    ),
    (
        "influxrelay_backend_request_duration_seconds",
        "histogram",
        _BACKEND,
        "Time from a request to its complete response, whatever its status.",
    ),
    (
        "influxrelay_backend_request_failures_total",
        "counter",
        _REASON,
        "Failed requests, by reason: why there was no response, or its status (5xx, 429, ...).",
    ),
    ("influxrelay_backend_writes_total", "counter", _BACKEND, "Writes for the backend."),
    (
        "influxrelay_backend_sent_writes_total",
        "counter",
        _BACKEND,
        "Writes sent in requests, each retry included.",
    ),
    (
        "influxrelay_backend_merged_writes_total",
        "counter",
        _BACKEND,
        "Writes sent in a request together with others.",
    ),
    (
        "influxrelay_backend_failed_writes_total",
        "counter",
        _REASON,
        "Writes that failed for the backend while their clients waited, by reason; a queue keeps them.",
    ),
    (
        "influxrelay_backend_answers_total",
        "counter",
        (*_BACKEND, "means", "reason"),
        "Requests not answered 2xx, by what the answer means (retry, dead-letter, stale, hold) and by reason.",
    ),
    (
        "influxrelay_backend_stale_writes_total",
        "counter",
        _REASON,
        "Acknowledged writes whose points the backend had already or takes no more, by reason; they are not repeated.",
    ),
    (
        "influxrelay_backend_refused_writes_total",
        "counter",
        _REASON,
        "Acknowledged writes that the backend has refused for good, by reason; a queue keeps them as dead letters.",
    ),
    ("influxrelay_backend_waiting_writes", "gauge", _BACKEND, "Writes in memory that wait for the backend."),
    ("influxrelay_backend_waiting_bytes", "gauge", _BACKEND, "Bytes of writes in memory that wait for the backend."),
    # -- queues
    (
        "influxrelay_queue_writes",
        "gauge",
        _BACKEND,
        "Writes in the buffer or the journal that the backend does not have yet.",
    ),
    (
        "influxrelay_queue_bytes",
        "gauge",
        _BACKEND,
        "Bytes of queued writes; in a buffer, all that they take in memory.",
    ),
    (
        "influxrelay_queue_limit_bytes",
        "gauge",
        _BACKEND,
        "Limit of the buffer in bytes; for a journal see influxrelay_journal_limit_bytes.",
    ),
    (
        "influxrelay_queue_oldest_age_seconds",
        "gauge",
        _BACKEND,
        "Age of the oldest queued write; 0 if there is none.",
    ),
    (
        "influxrelay_dropped_writes_total",
        "counter",
        _REASON,
        "Acknowledged writes that the backend will never get, by reason; a journal keeps this across restarts.",
    ),
    (
        "influxrelay_dropped_bytes_total",
        "counter",
        _REASON,
        "Bytes of acknowledged writes that the backend will never get, by reason.",
    ),
    (
        "influxrelay_dead_letters",
        "gauge",
        _BACKEND,
        "Acknowledged writes that the backend has refused for good.",
    ),
    # -- verify and repair
    (
        "influxrelay_verification_timestamp_seconds",
        "gauge",
        (*_LISTENER, "scope"),
        "When influxrelay verify last came to its end; of all that the backends contain, or later of a part.",
    ),
    (
        "influxrelay_verification_differences",
        "gauge",
        (*_LISTENER, "scope"),
        "How many differences the last verification has found; 0 if the backends were equal.",
    ),
    (
        "influxrelay_repaired_points_total",
        "counter",
        _BACKEND,
        "Points that influxrelay repair has copied to the backend; a journal keeps this across restarts.",
    ),
    # -- queries
    (
        "influxrelay_queries_total",
        "counter",
        (*_BACKEND, "outcome"),
        "Reads that the backend was asked, by outcome: answered, unanswered, cut, left.",
    ),
    ("influxrelay_query_bytes_total", "counter", _BACKEND, "Bytes of the backend's responses to reads."),
    (
        "influxrelay_query_first_byte_seconds",
        "histogram",
        _BACKEND,
        "Time from a read to the first byte of the backend's response.",
    ),
    (
        "influxrelay_query_duration_seconds",
        "histogram",
        (*_BACKEND, "outcome"),
        "Time from a read to its end at the backend, as far as the client has read the response, by outcome.",
    ),
    (
        "influxrelay_changes_total",
        "counter",
        (*_BACKEND, "outcome"),
        "Changes of databases, users, ... by their outcome at the backend: executed, refused, missed.",
    ),
    ("influxrelay_queries_in_flight", "gauge", _LISTENER, "Queries that are being answered or executed."),
    ("influxrelay_refused_queries_total", "counter", _LISTENER, "Queries refused because of max-queries."),
    # -- journals
    (
        "influxrelay_journal_commit_duration_seconds",
        "histogram",
        _LISTENER,
        "Time of each commit of the journal.",
    ),
    ("influxrelay_journal_used_bytes", "gauge", _LISTENER, "Bytes that the journal's data takes on disk."),
    ("influxrelay_journal_limit_bytes", "gauge", _LISTENER, "Limit of the journal in bytes (journal-max-mb)."),
    ("influxrelay_journal_trouble", "gauge", _LISTENER, "1 while the journal does not work, else 0."),
    (
        "influxrelay_journal_counts_age_seconds",
        "gauge",
        _LISTENER,
        "How long ago the writes, drops and dead letters in the journal were counted.",
    ),
    # -- the process
    (
        "influxrelay_reactor_lag_seconds",
        "histogram",
        (),
        "How late the event loop runs a timer, four times a second; all responses are as late.",
    ),
    (
        "influxrelay_build_info",
        "gauge",
        ("version", "python", "twisted"),
        "Always 1; the versions of influxrelay, Python and Twisted.",
    ),
    ("influxrelay_config_info", "gauge", ("path",), "Always 1; the configuration file."),
    (
        "influxrelay_listener_info",
        "gauge",
        (*_LISTENER, "kind", "address", "journal"),
        "Always 1; how the listener is configured.",
    ),
    (
        "influxrelay_backend_info",
        "gauge",
        (*_BACKEND, "queue"),
        "Always 1; the backend's queue is none, memory or journal.",
    ),
)
FAMILIES = (_RELOAD, *(Family(*row) for row in _ROWS))
"""All metrics of a relay."""
