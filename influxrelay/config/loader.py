"""From a configuration file to frozen settings, or to one line that says what is wrong with it.

The keys are those of InfluxDB Relay (its ``relay/config.go``), of the Veepee fork (its ``config/config.go``) and our
own; ``etc/relay.toml`` explains each, and :mod:`influxrelay.config.schema` lists them with the readers of their values.
As in both originals an empty string, or a 0 where 0 makes no sense, stands for the default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult

import attrs

from influxrelay.config import readers
from influxrelay.config import schema as config_keys
from influxrelay.config.answers import read_answers
from influxrelay.config.document import Place, Table, parse, read, read_each, read_text, refuse_duplicates
from influxrelay.config.journals import choose_journal, log_of, need
from influxrelay.config.names import tell_apart
from influxrelay.config.readers import shown
from influxrelay.config.schema import Keys
from influxrelay.config.settings import (
    AdminConfig,
    Config,
    FilterConfig,
    HTTPListenerConfig,
    HTTPOutputConfig,
    JournalConfig,
    ListenerConfig,
    TCPListenerConfig,
    UDPListenerConfig,
    UDPOutputConfig,
)
from influxrelay.config.shard_tables import is_sharded, read_shards
from influxrelay.config.shard_tables import warnings as warnings_of
from influxrelay.config.targets import prometheus_targets, refuse_another_path, targets

_Listener = TypeVar("_Listener", bound=ListenerConfig)
_Output = TypeVar("_Output", bound=HTTPOutputConfig | UDPOutputConfig)


def load(
    path: str | Path,
    environment: Mapping[str, str] = os.environ,
    *,
    secrets: bool = True,
    text: str | None = None,
) -> Config:
    """Read a configuration file and the secrets that it refers to.

    Relative paths in it are relative to the working directory.

    :param secrets: False for a tool that does not use them: an environment variable of a secret need not be set then.
    :param text: what the file is to hold; None for what it holds.
    :raises ConfigError: with one line: the file, the key's path (``http[0].output[1].timeout``), what was found and
        what is allowed.
    """
    place, found = read_text(path)
    table = parse(place, found if text is None else text, environment, secrets=secrets)
    fields = read(place, table, config_keys.CONFIG)
    http = read_each(place / "http", fields.pop("http", []), _http_listener)
    udp = read_each(place / "udp", fields.pop("udp", []), _udp_listener)
    tcp = read_each(place / "tcp", fields.pop("tcp", []), _tcp_listener)
    if not http and not udp and not tcp:
        raise place.error("no listener; at least one [[http]], [[udp]] or [[tcp]] is needed")
    fields["admin"] = admin = _admin(place / "admin", fields["admin"]) if "admin" in fields else None
    _refuse_clashes(place, http, udp, tcp, admin)
    if "filter" in fields:
        shards = [shard for listener in http for shard in listener.shards]
        listeners: list[ListenerConfig] = [*http, *shards, *udp, *tcp]
        outputs = [output.name for listener in listeners for output in listener.outputs]
        filters = read_each(place / "filter", fields.pop("filter"), lambda at, table: _filter(at, table, outputs))
        http, udp, tcp = _with_filters(http, filters), _with_filters(udp, filters), _with_filters(tcp, filters)
    # After the filters, which name outputs as the file does.
    http, http_warnings = tell_apart(place / "http", http)
    udp, udp_warnings = tell_apart(place / "udp", udp)
    tcp, tcp_warnings = tell_apart(place / "tcp", tcp)
    shard_warnings = [line for index, each in enumerate(http) for line in warnings_of((place / "http")[index], each)]
    warnings = (*http_warnings, *shard_warnings, *udp_warnings, *tcp_warnings)
    return Config(path=str(path), http=http, udp=udp, tcp=tcp, warnings=warnings, **fields)


def _refuse_clashes(
    place: Place,
    http: Sequence[HTTPListenerConfig],
    udp: Sequence[UDPListenerConfig],
    tcp: Sequence[TCPListenerConfig],
    admin: AdminConfig | None,
) -> None:
    """Refuse listeners that share a name, an address or a journal."""
    with_http = [((place / "http")[index], each) for index, each in enumerate(http)]
    with_shards = [((at / "shard")[index], shard) for at, each in with_http for index, shard in enumerate(each.shards)]
    with_udp = [((place / "udp")[index], each) for index, each in enumerate(udp)]
    with_tcp = [((place / "tcp")[index], each) for index, each in enumerate(tcp)]
    listeners: list[tuple[Place, ListenerConfig]] = [*with_http, *with_shards, *with_udp, *with_tcp]
    refuse_duplicates("name", "names must be unique", [(at, each.name, each.name) for at, each in listeners])
    ports: list[tuple[Place, HTTPListenerConfig | TCPListenerConfig | AdminConfig]] = [*with_http, *with_tcp]
    if admin is not None:
        ports.append((place / "admin", admin))
    rule = "each listener needs an address of its own"
    refuse_duplicates("bind-addr", rule, [(at, each.bind_addr, _http_port(each)) for at, each in ports])
    refuse_duplicates("bind-addr", rule, [(at, each.bind_addr, _port((each.host, each.port))) for at, each in with_udp])
    refuse_duplicates(
        "journal",
        "each listener needs a journal of its own",
        [(at, each.journal.directory, log_of(each.journal)) for at, each in listeners if each.journal],
    )


def _http_port(listener: HTTPListenerConfig | TCPListenerConfig | AdminConfig) -> object:
    return _port(readers.bind_address_or_endpoint(listener.bind_addr))


def _port(bound: str | tuple[str, int]) -> object:
    """Return what no two listeners can share; None for a port that the system chooses."""
    if isinstance(bound, str):
        return bound
    host, port = bound
    return (host or "0.0.0.0", port) if port else None  # noqa: S104 (compared, not bound)


# Listeners and outputs


def _http_listener(place: Place, table: Table) -> HTTPListenerConfig:
    fields = read(place, table, config_keys.HTTP, "bind-addr")
    bound, pem = fields.pop("bind_addr"), fields.pop("ssl_combined_pem", "")
    _refuse_two_certificates(place, bound, pem)
    # As in InfluxDB Relay's relay/http.go.
    default_name = bound if isinstance(bound, str) else f"http{'s' if pem else ''}://{table['bind-addr']}"
    fields["name"] = fields.get("name", default_name)
    fields["journal"] = journal = choose_journal(place, table, fields)
    answers = fields.pop("answers", ())
    read_answers(place / "answers", answers)  # an error is found here, and not in a shard
    timeout = {"health_timeout": fields["health_timeout"]} if "health_timeout" in fields else {}

    def read_outputs(at: Place, its: Table, journal: JournalConfig | None) -> tuple[HTTPOutputConfig, ...]:
        its["answers"] = answers
        return tuple(attrs.evolve(each, **timeout) for each in _outputs(at, its, _http_output, journal))

    if is_sharded(fields):
        read_shards(place, table["bind-addr"], fields, read_outputs)
    else:
        fields["outputs"] = read_outputs(place, fields, journal)
    return HTTPListenerConfig(bind_addr=table["bind-addr"], endpoint=_endpoint(bound, pem), **fields)


def _refuse_two_certificates(place: Place, bound: str | tuple[str, int], pem: str) -> None:
    if pem and isinstance(bound, str):
        raise (place / "ssl-combined-pem").error(
            "bind-addr is an endpoint string; use an ssl: endpoint, which names its own files, or ADDRESS:PORT"
        )


def _tcp_listener(place: Place, table: Table) -> TCPListenerConfig:
    fields = read(place, table, config_keys.TCP, "bind-addr")
    bound, pem = fields.pop("bind_addr"), fields.pop("ssl_combined_pem", "")
    _refuse_two_certificates(place, bound, pem)
    fields["name"] = fields.get("name", f"tcp {table['bind-addr']}")
    fields["journal"] = journal = choose_journal(place, table, fields)
    fields["outputs"] = outputs = _outputs(place, fields, _tcp_output, journal)
    _refuse_other_queries(place / "output", outputs, "all outputs of a TCP listener")
    return TCPListenerConfig(bind_addr=table["bind-addr"], endpoint=_endpoint(bound, pem), **fields)


def _tcp_output(place: Place, table: Table) -> HTTPOutputConfig:
    return _http_output(place, table, config_keys.LINES_OUTPUT)


def _admin(place: Place, table: Table) -> AdminConfig:
    given = table.get("bind-addr") or config_keys.ADMIN_ADDRESS
    bound = read(place, {**table, "bind-addr": given}, config_keys.ADMIN)["bind_addr"]
    return AdminConfig(bind_addr=given, endpoint=_endpoint(bound, ""))


def _udp_listener(place: Place, table: Table) -> UDPListenerConfig:
    fields = read(place, table, config_keys.UDP, "bind-addr")
    host, port = fields.pop("bind_addr")
    fields["name"] = fields.get("name", table["bind-addr"])
    fields["journal"] = journal = choose_journal(place, table, fields)
    fields["outputs"] = outputs = _outputs(place, fields, _udp_output, journal)
    if journal:
        _refuse_unlike_outputs(place / "output", outputs)
    return UDPListenerConfig(bind_addr=table["bind-addr"], host=host, port=port, **fields)


def _refuse_unlike_outputs(place: Place, outputs: Iterable[UDPOutputConfig | HTTPOutputConfig]) -> None:
    """Refuse outputs that cannot share a journal: it holds each batch of lines once, for all of them."""
    with_query = []
    for index, output in enumerate(outputs):
        if isinstance(output, UDPOutputConfig):
            raise (place[index] / "location").error(
                f"found {shown(output.location)}; with a journal each output must be a URL with a database,"
                " since UDP does not tell whether a datagram arrived"
            )
        with_query.append(output)
    _refuse_other_queries(place, with_query, "with a journal all outputs")


def _refuse_other_queries(place: Place, outputs: Sequence[HTTPOutputConfig], whose: str) -> None:
    for index, output in enumerate(outputs):
        if output.query != outputs[0].query:
            at = place[index] / "location"
            raise at.error(f"its query differs from {place[0].path}'s; {whose} need the same query")


def _outputs(
    place: Place, fields: Table, reader: Callable[[Place, Table], _Output], journal: JournalConfig | None
) -> tuple[_Output, ...]:
    """Take a listener's outputs, and what it sets for all of them, out of its fields."""
    answers = read_answers(place / "answers", fields.pop("answers", ()))
    tables, place = fields.pop("output", []), place / "output"
    if not tables:
        raise place.error("no output; at least one is needed")
    outputs: list[Any] = []
    for index, output in enumerate(read_each(place, tables, reader)):
        if isinstance(output, HTTPOutputConfig):
            if output.create_databases and not (journal or output.buffer_size_mb):
                at = place[index] / "create-databases"
                raise at.error("needs a queue; add a journal or a buffer-size-mb above 0, or set it to false")
            outputs.append(attrs.evolve(output, answers=output.answers + answers))
        else:
            outputs.append(output)
    return tuple(outputs)


