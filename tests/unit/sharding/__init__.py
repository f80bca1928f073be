"""Tests of influxrelay.sharding."""
