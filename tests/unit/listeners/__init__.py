"""Tests of influxrelay.listeners."""