def _filter(place: Place, table: Table, outputs: list[str]) -> FilterConfig:
    fields = read(place, table, config_keys.FILTER, "outputs")
    for index, name in enumerate(fields["outputs"]):
        if name not in outputs:
            at = (place / "outputs")[index]
            raise at.error(f"no output is named {shown(name)}; allowed: {', '.join(dict.fromkeys(outputs))}")
    return FilterConfig(**fields)


def _with_filters(listeners: tuple[_Listener, ...], filters: Sequence[FilterConfig]) -> tuple[_Listener, ...]:
    """Give each output the filters that name it."""

    def filtered(listener: _Listener) -> _Listener:
        outputs: Any = tuple(
            attrs.evolve(output, filters=tuple(each for each in filters if output.name in each.outputs))
            for output in listener.outputs
        )
        if isinstance(listener, HTTPListenerConfig):
            return attrs.evolve(listener, outputs=outputs, shards=_with_filters(listener.shards, filters))
        return attrs.evolve(listener, outputs=outputs)

    return tuple(map(filtered, listeners))


def _udp_output(place: Place, table: Table) -> UDPOutputConfig | HTTPOutputConfig:
    location = table.get("location")
    if isinstance(location, str) and re.match(r"(?i)https?:", location):
        return _http_output(place, table, config_keys.LINES_OUTPUT)
    fields = read(place, table, config_keys.UDP_OUTPUT, "location")
    host, port = fields.pop("location")
    fields["name"] = fields.get("name", location)
    return UDPOutputConfig(location=table["location"], host=host, port=port, **fields)


