"""A configuration as frozen values: durations in seconds, sizes in bytes unless the name says otherwise.

:mod:`influxrelay.config.loader` reads them from TOML and checks every bound given here. The defaults are those of the
file's keys.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class StreamConfig:
    """The replicated stream of NATS that is a shared journal.

    :ivar servers: ``HOST:PORT`` of each, at least one.
    :ivar stream: letters, digits, ``-`` and ``_``.
    :ivar ca_file: a PEM file of authorities to trust instead of the system's; only with TLS.
    :ivar credentials_file: holds NATS credentials, the seed of an NKey, or ``USER:PASSWORD``.
    :ivar lease: seconds after which another relay delivers to a backend whose relay is gone, at least 1.
    """

    servers: tuple[str, ...]
    stream: str
    tls: bool = False
    ca_file: str | None = None
    credentials_file: str | None = None
    lease: float = 5.0


@attrs.frozen
class JournalConfig:
    """Where and how a listener keeps what its backends miss.

    :ivar directory: as written, not empty; one for each listener. The URL of a shared journal.
    :ivar shared: None for a journal in a directory. Of a shared one the default of ``timeout`` is 10 seconds, and of
        ``on_error`` ``refuse``.
    :ivar max_bytes: on disk, at least 1 MiB; the default is 1 GiB.
    :ivar max_age: seconds, above 0; the default is a week.
    :ivar full: ``reject`` or ``drop-oldest``.
    :ivar sync: ``normal`` (survives the end of the process) or ``full`` (survives power loss).
    :ivar timeout: seconds after which a disk that does not answer counts as one that fails, above 0.
    :ivar on_error: what to do with a write that a backend has accepted and the disk has not: ``relay`` (acknowledge it)
        or ``refuse``.
    """

    directory: str
    max_bytes: int = 1024 * 1024 * 1024
    max_age: float = 7 * 24 * 3600.0
    full: str = "reject"
    sync: str = "normal"
    on_error: str = "relay"
    timeout: float = 5.0
    shared: StreamConfig | None = None


@attrs.frozen
class FilterConfig:
    """A filter: its outputs get only lines that match its expressions; an empty expression matches everything.

    :ivar measurement_expression: for the measurement.
    :ivar tag_expression: for the key of every tag.
    :ivar outputs: names, at least one.
    :ivar type: ignored; in files of the Veepee fork.
    """

    outputs: tuple[str, ...]
    measurement_expression: str = ""
    tag_expression: str = ""
    type: str = ""


@attrs.frozen
class AnswerConfig:
    """What some answers of a backend mean; a 2xx is none of them.

    :ivar means: ``retry``, ``dead-letter``, ``stale`` or ``hold``.
    :ivar status: those that it matches; empty for any.
    :ivar text: an expression for the body; empty for any body. One of the two is given.
    """

    means: str
    status: tuple[range, ...] = ()
    text: str = ""


@attrs.frozen
class HTTPOutputConfig:
    """A backend that is written to over HTTP.

    :ivar location: as written; for people, not for requests. No ``repr`` or URL here contains a secret.
    :ivar write_url: without a query; of a Prometheus where its remote writes go.
    :ivar type: ``influxdb`` or ``prometheus``; the latter takes remote writes alone.
    :ivar api: ``v1``, ``v2`` or ``v3``: the generation of its write API.
    :ivar org: the organization; given if and only if ``api`` is ``v2``.
    :ivar buckets: for ``v2`` and ``v3``: what databases are called there that are not called ``db/rp`` or ``db``.
    :ivar query_url: for queries, without a query.
    :ivar write_prom_url: where an InfluxDB takes Prometheus' remote writes; None for beside the write URL.
    :ivar timeout: seconds for one write, above 0.
    :ivar ca_file: a PEM file of authorities to trust instead of the system's.
    :ivar client_certificate: a PEM file with a certificate and its key, to present to the backend.
    :ivar username: given if and only if ``password`` is; never together with ``token``.
    :ivar token: printable ASCII, for ``Authorization: Token``.
    :ivar headers: more headers for each request; an ``Authorization`` among them is this output's credentials, and
        never there together with ``token`` or ``username``.
    :ivar gzip: whether bodies travel compressed; None is as they came.
    :ivar buffer_size_mb: MiB of writes that are kept in memory while the backend is down; 0 keeps none. Ignored with a
        journal.
    :ivar buffer_full: ``reject`` or ``drop-oldest``.
    :ivar create_databases: whether to create databases that the backend does not have; only with a queue.
    :ivar max_batch_kb: KiB of lines that are merged into one request, at least 1.
    :ivar max_delay_interval: seconds, above 0; the longest pause between two tries while the backend fails.
    :ivar max_in_flight: requests in flight for one destination, at least 1; above 1, order is lost.
    :ivar max_connections: connections for writes at a time, at least 1.
    :ivar max_waiting_mb: MiB of memory for writes that wait for this backend, at least 1. Ignored with a buffer.
    :ivar answers: what its answers mean, before the defaults; the first that matches decides. Those of the
        listener come last.
    :ivar health_timeout: seconds that the backend has to answer a ping, above 0; the listener's, if it has the key.
    :ivar query: the query string of the location: of an output of a UDP or TCP listener, with ``db`` and without
        ``precision``; of a Prometheus whatever it wants; else empty.
    :ivar filters: those that name it.
    """

    name: str
    location: str
    write_url: str
    ping_url: str
    query_url: str = ""
    type: str = "influxdb"
    write_prom_url: str | None = None
    api: str = "v1"
    org: str | None = None
    buckets: tuple[tuple[str, str], ...] = ()
    timeout: float = 10.0
    skip_tls_verification: bool = False
    ca_file: str | None = None
    client_certificate: str | None = None
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    gzip: bool | None = None
    buffer_size_mb: int = 0
    buffer_full: str = "reject"
    create_databases: bool = False
    max_batch_kb: int = 512
    max_delay_interval: float = 10.0
    max_in_flight: int = 1
    max_connections: int = 64
    max_waiting_mb: int = 32
    answers: tuple[AnswerConfig, ...] = ()
    health_timeout: float = 10.0
    query: str = ""
    filters: tuple[FilterConfig, ...] = ()


@attrs.frozen
class UDPOutputConfig:
    """A backend that is written to over UDP.

    :ivar host: an address, or a name to be resolved.
    :ivar port: 1 to 65535.
    :ivar mtu: bytes of lines in one datagram, 1 to 65507; the default is influxdb-relay's (``relay/udp.go``).
    :ivar filters: those that name it.
    """

    name: str
    location: str
    host: str
    port: int
    mtu: int = 1024
    filters: tuple[FilterConfig, ...] = ()


@attrs.frozen
class ShardConfig:
    """A shard of an HTTP listener: a set of replicas, which for queues, journal and health is a listener of its own.

    :ivar name: the listener's, a slash and the shard's own.
    :ivar shard: its own name: letters, digits, ``.``, ``_`` and ``-``.
    :ivar bind_addr: the listener's and its own name: what it is known by after its listener has another name.
    :ivar weight: its part of the keys in relation to other shards', above 0.
    :ivar consistency: the listener's.
    :ivar journal: with the listener's settings, in the directory of the shard's name within the listener's, or in the
        stream with the shard's name at its end.
    :ivar outputs: at least one; names are unique within the listener.
    """

    name: str
    shard: str
    bind_addr: str
    weight: float = 1.0
    consistency: str = "one"
    journal: JournalConfig | None = None
    outputs: tuple[HTTPOutputConfig, ...] = ()


@attrs.frozen
class EpochConfig:
    """Which shards hold a span of data time.

    :ivar since: nanoseconds since 1970; None for the beginning of time.
    :ivar shards: names of shards, at least one.
    :ivar pins: values of the key that have a fixed place, each with one of these shards.
    """

    since: int | None = None
    shards: tuple[str, ...] = ()
    pins: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class HTTPListenerConfig:
    """An HTTP listener and its backends.

    :ivar bind_addr: as written.
    :ivar endpoint: the same as an endpoint string of Twisted; empty for a listener without a port.
    :ivar default_retention_policy: for writes without ``rp``; empty leaves the choice to the backend.
    :ivar default_ping_response: the status for ``/ping``, 200 to 299.
    :ivar health_timeout: seconds a backend has to answer for ``/health``, above 0.
    :ivar rate_limit: writes a second; 0 is no limit.
    :ivar burst_limit: writes at once under a rate limit; 0 means 1, as in the Veepee fork.
    :ivar max_body_size: bytes of a body as sent; 0 is no limit.
    :ivar max_decoded_size: bytes of a gzip body, or of a remote write, when decoded; 0 is no limit.
    :ivar prometheus_database: where an InfluxDB keeps remote writes that name no database.
    :ivar cors_origins: web pages that browsers let read responses, by their origins in lower case; ``*`` is all.
    :ivar max_connections: of clients, at least 1; fewer if the process may not open so many files.
    :ivar max_in_flight: bytes of writes that are being received or not answered yet, at least 1 MiB; never less than
        ``max_body_size`` in effect.
    :ivar header_timeout: seconds for a request's head, above 0.
    :ivar body_timeout: seconds for a body, above 0; each 1000 bytes add one.
    :ivar idle_timeout: seconds between two requests, above 0.
    :ivar consistency: of writes that have no such parameter.
    :ivar access_log: whether each request is logged.
    :ivar queries: whether there is ``/query``.
    :ivar queries_when_behind: ``serve`` or ``refuse``: what to do with a read while no backend is in sync.
    :ivar query_timeout: seconds for a read, to the last byte of its response; None is no limit.
    :ivar query_credentials: ``client`` or ``output``: whose credentials queries have.
    :ivar max_queries: queries at a time, at least 1.
    :ivar max_merge_points: how many points of several shards one statement may read to compute windows; at least 1.
    :ivar slow_query: seconds from which on a query is logged; None logs none.
    :ivar read_only: whether statements that change something are refused; writes are not.
    :ivar outputs: at least one, names unique; none if there are shards.
    :ivar shard_key: ``measurement`` or ``tag:NAME``, if there are shards; else empty.
    :ivar default_shard: the shard of what lacks the tag; None refuses such writes.
    :ivar shards: instead of outputs.
    :ivar epochs: at least one if there are shards, the earliest first.
    """

    name: str
    bind_addr: str
    endpoint: str
    default_retention_policy: str = ""
    default_ping_response: int = 204
    health_timeout: float = 10.0
    rate_limit: int = 0
    burst_limit: int = 0
    max_body_size: int = 25_000_000
    max_decoded_size: int = 250_000_000
    prometheus_database: str = "prometheus"
    cors_origins: tuple[str, ...] = ("*",)
    max_connections: int = 4000
    max_in_flight: int = 32 * 1024 * 1024
    header_timeout: float = 10.0
    body_timeout: float = 20.0
    idle_timeout: float = 180.0
    consistency: str = "one"
    access_log: bool = False
    queries: bool = True
    queries_when_behind: str = "serve"
    query_timeout: float | None = None
    query_credentials: str = "client"
    max_queries: int = 100
    max_merge_points: int = 1_000_000
    slow_query: float | None = None
    read_only: bool = False
    journal: JournalConfig | None = None
    outputs: tuple[HTTPOutputConfig, ...] = ()
    shard_key: str = ""
    default_shard: str | None = None
    shards: tuple[ShardConfig, ...] = ()
    epochs: tuple[EpochConfig, ...] = ()


@attrs.frozen
class UDPListenerConfig:
    """A UDP listener and its backends.

    :ivar host: an IP address; empty for all of IPv4.
    :ivar port: 0 (any free one) to 65535.
    :ivar precision: of timestamps: ``ns``, ``u``, ``ms``, ``s``, ``m`` or ``h``.
    :ivar read_buffer: bytes of the socket's receive buffer; 0 is the system's default.
    :ivar batch_lines: lines in a full batch, at least 1. Batches are for HTTP outputs.
    :ivar batch_bytes: bytes in a full batch, at least 1024.
    :ivar batch_interval: seconds that a line waits for its batch to fill, above 0.
    :ivar outputs: at least one, names unique; with a journal, HTTP outputs with the same query.
    """

    name: str
    bind_addr: str
    host: str
    port: int
    precision: str = "ns"
    read_buffer: int = 0
    batch_lines: int = 5000
    batch_bytes: int = 512 * 1024
    batch_interval: float = 1.0
    journal: JournalConfig | None = None
    outputs: tuple[UDPOutputConfig | HTTPOutputConfig, ...] = ()


@attrs.frozen
class TCPListenerConfig:
    """A listener for lines of a TCP connection, or of a unix stream socket, and its backends.

    :ivar bind_addr: as written.
    :ivar endpoint: the same as an endpoint string of Twisted.
    :ivar max_connections: of senders, at least 1; fewer if the process may not open so many files.
    :ivar precision: of timestamps: ``ns``, ``u``, ``ms``, ``s``, ``m`` or ``h``.
    :ivar batch_lines: lines in a full batch, at least 1.
    :ivar batch_bytes: bytes in a full batch, at least 1024.
    :ivar batch_interval: seconds that a line waits for its batch to fill, above 0.
    :ivar outputs: at least one, names unique, all with the same query.
    """

    name: str
    bind_addr: str
    endpoint: str
    max_connections: int = 1000
    precision: str = "ns"
    batch_lines: int = 5000
    batch_bytes: int = 512 * 1024
    batch_interval: float = 1.0
    journal: JournalConfig | None = None
    outputs: tuple[HTTPOutputConfig, ...] = ()


ListenerConfig = HTTPListenerConfig | ShardConfig | UDPListenerConfig | TCPListenerConfig


@attrs.frozen
class AdminConfig:
    """The listener for operators: health, metrics, status.

    :ivar bind_addr: as written.
    :ivar endpoint: the same as an endpoint string of Twisted.
    """

    bind_addr: str
    endpoint: str


@attrs.frozen
class Config:
    """A whole file.

    :ivar path: the file, as it was given.
    :ivar shutdown_timeout: seconds, above 0.
    :ivar admin_socket: the path of a unix socket; empty for ``admin.sock`` in the first directory of a journal,
        if there is one; None for no socket.
    :ivar admin: None for no such listener.
    :ivar http: and ``udp`` and ``tcp``: at least one listener between them, names unique.
    :ivar warnings: what the file says that is accepted, but probably not meant; each is one line with its place.
    """

    path: str
    shutdown_timeout: float = 10.0
    admin_socket: str | None = ""
    admin: AdminConfig | None = None
    http: tuple[HTTPListenerConfig, ...] = ()
    udp: tuple[UDPListenerConfig, ...] = ()
    tcp: tuple[TCPListenerConfig, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def shards(self) -> tuple[ShardConfig, ...]:
        """All shards of all listeners."""
        return tuple(shard for listener in self.http for shard in listener.shards)

    @property
    def listeners(self) -> tuple[ListenerConfig, ...]:
        """All listeners, and all shards as listeners of their own."""
        return (*self.http, *self.shards, *self.udp, *self.tcp)
