"""Tests of influxrelay.cli."""