def _http_output(place: Place, table: Table, keys: Keys | None = None) -> HTTPOutputConfig:
    is_prometheus = keys is None and str(table.get("type", "")).lower() == "prometheus"
    if is_prometheus:
        keys = config_keys.PROMETHEUS_OUTPUT
    fields = read(place, table, keys or config_keys.HTTP_OUTPUT, "location")
    need(place, table, "buffer-size-mb", "MEGABYTES", "buffer-full")
    url: SplitResult = fields.pop("location")
    endpoints = read(place / "endpoints", fields.pop("endpoints", {}), config_keys.ENDPOINTS)
    fields["answers"] = read_answers(place / "answers", fields.pop("answers", ()))
    _choose_credentials(place, fields)
    _check_api(place, fields)
    api = fields.get("api", "v1")
    if "write" not in endpoints:
        refuse_another_path(place / "location", api, url)
    fields["name"] = fields.get("name", table["location"])
    urls = prometheus_targets(url, endpoints) if is_prometheus else targets(url, endpoints, api)
    return HTTPOutputConfig(location=table["location"], query=url.query, **urls, **fields)


def _check_api(place: Place, fields: Table) -> None:
    """Refuse settings that do not go with the API of an output."""
    api = fields.get("api", "v1")
    if api == "v2" and "org" not in fields:
        raise (place / "org").error('missing; allowed with api = "v2": the name of an organization')
    if api != "v2" and "org" in fields:
        raise (place / "org").error('set without api = "v2"; add that, or remove it')
    if api == "v1" and fields.get("buckets"):
        raise (place / "buckets").error('set without api = "v2" or "v3"; add one of them, or remove it')
    if api != "v1" and fields.get("create_databases"):
        raise (place / "create-databases").error(f'cannot be used with api = "{api}"; remove it')


