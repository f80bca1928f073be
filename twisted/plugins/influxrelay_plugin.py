"""Tells twistd about influxrelay."""

from twisted.application.service import ServiceMaker

influxrelay = ServiceMaker(
    "influxrelay", "influxrelay.tap", "High availability for InfluxDB: relays writes to every backend", "influxrelay"
)
