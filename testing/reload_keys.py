"""What a reload does with each key of the configuration: as data, or where it is tested."""

from __future__ import annotations

from typing import Any

import attrs

from influxrelay.config import schema as config_keys


@attrs.frozen
class Key:
    """What a key does: two values in TOML, and what is seen of each.

    :ivar see: a name for which the test has a method ``see_...`` that tells, or what to look up from the test.
    :ivar beside: other lines that are needed.
    """

    before: str
    after: str
    see: str
    seen_before: Any
    seen_after: Any
    beside: str = ""


MB = 1024 * 1024
RULES = ('[{status = 404, means = "retry"}]', '[{status = 404, means = "hold"}]')
SHARED_JOURNAL = "tests.unit.config.test_shared_journals.SharedJournalTests.test_reload"
JOURNAL: dict[str, Key | str] = {
    "journal": "RestartTests.test_journal",
    **dict.fromkeys(("journal-ca-file", "journal-credentials-file", "journal-lease"), SHARED_JOURNAL),
    "journal-max-mb": Key("7", "8", "listener.writer._limits.max_bytes", 7 * MB, 8 * MB),
    "journal-max-age": Key('"7s"', '"8s"', "listener.writer._limits.max_age", 7.0, 8.0),
    "journal-full": Key('"reject"', '"drop-oldest"', "listener.writer._limits.drop_oldest", False, True),
    "journal-sync": Key('"normal"', '"full"', "listener.writer._tail.sync", False, True),
    "journal-timeout": Key('"7s"', '"8s"', "listener.writer._timeout", 7.0, 8.0),
    "journal-on-error": Key('"relay"', '"refuse"', "fan_out.hand_out.refuses_unjournaled", False, True),
}
HTTP: dict[str, Key | str] = {
    "name": "ListenerTests.test_renamed",
    "bind-addr": "ListenerTests.test_moved",
    "ssl-combined-pem": "CertificateTests.test_served",
    "default-retention-policy": Key('""', '"week"', "query", b"db=db", b"db=db&rp=week"),
    "default-ping-response": Key("204", "200", "ping", 204, 200),
    "health-timeout-ms": Key("1000", "2000", "sender.backend._ping_timeout", 1.0, 2.0),
    "rate-limit": Key("0", "1", "second_status", 204, 429),
    "burst-limit": Key("1", "2", "second_status", 429, 204, beside="rate-limit = 1"),
    "max-body-size": Key("1000", "10", "status", 204, 413),
    "max-decoded-size": Key("1000", "10", "status_of_gzip", 204, 413),
    "prometheus-database": Key('"a"', '"b"', "remote_write_query", b"db=a", b"db=b"),
    "cors-origins": Key('["*"]', "[]", "allowed_origin", b"http://page", None),
    "max-connections": Key("7", "8", "client_limits.connections", 7, 8),
    "max-in-flight-mb": Key("30", "31", "client_limits.in_flight", 30 * MB, 31 * MB),
    "header-timeout": Key('"7s"', '"8s"', "client_limits.header_timeout", 7.0, 8.0),
    "body-timeout": Key('"7s"', '"8s"', "client_limits.body_timeout", 7.0, 8.0),
    "idle-timeout": Key('"7s"', '"8s"', "client_limits.idle_timeout", 7.0, 8.0),
    "consistency": Key('"one"', '"all"', "status_with_a_failure", 204, 503),
    "access-log": Key("false", "true", "listener.site._access_log", False, True),
    "queries": Key("true", "false", "listener.config.queries", True, False),
    "queries-when-behind": Key('"serve"', '"refuse"', "listener.readers.settings.when_behind", "serve", "refuse"),
    "query-timeout": Key('"7s"', '"8s"', "listener.readers.settings.timeout", 7.0, 8.0),
    "query-credentials": Key('"client"', '"output"', "listener.readers.settings.own_credentials", False, True),
    "max-queries": Key("7", "8", "listener.readers.settings.limit", 7, 8),
    "max-merge-points": Key("7", "8", "listener.config.max_merge_points", 7, 8),
    "slow-query": Key('"7s"', '"8s"', "listener.readers.settings.slow", 7.0, 8.0),
    "answers": Key(*RULES, "meaning", "retry", "hold"),
    "read-only": Key("false", "true", "listener.readers.settings.read_only", False, True),
    **JOURNAL,
    "output": "OutputTests.test_come_and_go",
    "shard-key": "test_shards.ReloadTests.test_key_and_default",
    "default-shard": "test_shards.ReloadTests.test_key_and_default",
    "shard": "test_shards.EpochTests.test_added_by_a_reload",
    "epoch": "test_shards.EpochTests.test_added_by_a_reload",
}
HTTP_SHARD: dict[str, Key | str] = {
    "name": "test_shards.EpochTests.test_added_by_a_reload",
    "weight": "test_shards.ReloadTests.test_weight",
    "output": "test_shards.ReloadTests.test_outputs",
}
HTTP_EPOCH: dict[str, Key | str] = dict.fromkeys(
    config_keys.HTTP_EPOCH, "test_shards.EpochTests.test_added_by_a_reload"
)
HTTP_OUTPUT: dict[str, Key | str] = {
    "name": "OutputTests.test_renamed_and_swapped",
    "location": "OutputTests.test_moved",
    "endpoints": Key("{}", '{write = "w"}', "path", b"/write", b"/write/w"),
    "timeout": Key('"7s"', '"8s"', "sender.backend.timeout", 7.0, 8.0),
    "skip-tls-verification": "CertificateTests.test_of_backends",
    "ca-file": "CertificateTests.test_of_backends",
    "client-certificate": "CertificateTests.test_of_backends",
    "username": Key('"me"', '"you"', "authorization", b"Basic bWU6cA==", b"Basic eW91OnA=", beside='password = "p"'),
    "password": Key('"p"', '"q"', "authorization", b"Basic bWU6cA==", b"Basic bWU6cQ==", beside='username = "me"'),
    "type": "test_remote_write.TypeTests.test_another_type",
    "api": "OutputTests.test_apis",
    "org": "OutputTests.test_apis",
    "buckets": "OutputTests.test_apis",
    "password-file": "OutputTests.test_secrets_in_files",
    "token": Key('"one"', '"two"', "authorization", b"Token one", b"Token two"),
    "token-file": "OutputTests.test_secrets_in_files",
    "headers": Key('{Authorization = "a"}', '{Authorization = "b"}', "authorization", b"a", b"b"),
    "gzip": Key('"as-received"', "true", "encoding", None, b"gzip"),
    "buffer-size-mb": Key("7", "8", "sender.settings.buffer", 7 * MB, 8 * MB),
    "buffer-full": Key('"reject"', '"drop-oldest"', "sender.settings.drop_oldest", False, True),
    "create-databases": Key("false", "true", "sender.settings.create_databases", False, True),
    "max-batch-kb": Key("7", "8", "sender.settings.max_batch", 7 * 1024, 8 * 1024),
    "max-delay-interval": Key('"7s"', '"8s"', "sender.settings.max_delay", 7.0, 8.0),
    "max-in-flight": Key("1", "2", "sender.settings.max_in_flight", 1, 2),
    "max-connections": Key("7", "8", "output_config.max_connections", 7, 8),
    "max-waiting-mb": Key("7", "8", "sender.settings.max_waiting", 7 * MB, 8 * MB),
    "answers": Key(*RULES, "meaning", "retry", "hold"),
}
ENDPOINTS: dict[str, Key | str] = {
    "write": Key('"a"', '"b"', "path", b"/a", b"/b"),
    "write_prom": Key('"a"', '"b"', "remote_write_path", b"/a", b"/b"),
    "ping": Key('"a"', '"b"', "output_config.ping_url", "a", "b"),
    "query": Key('"a"', '"b"', "status", 204, 204),  # which only stands in files of the Veepee fork
}
UDP: dict[str, Key | str] = {
    "name": "UDPTests.test_renamed",
    "bind-addr": "UDPTests.test_moved",
    "precision": Key('"ns"', '"s"', "datagram_query", b"db=d&precision=ns", b"db=d&precision=s"),
    "read-buffer": Key("9000", "8000", "read_buffer", 9000, 8000),
    "batch-size": Key("7", "8", "batcher._collector._batch_lines", 7, 8),
    "batch-kb": Key("7", "8", "batcher._collector._batch_bytes", 7 * 1024, 8 * 1024),
    "batch-timeout": Key('"7s"', '"8s"', "batcher._collector._interval", 7.0, 8.0),
    "answers": Key(*RULES, "meaning", "retry", "hold"),
    **JOURNAL,
    "output": "UDPTests.test_outputs",
}
UDP_OUTPUT: dict[str, Key | str] = {
    "name": Key('"a"', '"b"', "batcher.name", "a", "b"),
    "location": "UDPTests.test_outputs",
    "mtu": Key("7", "8", "batcher._mtu", 7, 8),
}
TCP: dict[str, Key | str] = {
    "name": "test_tcp.TCPTests.test_renamed",
    "bind-addr": "test_tcp.TCPTests.test_reload",
    "ssl-combined-pem": "test_tcp.TCPTests.test_other_certificate",
    "max-connections": Key("7", "8", "listener.server.max_connections", 7, 8),
    "precision": Key('"ns"', '"s"', "listener.batcher._collector._query", b"db=d&precision=ns", b"db=d&precision=s"),
    "batch-size": Key("7", "8", "listener.batcher._collector._batch_lines", 7, 8),
    "batch-kb": Key("7", "8", "listener.batcher._collector._batch_bytes", 7 * 1024, 8 * 1024),
    "batch-timeout": Key('"7s"', '"8s"', "listener.batcher._collector._interval", 7.0, 8.0),
    "answers": Key(*RULES, "meaning", "retry", "hold"),
    **JOURNAL,
    "output": "test_tcp.TCPTests.test_reload",
}
CONFIG: dict[str, Key | str] = {
    "shutdown-timeout": Key('"7s"', '"8s"', "service.config.shutdown_timeout", 7.0, 8.0),
    "admin-socket": "AdminTests.test_socket",
    "admin": "AdminTests.test_listener",
    "http": "ListenerTests.test_come_and_go",
    "udp": "ListenerTests.test_come_and_go",
    "tcp": "test_tcp.TCPTests.test_reload",
    "filter": "OutputTests.test_filters",
}
ADMIN: dict[str, Key | str] = {"bind-addr": "AdminTests.test_listener"}
FILTER: dict[str, Key | str] = dict.fromkeys(config_keys.FILTER, "OutputTests.test_filters")
TABLES = {
    "CONFIG": CONFIG,
    "ADMIN": ADMIN,
    "FILTER": FILTER,
    "HTTP": HTTP,
    "HTTP_SHARD": HTTP_SHARD,
    "HTTP_EPOCH": HTTP_EPOCH,
    "HTTP_OUTPUT": HTTP_OUTPUT,
    "ENDPOINTS": ENDPOINTS,
    "UDP": UDP,
    "UDP_OUTPUT": UDP_OUTPUT,
    "TCP": TCP,
}
