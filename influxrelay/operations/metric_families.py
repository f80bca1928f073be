"""The names, types, labels and help texts of the metrics, which ``docs/metrics.rst`` lists too."""

from __future__ import annotations

import attrs


@attrs.frozen
class Family:
    """One metric.

    :ivar kind: ``counter``, ``gauge``, ``histogram``.
    :ivar help: one sentence; InfluxDB's users read it beside the figure.
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
    "0 if the last reload was refused, so that the relay goes on with what the file said before; else 1.",
)
_ROWS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (
        "influxrelay_healthy",
        "gauge",
        _LISTENER,
        "1 while the listener can take a write with the promises it is configured for, else 0, as /health says.",
    ),
    # -- what clients send, and what they are told
    ("influxrelay_writes_total", "counter", _LISTENER, "Writes taken over HTTP and given to the backends."),
    (
        "influxrelay_lines_total",
        "counter",
        _LISTENER,
        "Lines taken, over HTTP or UDP; over HTTP comments and blank lines count too, and large bodies are reckoned.",
    ),
    (
        "influxrelay_received_bytes_total",
        "counter",
        _LISTENER,
        "Bytes of line protocol taken, unpacked where they came compressed.",
    ),
    (
        "influxrelay_unwanted_lines_total",
        "counter",
        _LISTENER,
        "Lines that the filters of all backends keep back; nobody gets them, and their senders are not told.",
    ),
    (
        "influxrelay_http_answers_total",
        "counter",
        (*_LISTENER, "code"),
        "Answers to requests at /write, by status.",
    ),
    (
        "influxrelay_http_refused_total",
        "counter",
        (*_LISTENER, "code"),
        "Requests at any path that were answered with an error before any backend was asked, by status.",
    ),
    ("influxrelay_http_connections", "gauge", _LISTENER, "Connections of clients that are open."),
    (
        "influxrelay_http_accepted_connections_total",
        "counter",
        _LISTENER,
        "Connections of clients that were accepted.",
    ),
    (
        "influxrelay_http_closed_connections_total",
        "counter",
        (*_LISTENER, "reason"),
        "Connections closed by the relay: full (max-connections), a timeout, or unread (answers).",
    ),
    (
        "influxrelay_http_in_flight_bytes",
        "gauge",
        _LISTENER,
        "Bytes of bodies that are being received or whose writes are not answered yet.",
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
        "Lines dropped as they came in, by reason; invalid: no line protocol.",
    ),
    (
        "influxrelay_udp_sent_lines_total",
        "counter",
        _BACKEND,
        "Lines of a UDP listener that were sent on, or taken.",
    ),
    (
        "influxrelay_udp_unsent_lines_total",
        "counter",
        _REASON,
        "Lines of a UDP listener that could not be sent on, or were not taken, by reason.",
    ),
    # -- each backend
    (
        "influxrelay_backend_state",
        "gauge",
        (*_BACKEND, "state"),
        "1 for the state that the backend is in: up, trouble, paused (by an operator) or behind (catching up).",
    ),
    ("influxrelay_backend_requests_total", "counter", _BACKEND, "Requests sent to the backend."),
    (
        "influxrelay_backend_requests_in_flight",
        "gauge",
        _BACKEND,
        "Requests that the backend has not answered yet.",
    ),
    (
        "influxrelay_backend_request_duration_seconds",
        "histogram",
        _BACKEND,
        "Time from a request to the backend's complete answer, whatever that says.",
    ),
    (
        "influxrelay_backend_request_failures_total",
        "counter",
        _REASON,
        "Requests that the backend failed, by reason: why there was no answer, or its status (5xx, 429, ...).",
    ),
    ("influxrelay_backend_writes_total", "counter", _BACKEND, "Writes that are meant for the backend."),
    (
        "influxrelay_backend_sent_writes_total",
        "counter",
        _BACKEND,
        "Writes that travelled in requests; one that is sent again counts again.",
    ),
    (
        "influxrelay_backend_merged_writes_total",
        "counter",
        _BACKEND,
        "Writes that travelled in one request with others.",
    ),
    (
        "influxrelay_backend_failed_writes_total",
        "counter",
        _REASON,
        "Writes that failed for the backend while their clients waited, by reason; a queue may keep them.",
    ),
    ("influxrelay_backend_waiting_writes", "gauge", _BACKEND, "Writes that wait for the backend in memory."),
    ("influxrelay_backend_waiting_bytes", "gauge", _BACKEND, "Bytes of the writes that wait in memory."),
    # -- queues
    (
        "influxrelay_queue_writes",
        "gauge",
        _BACKEND,
        "Writes that are kept for the backend, in its buffer or the journal.",
    ),
    ("influxrelay_queue_bytes", "gauge", _BACKEND, "Bytes of the writes that are kept for the backend."),
    (
        "influxrelay_queue_limit_bytes",
        "gauge",
        _BACKEND,
        "Bytes that the buffer may have; a journal has influxrelay_journal_limit_bytes.",
    ),
    (
        "influxrelay_queue_oldest_age_seconds",
        "gauge",
        _BACKEND,
        "Age of the oldest write that is kept for the backend; 0 where there is none.",
    ),
    (
        "influxrelay_dropped_writes_total",
        "counter",
        _REASON,
        "Acknowledged writes that the backend will never get, by reason; a journal remembers them across restarts.",
    ),
    (
        "influxrelay_dropped_bytes_total",
        "counter",
        _REASON,
        "Bytes of the writes that were dropped, by reason.",
    ),
    (
        "influxrelay_dead_letters",
        "gauge",
        _BACKEND,
        "Acknowledged writes that the backend has refused for good, set aside for the operator.",
    ),
    # -- journals
    (
        "influxrelay_journal_commit_duration_seconds",
        "histogram",
        _LISTENER,
        "Time that each transaction of the journal took.",
    ),
    ("influxrelay_journal_used_bytes", "gauge", _LISTENER, "Bytes that the journal's data takes on disk."),
    ("influxrelay_journal_limit_bytes", "gauge", _LISTENER, "Bytes that it may take (journal-max-mb)."),
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
        "How much later than it was due a timer ran, four times a second: everything else was as late.",
    ),
    (
        "influxrelay_build_info",
        "gauge",
        ("version", "python", "twisted"),
        "Always 1; its labels tell what runs.",
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
        "Always 1; how the backend is configured: its queue is none, memory or journal.",
    ),
)
FAMILIES = (_RELOAD, *(Family(*row) for row in _ROWS))
"""Of each process that takes writes."""
