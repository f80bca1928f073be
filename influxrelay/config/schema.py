"""The keys of each table of the configuration file, each with the reader of its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from influxrelay.config import readers, sharding, urls

Keys = dict[str, Callable[[object], Any]]

ATTRIBUTES = {
    "batch-kb": "batch_bytes",
    "batch-size": "batch_lines",
    "batch-timeout": "batch_interval",
    "health-timeout-ms": "health_timeout",
    "journal-max-mb": "journal_max_bytes",
    "max-in-flight-mb": "max_in_flight",
    "pin": "pins",
}
"""Attributes that are not named after their keys."""

SECRETS = ("password", "token")
HIDDEN = ("username", "headers", *SECRETS)  # errors do not show the values of these keys

CONFIG: Keys = {
    "shutdown-timeout": readers.duration,
    "admin-socket": readers.socket_path,
    "admin": readers.table,
    "http": readers.tables,
    "udp": readers.tables,
    "tcp": readers.tables,
    "filter": readers.tables,
}
ADMIN_ADDRESS = "127.0.0.1:9196"
ADMIN: Keys = {
    "bind-addr": readers.bind_address_or_endpoint,
}
FILTER: Keys = {
    "type": readers.string,
    "measurement-expression": readers.expression,
    "tag-expression": readers.expression,
    "outputs": readers.names,
}
JOURNAL: Keys = {
    "journal": urls.journal,
    "journal-ca-file": readers.certificates,
    "journal-credentials-file": readers.path_of_secret,
    "journal-lease": readers.duration,
    "journal-max-mb": readers.scaled(readers.integer(1, zero_is_default=True), 1024 * 1024),
    "journal-max-age": readers.duration,
    "journal-full": readers.word("reject", "drop-oldest"),
    "journal-sync": readers.word("normal", "full"),
    "journal-timeout": readers.duration,
    "journal-on-error": readers.word("relay", "refuse"),
}
HTTP: Keys = {
    "name": readers.string,
    "bind-addr": readers.bind_address_or_endpoint,
    "ssl-combined-pem": readers.certificate_and_key,
    "default-retention-policy": readers.string,
    "default-ping-response": readers.integer(200, 299, zero_is_default=True),
    "health-timeout-ms": readers.scaled(readers.integer(1, zero_is_default=True), 1, 1000),
    "rate-limit": readers.integer(0),
    "burst-limit": readers.integer(0),
    "max-body-size": readers.integer(0, 2**40),
    "max-decoded-size": readers.integer(0, 2**40),
    "prometheus-database": readers.string,
    "cors-origins": readers.origins,
    "max-connections": readers.integer(1, zero_is_default=True),
    "max-in-flight-mb": readers.scaled(readers.integer(1, zero_is_default=True), 1024 * 1024),
    "header-timeout": readers.duration,
    "body-timeout": readers.duration,
    "idle-timeout": readers.duration,
    "consistency": readers.word("any", "one", "quorum", "all"),
    "access-log": readers.boolean,
    "queries": readers.boolean,
    "queries-when-behind": readers.word("serve", "refuse"),
    "query-timeout": readers.duration,
    "query-credentials": readers.word("client", "output"),
    "max-queries": readers.integer(1, zero_is_default=True),
    "max-merge-points": readers.integer(1, zero_is_default=True),
    "slow-query": readers.duration,
    "read-only": readers.boolean,
    "answers": readers.rules,
    **JOURNAL,
    "output": readers.tables,
    "shard-key": sharding.key,
    "default-shard": readers.string,
    "shard": readers.tables,
    "epoch": readers.tables,
}
HTTP_SHARD: Keys = {
    "name": sharding.name,
    "weight": sharding.weight,
    "output": readers.tables,
}
HTTP_EPOCH: Keys = {
    "since": sharding.time,
    "shards": readers.names,
    "pin": sharding.pins,
}
HTTP_OUTPUT: Keys = {
    "name": readers.string,
    "type": readers.word("influxdb", "prometheus"),
    "location": urls.url_without_query,
    "endpoints": readers.table,
    "api": readers.word("v1", "v2", "v3"),
    "org": readers.string,
    "buckets": readers.buckets,
    "timeout": readers.duration,
    "skip-tls-verification": readers.boolean,
    "ca-file": readers.certificates,
    "client-certificate": readers.certificate_and_key,
    "username": readers.username,
    "password": readers.string,
    "password-file": readers.from_file(readers.string),
    "token": readers.token,
    "token-file": readers.from_file(readers.token),
    "headers": readers.headers,
    "gzip": readers.gzip,
    "buffer-size-mb": readers.integer(0),
    "buffer-full": readers.word("reject", "drop-oldest"),
    "create-databases": readers.boolean,
    "max-batch-kb": readers.integer(1, zero_is_default=True),
    "max-delay-interval": readers.duration,
    "max-in-flight": readers.integer(1),
    "max-connections": readers.integer(1, zero_is_default=True),
    "max-waiting-mb": readers.integer(1),
    "answers": readers.rules,
}
LINES_OUTPUT: Keys = {
    **{key: read for key, read in HTTP_OUTPUT.items() if key != "type"},
    "location": urls.url_with_db,
}
"""Of an output that gets lines from a listener whose senders name no database."""
_INFLUXDB_ONLY = ("api", "org", "buckets", "create-databases", "gzip")
PROMETHEUS_OUTPUT: Keys = {
    **{key: read for key, read in HTTP_OUTPUT.items() if key not in _INFLUXDB_ONLY},
    "location": urls.url_of_remote_write,
}
ENDPOINTS: Keys = {
    "write": urls.url_path,
    "write_prom": urls.url_path,
    "ping": urls.url_path,
    "query": urls.url_path,
}
UDP: Keys = {
    "name": readers.string,
    "bind-addr": readers.bind_address,
    "precision": readers.precision,
    "read-buffer": readers.integer(0),
    "batch-size": readers.integer(1),
    "batch-kb": readers.scaled(readers.integer(1), 1024),
    "batch-timeout": readers.duration,
    "answers": readers.rules,
    **JOURNAL,
    "output": readers.tables,
}
TCP: Keys = {
    "name": readers.string,
    "bind-addr": readers.bind_address_or_endpoint,
    "ssl-combined-pem": readers.certificate_and_key,
    "max-connections": readers.integer(1, zero_is_default=True),
    "precision": readers.precision,
    "batch-size": readers.integer(1),
    "batch-kb": readers.scaled(readers.integer(1), 1024),
    "batch-timeout": readers.duration,
    "answers": readers.rules,
    **JOURNAL,
    "output": readers.tables,
}
TCP_OUTPUT: Keys = {
    "name": readers.string,
    "location": urls.url_with_db,
}
UDP_OUTPUT: Keys = {
    "name": readers.string,
    "location": readers.destination_address,
    "mtu": readers.integer(1, 65507, zero_is_default=True),
}
