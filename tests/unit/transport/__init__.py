"""Tests of influxrelay.transport."""
