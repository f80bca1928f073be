"""Tests of influxrelay.lineprotocol."""
