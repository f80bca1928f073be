"""influxrelay: the high-availability layer for InfluxDB."""

__version__ = "0.1.0"
