"""Tests of influxrelay.influxql."""
