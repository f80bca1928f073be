"""Tests of influxrelay.core."""
