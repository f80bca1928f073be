"""The backends of a listener: which can be compared, and how each is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import attrs

from influxrelay.config.settings import Config, HTTPOutputConfig, ListenerConfig, UDPOutputConfig
from influxrelay.listeners.output_settings import basic, make_authorization, make_tls
from influxrelay.operations.views import Refused
from influxrelay.verification.influxdb2 import InfluxDB2
from influxrelay.verification.prometheus import Prometheus
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
    :ivar prometheus: those that know PromQL, with each other.
    :ivar not_compared: what cannot be compared, and why.
    :ivar notes: what else is to be known.
    """

    influxdb: list[HTTPOutputConfig] = attrs.field(factory=list)
    prometheus: list[HTTPOutputConfig] = attrs.field(factory=list)
    not_compared: list[str] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)

    def pair(self, outputs: list[HTTPOutputConfig], kind: str) -> list[HTTPOutputConfig]:
        """Return those of one kind; none, and say so, if there is only one."""
        if len(outputs) == 1:
            self.not_compared.append(f"{outputs[0].name} is the only {kind} here, and cannot be compared")
            return []
        return outputs

    def leave_out_prometheus(self) -> None:
        """Leave out what has no databases."""
        self.not_compared.extend(
            f"{each.name} is a Prometheus backend, which has no databases" for each in self.prometheus
        )
        self.prometheus.clear()


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
            having = [each for each in found if _can_be_compared(find_outputs(each))]
        found = having or found
    if len(found) == 1:
        return found[0]
    shards = [each.name for each in config.shards if name and each.name.startswith(f"{name}/")]
    if shards:
        raise Refused(f"{name} has shards; name one of them with --listener: {', '.join(shards)}")
    names = ", ".join(each.name for each in config.listeners if each.outputs)
    raise Refused(f"there is no listener {name}; there is: {names}" if name else f"name one with --listener: {names}")


def _can_be_compared(found: Comparable) -> bool:
    return max(len(found.influxdb), len(found.prometheus)) > 1


def find_outputs(listener: ListenerConfig) -> Comparable:
    """Return the outputs that can be compared, and of the others why not."""
    found = Comparable()
    outputs: Sequence[HTTPOutputConfig | UDPOutputConfig] = listener.outputs
    for each in outputs:
        if isinstance(each, UDPOutputConfig):
            found.not_compared.append(f"{each.name} is written to over UDP, and cannot be compared")
        elif each.type == "prometheus" and each.query_url:
            found.prometheus.append(each)
        elif each.type == "prometheus":
            problem = f"{each.name} has its queries elsewhere than beside {each.write_url}, and cannot be compared"
            found.not_compared.append(f"{problem}; say where with: endpoints = {{ query = PATH }}")
        elif each.api == "v3":
            found.not_compared.append(f"{each.name} is InfluxDB 3.x, and cannot be compared")
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
    return basic(credentials.user, credentials.password) if credentials.user else ""


def make_server(output: HTTPOutputConfig, credentials: Credentials, **settings: Any) -> Server:
    """Return an InfluxDB to be asked; ``settings`` are those of its connection."""
    headers = _headers(output, credentials)
    settings["parameters"] = {name: value for name, value in parse_qsl(output.query) if name in ("u", "p")}
    if output.api != "v2":
        return Server(output.name, output.query_url, make_tls(output), headers, **settings)
    if credentials.token:
        headers["Authorization"] = f"Token {credentials.token}"
    settings |= {"organization": output.org, "buckets": output.buckets}
    return InfluxDB2(output.name, output.query_url, make_tls(output), headers, **settings)


def make_prometheus(output: HTTPOutputConfig, credentials: Credentials, **settings: Any) -> Prometheus:
    """Return a server that knows PromQL; ``settings`` are those of its connection."""
    return Prometheus(output.name, output.query_url, make_tls(output), _headers(output, credentials), **settings)


def _headers(output: HTTPOutputConfig, credentials: Credentials) -> dict[str, str]:
    headers = dict(output.headers)
    if words := make_authorization(output) or authorization(output, credentials):
        headers["Authorization"] = words
    return headers
