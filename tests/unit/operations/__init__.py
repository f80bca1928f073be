"""Tests of influxrelay.operations."""
