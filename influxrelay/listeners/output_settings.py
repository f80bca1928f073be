"""What several parts need of an output's settings: its filter, its TLS and its credentials."""

from __future__ import annotations

from base64 import b64encode

from influxrelay.config.settings import HTTPOutputConfig, UDPOutputConfig
from influxrelay.lineprotocol.filters import Filter
from influxrelay.transport.tls import ClientTLS


def make_filter(output: HTTPOutputConfig | UDPOutputConfig) -> Filter | None:
    """Build what decides which lines an output takes; None if it takes all."""
    measurement = [each.measurement_expression for each in output.filters if each.measurement_expression]
    tag = [each.tag_expression for each in output.filters if each.tag_expression]
    return Filter(measurement, tag) if measurement or tag else None


def make_tls(output: HTTPOutputConfig) -> ClientTLS:
    """Build what connections to an output need if its URL is ``https``.

    :raises ConfigError: a PEM file cannot be used.
    """
    return ClientTLS(
        verify=not output.skip_tls_verification,
        ca_file=output.ca_file,
        client_certificate=output.client_certificate,
    )


def make_authorization(output: HTTPOutputConfig) -> str | None:
    """Return the ``Authorization`` header with an output's own credentials; None if it has none."""
    if output.token is not None:
        return f"{'Bearer' if output.api == 'v3' else 'Token'} {output.token}"
    return None if output.username is None else basic(output.username, output.password)


def basic(user: str, password: str | None) -> str:
    """Return the ``Authorization`` header for a user."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
