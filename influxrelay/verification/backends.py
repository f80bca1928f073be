"""The backends of a listener: which can be compared, and how each is asked."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import attrs

from influxrelay.config.settings import Config, HTTPOutputConfig, ListenerConfig, UDPOutputConfig
from influxrelay.operations.views import Refused
from influxrelay.transport.tls import ClientTLS
from influxrelay.verification.influxdb2 import InfluxDB2
from influxrelay.verification.server import Server


@attrs.frozen
class Credentials:
    """What the command line gives; empty for none.

    :ivar user: and ``password``, for outputs that have none in the configuration.
    :ivar token: to read from InfluxDB 2.x.
    """

    user: str
    password: str = attrs.field(repr=False)
    token: str = attrs.field(repr=False)


@attrs.frozen
class Comparable:
    """Which backends of a listener can be compared.

    :ivar influxdb: those of 1.x and 2.x, with each other.
    :ivar not_compared: what cannot be compared, and why.
    :ivar notes: what else is to be known.
    """

    influxdb: list[HTTPOutputConfig] = attrs.field(factory=list)
    not_compared: list[str] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)


def find_listener(config: Config, name: str, backend: str = "") -> ListenerConfig:
    """Return the listener of this name.

    :param name: empty if there is only one that has the backend, or backends to compare.
    :raises Refused: there is none, or more than one.
    """
    found = [each for each in config.listeners if name in ("", each.name) and each.outputs]
    if not name:
        if backend:
            having = [each for each in found if backend in [output.name for output in each.outputs]]
        else:
            having = [each for each in found if len(find_outputs(each).influxdb) > 1]
        found = having or found
    if len(found) == 1:
        return found[0]
    shards = [each.name for each in config.shards if name and each.name.startswith(f"{name}/")]
    if shards:
        raise Refused(f"{name} has shards; name one of them with --listener: {', '.join(shards)}")
    names = ", ".join(each.name for each in config.listeners if each.outputs)
    raise Refused(f"there is no listener {name}; there is: {names}" if name else f"name one with --listener: {names}")


def find_outputs(listener: ListenerConfig) -> Comparable:
    """Return the outputs that can be compared, and of the others why not."""
    found = Comparable()
    outputs: Sequence[HTTPOutputConfig | UDPOutputConfig] = listener.outputs
    for each in outputs:
        if isinstance(each, UDPOutputConfig):
            found.not_compared.append(f"{each.name} is written to over UDP, and cannot be compared")
        elif each.type == "prometheus" or each.api == "v3":
            kind = "a Prometheus" if each.type == "prometheus" else "InfluxDB 3.x"
            found.not_compared.append(f"{each.name} is {kind}, and cannot be compared")
        else:
            found.influxdb.append(each)
            if each.filters:
                found.notes.append(f"{each.name} has filters: what they leave out is missing there on purpose")
    return found


def authorization(output: HTTPOutputConfig, credentials: Credentials) -> str:
    """Return the header for writes to an output that has no credentials; empty if it has, or none are given."""
    names = {name.lower() for name, _ in output.headers}
    given = output.username is not None or output.token is not None or "authorization" in names
    if given or not {"u", "p"}.isdisjoint(dict(parse_qsl(output.query))):
        return ""
    if output.api == "v2" and credentials.token:
        return f"Token {credentials.token}"
    return _basic(credentials.user, credentials.password) if credentials.user else ""


def make_server(output: HTTPOutputConfig, credentials: Credentials, **settings: Any) -> Server:
    """Return a backend to be asked; ``settings`` are those of its connection."""
    headers = dict(output.headers)
    if output.token is not None:
        headers["Authorization"] = f"Token {output.token}"
    elif output.username is not None:
        headers["Authorization"] = _basic(output.username, output.password)
    elif words := authorization(output, credentials):
        headers["Authorization"] = words
    tls = ClientTLS(
        verify=not output.skip_tls_verification,
        ca_file=output.ca_file,
        client_certificate=output.client_certificate,
    )
    settings["parameters"] = {name: value for name, value in parse_qsl(output.query) if name in ("u", "p")}
    if output.api == "v2":
        if credentials.token:
            headers["Authorization"] = f"Token {credentials.token}"
        settings |= {"organization": output.org, "buckets": output.buckets}
    kind = InfluxDB2 if output.api == "v2" else Server
    return kind(output.name, output.query_url, tls, headers, **settings)


def _basic(user: str, password: str | None) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