def _choose_credentials(place: Place, fields: Table) -> None:
    """Take the secrets that files hold, and refuse credentials that do not go together."""
    for key in config_keys.SECRETS:
        if (content := fields.pop(f"{key}_file", None)) is not None:
            if key in fields:
                raise (place / f"{key}-file").error(f"{key} is set too; use one of the two")
            fields[key] = content
    if any(name.lower() == "authorization" for name, _ in fields.get("headers", ())):
        for key in ("token", "username", "password"):
            if key in fields:
                raise (place / "headers").error(
                    f"Authorization is among them, and {key} is set too; use one of the two"
                )
    if "token" in fields and ("username" in fields or "password" in fields):
        raise (place / "token").error("username or password is set too; use a token, or a username with a password")
    if "password" in fields and "username" not in fields:
        raise (place / "username").error("missing, but a password is set; add a username, or remove the password")
    if "username" in fields and "password" not in fields:
        raise (place / "username").error("set without a password; add password or password-file")


def _endpoint(bound: str | tuple[str, int], pem: str) -> str:
    """Return the string for Twisted's ``serverFromString``."""
    if isinstance(bound, str):
        return bound
    host, port = bound
    interface = [f"interface={_quoted(host)}"] if host else []
    if not pem:
        return ":".join(["tcp6" if ":" in host else "tcp", str(port), *interface])
    return ":".join(["ssl", str(port), *interface, f"privateKey={_quoted(pem)}"])


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")
