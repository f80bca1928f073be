"""What an output's filters let through."""

from __future__ import annotations

from influxrelay.config.settings import HTTPOutputConfig, UDPOutputConfig
from influxrelay.lineprotocol.filters import Filter


def make_filter(output: HTTPOutputConfig | UDPOutputConfig) -> Filter | None:
    """Build what decides which lines an output takes; None if it takes all."""
    measurement = [each.measurement_expression for each in output.filters if each.measurement_expression]
    tag = [each.tag_expression for each in output.filters if each.tag_expression]
    return Filter(measurement, tag) if measurement or tag else None
